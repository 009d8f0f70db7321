"""The CUDA batch norm's own source, run on a CPU, against the CPU kernels and sums in float64."""

from types import SimpleNamespace

import pytest
import torch
from cuda_emulation import DTYPES, Rooms, address, integers, library, run

HALVES = list(DTYPES)[:3]
PLANES = ((1, 1, 1, 1), (4, 2, 3, 64), (3, 5, 7, 49), (2, 3, 40, 4), (1, 5, 1, 5000), (2, 3, 2, 4104))
COLUMNS = ((2, 3, 5, 1), (1, 1, 8, 1), (4, 33, 64, 1), (2, 100, 136, 1), (3, 7, 131, 1), (4, 1300, 1, 1))
SHAPES = PLANES + COLUMNS  # steps, rows, channels, inner

compiled = pytest.importorskip("deal_kernels._C", reason="the extension is not built")


@pytest.fixture(scope="module")
def emulated():
    return library()


def tensors(shape, dtype=torch.float32, *, offset=0.3, gap=0, skew=(0, 0)):
    """Random tensors; the steps of x have `gap` elements between them."""
    random = torch.Generator().manual_seed(sum(shape))
    steps, rows, channels, inner = shape
    rooms = Rooms(skew)

    def normal():
        return torch.randn(shape, generator=random) * 1.5

    def by_channel():
        return rooms.place(torch.rand(channels, generator=random) + 0.5, 0)

    room = rooms.place(torch.zeros(steps, rows * channels * inner + gap, dtype=dtype))
    x = room[:, : rows * channels * inner].unflatten(1, shape[1:])
    x.copy_(normal() + offset)
    return SimpleNamespace(
        shape=shape, dtype=dtype, rooms=rooms, x=x, grad=rooms.place(normal().to(dtype)), mean=by_channel(),
        factors=[by_channel(), by_channel(), by_channel()],
    )  # fmt: skip


def numbers(a):
    steps, rows, channels, inner = a.shape
    neurons = rows * channels * inner
    return DTYPES[a.dtype], steps, neurons, a.x.stride(0), channels, inner, address(a.x)


def workspace(kernels, shape):
    steps, rows, channels, inner = shape
    return kernels.channel_workspace(integers(steps, rows * channels * inner, channels, inner))


def emulate(kernels, name, a, *tensors, device=0):
    """Runs a kernel with the workspace that it asks for, if it takes one."""
    addresses = [*map(address, tensors)]
    if name in ("channel_moments", "channel_gradient_sums"):
        addresses.append(address(a.rooms.result(workspace(kernels, a.shape))))
    run(getattr(kernels, name), integers(*numbers(a), *addresses, device))
    a.rooms.check()


def run_compiled(name, a, *tensors):
    getattr(compiled, name)(*numbers(a), *map(address, tensors), 1)


def moments(kernels, a):
    mean, variance = a.rooms.result(a.shape[2]), a.rooms.result(a.shape[2])
    emulate(kernels, "channel_moments", a, mean, variance)
    return mean, variance


def check_moments(kernels, a):
    mean, variance = moments(kernels, a)
    x = a.x.double()
    expected_variance, expected_mean = torch.var_mean(x, (0, 1, 3), correction=0)
    scale = expected_variance.sqrt().max().item()
    torch.testing.assert_close(mean.double(), expected_mean, rtol=2e-7, atol=1e-6 * scale)
    torch.testing.assert_close(variance.double(), expected_variance, rtol=1e-5, atol=0)


def check_sums(kernels, a):
    sums = a.rooms.result(2, a.shape[2])
    emulate(kernels, "channel_gradient_sums", a, a.grad, a.mean, sums)
    grad = a.grad.double()
    products = grad * (a.x.double() - a.mean.double()[:, None])
    for ours, terms in zip(sums.double(), (grad, products), strict=True):
        error = (ours - terms.sum((0, 1, 3))).abs()
        assert (error <= 2e-7 * terms.abs().sum((0, 1, 3))).all(), error


def check_elements(kernels, a, in_place):
    out, expected = a.rooms.result(*a.shape, dtype=a.dtype), torch.empty(a.shape, dtype=a.dtype)
    parameters = a.mean, *a.factors[:2]
    emulate(kernels, "channel_normalise", a, *parameters, out)
    run_compiled("channel_normalise", a, *parameters, expected)
    assert torch.equal(out, expected)

    parameters = a.mean, *a.factors
    run_compiled("channel_gradient", a, a.grad, *parameters, expected)
    out = a.grad if in_place else out
    emulate(kernels, "channel_gradient", a, a.grad, *parameters, out)
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


@pytest.mark.parametrize("shape", ((1, 2, 3, 5), (1, 4, 3, 8), (4, 8, 4, 256), (4, 130, 12, 1), (1, 3, 1, 20000)))
def test_a_mean_far_from_zero(emulated, shape):
    check_moments(emulated, tensors(shape, offset=1e4))


@pytest.mark.parametrize("place", (0, 5))
def test_a_value_far_from_all_others(emulated, place):
    a = tensors((2, 8, 3, 128), offset=1e4)
    a.x.view(-1)[place] = 0
    check_moments(emulated, a)


def test_slices_grow_where_they_would_be_too_many(emulated):
    shape = (1, 33000, 100, 1)
    assert workspace(emulated, shape) <= 3 * 100 * 1024
    check_moments(emulated, tensors(shape))


def test_nan_stays_in_its_channel(emulated):
    for inner in (1, 8):
        a = tensors((2, 9, 8, inner))
        a.x[1, 4, 3] = float("nan")
        mean, variance = moments(emulated, a)
        assert mean.isnan().tolist() == variance.isnan().tolist() == [channel == 3 for channel in range(8)]


def test_errors_name_what_is_missing(emulated):
    a = tensors((1, 1, 1, 1))
    a.dtype = torch.float64
    with pytest.raises(RuntimeError, match="float64"):
        moments(emulated, a)
    a = tensors((1, 1, 1, 1))
    with pytest.raises(RuntimeError, match="invalid device"):
        emulate(emulated, "channel_normalise", a, a.mean, *a.factors[:2], a.grad, device=5)
