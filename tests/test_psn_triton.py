"""The Triton kernels of parallel spiking neurons against the reference, and what they compile to."""

import itertools
import re

import pytest
import torch
from triton_testing import (
    DEVICE,
    HALVES,
    INEXACT,
    ROUNDING,
    Recorder,
    compile_for,
    compiles,
    interpreted,
    resources,
    runs,
)

from deal_kernels.psn import op, reference
from deal_kernels.psn import triton as room
from deal_kernels.psn.reference import Inputs
from deal_kernels.surrogate import KINDS, ATan, of_numbers


@interpreted(__file__)
def test_in_the_interpreter(interpreter):
    output, _ = interpreter.communicate()
    assert interpreter.returncode == 0, output


def drawn(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE or "cpu", dtype)


def layer(kind, steps, neurons, dtype=torch.float32, k=3):
    """A call. In a streamed layer, inputs of an earlier call come first."""
    sliding, skipped = kind in ("sliding", "streamed"), k - 1 if kind == "streamed" else 0
    steps += skipped
    shape = (k,) if sliding else (steps, steps)
    bias = drawn(1 if sliding else steps, seed=2)
    return Inputs(
        drawn(steps, neurons, dtype=dtype), drawn(*shape, seed=1), bias, None if kind == "matrix" else k, skipped
    )  # fmt: skip


KINDS_OF_LAYER = ("matrix", "band", "sliding", "streamed")


def check(i, surrogate):
    for membranes in (False, True):
        assert torch.equal(*(op.launch_forward(i, membranes, backend) for backend in ("triton", "torch")))
    grad = drawn(i.outputs, *i.x.shape[1:], dtype=i.x.dtype, seed=3)
    found, expected = (
        op.launch_backward(i, grad, surrogate, (True, True, True), backend) for backend in ("triton", "torch")
    )
    for ours, theirs, near in zip(found, expected, (ROUNDING.get(i.x.dtype, 1e-5), 1e-5, 1e-5), strict=True):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        assert (ours.double() - theirs.double()).abs().max() <= near * theirs.double().abs().max()


@runs
@pytest.mark.parametrize("kind", KINDS_OF_LAYER)
def test_every_size_agrees_with_the_reference(kind):
    for steps, neurons in itertools.product((1, 3, 16, 19, 34), (1, 37, 264)):
        check(layer(kind, steps, neurons), ATan())


@runs
@pytest.mark.parametrize("kind", KINDS)
def test_every_surrogate_agrees_with_the_reference(kind):
    for each in ("matrix", "sliding"):
        check(layer(each, 5, 40), of_numbers(kind, (0.3, 0.7, 0.1)))


@runs
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_halves_agree_with_the_reference(dtype):
    for kind in KINDS_OF_LAYER:
        check(layer(kind, 7, 264, dtype), ATan())


@runs
def test_bands_of_every_width_and_a_strided_time_axis():
    for kind, k in itertools.product(KINDS_OF_LAYER[1:], (1, 16, 25)):
        check(layer(kind, 20, 9, k=k), ATan())
    for kind in KINDS_OF_LAYER:
        i = layer(kind, 5, 16)
        check(i._replace(x=torch.stack([i.x, i.x + 1], 1).flatten(0, 1)[::2]), ATan())


@runs
@pytest.mark.parametrize("kind", KINDS_OF_LAYER)
def test_time_within_samples_agrees_with_the_reference(kind):
    for steps, batch, group in ((4, 3, 40), (19, 2, 37), (3, 2, 300)):
        i = layer(kind, steps, batch * group)
        x = i.x.unflatten(1, (batch, group))
        check(i._replace(x=x.transpose(0, 1).contiguous().transpose(0, 1)), ATan())


@runs
@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_nan_stays_within_the_band():
    for kind in ("band", "sliding"):
        i = layer(kind, 20, 8)
        i.x[5] = torch.nan
        h = op.launch_forward(i, True, "triton")
        assert torch.equal(h.isnan(), reference.membranes(i).isnan()) and h.isnan().any()


def launches(i, surrogate, monkeypatch):
    """The arguments of the kernel's launches: for the spikes, the gradient of h and that of x."""
    grad = torch.empty(i.outputs, *i.x.shape[1:], dtype=i.x.dtype)
    calls = [lambda: room.forward(i, False, grad)]
    for grad_x in (None, torch.empty_like(i.x)):
        calls.append(lambda grad_x=grad_x: room.backward(i, grad, surrogate, grad.float(), grad_x))
    found = []
    with monkeypatch.context() as patch:
        patch.setattr(room, "mix_kernel", recorder := Recorder())
        for call in calls:
            call()
            found.append(recorder.arguments)
    return found


@compiles
@pytest.mark.parametrize("kind", KINDS_OF_LAYER)
@pytest.mark.parametrize(
    ("capability", "dtype", "steps", "neurons"),
    [
        (90, torch.float32, 16, 512),
        (80, torch.bfloat16, 16, 512),
        (90, torch.float16, 4, 35),
        (80, torch.float32, 40, 35),
    ],
)
def test_what_the_kernels_compile_to(capability, dtype, steps, neurons, kind, monkeypatch):
    i = layer(kind, steps, neurons, dtype)
    for arguments in launches(i, ATan(), monkeypatch):
        compiled = compile_for(capability, room.mix_kernel, arguments)
        ptx = compiled.asm["ptx"]
        # Fused where the definition says so, and nowhere else; no approximate division, and no spilt registers.
        assert "fma.rn.f32" in ptx
        assert not INEXACT.findall(ptx)
        assert (resources(compiled.asm["cubin"]) or {}).get("STACK", 0) <= 8
        if neurons % 8 == 0:
            assert re.search(r"st\.global\S*\.v4", ptx)
