"""The CUDA padding's own source, run on a CPU, against the specification, bit by bit."""

import math

import pytest
import torch
from cuda_emulation import HALVES, Emulated, GuardedTensors, installed, library
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deal_kernels.pad import reference
from deal_kernels.pad.reference import MODES, Border

# The image and its padding: to the left, to the right, above and below. Planes of one channel, of whole words in a row
# or not; pixels of single channels, of words of 4 and of 16 bytes; reflected all of it and none of it.
CASES = (
    ((3, 1, 1, 1), (0, 0, 0, 0)), ((2, 5, 7, 1), (3, 6, 4, 1)), ((1, 9, 24, 1), (5, 5, 5, 5)),
    ((2, 2, 3, 1), (0, 2, 1, 0)), ((1, 4, 260, 1), (1, 0, 0, 3)), ((2, 4, 3, 3), (2, 1, 0, 3)),
    ((1, 3, 5, 4), (1, 4, 2, 0)), ((2, 6, 5, 8), (4, 2, 5, 1)), ((1, 3, 4, 24), (1, 1, 1, 1)),
)  # fmt: skip
SKEWS = ((0, 0), (1, 0), (0, 1))


@pytest.fixture(scope="module")
def emulated():
    return Emulated(library())


def as_images(memory):
    """[planes, height, width, inner] as [B, C, H, W]."""
    return memory.permute(0, 3, 1, 2)


def fields_of(shape, border, dtype):
    planes, height, width, inner = shape
    left, right, above, below = border.padding
    return {
        "dtype": dtype, "planes": planes, "height": height, "width": width, "inner": inner, "top": above,
        "bottom": below, "left": left, "right": right, "mode": border.mode,
    }  # fmt: skip


def drawn(shape, dtype):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def padded(kernels, shape, border, dtype, skew=(0, 0)):
    """What the kernel finds, and what it should."""
    tensors = GuardedTensors(skew)
    x, expected = tensors.place(drawn(shape, dtype)), reference.pad2d(as_images(drawn(shape, dtype)), border)
    out = tensors.result(*expected.permute(0, 2, 3, 1).shape, dtype=dtype)
    kernels.run("pad_forward", **fields_of(shape, border, dtype), x=x, out=out)
    tensors.check()
    return as_images(out), expected


def unpadded(kernels, shape, border, dtype, skew=(0, 0)):
    tensors = GuardedTensors(skew)
    batch, channels, height, width = border.around(as_images(torch.empty(shape)).shape)
    values = drawn((batch, height, width, channels), dtype)
    grad, grad_x = tensors.place(values), tensors.result(*shape, dtype=dtype)
    kernels.run("pad_backward", **fields_of(shape, border, dtype), grad=grad, grad_x=grad_x)
    tensors.check()
    return as_images(grad_x), reference.unpad2d(as_images(values), border)


def fits(shape, padding, mode):
    return mode != "reflect" or (max(padding[:2]) < shape[2] and max(padding[2:]) < shape[1])


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("run", [padded, unpadded])
def test_bits_are_those_of_the_specification(emulated, run, mode, dtype):
    for (shape, padding), skew in ((case, skew) for case in CASES for skew in SKEWS if fits(*case, mode)):
        found, expected = run(emulated, shape, Border(padding, mode), dtype, skew)
        assert torch.equal(found, expected), (shape, padding, skew)


@pytest.mark.parametrize("mode", ["reflect", "replicate"])
def test_the_two_are_adjoint(emulated, mode):
    """<pad(x), g> = <x, unpad(g)>, whatever the specification says."""
    for shape, padding in CASES:
        if fits(shape, padding, mode):
            border = Border(padding, mode)
            out, grad_x = (run(emulated, shape, border, torch.float32)[0].double() for run in (padded, unpadded))
            grad = as_images(drawn(out.permute(0, 2, 3, 1).shape, torch.float32)).double()
            x = as_images(drawn(shape, torch.float32)).double()
            assert math.isclose((out * grad).sum(), (x * grad_x).sum(), rel_tol=1e-5, abs_tol=1e-4)


def test_infinite_and_undefined_pixels_are_copied(emulated):
    shape, border = (1, 3, 4, 1), Border((1, 1, 1, 1), "reflect")
    tensors = GuardedTensors()
    for dtype in HALVES:
        values = torch.tensor([math.inf, -math.inf, math.nan, -0.0]).repeat(3).view(shape).to(dtype)
        x, out = tensors.place(values), tensors.result(1, 5, 6, 1, dtype=dtype)
        emulated.run("pad_forward", **fields_of(shape, border, dtype), x=x, out=out)
        expected = reference.pad2d(as_images(values), border)
        assert out.flatten().view(torch.uint8).equal(expected.flatten().view(torch.uint8))


def test_errors_name_what_is_missing(emulated):
    case = (1, 3, 4, 1), Border((1, 1, 1, 1), "reflect")
    with pytest.raises(RuntimeError, match="float64"):
        padded(emulated, *case, torch.float64)
    with pytest.raises(RuntimeError, match="float64"):
        unpadded(emulated, *case, torch.float64)
    with installed(emulated.module, image=False), pytest.raises(RuntimeError, match="no kernel image"):
        padded(emulated, *case, torch.float32)
    with pytest.raises(RuntimeError, match="too long sides"):
        fields = fields_of((1, 1, 2**31 - 2, 1), Border((1, 1, 0, 0), "zeros"), torch.float32)
        emulated.run("pad_forward", **fields, x=torch.ones(1), out=torch.ones(1))


@settings(max_examples=300, deadline=None)
@given(n=st.integers(0, 2**63 - 1), by=st.integers(1, 2**62))
@example(n=2**63 - 1, by=1)
@example(n=2**63 - 1, by=2**62)
@example(n=2**62 + 1, by=2**31 + 1)
def test_divisors(n, by):
    """Any quotient, and those beside a multiple."""
    quotient = library().quotient
    below = n // by * by
    for each in {n, below, max(below - 1, 0), min(below + by, 2**63 - 1)}:
        assert quotient(each, by) == each // by
    small = by % 1000 + 1
    assert quotient(n, small) == n // small
