"""Convolution and its gradients on every backend, against an oracle in float64."""

import math

import conv_oracle as oracle
import pytest
import torch
from conftest import BACKENDS
from conv_oracle import distance, gradients, tensors

from deal_kernels.conv import conv2d, cost, op


@pytest.fixture(params=[name for name in BACKENDS if name in ("cpp", "torch")])
def backend(request):
    return request.param


# x, weight, and how they meet. Sizes of one tile and of many, with and without a remainder.
GEOMETRIES = {
    "3x3": ((2, 32, 20, 30), (32, 32, 3, 3), {"padding": 1}),
    "5x5": ((1, 16, 41, 33), (24, 16, 5, 5), {"padding": 2, "padding_mode": "reflect"}),
    "7x7": ((1, 8, 70, 65), (16, 8, 7, 7), {"padding": 3, "padding_mode": "replicate"}),
    "11x11": ((2, 32, 50, 60), (32, 32, 11, 11), {"padding": 5, "padding_mode": "reflect"}),
    "15x15": ((1, 4, 40, 45), (4, 4, 15, 15), {"padding": 7, "padding_mode": "zeros"}),
    "21x21": ((1, 3, 40, 45), (5, 3, 21, 21), {"padding": 10, "padding_mode": "replicate"}),
    "1x1": ((2, 7, 13, 9), (5, 7, 1, 1), {}),
    "valid": ((1, 6, 30, 31), (5, 6, 7, 5), {"padding": "valid"}),
    "same, even": ((1, 3, 24, 25), (4, 3, 4, 6), {"padding": "same", "padding_mode": "reflect"}),
    "same, even, dilated": ((1, 3, 24, 25), (4, 3, 2, 4), {"padding": "same", "dilation": (3, 2)}),
    "one value": ((1, 3, 5, 7), (2, 3, 5, 7), {}),
    "one pixel": ((3, 2, 1, 1), (4, 2, 3, 3), {"padding": 1}),
    "a row": ((1, 16, 1, 90), (16, 16, 1, 9), {"padding": (0, 4), "padding_mode": "reflect"}),
    "a column": ((1, 5, 90, 1), (3, 5, 9, 1), {"padding": (4, 0), "padding_mode": "reflect"}),
    "flat kernel": ((1, 16, 9, 70), (16, 16, 3, 11), {"padding": (1, 5)}),
    "dilated": ((1, 32, 45, 50), (32, 32, 5, 5), {"padding": 4, "dilation": 2, "padding_mode": "reflect"}),
    "dilated, 11x11": ((1, 16, 61, 50), (16, 16, 11, 11), {"padding": 10, "dilation": 2, "padding_mode": "zeros"}),
    "dilated by 3 and 1": ((2, 3, 31, 28), (2, 3, 3, 7), {"padding": (3, 3), "dilation": (3, 1)}),
    "dilated beyond the image": ((1, 2, 6, 6), (2, 2, 3, 3), {"padding": 9, "dilation": 9}),
    "wide padding": ((1, 2, 5, 6), (3, 2, 3, 3), {"padding": (7, 9), "padding_mode": "replicate"}),
    "wide zeros": ((1, 2, 5, 6), (3, 2, 3, 3), {"padding": (7, 9)}),
    "the widest reflection": ((1, 2, 5, 6), (3, 2, 3, 3), {"padding": (4, 5), "padding_mode": "reflect"}),
    "one channel": ((1, 1, 40, 40), (1, 1, 7, 7), {"padding": 3}),
    "odd channels": ((1, 33, 20, 22), (17, 33, 5, 5), {"padding": 2}),
    "many channels": ((1, 80, 16, 16), (70, 80, 5, 5), {"padding": 2}),
    "unbatched": ((16, 30, 40), (8, 16, 7, 7), {"padding": 3}),
}
EXTRAS = {
    "plain": (),
    "bias": ("bias",),
    "bias and relu": ("bias", "activation"),
    "residual": ("residual",),
    "everything": ("bias", "residual", "activation"),
}


def arguments(x, weight, bias, residual, extras, options):
    """The leaves, and the call's keywords."""
    leaves = [x, weight]
    leaves += [bias] if "bias" in extras else []
    leaves += [residual] if "residual" in extras else []
    options = dict(options, activation="relu" if "activation" in extras else None)
    return leaves, options


