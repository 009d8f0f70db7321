"""Operations of the degradation mixture on images so small that the results can be worked out by hand."""

import math

import pytest
import torch
from oracle import close

import deal_kernels
from deal_kernels.degradation import apply

BACKENDS = [name for name, state in deal_kernels.info()["backends"].items() if state == "live"]


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


def image(*rows, device="cpu"):
    return torch.tensor(rows, device=device)[None, None]


# Name, values, x and the result of one row or a few.
LITERALS = (
    ("identity", None, [[-1.0, 2.0]], [[-1.0, 2.0]]),
    ("contrast_0.5", None, [[0.0, 0.5, 1.0]], [[0.25, 0.5, 0.75]]),
    ("contrast_2", None, [[0.0, 0.5, 1.0]], [[0.0, 0.5, 1.0]]),
    ("saturation_0.5", None, [[-1.0, 2.0]], [[-1.0, 2.0]]),
    ("sharpness_0", None, [[0.0] * 3, [0.0, 0.5, 0.0], [2.0, 0, 0]], [[0.0] * 3, [0.0, 4.5 / 13, 0.0], [1.0, 0, 0]]),
    ("sharpness_0", None, [[2.0, 3.0, 2.0]], [[2.0, 3.0, 2.0]]),
    ("max_pool_resize_2", None, [[1.0, 2.0, 9.0], [3.0, -4.0, 9.0]], [[3.0] * 3] * 2),
    ("average_pool_resize_2", None, [[1.0, 2.0, 9.0], [3.0, -4.0, 9.0]], [[0.5] * 3] * 2),
    ("average_pool_resize_2", None, [[0.0, 0.0, 4.0, 4.0]] * 2, [[0.0, 1.0, 3.0, 4.0]] * 2),
    ("bicubic_resize_2", None, [[2.0, 2.0, 2.0]] * 3, [[2.0, 2.0, 2.0]] * 3),
    ("posterize_1", None, [[-3.0, 0.25, 0.502, 7.0]], [[0.0, 0.0, 128 / 255, 128 / 255]]),
    ("posterize_8", None, [[0.1, 0.999, 1.0]], [[25 / 255, 254 / 255, 1.0]]),
    ("stripe", [[0.5, -1.0]], [[1.0, 1.0], [2.0, 2.0]], [[1.5, 0.0], [2.5, 1.0]]),
    ("row_stripe", [[0.5, -1.0]], [[1.0, 1.0], [2.0, 2.0]], [[1.5, 1.5], [1.0, 1.0]]),
    ("gain", [[0.5, -1.0]], [[1.0, 1.0], [2.0, 2.0]], [[0.5, -1.0], [1.0, -2.0]]),
    ("noise", [[[[1.0, 2.0], [3.0, 4.0]]]], [[1.0, 1.0], [2.0, 2.0]], [[2.0, 3.0], [5.0, 6.0]]),
    ("row_gain", [[0.5, -1.0]], [[1.0, 1.0], [2.0, 2.0]], [[0.5, 0.5], [-2.0, -2.0]]),
    ("tone", [[0.5, 0.25]], [[1.0, -1.0]], [[0.75, -0.25]]),
    ("dead", [[[[math.nan, 7.0], [0.0, math.nan]]]], [[1.0, 1.0], [2.0, 2.0]], [[1.0, 7.0], [0.0, 2.0]]),
    ("glow", [[0.5, 0.25, 0.5, 0.0]], [[1.0, 1.0]], [[1.5, 1.0]]),
    ("glow", [[0.5, 0.25, 0.0, 0.5]], [[1.0, 1.0]], [[1.0, 1.5]]),
    ("glow", [[0.5, 0.5, 0.5, 0.25]], [[1.0]], [[1.5]]),
    ("shading", [[[1.0, 1.0, 0, 0], [1.0, 0, 0, 0], [0] * 4, [0] * 4]], [[0.0] * 2] * 2,
     [[1 + 2**0.5, 1.0], [1.0, 1 - 2**0.5]]),
    ("partial_stripe", [[[0.5, -1.0], [0.0, 0.5], [0.5, 1.0]]], [[1.0, 1.0], [2.0, 2.0]], [[1.5, 1.0], [2.0, 1.0]]),
    ("quantise_1", None, [[-3.0, 0.25, 0.5, 0.501, 7.0]], [[0.0, 0.0, 0.0, 1.0, 1.0]]),
    ("quantise_2", None, [[0.1, 0.2, 0.5, 0.9]], [[0.0, 1 / 3, 2 / 3, 1.0]]),
    ("clip", None, [[-3.0, 0.25, 7.0]], [[0.0, 0.25, 1.0]]),
)  # fmt: skip


