"""Padding on every backend, against torch's own on a CPU, whose order of sums is the specification."""

import os

import pytest
import torch
from conftest import BACKENDS
from hypothesis import given, settings
from hypothesis import strategies as st
from test_every_op import Listener
from torch.nn import functional

from deal_kernels.conv import conv2d
from deal_kernels.conv import reference as conv_reference
from deal_kernels.conv.reference import Geometry
from deal_kernels.pad import op, pad2d, reference
from deal_kernels.pad.reference import MODES, Border

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
WAYS = [name for name in op.WAYS if name in BACKENDS and (name == "triton" or not INTERPRETED)]
HALVES = (torch.float16, torch.bfloat16)
# Channels in whole words, in smaller ones and in single elements; one pixel; as much padding as an image may have.
CASES = [
    ((2, 1, 1, 3), (2, 1, 0, 0)), ((1, 3, 3, 4), (1, 2, 2, 1)), ((1, 4, 2, 5), (4, 0, 1, 1)),
    ((2, 24, 3, 3), (0, 2, 0, 1)),
]  # fmt: skip
LAYOUTS = {"contiguous": False, "channels-last": True}
if not INTERPRETED:
    CASES += [((3, 5, 30, 131), (5, 5, 5, 5)), ((2, 16, 40, 24), (11, 3, 2, 39)), ((1, 1, 1, 2000), (0, 7, 0, 0))]


@pytest.fixture(params=WAYS)
def backend(request):
    return request.param


def images(shape, dtype, device, channels_last=False, seed=0):
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)
    return drawn.contiguous(memory_format=torch.channels_last) if channels_last else drawn


def torchs(x, padding, mode):
    return functional.pad(x, padding, "constant" if mode == "zeros" else mode)


def padded_and_gradient(function, x, grad=None):
    """The result and the gradient of x, from a random gradient of the result in its layout."""
    x = x.detach().requires_grad_()
    result = function(x)
    grad = torch.empty_like(result).copy_(images(result.shape, x.dtype, x.device, seed=1)) if grad is None else grad
    return result.detach(), torch.autograd.grad(result, x, grad)[0]


@pytest.mark.parametrize(("shape", "padding"), CASES, ids=str)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_bits_and_layout_are_those_of_torch_on_a_cpu(backend, device, shape, padding, mode, layout):
    if INTERPRETED and layout == "contiguous" and shape[1] > 4:
        pytest.skip("a program for each of so many rows takes the interpreter long; fewer channels are the same code")
    x = images(shape, torch.float32, "cpu", LAYOUTS[layout])
    expected, of_x = padded_and_gradient(lambda x: torchs(x, padding, mode), x)
    found, gradient = padded_and_gradient(lambda x: pad2d(x, padding, mode, backend=backend), x.to(device))
    assert torch.equal(found.cpu(), expected) and torch.equal(gradient.cpu(), of_x)
    assert found.stride() == expected.stride() and gradient.stride() == x.stride()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_half_types_are_copied_and_summed_in_float32(backend, device, dtype, mode):
    shape, padding = CASES[1]
    x = images(shape, dtype, device, True)
    found, gradient = padded_and_gradient(lambda x: pad2d(x, padding, mode, backend=backend), x)
    grad = images(found.shape, dtype, device, seed=1)
    _, exact = padded_and_gradient(lambda x: torchs(x, padding, mode), x.cpu().double(), grad.cpu().double())
    assert found.dtype == gradient.dtype == dtype and torch.equal(found.cpu(), torchs(x.cpu(), padding, mode))
    # The interpreter cuts bfloat16 off instead of rounding it.
    near = torch.finfo(dtype).eps * (1 if INTERPRETED else 0.5001)
    assert ((gradient.cpu().double() - exact).abs() <= near * exact.abs() + 1e-6).all()


def test_gradients_are_read_in_any_layout(backend, device):
    shape, padding = CASES[1]
    x = images(shape, torch.float32, device)
    grad = images(Border(padding, "reflect").around(shape), torch.float32, device)
    expected = padded_and_gradient(lambda x: pad2d(x, padding, backend=backend), x, grad)[1]
    spread = torch.stack([grad, torch.full_like(grad, torch.nan)], -1)[..., 0]
    for other in (grad.contiguous(memory_format=torch.channels_last), spread):
        assert torch.equal(padded_and_gradient(lambda x: pad2d(x, padding, backend=backend), x, other)[1], expected)


def test_one_number_and_single_images(backend, device):
    x = images((2, 3, 4), torch.float32, device)
    assert torch.equal(pad2d(x, 2, backend=backend), pad2d(x[None], (2, 2, 2, 2), backend=backend)[0])
    assert pad2d(x, 0) is x
    assert pad2d(x[None, :0], 1, backend=backend).shape == (1, 0, 5, 6)


