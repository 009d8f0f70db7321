"""The CUDA batch norm's own source, run on a CPU, against the CPU kernels and sums in float64."""

import contextlib
from types import SimpleNamespace

import pytest
import torch
from cuda_emulation import HALVES, Compiled, Emulated, GuardedTensors, installed, library

from deal_kernels import backend
from deal_kernels._common import neuron, types
from deal_kernels.lif import op as lif_op
from deal_kernels.tdbn import tdbn_lif

PLANES = ((1, 1, 1, 1), (4, 2, 3, 64), (3, 5, 7, 49), (2, 3, 40, 4), (1, 5, 1, 5000), (2, 3, 2, 4104))
COLUMNS = ((2, 3, 5, 1), (1, 1, 8, 1), (4, 33, 64, 1), (2, 100, 136, 1), (3, 7, 131, 1), (4, 1300, 1, 1))
SHAPES = PLANES + COLUMNS  # steps, rows, channels, inner

compiled = Compiled(pytest.importorskip("deal_kernels._C", reason="the extension is not built"))


@pytest.fixture(scope="module")
def emulated():
    return Emulated(library())


def tensors(shape, dtype=torch.float32, *, offset=0.3, gap=0, skew=(0, 0)):
    """Random tensors; the steps of x have `gap` elements between them."""
    random = torch.Generator().manual_seed(sum(shape))
    steps, rows, channels, inner = shape
    placed = GuardedTensors(skew)

    def normal():
        return torch.randn(shape, generator=random) * 1.5

    def by_channel():
        return placed.place(torch.rand(channels, generator=random) + 0.5, 0)

    memory = placed.place(torch.zeros(steps, rows * channels * inner + gap, dtype=dtype))
    x = memory[:, : rows * channels * inner].unflatten(1, shape[1:])
    x.copy_(normal() + offset)
    return SimpleNamespace(
        shape=shape, dtype=dtype, tensors=placed, x=x, grad=placed.place(normal().to(dtype)), mean=by_channel(),
        factors=[by_channel(), by_channel(), by_channel()],
    )  # fmt: skip


def inputs(a):
    """The fields that every kernel has."""
    steps, rows, channels, inner = a.shape
    return {
        "dtype": a.dtype, "steps": steps, "neurons": rows * channels * inner, "time_stride": a.x.stride(0),
        "channels": channels, "inner": inner, "x": a.x,
    }  # fmt: skip


def run(kernels, kernel, a, **tensors):
    kernels.run(kernel, **inputs(a), **tensors)
    a.tensors.check()


def moments(kernels, a):
    mean, variance = a.tensors.result(a.shape[2]), a.tensors.result(a.shape[2])
    run(kernels, "tdbn_moments", a, mean=mean, variance=variance)
    return mean, variance


def check_moments(kernels, a):
    mean, variance = moments(kernels, a)
    x = a.x.double()
    expected_variance, expected_mean = torch.var_mean(x, (0, 1, 3), correction=0)
    scale = expected_variance.sqrt().max().item()
    torch.testing.assert_close(mean.double(), expected_mean, rtol=2e-7, atol=1e-6 * scale)
    torch.testing.assert_close(variance.double(), expected_variance, rtol=1e-5, atol=0)


def check_sums(kernels, a):
    sums = a.tensors.result(2, a.shape[2])
    run(kernels, "tdbn_gradient_sums", a, grad=a.grad, mean=a.mean, sums=sums)
    grad = a.grad.double()
    products = grad * (a.x.double() - a.mean.double()[:, None])
    for ours, terms in zip(sums.double(), (grad, products), strict=True):
        error = (ours - terms.sum((0, 1, 3))).abs()
        assert (error <= 2e-7 * terms.abs().sum((0, 1, 3))).all(), error


def check_elements(kernels, a, in_place):
    out, expected = a.tensors.result(*a.shape, dtype=a.dtype), torch.empty(a.shape, dtype=a.dtype)
    parameters = {"mean": a.mean, "scale": a.factors[0], "shift": a.factors[1]}
    run(kernels, "tdbn_normalise", a, **parameters, out=out)
    run(compiled, "tdbn_normalise", a, **parameters, out=expected)
    assert torch.equal(out, expected)

    direct, by_variance, by_mean = a.factors
    parameters = {"grad": a.grad, "mean": a.mean, "direct": direct, "by_variance": by_variance, "by_mean": by_mean}
    run(compiled, "tdbn_gradient", a, **parameters, out=expected)
    out = a.grad if in_place else out
    run(kernels, "tdbn_gradient", a, **parameters, out=out)
    assert torch.equal(out, expected)


@pytest.mark.parametrize("gap", (0, 16, 3))
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_channels(emulated, dtype, shape, gap):
    a = tensors(shape, dtype, gap=gap)
    check_moments(emulated, a)
    check_sums(emulated, a)
    check_elements(emulated, a, in_place=gap > 0)


