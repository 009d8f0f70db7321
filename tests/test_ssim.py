"""Structural similarity and its gradients, against recorded numbers and an oracle in float64."""

import functools
import math
import os

import pytest
import torch
from oracle import close
from ssim_oracle import gradients, images, similarity
from ssim_oracle import l1_ssim as expected_l1_ssim
from torch.utils._python_dispatch import TorchDispatchMode

from deal_kernels.ssim import L1SSIM, l1_ssim, reference, ssim, ssim_map

PADDINGS = ("zeros", "valid")
SHAPES = ((1, 1, 11, 11), (2, 3, 45, 61), (1, 5, 12, 33), (1, 1, 31, 300), (3, 16, 40), (1, 2, 75, 13))
SMALL = ((2, 3, 1, 1), (1, 1, 7, 3), (1, 2, 4, 90), (2, 1, 5, 1))  # no window fits into these
CASES = [(shape, padding) for padding in PADDINGS for shape in SHAPES] + [(shape, "zeros") for shape in SMALL]
RESULTS = {"ssim": ssim, "ssim_map": ssim_map, "l1_ssim": l1_ssim}
EXPECTED = {
    "ssim": lambda a, b, **options: similarity(a, b, **options).mean(),
    "ssim_map": similarity,
    "l1_ssim": expected_l1_ssim,
}


