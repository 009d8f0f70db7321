"""Files of several frames, clips and pages, processed one frame at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import numpy

from deal.inference.enhancer import Enhancer
from deal.inference.sequence import Sequence
from deal.inference.steady_window import SteadyWindow
from deal.io.batch import Batch
from deal.io.images import Frame, ImageFile, Location, UnusableImage, Window, to_frame
from deal.io.pages import Page, write_pages
from deal.io.paths import Job
from deal.io.reference import Reference
from deal.io.video import Clip, Decoded, rewrite

Process = Callable[[Frame], numpy.ndarray]


def enhancement_of_frames(enhancer: Enhancer, *, sequence: bool, steady: bool) -> Process:
    """What enhances frame after frame: as a sequence, or each by itself, in a steady window or its own."""
    if sequence:
        return Sequence(enhancer).next_frame
    if not steady:
        return enhancer.enhance_frame
    window = SteadyWindow()
    return lambda frame: enhancer.enhance_frame(window.of(frame))


def first_of_clip(path: Location, window: Window, reference: Reference | None) -> Frame:
    """The first frame of a clip."""
    with Clip(path) as clip:
        first = next((item for item in clip.items() if isinstance(item, Decoded)), None)
    if first is None:
        raise UnusableImage(f"{path} has no frame that can be read")
    return to_frame(first.pixels, window, reference=reference, name=f"frame 1 of {path}")


def enhance_clip(batch: Batch, job: Job, enhance: Process, *, window: Window, reference: Reference | None) -> None:
    """Enhances a clip as one job of a batch.

    Raises:
        UnusableImage: if the clip is broken, after the frames before the fault are written.
    """
    last: list[tuple[Frame, numpy.ndarray]] = []
    with Clip(job.source) as clip, batch.frames(job, clip.expected) as bar:

        def change(pixels: numpy.ndarray) -> numpy.ndarray:
            frame = to_frame(pixels, window, reference=reference, name=f"frame {bar.n + 1} of {job.source}")
            enhanced = enhance(frame)
            last[:] = [(frame, enhanced)]
            bar.update()
            return enhanced

        count = rewrite(clip, job.target, change)
    batch.record(job, *last[0], f"{count} frames")


def process_pages(
    batch: Batch, job: Job, pages: Iterator[ImageFile], process_single: Process, frames: Callable[[], Process]
) -> None:  # fmt: skip
    """Enhances, or degrades, an image file as one job of a batch.

    Args:
        process_single: for the only page of a file.
        frames: makes what processes the pages of a file of several.
    """
    first = next(pages)
    if first.pages == 1:
        batch.save(job, first, process_single(first.frame), source=pages)
        return
    process = frames()
    process_first = functools.cache(lambda: process(first.frame))
    with batch.frames(job, first.pages) as bar:

        def processed() -> Iterator[Page]:
            yield Page(process_first(), first.metadata)
            bar.update()
            for page in pages:
                yield Page(process(page.frame), page.metadata)
                bar.update()

        write_pages(job.target, processed(), first.pages)
    batch.record(job, first.frame, process_first(), f"{first.pages} pages")