def call(function, leaves, extras, options):
    x, weight, *rest = leaves
    given = dict(zip([name for name in ("bias", "residual") if name in extras], rest, strict=True))
    return function(x, weight, **given, **options)


def check(drawn, extras, backend, tolerance=None, **geometry):
    """The result to `tolerance`, and gradients to twice of it."""
    tolerance = tolerance or (
        1e-6 if backend == "cpp" else 4e-6
    )  # torch's sums over a large kernel are as good as that
    leaves, options = arguments(*drawn, extras, geometry)
    exact = [leaf.detach().cpu().double().requires_grad_() for leaf in leaves]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    expected = call(oracle.conv2d, exact, extras, options)
    y = call(conv2d, leaves, extras, dict(options, backend=backend))
    assert y.shape == expected.shape and y.dtype == leaves[0].dtype
    assert distance(y, expected) <= tolerance
    with torch.no_grad():
        assert torch.equal(call(conv2d, leaves, extras, dict(options, backend=backend)), y)
        # Within rounding of the kink either slope is right.
        slope = call(oracle.conv2d, exact, extras, dict(options, activation=None)).abs() > 1e-3
    found = gradients(y * slope.to(y), leaves)
    for one, other in zip(found, gradients(expected * slope, exact), strict=True):
        assert one.shape == other.shape and distance(one, other) <= 2 * tolerance


@pytest.mark.parametrize("extras", ["plain", "everything"])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_geometries(backend, name, extras):
    x, weight, geometry = GEOMETRIES[name]
    check(tensors(x, weight, **geometry), EXTRAS[extras], backend, **geometry)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate"])
@pytest.mark.parametrize("channels", [(1, 32), (32, 1), (33, 17), (48, 40)], ids=str)
@pytest.mark.parametrize("dilation", [1, 2])
def test_three_by_three_channels_last(dilation, channels, mode, monkeypatch):
    """Which has a transform of its own."""
    inputs, outputs = channels
    geometry = {"padding": (2, 1), "padding_mode": mode, "dilation": dilation}
    x, weight, *rest = tensors((2, inputs, 21, 26), (outputs, inputs, 3, 3), **geometry)
    x = x.permute(0, 2, 3, 1).flatten().view(2, 21, 26, inputs).permute(0, 3, 1, 2)
    assert op.is_channels_last(x) and cost.WINOGRAD in cost.tiles(weight.shape, False, True)
    monkeypatch.setattr(cost, "tiles", lambda weight, trains, last: [16 if trains else cost.WINOGRAD])
    check((x, weight, *rest), EXTRAS["everything"], "cpp", **geometry)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate"])
@pytest.mark.parametrize("extras", EXTRAS)
def test_extras(backend, extras, mode):
    geometry = {"padding": (3, 2), "padding_mode": mode}
    check(tensors((2, 12, 35, 40), (20, 12, 7, 5), **geometry), EXTRAS[extras], backend, **geometry)


def test_in_double():
    for extras in EXTRAS.values():
        geometry = {"padding": 2, "padding_mode": "reflect"}
        drawn = tensors((2, 3, 12, 15), (4, 3, 5, 5), dtype=torch.float64, **geometry)
        check(drawn, extras, None, 1e-14, **geometry)