@pytest.mark.parametrize(("name", "values", "x", "expected"), LITERALS)
def test_literals(backend, device, name, values, x, expected):
    values = None if values is None else torch.tensor(values, device=device)
    result = apply(name, image(*x, device=device), values, backend=backend)
    torch.testing.assert_close(result, image(*expected, device=device), rtol=0, atol=1e-7)


def gradient(name, x, grad, backend, **options):
    x = x.requires_grad_()
    return torch.autograd.grad(apply(name, x, backend=backend, **options), x, grad)[0]


def test_of_equal_largest_values_the_first_has_the_gradient(backend, device):
    x = image([3.0, 3.0, 1.0, 5.0], [3.0, 3.0, 5.0, 5.0], device=device)
    found = gradient("max_pool_resize_2", x, torch.ones_like(x), backend)
    assert torch.equal(found, image([4.0, 0.0, 0.0, 4.0], [0.0, 0.0, 0.0, 0.0], device=device))


def test_gradients_pass_a_clamp_at_its_ends(backend, device):
    x = image([-0.5, 0.0, 0.5, 1.0, 1.5], device=device)
    passes = image([0.0, 1.0, 1.0, 1.0, 0.0], device=device)
    assert torch.equal(gradient("contrast_1", x, torch.ones_like(x), backend), passes)
    assert torch.equal(gradient("posterize_3", x, torch.ones_like(x), backend, straight_through=True), passes)
    for name in ("clip", "quantise_8", "quantise_1"):
        assert torch.equal(gradient(name, x, torch.ones_like(x), backend), passes)
    assert torch.equal(gradient("posterize_3", x, torch.ones_like(x), backend), torch.zeros_like(x))


def test_the_blur_of_a_line_is_the_window(backend, device):
    x = torch.zeros(2, 1, 31, 31, device=device)
    x[:, :, :, 15] = 1
    deviations = torch.tensor([1.0, 1.5], device=device)
    y = apply("gaussian_blur", x, deviations, backend=backend)
    for found, deviation in zip(y[:, 0, 7], (1.0, 1.5), strict=True):
        taps = [math.exp(-((k / deviation) ** 2) / 2) for k in range(-4, 5)]
        expected = torch.tensor([tap / sum(taps) for tap in taps], device=device)
        assert close(found[11:20], expected, 1e-6) and found[:11].abs().max() == 0 and found[20:].abs().max() == 0
    assert torch.equal(y[1:], apply("gaussian_blur_1.5", x[1:], backend=backend))


def test_a_dead_pixel_has_no_gradient(backend, device):
    x, value = image([0.5, math.nan, 0.5], device=device), image([math.nan, 1.0, -1.0], device=device)
    found = torch.autograd.grad(apply("dead", x.requires_grad_(), value, backend=backend).sum(), x)[0]
    assert torch.equal(found, image([1.0, 0.0, 0.0], device=device))


def test_the_wide_blur_of_a_line_is_the_window(backend, device):
    x = torch.zeros(2, 1, 31, 41, device=device)
    x[:, :, :, 20] = 1
    deviations = torch.tensor([1.0, 3.0], device=device)
    y = apply("wide_blur", x, deviations, backend=backend)
    for found, deviation in zip(y[:, 0, 7], (1.0, 3.0), strict=True):
        taps = [math.exp(-((k / deviation) ** 2) / 2) for k in range(-9, 10)]
        expected = torch.tensor([tap / sum(taps) for tap in taps], device=device)
        assert close(found[11:30], expected, 1e-6) and found[:11].abs().max() == 0 and found[30:].abs().max() == 0
