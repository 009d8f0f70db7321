"""The CUDA kernels of parallel spiking neurons, run thread by thread on a CPU, against the CPU kernels and torch."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from cuda_emulation import HALVES, Compiled, Emulated, GuardedTensors, library

from deal_kernels.psn import reference

STEPS = (1, 3, 16, 17, 40)
SIZES = (1, 7, 516, 520)  # odd ones take neurons one by one
SURROGATES = ("sigmoid", "atan", "triangle", "rectangle", "fast_sigmoid", "erf", "exponential", "sides", "window")
KINDS = ("matrix", "band", "sliding", "streamed")

compiled = Compiled(pytest.importorskip("deal_kernels._C", reason="the extension is not built"))


@pytest.fixture(scope="module")
def emulated():
    return Emulated(library())


def layer(steps=5, neurons=520, dtype=torch.float32, kind="matrix", surrogate="atan", skew=(0, 0), k=3, groups=1):
    """What a kernel is run on. In a streamed layer, inputs of an earlier call come first."""
    random = torch.Generator().manual_seed(steps * 1000 + neurons)
    tensors = GuardedTensors(skew)

    def normal(*shape, dtype=torch.float32):
        return tensors.place(torch.randn(shape, generator=random).to(dtype))

    sliding, skipped = kind in ("sliding", "streamed"), k - 1 if kind == "streamed" else 0
    steps += skipped
    weight = normal(k) if sliding else normal(steps, steps)
    bias = normal(1) if sliding else normal(steps)
    return SimpleNamespace(
        tensors=tensors, dtype=dtype, surrogate=surrogate, skipped=skipped, sliding=sliding,
        band=0 if kind == "matrix" else k, x=normal(steps, neurons, dtype=dtype), weight=weight, bias=bias,
        grad=normal(steps - skipped, neurons, dtype=dtype), group=neurons // groups,
    )  # fmt: skip


def inputs(a):
    steps, neurons = a.x.shape
    return {
        "dtype": a.dtype, "steps": steps, "neurons": neurons, "group": a.group, "time_stride": a.group,
        "skipped": a.skipped, "band": a.band, "sliding": a.sliding, "x": a.x, "weight": a.weight, "bias": a.bias,
    }  # fmt: skip


def forward(kernels, a, membranes):
    out = a.tensors.result(*a.grad.shape, dtype=torch.float32 if membranes else a.dtype)
    kernels.run("psn_forward", **inputs(a), membranes=membranes, out=out)
    a.tensors.check()
    return out


def backward(kernels, a):
    """The gradients of x, weight and bias; the last two are sums of the gradients of h that CUDA leaves."""
    grad_x = a.tensors.result(*a.x.shape, dtype=a.dtype)
    names = ("grad_h",) if kernels.emulated else ("grad_weight", "grad_bias")
    shapes = (a.grad.shape,) if kernels.emulated else (a.weight.shape, a.bias.shape)
    others = {name: a.tensors.result(*shape) for name, shape in zip(names, shapes, strict=True)}
    kernels.run(
        "psn_backward", **inputs(a), surrogate=a.surrogate, alpha=2.0, height=0.7, outside=0.1, grad=a.grad,
        grad_x=grad_x, **others,
    )  # fmt: skip
    a.tensors.check()
    if not kernels.emulated:
        return grad_x, *others.values()
    x, grad_h = (t.reshape(-1, len(t), a.group).transpose(0, 1).flatten(1) for t in (a.x, others["grad_h"]))
    i = reference.Inputs(x, a.weight, a.bias, a.band or None, a.skipped)
    return grad_x, *reference.gradients(i, grad_h, (False, True))[1:]


def check(emulated, a):
    for membranes in (False, True):
        assert torch.equal(forward(emulated, a, membranes), forward(compiled, a, membranes))
    grad_x, *sums = backward(emulated, a)
    expected_x, *expected_sums = backward(compiled, a)
    # The exponentials differ in their last bit, and a half type may round either way.
    relative = {torch.float32: 1e-6, torch.float16: 2**-10, torch.bfloat16: 2**-7}[a.dtype]
    torch.testing.assert_close(grad_x, expected_x, rtol=relative, atol=2e-6 * expected_x.abs().max().item())
    if a.surrogate not in ("sigmoid", "erf", "exponential") and a.dtype == torch.float32:
        assert torch.equal(grad_x, expected_x)
    for ours, expected in zip(sums, expected_sums, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6 * a.grad.numel() ** 0.5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_sizes(emulated, dtype, kind):
    for steps, neurons in itertools.product(STEPS, SIZES):
        check(emulated, layer(steps, neurons, dtype, kind))


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_surrogates(emulated, surrogate):
    for neurons, kind in itertools.product((131, 132), ("matrix", "sliding")):
        check(emulated, layer(18, neurons, kind=kind, surrogate=surrogate))


@pytest.mark.parametrize("skew", ((1, 0), (0, 1), (2, 4), (4, 2)))
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_alignment(emulated, dtype, skew):
    for kind in KINDS:
        check(emulated, layer(5, 264, dtype, kind, skew=skew))


@pytest.mark.parametrize("k", (1, 2, 16, 17, 30))
def test_bands_of_every_width(emulated, k):
    for kind in KINDS[1:]:
        check(emulated, layer(20, 36, kind=kind, k=k))


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_groups(emulated, kind):
    for steps, groups, group in itertools.product((1, 5, 18), (2, 5), (33, 260)):
        check(emulated, layer(steps, groups * group, kind=kind, groups=groups))


def test_a_nan_stays_within_the_band(emulated):
    for kind in ("band", "sliding"):
        a = layer(20, 8, kind=kind)
        a.x[5] = a.grad[9] = torch.nan
        assert forward(emulated, a, True).isnan().any(1).nonzero().flatten().tolist() == [5, 6, 7]
        a.x[5] = 0
        assert backward(emulated, a)[0].isnan().any(1).nonzero().flatten().tolist() == [7, 8, 9]


def test_errors_name_what_is_missing(emulated):
    with pytest.raises(RuntimeError, match="float64"):
        forward(emulated, SimpleNamespace(**vars(layer()) | {"dtype": torch.float64}), False)
