"""What holds for any convolution."""

import conv_oracle as oracle
import torch
from conv_oracle import distance, gradients, tensors
from hypothesis import given, settings
from hypothesis import strategies as st

from deal_kernels import backend
from deal_kernels.conv import conv2d

COMPILED = "cpp" if backend.unavailable("cpp", "cpu") is None else "torch"

sides = st.one_of(st.integers(1, 24), st.sampled_from([40, 65]))
kernels = st.one_of(st.integers(1, 8), st.sampled_from([11, 15, 16, 21, 32]))
channels = st.one_of(st.integers(1, 9), st.sampled_from([16, 17, 33]))


@st.composite
def convolutions(draw):
    """The arguments of `tensors`, and how its results meet."""
    kernel, dilation = (draw(kernels), draw(kernels)), (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    size = draw(sides), draw(sides)
    span = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    least = [max(0, -(-(length - side) // 2)) for side, length in zip(size, span, strict=True)]
    reflects = all(few < side for few, side in zip(least, size, strict=True))
    mode = draw(st.sampled_from(["zeros", "replicate", "reflect"][: 2 + reflects]))
    most = [side - 1 if mode == "reflect" else length + 3 for side, length in zip(size, span, strict=True)]
    around = tuple(draw(st.integers(few, many)) for few, many in zip(least, most, strict=True))
    options = {"padding": around, "padding_mode": mode, "dilation": dilation}
    shape = (draw(st.integers(1, 3)), draw(channels), *size)
    return shape, (draw(channels), shape[1], *kernel), draw(st.integers(0, 2**31)), options


def drawn(case):
    *shapes, seed, options = case
    return tensors(*shapes, seed=seed, **options), options


@settings(max_examples=50, deadline=None)
@given(convolutions(), st.booleans(), st.booleans(), st.booleans())
def test_the_oracle_agrees(case, relu, more, last):
    (x, weight, bias, residual), options = drawn(case)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    leaves = [t.requires_grad_() for t in ((x, weight, bias, residual) if more else (x, weight))]
    exact = [t.detach().double().requires_grad_() for t in leaves]
    activation = "relu" if relu else None

    def run(function, tensors, **more):
        x, weight, bias, residual = (*tensors, None, None)[:4]
        return function(x, weight, bias, residual=residual, **options | more)

    y = run(conv2d, leaves, activation=activation, backend=COMPILED)
    expected = run(oracle.conv2d, exact, activation=activation)
    # Relative to what an output may be, as few outputs may all be near 0.
    noise = 2e-6 * (expected.norm().item() + expected.numel() ** 0.5)
    assert y.shape == expected.shape and (y.detach().double() - expected).norm().item() <= noise
    slope = (run(oracle.conv2d, exact).abs() > 1e-3).detach()
    for one, other in zip(gradients(y * slope, leaves), gradients(expected * slope, exact), strict=True):
        # A value that many results depend on adds up their errors.
        allowed = 5e-6 * max(1.0, y.numel() / one.numel()) ** 0.5
        assert distance(one, other) <= 5e-6 or (one.double() - other).abs().max() <= allowed


@settings(max_examples=20, deadline=None)
@given(convolutions(), st.data())
def test_images_do_not_see_each_other(case, data):
    (x, weight, _, _), options = drawn(case)
    together = conv2d(x, weight, backend=COMPILED, **options)
    k = data.draw(st.integers(0, len(x) - 1))
    assert torch.equal(conv2d(x[k], weight, backend=COMPILED, **options), together[k])


@settings(max_examples=20, deadline=None)
@given(convolutions())
def test_it_is_linear(case):
    (x, weight, _, _), options = drawn(case)
    y = conv2d(x, weight, backend=COMPILED, **options)
    assert torch.equal(conv2d(4 * x, weight, backend=COMPILED, **options), 4 * y)
    assert torch.equal(conv2d(x, -weight, backend=COMPILED, **options), -y)