@pytest.mark.parametrize("skew", ((1, 0), (0, 1), (4, 2), (2, 4)))
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_alignment(emulated, dtype, skew):
    for shape in ((2, 3, 4, 16), (2, 30, 16, 1)):
        a = tensors(shape, dtype, skew=skew)
        check_moments(emulated, a)
        check_sums(emulated, a)
        check_elements(emulated, a, in_place=False)


@pytest.mark.parametrize("channels", (1, 5, 128, 300))
def test_values_of_channels(emulated, channels):
    placed = GuardedTensors()
    random = torch.Generator().manual_seed(channels)

    def positive(*shape):
        return placed.place(torch.rand(*shape, channels, generator=random) + 0.5)

    scale = {"eps": 1e-5, "correction": 1.25, "variance": positive(), "weight": positive()}
    factors = {
        "share": -0.01, "sums": positive(2), "own": positive(2), "weight": positive(), "inverse": positive(),
    }  # fmt: skip
    for kernel, rows, fields in (("tdbn_scale", 3, scale), ("tdbn_factors", 4, factors)):
        ours, expected = (placed.result(rows, channels) for _ in range(2))
        for kernels, out in ((emulated, ours), (compiled, expected)):
            kernels.run(kernel, dtype=torch.float32, channels=channels, out=out, **fields)
        assert torch.equal(ours, expected)
    placed.check()


@pytest.mark.parametrize("shape", ((1, 2, 3, 5), (1, 4, 3, 8), (4, 8, 4, 256), (4, 130, 12, 1), (1, 3, 1, 20000)))
def test_a_mean_far_from_zero(emulated, shape):
    check_moments(emulated, tensors(shape, offset=1e4))


@pytest.mark.parametrize("place", (0, 5))
def test_a_value_far_from_all_others(emulated, place):
    a = tensors((2, 8, 3, 128), offset=1e4)
    a.x.view(-1)[place] = 0
    check_moments(emulated, a)


def slices(emulated, steps, rows, channels, inner):
    """How many slices there are of a tensor of this shape, which need not exist."""
    call = emulated.make(
        "TdbnMoments", dtype=torch.float32, steps=steps, neurons=rows * channels * inner,
        time_stride=rows * channels * inner, channels=channels, inner=inner, x=0, mean=0, variance=0,
    )  # fmt: skip
    return emulated.module.cuda.workspace(call) // (4 * 3 * channels)


@pytest.mark.parametrize(
    ("shape", "values", "together"),
    [
        ((4, 32, 64, 1024), 4096, 1), ((4, 64, 128, 1024), 16384, 1), ((4, 256, 256, 1024), 32768, 1),
        ((4, 256, 64, 16), 4096, 8), ((1, 65536, 512, 1), 16384, 128), ((2, 8, 3, 64), 4096, 2),
    ],
)  # fmt: skip
def test_slices_are_long_where_enough_blocks_remain(emulated, shape, values, together):
    steps, rows, _, inner = shape
    assert slices(emulated, *shape) == max(steps * rows * inner * together // values, 1)


def test_slices_grow_where_they_would_be_too_many(emulated):
    assert slices(emulated, 1, 330000, 100, 1) <= 2048
    check_moments(emulated, tensors((1, 33000, 100, 1)))


def test_nan_stays_in_its_channel(emulated):
    for inner in (1, 8):
        a = tensors((2, 9, 8, inner))
        a.x[1, 4, 3] = float("nan")
        mean, variance = moments(emulated, a)
        assert mean.isnan().tolist() == variance.isnan().tolist() == [channel == 3 for channel in range(8)]


@pytest.fixture
def as_cuda(emulated, monkeypatch):
    """Makes the emulated kernels the backend of tensors on the CPU."""
    caches = types.compiled_dtype, neuron._known, lif_op._compiled_output
    monkeypatch.setattr(backend, "_loaded", lambda: (emulated.module, None))
    monkeypatch.setattr(backend, "choose", lambda *_: "cuda")
    monkeypatch.setattr(torch.cuda, "device_of", contextlib.nullcontext)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=0))
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


def training_step(size):
    random = torch.Generator().manual_seed(1)
    x = torch.randn(4, 3, 5, *size, generator=random).requires_grad_()
    weight, bias = (torch.rand(5, generator=random).requires_grad_() for _ in range(2))
    spikes = tdbn_lif(x, weight, bias, training=True, surrogate="atan")
    return spikes, *torch.autograd.grad(spikes, (x, weight, bias), torch.randn(x.shape, generator=random))


@pytest.mark.parametrize("size", ((4, 4), (3, 5)), ids=("sums by channel", "sums by neuron"))
def test_a_training_step_through_torch(size, request):
    expected = training_step(size)
    request.getfixturevalue("as_cuda")
    for ours, theirs in zip(training_step(size), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_errors_name_what_is_missing(emulated):
    a = tensors((1, 1, 1, 1))
    a.dtype = torch.float64
    with pytest.raises(RuntimeError, match="float64"):
        moments(emulated, a)
    a = tensors((1, 1, 1, 1))
    with installed(emulated.module, image=False), pytest.raises(RuntimeError, match="no kernel image"):
        run(emulated, "tdbn_normalise", a, mean=a.mean, scale=a.mean, shift=a.mean, out=a.grad)
