"""Classical methods: what each does to stripes, to clean images and to flat ones; cascades; errors."""

import os

import numpy
import pytest
import torch
from conftest import DATA
from oracle import close
from stripes import drawn, striped

from deal.evaluate.baselines.columns import median_difference
from deal.evaluate.baselines.contrast import clahe, stretch
from deal.evaluate.baselines.denoising import gaussian_blur
from deal.evaluate.method_registry import BASELINES, candidates
from deal.evaluate.method_registry import classical_method as method
from deal.evaluate.metrics import psnr, ssim
from deal.io.images import read_frame
from deal.io.paths import find_images
from deal.io.synthetic import thermal_scene

# dB that a method must bring against stripes of 0.05, 0.1, and gains of 0.05, 0.1, and dB that a clean image must have.
# Wavelets take more of the scene than gains of 0.05, which leave 35 dB, put into it.
GAINS = {
    "median-difference": (12, 13, 4.5, 6, 44),
    "moment-matching": (6, 7.5, 1.5, 5, 36),
    "guided-filter": (7, 8.5, 0.5, 4, 35),
    "midway": (4.5, 7, 1.5, 2.5, 60),
    "utv": (12, 13, 5, 6, 44),
    "wavelet-fourier": (5.5, 8, -1.5, 2.5, 33),
}
LEVELS = [("stripe", 0.05), ("stripe", 0.1), ("gain", 0.05), ("gain", 0.1)]
SHAPES = [(1, 1), (1, 7), (7, 1), (5, 4), (37, 53), (64, 48)]


@pytest.fixture(scope="module")
def scenes():
    return torch.stack([thermal_scene(192, 256, seed=seed) for seed in range(3)])


@pytest.mark.parametrize("name", GAINS)
def test_stripes_go(name, scenes):
    for (kind, strength), expected in zip(LEVELS, GAINS[name][:-1], strict=True):
        y = striped(scenes, kind, strength)
        brought = psnr(method(name)(y), scenes).mean() - psnr(y, scenes).mean()
        assert brought > expected, (kind, strength, brought)


@pytest.mark.parametrize("name", GAINS)
def test_clean_images_stay(name, scenes):
    result = method(name)(scenes)
    assert psnr(result, scenes).clamp(max=99).mean() > GAINS[name][-1] and ssim(result, scenes).min() > 0.9


def test_recorded_figures():
    """Of real images: what medians of differences bring is the mark that others are measured by."""
    folder = DATA / "data" / "roadscene" / "val20"
    if not folder.exists():
        missing = pytest.fail if os.environ.get("DEAL_TEST_DATA_REQUIRED") else pytest.skip
        missing(f"{folder} is not there: set DEAL_TEST_DATA to the folder that holds data/")
    crops = []
    for path in find_images(folder):
        image = read_frame(path).tensor(1)
        top, left = (image.shape[1] - 256) // 2, (image.shape[2] - 320) // 2
        crops.append(image[:, top : top + 256, left : left + 320])
    x = torch.stack(crops)
    for strength, before, after in ((0.05, 26.1, 37.7), (0.1, 20.4, 32.8)):
        y = striped(x, "stripe", strength)
        assert abs(psnr(y, x).mean() - before) < 0.5
        assert psnr(method("median-difference")(y), x).mean() > after


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_flat_images_stay(name, value):
    x = torch.full((1, 1, 37, 53), value)
    # A curve of CLAHE rises by a bin's share, at most limit / 256, where all pixels are.
    assert (method(name)(x) - x).abs().max() < (0.75 / 256 + 1e-6 if name == "clahe" else 1e-5)


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("shape", SHAPES)
def test_sizes_batches_and_channels(name, shape):
    x = drawn(2, 3, *shape)
    before = x.clone()
    result = method(name)(x)
    assert result.shape == x.shape and result.dtype == x.dtype and result.isfinite().all() and torch.equal(x, before)
    for k in range(2):
        assert close(result[k : k + 1], method(name)(x[k : k + 1]), 1e-5)
    if name != "stretch":  # which has one mean for all channels
        assert close(result[:, 1:2], method(name)(x[:, 1:2]), 1e-5)
    turned = x.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2)
    assert close(method(name)(turned), result, 1e-5)
    assert close(method(name)(x.double()).float(), result, 1e-3)