@pytest.fixture(autouse=True)
def few_programs(monkeypatch):
    """Triton's interpreter takes its time for each program, however large."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        from deal_kernels.ssim import triton

        monkeypatch.setattr(triton, "BLOCK", 1 << 14)


def result_and_gradients(function, images, wanted=(True, True), **options):
    a, b = (image.detach().requires_grad_(each) for image, each in zip(images, wanted, strict=True))
    result = function(a, b, **options)
    leaves = [leaf for leaf in (a, b) if leaf.requires_grad]
    return result.detach(), *(gradients(result, leaves) if leaves else ())


def check(name, images, backend, tolerance, wanted=(True, True), **options):
    """Against the oracle in float64: the result to `tolerance`, gradients to ten times that of their largest."""
    ours = result_and_gradients(RESULTS[name], images, wanted, backend=backend, **options)
    exact = [image.cpu().double() for image in images]
    expected = result_and_gradients(EXPECTED[name], exact, wanted, **options)
    assert len(ours) == len(expected)
    for k, (one, other) in enumerate(zip(ours, expected, strict=True)):
        assert one.shape == other.shape and one.is_contiguous() and not one.isnan().any()
        limit = tolerance if k == 0 else 10 * tolerance * other.abs().max().item()
        assert (one.cpu().double() - other).abs().max().item() <= limit, (name, k)


def test_golden(golden, backend, device):
    recorded = {name: tensor.to(device) for name, tensor in golden("ssim.npz").items()}
    for first, second, value, gradient in (("a", "b", "v", "ga"), ("c", "d", "w", "gc")):
        a = recorded[first].requires_grad_()
        result = ssim(a, recorded[second], backend=backend)
        assert abs(result.item() - recorded[value].item()) <= 1e-6
        (ours,) = torch.autograd.grad(result, a)
        assert (ours - recorded[gradient]).abs().max() <= 1e-5 * recorded[gradient].abs().max()


@pytest.mark.parametrize("name", RESULTS)
@pytest.mark.parametrize(("shape", "padding"), CASES, ids=str)
def test_values_and_gradients(backend, device, shape, padding, name):
    # A variance is a difference: its float32 noise of about 1e-7 stands beside c2 = 9e-4.
    tolerance = 2e-4 if name == "ssim_map" else 3e-6
    check(name, images(*shape, device=device), backend, tolerance, padding=padding)


@pytest.mark.parametrize("name", RESULTS)
@pytest.mark.parametrize("padding", PADDINGS)
def test_in_double(name, padding):
    for backend in ("cpp", "torch"):
        for wanted in ((True, True), (True, False), (False, True), (False, False)):
            check(name, images(2, 2, 23, 37, dtype=torch.float64), backend, 1e-11, wanted, padding=padding)


def test_gradcheck():
    for backend in ("cpp", "torch"):
        for padding in PADDINGS:
            a, b = (i.requires_grad_() for i in images(1, 12, 13, dtype=torch.float64))
            for function in (ssim_map, ssim):
                checked = functools.partial(function, padding=padding, backend=backend)
                assert torch.autograd.gradcheck(checked, (a, b))


@pytest.mark.parametrize("name", RESULTS)
def test_only_the_gradients_that_are_wanted(backend, device, name):
    pair = images(2, 1, 20, 30, device=device)
    both = result_and_gradients(RESULTS[name], pair, backend=backend)
    for k, wanted in enumerate(((True, False), (False, True)), 1):
        result, gradient = result_and_gradients(RESULTS[name], pair, wanted, backend=backend)
        assert torch.equal(result, both[0]) and torch.equal(gradient, both[k])
    alone = RESULTS[name](*pair, backend=backend)  # a GPU cuts the images into other tiles without a gradient
    assert torch.equal(alone, both[0]) if device == "cpu" and backend != "triton" else close(alone, both[0], 1e-5)


@pytest.mark.parametrize("data_range", [255.0, 0.01])
def test_data_range(backend, device, data_range):
    pair = images(1, 2, 30, 41, device=device)
    for name in ("ssim", "ssim_map"):
        scaled = [image * data_range for image in pair]
        ours, unit = (
            result_and_gradients(RESULTS[name], images, backend=backend, data_range=each)
            for images, each in ((scaled, data_range), (pair, 1.0))
        )
        assert close(ours[0], unit[0], 1e-3)
        for one, other in zip(ours[1:], unit[1:], strict=True):
            assert close(one * data_range, other, 2e-3)


@pytest.mark.parametrize("name", RESULTS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_computed_in_float32(backend, device, dtype, name):
    """The error is at most twice what the rounding of an exact result is, and the loss is not rounded at all.

    Triton's interpreter cuts bfloat16 off instead of rounding it.
    """
    cut = 2**-7 if backend == "triton" and device == "cpu" and dtype == torch.bfloat16 else 0
    pair = images(2, 3, 24, 29, dtype=dtype, device=device)
    ours = result_and_gradients(RESULTS[name], pair, backend=backend)
    expected = result_and_gradients(EXPECTED[name], [image.double() for image in pair])
    assert [one.dtype for one in ours[1:]] == [dtype, dtype]
    assert ours[0].dtype == (dtype if name == "ssim_map" else torch.float32)
    for one, other in zip(ours, expected, strict=True):
        largest = other.abs().max().item()
        rounding = (other.to(one.dtype).double() - other).abs().max().item()
        noise = (2e-4 if one.dim() else 3e-6) * largest
        assert (one.double() - other).abs().max().item() <= 2 * rounding + noise + cut * largest


@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_gradients_of_halves_do_not_vanish(backend, device, scale):
    """Those of a mean over many pixels are too small for float16 until a scaled loss has multiplied them."""
    pair = images(1, 1, 256, 256, dtype=torch.float16, device=device)
    a = pair[0].requires_grad_()
    (ours,) = torch.autograd.grad(ssim(a, pair[1], backend=backend) * scale, a)
    exact = pair[0].detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(similarity(exact, pair[1].double()).mean() * scale, exact)
    rounding = (expected.half().double() - expected).abs().max()
    assert (ours.double() - expected).abs().max() <= 2 * rounding + 2e-4 * expected.abs().max()


def laid_out(image, layout):
    if layout == "channels last":
        return image.contiguous(memory_format=torch.channels_last)
    if layout == "every second":
        return torch.stack([image, torch.full_like(image, torch.nan)], -1)[..., 0]
    return image.mT.contiguous().mT


@pytest.mark.parametrize("layout", ["channels last", "every second", "transposed"])
def test_any_layout(backend, device, layout):
    pair = images(2, 3, 20, 31, device=device)
    for function in RESULTS.values():
        plain = result_and_gradients(function, pair, backend=backend)
        other = result_and_gradients(function, [laid_out(image, layout) for image in pair], backend=backend)
        assert all(torch.equal(one, two) for one, two in zip(plain, other, strict=True))


def test_identical_images(backend, device):
    for shape in ((1, 1, 1, 1), (2, 3, 40, 300)):
        a = images(*shape, device=device)[0].requires_grad_()
        assert ssim(a, a.detach(), backend=backend).item() == 1
        assert (ssim_map(a, a.detach(), backend=backend) == 1).all()
        assert abs(l1_ssim(a, a.detach(), backend=backend).item()) < 1e-12
        (gradient,) = torch.autograd.grad(ssim_map(a, a.detach(), backend=backend).sum(), a)
        assert gradient.abs().max() < 1e-2  # at the maximum, but for the noise of variances


def test_constant_images(backend, device):
    """Away from the edges only the means differ, and all is known in closed form."""
    a, b = (torch.full((1, 1, 30, 30), value, device=device) for value in (0.5, 0.25))
    c1 = 1e-4
    expected = torch.full((1, 1, 20, 20), (2 * 0.125 + c1) / (0.25 + 0.0625 + c1), device=device)
    assert close(ssim_map(a, b, padding="valid", backend=backend), expected, 1e-3)
    zero = torch.zeros_like(a)
    assert ssim(zero, zero, backend=backend).item() == 1


def test_one_pixel(backend, device):
    a, b = torch.tensor([[[[0.5]]]], device=device), torch.tensor([[[[1.0]]]], device=device)
    weight = (1 / sum(math.exp(-k * k / 4.5) for k in range(-5, 6))) ** 2
    ma, mb, c1, c2 = 0.5 * weight, weight, 1e-4, 9e-4
    cov, variances = 0.5 * weight - ma * mb, 0.25 * weight - ma * ma + weight - mb * mb
    expected = (2 * ma * mb + c1) * (2 * cov + c2) / ((ma * ma + mb * mb + c1) * (variances + c2))
    assert ssim(a, b, backend=backend).item() == pytest.approx(expected, rel=1e-5)
    assert l1_ssim(a, b, 2.0, 3.0, backend=backend).item() == pytest.approx(1 + 3 * (1 - expected), rel=1e-5)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_stays_in_its_windows(backend, device, value):
    pair = images(1, 2, 60, 70, device=device)
    pair[0][0, 1, 30, 8] = value
    expected = similarity(*pair)
    ours, *grads = result_and_gradients(ssim_map, pair, backend=backend)
    assert torch.equal(ours.isnan(), expected.isnan())
    spread = torch.nn.functional.max_pool2d(expected.isnan().float(), 11, 1, 5).bool()
    for grad in grads:
        assert torch.equal(grad.isnan(), spread)
    assert ssim(*pair, backend=backend).isnan() and l1_ssim(*pair, backend=backend).isnan()


@pytest.mark.parametrize("shape", [(0, 3, 20, 20), (2, 0, 20, 20), (2, 3, 0, 20), (2, 3, 20, 0)])
def test_nothing_has_no_mean(backend, device, shape):
    a = torch.zeros(shape, device=device, requires_grad=True)
    for function in (ssim, l1_ssim):
        result = function(a, a.detach(), backend=backend)
        assert result.isnan() and torch.autograd.grad(result, a)[0].shape == shape
    values = ssim_map(a, a.detach(), backend=backend)
    assert values.shape == shape and torch.autograd.grad(values.sum(), a)[0].shape == shape


def test_module(backend, device):
    pair = images(1, 3, 20, 25, device=device, data_range=255.0)
    layer = L1SSIM(0.5, 2.0, data_range=255.0, padding="valid", backend=backend)
    assert torch.equal(layer(*pair), l1_ssim(*pair, 0.5, 2.0, data_range=255.0, padding="valid", backend=backend))
    assert "alpha=0.5" in repr(layer) and not list(layer.parameters())


class Operations(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


def test_the_reference_has_no_operation_that_a_gpu_rounds_to_tf32():
    a, b = torch.rand(2, 20, 30), torch.rand(2, 20, 30)
    with Operations() as seen:
        reference.similarity(a, b, 1e-4, 9e-4, reference.REACH)
        reference.gradients(torch.rand(2, 20, 30), a, b, 1e-4, 9e-4, reference.REACH, 0.1)
    assert "mul" in seen.names
    assert not any("conv" in name or name.endswith("mm") for name in seen.names)