def test_the_engine_against_finite_differences(backend):
    """A convolution is linear in each of its tensors, so that differences are exact but for rounding."""
    x, weight, bias, _ = tensors((1, 3, 20, 21), (4, 3, 7, 7), padding=3)
    y = conv2d(x.requires_grad_(), weight.requires_grad_(), bias, padding=3, padding_mode="reflect", backend=backend)
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(3))
    for leaf, gradient in zip((x, weight), torch.autograd.grad(y, (x, weight), grad), strict=True):
        step = torch.randn(leaf.shape, generator=torch.Generator().manual_seed(4))
        moved = [tensor + step if tensor is leaf else tensor for tensor in (x, weight)]
        with torch.no_grad():
            change = conv2d(*moved, bias, padding=3, padding_mode="reflect", backend=backend) - y
        expected = (change.double() * grad).sum().item()
        assert (gradient.double() * step).sum().item() == pytest.approx(expected, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("parameters", ["half", "float32"])
@pytest.mark.parametrize("mode", ["zeros", "reflect"])
def test_half_types(backend, dtype, parameters, mode):
    geometry = {"padding": 3, "padding_mode": mode}
    x, weight, bias, residual = tensors((2, 20, 30, 28), (16, 20, 7, 7), **geometry)
    kind = dtype if parameters == "half" else torch.float32
    drawn = x.to(dtype), weight.to(kind), bias.to(kind), residual.to(dtype)
    # The engine rounds once; torch before each addition too.
    tolerance = torch.finfo(dtype).eps * (1 if backend == "cpp" else 2)
    for extras in ("plain", "everything"):
        check(drawn, EXTRAS[extras], backend, tolerance, **geometry)


def test_half_types_are_computed_in_float32():
    """And rounded once."""
    x, weight, bias, residual = (t.bfloat16() for t in tensors((1, 8, 30, 28), (8, 8, 7, 7), padding=3))
    options = {"padding": 3, "activation": "relu", "backend": "cpp"}
    single = conv2d(x.float(), weight.float(), bias.float(), residual=residual.float(), **options)
    assert torch.equal(conv2d(x, weight, bias, residual=residual, **options), single.bfloat16())


def laid_out(x, layout):
    if layout == "channels last":
        return x.contiguous(memory_format=torch.channels_last)
    if layout == "every second":
        return torch.stack([x, torch.full_like(x, math.nan)], -1)[..., 0]
    if layout == "a window":
        return torch.nn.functional.pad(x, (1, 2, 3, 4), value=math.nan)[..., 3:-4, 1:-2]
    if layout == "expanded":
        return x[:, :1].expand_as(x)
    return x.mT.contiguous().mT


@pytest.mark.parametrize("layout", ["channels last", "every second", "transposed", "a window", "expanded"])
def test_any_layout(backend, layout):
    for channels in (16, 5):
        x, weight, bias, residual = tensors((2, channels, 30, 41), (channels, channels, 5, 5), padding=2)
        x, residual = (laid_out(tensor, layout) for tensor in (x, residual))
        leaves = [leaf.requires_grad_() for leaf in (x, weight, bias, residual)]
        plain = [leaf.detach().contiguous().requires_grad_() for leaf in leaves]
        options = {"padding": 2, "activation": "relu", "backend": backend}
        y, expected = (call(conv2d, each, EXTRAS["everything"], options) for each in (leaves, plain))
        last = layout == "channels last"
        assert y.is_contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
        assert distance(y, expected) <= 1e-6
        for one, other in zip(gradients(y, leaves), gradients(expected, plain), strict=True):
            assert distance(one, other) <= 2e-6
        if backend == "cpp":
            assert torch.equal(y, expected)


def test_a_window_of_the_result_may_be_the_residual(backend):
    x, weight, _, _ = tensors((1, 8, 20, 20), (8, 8, 5, 5), padding=2)
    same = conv2d(x, weight, padding=2, residual=x, backend=backend)
    assert distance(same, oracle.conv2d(x, weight, residual=x, padding=2).double()) <= 1e-6


@pytest.mark.parametrize("wanted", [(k,) for k in range(4)] + [(0, 1), (1, 2), (0, 3), (1, 3)], ids=str)
@pytest.mark.parametrize("activation", [None, "relu"])
def test_only_the_gradients_that_are_wanted(backend, wanted, activation):
    drawn = tensors((2, 8, 20, 21), (12, 8, 7, 7), padding=3)
    options = {"padding": 3, "padding_mode": "reflect", "activation": activation, "backend": backend}

    def found(which):
        leaves = [tensor.detach().requires_grad_(k in which) for k, tensor in enumerate(drawn)]
        y = call(conv2d, leaves, ("bias", "residual"), options)
        return dict(zip(which, gradients(y, [leaves[k] for k in which]), strict=True))

    everything = found(range(4))
    for k, gradient in found(wanted).items():
        assert torch.equal(gradient, everything[k])


def test_an_empty_batch(backend):
    shape = 0, 8, 20, 21
    weight, bias = torch.randn(4, 8, 5, 5, requires_grad=True), torch.randn(4, requires_grad=True)
    x = torch.zeros(shape, requires_grad=True)
    y = conv2d(x, weight, bias, padding=3, activation="relu", backend=backend)
    assert y.shape == (0, 4, shape[2] + 2, shape[3] + 2)
    of_x, of_weight, of_bias = torch.autograd.grad(y.sum(), (x, weight, bias))
    assert of_x.shape == shape
    assert torch.equal(of_weight, torch.zeros_like(weight)) and torch.equal(of_bias, torch.zeros_like(bias))


@pytest.mark.skipif("cpp" not in BACKENDS, reason="torch pads in memory")
@pytest.mark.parametrize("mode", ["zeros", "replicate"])
def test_a_dilation_far_beyond_the_image(mode):
    """Every pixel under the kernel but the middle one lies outside, as at the least distance beyond the image."""
    x, weight = torch.randn(2, 3, 9, 7), torch.randn(4, 3, 3, 3)
    options = {"padding": "same", "padding_mode": mode, "backend": "cpp"}
    torch.testing.assert_close(
        conv2d(x, weight, dilation=10**9, **options), conv2d(x, weight, dilation=9, **options)
    )  # fmt: skip


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dilation", [1, 2])
def test_what_is_not_finite_spreads_over_its_tiles_at_most(backend, value, dilation):
    x, weight, bias, _ = tensors((2, 8, 150, 160), (8, 8, 7, 7))
    options = {"padding": 3 * dilation, "dilation": dilation, "backend": backend}
    expected = conv2d(x, weight, bias, **options)
    x[0, 3, 70, 80] = value
    y = conv2d(x, weight, bias, **options)
    assert not y[0, :, 70, 80].isfinite().any()
    assert torch.equal(y[1], expected[1])  # another image
    far = torch.ones(150, 160, dtype=torch.bool)
    reach = 31 * dilation
    far[70 - reach : 70 + reach + 1, 80 - reach : 80 + reach + 1] = False
    assert torch.equal(y[0][:, far], expected[0][:, far])
    if dilation == 2:
        assert torch.equal(y[0][:, 1::2], expected[0][:, 1::2])  # another phase


def test_nan_passes_the_activation(backend):
    x, weight, bias, _ = tensors((1, 4, 20, 20), (4, 4, 3, 3))
    bias[1] = math.nan
    y = conv2d(x.requires_grad_(), weight, bias, padding=1, activation="relu", backend=backend)
    assert y[:, 1].isnan().all() and not y[:, [0, 2, 3]].isnan().any()
    (grad,) = torch.autograd.grad(y, x, torch.ones_like(y))
    assert not grad.isnan().any()


def test_negative_zero_and_large_values(backend):
    x, weight, _, _ = tensors((1, 4, 20, 20), (4, 4, 5, 5))
    for scale in (1e-18, 1e18):
        y = conv2d(x * scale, weight, padding=2, backend=backend)
        assert distance(y, oracle.conv2d(x.double() * scale, weight.double(), padding=2)) <= 1e-6
    assert torch.equal(conv2d(-x * 0, weight, backend=backend).abs(), torch.zeros(1, 4, 16, 16))


def test_the_identity(backend):
    """A kernel with a single one gives the image back, at every offset."""
    x = torch.randn(1, 8, 40, 37, generator=torch.Generator().manual_seed(0))
    for i, j in ((0, 0), (3, 2), (6, 4), (2, 4)):
        weight = torch.zeros(8, 8, 7, 5)
        weight[range(8), range(8), i, j] = 1
        y = conv2d(x, weight, backend=backend)
        assert (y - x[..., i : i + 34, j : j + 33]).abs().max() <= 2e-6


def test_bits_do_not_depend_on_the_threads():
    before, results = torch.get_num_threads(), []
    drawn = tensors((3, 32, 120, 90), (24, 32, 7, 7))
    try:
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            leaves = [tensor.detach().requires_grad_() for tensor in drawn[:3]]
            y = conv2d(*leaves, padding=3, padding_mode="reflect", activation="relu", backend=None)
            results.append((y.detach(), *gradients(y, leaves)))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(one, two) for one, two in zip(results[0], other, strict=True))


def test_same_input_same_bits_wherever_it_is_in_the_batch():
    x, weight, bias, _ = tensors((5, 16, 50, 40), (16, 16, 7, 7))
    together = conv2d(x, weight, bias, padding=3, backend=None)
    for k in range(5):
        assert torch.equal(conv2d(x[k], weight, bias, padding=3, backend=None), together[k])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu():
    for name in ("3x3", "5x5", "same, even", "dilated"):
        x, weight, geometry = GEOMETRIES[name]
        with torch.backends.cudnn.flags(allow_tf32=False):
            check(tensors(x, weight, device="cuda", **geometry), EXTRAS["everything"], None, **geometry)
