"""A clip of a drone with a fixed pattern of columns: the rate of `deal enhance`, and what a sequence gives.

The clip is 0111_1716.mp4 of M2VD, in data/m2vd of the folder that DEAL_TEST_DATA names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest
from figures import milliseconds

from deal.inference.enhancer import Enhancer
from deal.inference.sequence import Sequence
from deal.inference.streams import enhance_clip, enhancement_of_frames
from deal.io.batch import Batch
from deal.io.images import to_frame
from deal.io.paths import Job
from deal.io.video import Clip, Decoded, rewrite

SOURCE = Path(os.environ.get("DEAL_TEST_DATA", Path(__file__).parents[2] / "shared")) / "data/m2vd/0111_1716.mp4"
MODEL = "deal-u-small"
PATTERN = 0.05  # deviation of the columns, of the range
SETTLED = 10  # frames after which the sequence is judged


@pytest.fixture
def clean(timed) -> numpy.ndarray:
    """Frames [N, H, W] of the clip, uint8."""
    pytest.importorskip("av")
    if not SOURCE.exists():
        pytest.skip("set DEAL_TEST_DATA to the folder that holds data/m2vd")
    found = []
    with Clip(SOURCE) as clip:
        for item in clip.items():
            found.append(item.pixels if timed else item.pixels[::16, ::16])
            if len(found) == (48 if timed else SETTLED + 1):
                break
    return numpy.stack(found)


def columns(frames: numpy.ndarray) -> numpy.ndarray:
    return PATTERN * 255 * numpy.random.default_rng(0).standard_normal(frames.shape[2])


def noisy_clip(clean: numpy.ndarray, count: int, path: Path) -> Path:
    """The first frames with the pattern, as a clip of the same codec family."""
    degraded = iter((clean[:count] + columns(clean)).round().clip(0, 255).astype(numpy.uint8))
    with Clip(SOURCE) as clip:
        items = clip.items

        def first() -> Iterator[Decoded]:
            yield from (item for item, _ in zip(items(), range(count), strict=False))

        clip.items = first  # type: ignore[method-assign]
        rewrite(clip, path, lambda pixels: next(degraded))
    return path


def bench_rate(clean, race, timed, report, tmp_path):
    """Reading, enhancing and writing a clip, beside the network alone on the same frames."""
    count = 12 if timed else 3
    path = noisy_clip(clean, count, tmp_path / "a.mp4")
    with Clip(path) as clip:
        frames = [to_frame(item.pixels) for item in clip.items()]
    assert len(frames) == count
    enhancer = Enhancer(MODEL)
    x = [frame.tensor(1)[None] for frame in frames]

    def alone() -> None:
        """The network in the precision in which the enhancer runs it."""
        for each in x:
            enhancer.separate(each, bf16=enhancer._bf16_of_8_bits)

    def in_memory(sequence: bool) -> None:
        enhance = enhancement_of_frames(enhancer, sequence=sequence, steady=False)
        for frame in frames:
            enhance(frame)

    def whole(sequence: bool) -> None:
        job = Job(path, tmp_path / "b.mp4")
        with Batch([job]) as batch:
            enhance = enhancement_of_frames(enhancer, sequence=sequence, steady=False)
            enhance_clip(batch, job, enhance, window="auto", reference=None)

    calls = {
        "network": alone,
        "frame by frame": lambda: in_memory(False), "clip, frame by frame": lambda: whole(False),
        "sequence": lambda: in_memory(True), "clip, sequence": lambda: whole(True),
    }  # fmt: skip
    result = race(calls, 60.0)
    if result is not None:
        figures = {name: milliseconds(result.seconds(name) / count) for name in calls}
        report.add(
            f"A clip through deal enhance, {MODEL} (ms a frame)", case=f"{clean.shape[2]}x{clean.shape[1]}", **figures,
            **{"clip / network": f"{result.ratio('clip, sequence', 'network'):.2f}x"},
        )  # fmt: skip


def fit(result: numpy.ndarray, clean: numpy.ndarray) -> numpy.ndarray:
    """Gain and offset that map results to clean frames best."""
    return numpy.polyfit(result.ravel().astype(float), clean.ravel().astype(float), 1)


def psnr(results: numpy.ndarray, clean: numpy.ndarray, peak: float) -> float:
    """The mean over frames in dB, after fitting gain and offset to each."""
    errors = [numpy.polyval(fit(a, b), a.astype(float)) - b for a, b in zip(results, clean, strict=True)]
    return float(numpy.mean([20 * numpy.log10(peak) - 10 * numpy.log10((error**2).mean()) for error in errors]))


def wavering(results: numpy.ndarray, clean: numpy.ndarray) -> tuple[float, float]:
    """The deviation over time of the frame's mean as a multiple of the clean clip's, also with the contrast of that."""
    ratio = results.mean((1, 2)).std() / clean.mean((1, 2)).std()
    return ratio, ratio * fit(results, clean)[0]


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("model", ["deal-u-small", "deal-u"])
def bench_sequence(clean, model, bits, timed, report):
    """Quality of a sequence against frames enhanced one by one, and the steadiness of the mean."""
    if bits == 8:  # of low contrast, so that the tone is estimated, too
        truth, gain, dtype = 0.2 * 255 + 0.6 * clean, 1.0, numpy.uint8
    else:  # counts
        truth, gain, dtype = 6000 + 20.0 * clean, 20.0, numpy.uint16
    degraded = (truth + gain * columns(clean)).round().clip(0, numpy.iinfo(dtype).max).astype(dtype)
    enhancer = Enhancer(model)
    results = {
        "degraded": degraded, "frame by frame": enhancer(degraded), "sequence": Sequence(enhancer)(degraded),
    }  # fmt: skip
    row = {}
    for name, frames in results.items():
        found = psnr(frames[SETTLED:], truth[SETTLED:], gain * 255)
        raw, fitted = wavering(frames, truth)
        row[name] = f"{found:.1f} dB"
        row[f"wavering {name}"] = f"{raw:.2f}x ({fitted:.2f}x)"
    if timed:
        report.add(
            f"M2VD with columns of {PATTERN}: PSNR from frame {SETTLED} on; deviation of the mean over time / that of "
            "the clean clip (in brackets with its contrast)", case=f"{model}, {bits} bits", **row,
        )  # fmt: skip