def doubles(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("mode", MODES)
def test_first_and_second_derivatives(mode):
    def function(x):
        return pad2d(x, (1, 3, 2, 0), mode) ** 3

    assert torch.autograd.gradcheck(function, doubles(1, 2, 3, 4))
    assert torch.autograd.gradgradcheck(function, doubles(1, 1, 3, 4))


@pytest.mark.parametrize("mode", MODES)
def test_transforms_and_batched_gradients(mode):
    x = doubles(1, 2, 3, 4)

    def ours(x):
        return pad2d(x, 1, mode).sin()

    def theirs(x):
        return torchs(x, (1, 1, 1, 1), mode).sin()

    for transform in (torch.func.jacrev, torch.func.jacfwd, torch.func.hessian):
        torch.testing.assert_close(transform(ours)(x.detach()), transform(theirs)(x.detach()))
    grads = doubles(3, 1, 2, 5, 6).detach()
    found, expected = (torch.autograd.grad(f(x), x, grads, is_grads_batched=True)[0] for f in (ours, theirs))
    torch.testing.assert_close(found, expected)


@settings(max_examples=100, deadline=None)
@given(
    count=st.integers(1, 12), before=st.integers(0, 15), after=st.integers(0, 15), mode=st.sampled_from(MODES),
)  # fmt: skip
def test_every_position_is_read_once_and_in_order(count, before, after, mode):
    """Readers against the indices that torch's padding copies."""
    if mode == "reflect":
        before, after = min(before, count - 1), min(after, count - 1)
    axis = torch.arange(1.0, count + 1)[None, None]
    copied = functional.pad(axis, (before, after), "constant" if mode == "zeros" else mode)[0, 0].int().tolist()
    positions = [[] for _ in range(count)]
    for pixels, readers in reference.readers(count, before, after, mode):
        for pixel, position in zip(pixels, readers, strict=True):
            positions[pixel].append(position)
    assert positions == [[p for p, each in enumerate(copied) if each == k + 1] for k in range(count)]


def on_a_gpu(function, *tensors):
    """The operations of this package that a function dispatches to where tensors are not on a CPU."""
    with Listener() as listener:
        function(*(tensor.to("meta") for tensor in tensors))
    return listener.names


@pytest.mark.parametrize("mode", ["reflect", "replicate"])
def test_a_convolution_that_torch_runs_on_a_gpu_pads_by_this(mode):
    x, weight = torch.randn(1, 3, 9, 8), torch.randn(4, 3, 5, 5)

    def step(x, weight):
        x.requires_grad_()
        conv2d(x, weight, padding=2, padding_mode=mode).sum().backward()

    assert on_a_gpu(step, x, weight) == ("pad2d", "unpad2d")
    with Listener() as listener:
        conv2d(x, weight, padding=2, padding_mode=mode, backend="torch")
    assert listener.names == ()  # on a CPU torch pads


def test_padding_with_zeros_is_left_to_the_convolution():
    assert on_a_gpu(lambda x, w: conv2d(x, w, padding=2), torch.randn(1, 3, 9, 8), torch.randn(4, 3, 5, 5)) == ()


@pytest.mark.parametrize("mode", ["reflect", "replicate"])
def test_gradients_of_a_convolution_unpad_by_this_on_a_gpu(mode):
    g = Geometry((1, 2, 0, 3), mode, (1, 1))
    x, grad = torch.randn(1, 3, 9, 8), torch.randn(1, 3, 12, 11)
    assert on_a_gpu(lambda x, grad: conv_reference.unpadded(grad, x, g), x, grad) == ("unpad2d",)
    expected = conv_reference.unpadded(grad, x, g)
    assert torch.equal(reference.unpad2d(grad, Border((0, 3, 1, 2), mode)), expected)


ERRORS = [
    ((torch.ones(2, 2), 1), {}, ValueError, r"x must be \[B, C, H, W\] or \[C, H, W\]; got the shape \(2, 2\)"),
    ((torch.ones(1, 0, 2), 1), {}, ValueError, r"x must have pixels; got the shape \(1, 0, 2\)"),
    ((torch.ones(1, 2, 2).int(), 1), {}, TypeError, r"x must be float32, .*; got torch.int32"),
    ((torch.ones(1, 3, 3), (1, 1)), {}, TypeError, r"padding must be an integer, or four: .*; got \(1, 1\)"),
    ((torch.ones(1, 3, 3), 1.0), {}, TypeError, "padding must be an integer, .*; got 1.0"),
    ((torch.ones(1, 3, 3), (1, 1, -1, 1)), {}, ValueError, r"padding must be at least 0; got \(1, 1, -1, 1\)"),
    ((torch.ones(1, 3, 3), 1, "circular"), {}, ValueError, "mode must be one of 'reflect', .*; got 'circular'"),
    (
        (torch.ones(1, 5, 3), (0, 3, 1, 0)), {}, ValueError,
        "mode='reflect' needs images larger than the padding, 1 x 3; got 5 x 3",
    ),
    ((torch.ones(1, 3, 3), 1), {"backend": "cpp"}, RuntimeError, "backend 'cpp' cannot run: padding has no kernel"),
    ((torch.ones(1, 3, 3), 1), {"backend": "gpu"}, ValueError, "backend must be 'auto' or one of .*; got 'gpu'"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "options", "error", "message"), ERRORS)
def test_errors_name_the_argument(arguments, options, error, message):
    with pytest.raises(error, match=message):
        pad2d(*arguments, **options)