@pytest.mark.parametrize("name", [name for name in BASELINES if name != "wavelet-fourier"])  # it is not symmetric
def test_left_is_right(name):
    x = drawn(1, 1, 37, 56, dtype=torch.float64)
    assert close(method(name)(x.flip(3)).flip(3), method(name)(x), 1e-9)


@pytest.mark.parametrize("name", GAINS)
def test_there_is_no_black_to_stripes(name):
    x = striped(thermal_scene(64, 80, seed=3)[None], "stripe", 0.05).double()
    assert close(method(name)(x + 3), method(name)(x) + 3, 1e-9)


def test_cascades():
    x = striped(thermal_scene(64, 80)[None], "stripe", 0.05)
    assert torch.equal(method("median-difference+clahe")(x), clahe(median_difference(x)))
    assert torch.equal(method("clahe+median-difference")(x), median_difference(clahe(x)))
    assert torch.equal(method("none+stretch+none")(x), stretch(x))
    assert method("none")(x) is x


def test_rows_are_columns_of_the_transposed_image(scenes):
    x = striped(scenes, "stripe", 0.05)
    cascade = method("median-difference+rows:median-difference")
    assert torch.equal(cascade(x), median_difference(median_difference(x).mT).mT)
    assert cascade(x).is_contiguous()
    before, rows = psnr(x, scenes).mean(), method("rows:median-difference")
    assert psnr(rows(x.mT).mT, scenes).mean() > before + 12 and psnr(rows(x), scenes).mean() < before + 0.1


def test_blurs_have_a_deviation():
    x = drawn(1, 1, 30, 40)
    assert torch.equal(method("gaussian-blur-1.5")(x), gaussian_blur(x, 1.5))
    assert torch.equal(method("gaussian-blur+rows:gaussian-blur-3")(x), gaussian_blur(gaussian_blur(x).mT, 3).mT)


def test_each_candidate_for_the_best_is_a_method():
    x = drawn(1, 1, 40, 50)
    names = candidates()
    assert len(set(names)) == len(names) and all(method(name)(x).shape == x.shape for name in names)


def test_clahe_brings_contrast_back(scenes):
    dull = 0.5 * scenes + 0.5 * scenes.mean((1, 2, 3), keepdim=True)
    assert (clahe(dull).std((1, 2, 3)) > 1.1 * dull.std((1, 2, 3))).all()


UNKNOWN = (
    "", "best", "clahe+", "+clahe", "utv + clahe", "Clahe", "rows:", "rows:fog", "rows:rows:midway", "rows:utv+fog",
    "gaussian-blur-0", "gaussian-blur--1", "gaussian-blur-", "gaussian-blur-1e3", "stretch-1.5",
)  # fmt: skip


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_methods(name):
    with pytest.raises(ValueError, match=r"unknown method '.*' in '.*'; known are none, median-difference, .*stretch"):
        method(name)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (numpy.zeros((1, 1, 4, 4)), TypeError, "x must be a tensor; got ndarray"),
        (torch.zeros(1, 1, 4, 4, dtype=torch.uint8), TypeError, "x must be float32 or float64.*; got torch.uint8"),
        (torch.zeros(4, 4), ValueError, r"x must be \[B, C, H, W\] .*; got the shape \(4, 4\)"),
        (torch.zeros(1, 1, 0, 4), ValueError, r"at least one pixel; got the shape \(1, 1, 0, 4\)"),
    ],
)
@pytest.mark.parametrize("name", ["none", "median-difference+clahe"])
def test_errors(name, x, error, message):
    with pytest.raises(error, match=message):
        method(name)(x)


def test_a_name_that_is_none():
    with pytest.raises(TypeError, match="name must be a string; got NoneType"):
        method(None)
