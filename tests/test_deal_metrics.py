"""PSNR, the same after a fit, SSIM and what is left of stripes: hand-computed, and against numpy and the usual SSIM."""

import math

import numpy
import pytest
import torch
from oracle import close
from ssim_oracle import images, similarity

from deal.evaluate.metrics import affine_psnr, psnr, row_residual, ssim, stripe_residual
from deal.model.filters import gaussian_smooth, mirror_pad

MEASURES = [psnr, affine_psnr, ssim, stripe_residual, row_residual]


def test_psnr_is_taken_image_by_image():
    x = torch.rand(3, 2, 16, 16, dtype=torch.float64)
    y = x + torch.tensor([0.1, 0.01, 0.0], dtype=torch.float64).reshape(3, 1, 1, 1)
    assert psnr(y, x).tolist() == pytest.approx([20, 40, math.inf])
    y[0, 1] = x[0, 1]
    assert psnr(y, x)[0].item() == pytest.approx(20 + 10 * math.log10(2))


def test_affine_psnr_is_a_least_squares_fit():
    y, x = images(4, 3, 20, 30, dtype=torch.float64)
    y[0] = 0.4 - 0.3 * y[0]
    for k, value in enumerate(affine_psnr(y, x).tolist()):
        design = numpy.stack([y[k].flatten().numpy(), numpy.ones(y[k].numel())], 1)
        _, residual, *_ = numpy.linalg.lstsq(design, x[k].flatten().numpy(), rcond=None)
        assert value == pytest.approx(-10 * math.log10(residual[0] / y[k].numel()), abs=1e-5)
    assert (affine_psnr(y, x) > psnr(y, x)).all()


def test_affine_psnr_of_a_flat_image_is_that_of_the_mean():
    x = torch.rand(1, 1, 16, 16)
    y = torch.full_like(x, 0.9)
    assert affine_psnr(y, x).item() == pytest.approx(-10 * math.log10(x.var(correction=0).item()), abs=1e-4)
    assert affine_psnr(x, torch.full_like(x, 0.25)).item() == math.inf


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ssim_is_the_usual_one_without_the_border(dtype):
    y, x = images(3, 3, 33, 40, dtype=dtype)
    expected = similarity(y.double(), x.double(), padding="valid").mean((1, 2, 3))
    assert close(ssim(y, x), expected.float(), 1e-5)
    assert ssim(x, x).tolist() == pytest.approx([1, 1, 1])


def test_what_is_left_of_stripes():
    random = torch.Generator().manual_seed(0)
    x = torch.rand(2, 1, 64, 600, generator=random)
    stripes = torch.randn(2, 1, 1, 600, generator=random) * torch.tensor([0.05, 0.1]).reshape(2, 1, 1, 1)
    assert stripe_residual(x + stripes, x).tolist() == pytest.approx([0.05, 0.1], rel=0.1)
    assert stripe_residual(x + stripes, x + stripes).tolist() == [0, 0]
    assert close(stripe_residual(x + 3 * stripes, x), 3 * stripe_residual(x + stripes, x), 1e-5)


def test_one_bright_column():
    x = torch.zeros(1, 1, 5, 401)
    y = x.clone()
    y[..., 200] = 1
    middle = gaussian_smooth(torch.eye(401)[200], 20)[200].item()
    assert middle == pytest.approx(1 / (20 * math.sqrt(2 * math.pi)), rel=0.01)
    energy = 1 - 2 * middle + 1 / (20 * 2 * math.sqrt(math.pi))
    assert stripe_residual(y, x).item() == pytest.approx(math.sqrt(energy / 401), rel=1e-3)


def test_rows_and_shading_are_no_stripes():
    x = torch.rand(1, 2, 64, 200)
    rows = torch.randn(1, 1, 64, 1)
    shading = 0.2 * torch.cos(torch.arange(200) * math.pi / 200)
    assert stripe_residual(x + rows, x).item() < 1e-6
    assert stripe_residual(x + shading, x).item() < 0.04 * 0.2


def test_what_is_left_of_rows():
    """By hand: the root mean square of the means of rows, without the Gaussian mean of them."""
    y, x = images(2, 3, 60, 40, dtype=torch.float64)
    means = (y - x).mean(3)
    expected = (means - gaussian_smooth(means, 20)).square().mean((1, 2)).sqrt()
    assert close(row_residual(y, x), expected.float(), 1e-6)
    columns = torch.randn(1, 1, 1, 40, dtype=torch.float64)
    assert close(row_residual(y + columns, x), row_residual(y, x), 1e-6)
    assert (row_residual(y + torch.randn(60, 1), x) > 10 * row_residual(y, x)).all()


def test_a_stripe_of_part_of_the_rows_counts_by_its_share():
    x = torch.zeros(1, 1, 8, 50)
    y = x.clone()
    y[..., :2, 10] = 0.4
    whole = torch.zeros(1, 1, 8, 50)
    whole[..., 10] = 0.1
    assert close(stripe_residual(y, x), stripe_residual(whole, x), 1e-6)


@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_smoothing_is_a_weighted_mean_of_the_mirrored_values(count):
    values = torch.rand(3, count, dtype=torch.float64)
    weights = torch.exp(-((torch.arange(-6, 7, dtype=torch.float64) / 2) ** 2) / 2)
    wide = torch.from_numpy(numpy.pad(values.numpy(), ((0, 0), (6, 6)), mode="symmetric"))
    assert torch.equal(mirror_pad(values, 1, count + 12, 6), wide)
    expected = torch.stack([(wide[:, k : k + 13] * weights).sum(1) / weights.sum() for k in range(count)], 1)
    assert close(gaussian_smooth(values, 2), expected, 1e-12)


@pytest.mark.parametrize("measure", MEASURES)
def test_a_batch_is_its_images(measure):
    y, x = images(3, 2, 19, 23)
    assert measure(y, x).shape == (3,)
    for k in range(3):
        assert close(measure(y, x)[k : k + 1], measure(y[k : k + 1], x[k : k + 1]), 1e-6)
    assert measure(y[:0], x[:0]).shape == (0,)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(
    ("y", "x", "error", "message"),
    [
        (numpy.zeros((1, 1, 16, 16)), torch.zeros(1, 1, 16, 16), TypeError, "y must be a tensor; got ndarray"),
        (torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16, dtype=torch.uint8), TypeError, "x must be float32 or fl"),
        (
            torch.zeros(16, 16),
            torch.zeros(16, 16),
            ValueError,
            r"y must be \[B, C, H, W\] .*; got the shape \(16, 16\)",
        ),
        (torch.zeros(1, 1, 0, 16), torch.zeros(1, 1, 0, 16), ValueError, "with at least one pixel; got the shape"),
        (torch.zeros(1, 1, 16, 17), torch.zeros(1, 1, 16, 16), ValueError, r"y must have shape.*16, 16.*got .*16, 17"),
        (torch.zeros(1, 1, 16, 16).double(), torch.zeros(1, 1, 16, 16), ValueError, "of x, .*float32.*got .*float64"),
    ],
)
def test_errors(measure, y, x, error, message):
    with pytest.raises(error, match=message):
        measure(y, x)


def test_ssim_of_small_images():
    with pytest.raises(ValueError, match="needs images of 11 x 11 pixels or more; got 10 x 30"):
        ssim(torch.zeros(1, 1, 10, 30), torch.zeros(1, 1, 10, 30))
