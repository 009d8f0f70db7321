"""The degradation mixture and its gradients, against recorded numbers and an oracle in float64."""

import math

import degradation_oracle as oracle
import pytest
import torch
from degradation_oracle import EVERY, case, output_gradient, result_and_gradients
from oracle import close

import deal_kernels
from deal_kernels.degradation import DEAL_OPS, Mixture, apply, mixture, op
from deal_kernels.degradation.op import Settings

# The smallest images the blurs take, a trailing remainder for every factor, rows of many vectors, many rows.
SHAPES = (
    (2, 1, 23, 37), (1, 3, 5, 5), (2, 3, 13, 8), (1, 1, 7, 300), (1, 3, 290, 6), (1, 3, 10, 10), (1, 1, 10, 300),
    (1, 1, 290, 11),
)  # fmt: skip
SMALL = ((2, 1, 1, 1), (1, 3, 2, 9), (1, 1, 4, 2))
FITS_SMALL = (
    "identity", "contrast_0.5", "saturation_0.7", "sharpness_0.3", "posterize_5", "stripe", "gain", "noise", "row_gain",
    "tone", "dead", "glow", "shading", "partial_stripe", "quantise_3", "clip",
)  # fmt: skip
LEVELS = ("posterize", "quantise")
MOVES = [name for name in EVERY if not name.startswith(LEVELS)]
BACKENDS = [name for name, state in deal_kernels.info()["backends"].items() if state == "live"]


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


def check(ours, expected, tolerance):
    """Values to `tolerance`, gradients to five times that of the largest."""
    assert len(ours) == len(expected)
    for k, (one, other) in enumerate(zip(ours, expected, strict=True)):
        assert one.shape == other.shape and one.is_contiguous() and not one.isnan().any()
        limit = tolerance * (1 if k == 0 else 5) * max(1.0, other.abs().max().item())
        assert (one.cpu().double() - other).abs().max().item() <= limit, k


def check_case(arguments, ops, backend, tolerance, wanted=(True, True), exact=torch.float64, **options):
    ours = result_and_gradients(mixture, *arguments, wanted, backend=backend, **options)
    x, weights, ops, params = arguments
    x, weights, params = x.cpu().to(exact), weights.cpu().to(exact), {k: v.cpu().to(exact) for k, v in params.items()}
    options.pop("checkpoint", None)
    check(ours, result_and_gradients(oracle.mixture, x, weights, ops, params, wanted, **options), tolerance)


def arguments(shape, ops=EVERY, **options):
    x, weights, params = case(*shape, ops=ops, **options)
    return x, weights, ops, params


def fitting(ops, shape):
    least = lambda name: int(name[-1]) if "resize" in name else 10 if name == "wide_blur" else 0  # noqa: E731
    return [name for name in ops if least(name) <= min(shape[2:])]


def recorded_operations(recorded):
    for key in recorded:
        if key.endswith("_y"):
            name, channels, size, _ = key.rsplit("_", 3)
            yield name, f"{channels}_{size}"


def test_golden_operations(golden, backend, device):
    recorded = {name: tensor.to(device) for name, tensor in golden("degrade_ops.npz").items()}
    found = list(recorded_operations(recorded))
    assert len(found) > 60
    for name, image in found:
        x = recorded[f"x_{image}"].requires_grad_()
        y = apply(name, x, backend=backend)
        assert (y - recorded[f"{name}_{image}_y"]).abs().max() <= 1e-6, name
        (gradient,) = torch.autograd.grad(y, x, recorded[f"g_{image}"])
        assert close(gradient, recorded.get(f"{name}_{image}_gx", torch.zeros_like(x)), 1e-5), name


@pytest.mark.parametrize("channels", ["c1", "c3"])
def test_golden_mixture(golden, backend, device, channels):
    recorded = {
        key.removesuffix(f"_{channels}"): t.to(device)
        for key, t in golden("degrade_mixture.npz").items()
        if channels in key
    }
    x, weights = recorded["x"].requires_grad_(), recorded["a"].requires_grad_()
    params = {"gaussian_blur": recorded["sigma"], "stripe": recorded["columns"]}
    y = mixture(x, weights, DEAL_OPS, params, backend=backend)
    assert (y - recorded["y"]).abs().max() <= 1e-6
    grads = torch.autograd.grad(y, (x, weights), recorded["g"])
    assert close(grads[0], recorded["gx"], 1e-5) and close(grads[1], recorded["ga"], 1e-5)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_each_operation(backend, device, shape):
    for name in fitting(EVERY, shape):
        # The place of a pixel in another image has the rounding of a number as large as the image.
        tolerance = 2e-6 + 1.2e-7 * max(shape) * ("resize" in name)
        # A level that rounding has reached is one, so that the oracle has to round alike.
        exact = torch.float32 if name.startswith(LEVELS) else torch.float64
        check_case(arguments(shape, [name], stages=1, device=device), [name], backend, tolerance, exact=exact)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_all_operations_in_stages(backend, device, shape):
    check_case(arguments(shape, fitting(MOVES, shape), stages=3, device=device), None, backend, 4e-5)


def test_coarse_in_a_mixture(device):
    """Which has no kernels: its gradient against autograd of its definition."""
    ops = ["coarse_2", "stripe", "coarse_3"]
    x, weights, params = case(2, 3, 9, 14, ops=ops, dtype=torch.float64, device=device)
    ours = result_and_gradients(mixture, x, weights, ops, params)
    check(ours, result_and_gradients(oracle.mixture, x, weights, ops, params), 1e-12)
    half = mixture(x.half(), weights, ops, params)
    assert half.dtype == torch.float16 and (half.double() - ours[0]).abs().max() < 1e-2


@pytest.mark.parametrize("shape", SHAPES[:3], ids=str)
@pytest.mark.parametrize("straight_through", [False, True])
def test_in_double(shape, straight_through):
    given = arguments(shape, fitting(EVERY, shape), stages=3, dtype=torch.float64)
    for backend in ("cpp", "torch"):
        for wanted in ((True, True), (True, False), (False, True), (False, False)):
            check_case(given, None, backend, 1e-12, wanted, straight_through=straight_through)


@pytest.mark.parametrize("shape", SMALL, ids=str)
def test_small_images(backend, device, shape):
    check_case(arguments(shape, FITS_SMALL, device=device), None, backend, 2e-6, straight_through=True)


def test_gradcheck():
    x, weights, params = case(1, 3, 10, 11, ops=MOVES, stages=2, dtype=torch.float64)
    x, weights = x.requires_grad_(), weights.requires_grad_()
    for backend in ("cpp", "torch"):
        run = lambda x, weights, b=backend: mixture(x, weights, MOVES, params, backend=b)  # noqa: E731
        assert torch.autograd.gradcheck(run, (x, weights), fast_mode=True)


def test_only_the_gradients_that_are_wanted(backend, device):
    given = arguments((2, 3, 13, 18), device=device)
    both = result_and_gradients(mixture, *given, backend=backend)
    for k, wanted in enumerate(((True, False), (False, True)), 1):
        result, gradient = result_and_gradients(mixture, *given, wanted, backend=backend)
        assert torch.equal(result, both[0]) and torch.equal(gradient, both[k])
    assert torch.equal(mixture(*given, backend=backend), both[0])


def test_a_checkpoint_has_the_same_bits(backend, device):
    given = arguments((2, 1, 13, 18), stages=4, device=device)
    plain, again = (result_and_gradients(mixture, *given, backend=backend, checkpoint=c) for c in (False, True))
    assert all(torch.equal(one, other) for one, other in zip(plain, again, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_computed_in_float32(backend, device, dtype):
    """A stage is off by twice the rounding of an exact result at most, and reads what the one before it wrote."""
    x, weights, ops, params = arguments((2, 3, 14, 19), stages=3, dtype=dtype, device=device)
    settings = Settings(ops, False, backend)
    y, inputs = op.launch_forward(x, weights, list(params.values()), settings, True)
    read, written = [x, *inputs], [*inputs, y]
    exact = {name: value.cpu().double() for name, value in params.items()}
    for i, (one, other) in enumerate(zip(read, written, strict=True)):
        stage = {name: value[:, i : i + 1] for name, value in exact.items()}
        expected = oracle.mixture(one.cpu().double(), weights[:, i : i + 1].cpu().double(), ops, stage)
        rounding = (expected.to(dtype).double() - expected).abs().max().item()
        assert other.dtype == dtype and (other.cpu().double() - expected).abs().max().item() <= 2 * rounding


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gradients_of_halves(backend, device, dtype):
    """Of images that halves hold exactly, with what the stages read rounded alike by hand."""
    x, weights, ops, params = arguments((2, 1, 14, 19), MOVES, stages=3, dtype=dtype, device=device)
    _, of_x, of_weights = result_and_gradients(mixture, x, weights, ops, params, backend=backend)
    _, inputs = op.launch_forward(x, weights, list(params.values()), Settings(ops, False, backend), True)
    grad = output_gradient(x).cpu().double()
    for i in reversed(range(3)):
        read, share = ([x, *inputs][i].cpu().double(), weights[:, i : i + 1].cpu().double())
        read.requires_grad_(), share.requires_grad_()
        stage = {name: value[:, i : i + 1].cpu().double() for name, value in params.items()}
        grad, of_share = torch.autograd.grad(oracle.mixture(read, share, ops, stage), (read, share), grad)
        assert of_weights.dtype == torch.float32 and close(of_weights[:, i : i + 1].cpu().double(), of_share, 1e-5)
    rounding = (grad.to(dtype).double() - grad).abs().max()
    assert of_x.dtype == dtype and (of_x.cpu().double() - grad).abs().max() <= 2 * rounding


@pytest.mark.parametrize(
    "name", ["glow", "shading", "partial_stripe", "tone", "row_gain", "dead", "quantise_5", "clip"]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_bits_of_the_reference(device, name, dtype):
    """Operations on single pixels have the same bits on every backend, and so have their gradients."""
    backends = [each for each in BACKENDS if each not in ("cuda", "triton") or dtype != torch.float64]
    given = arguments((2, 3, 13, 37), [name], stages=1, dtype=dtype, device=device)
    results = [result_and_gradients(mixture, *given, backend=each) for each in backends]
    for found in results[1:]:
        assert torch.equal(found[0], results[0][0]) and torch.equal(found[1], results[0][1])


def laid_out(x, layout):
    if layout == "channels last":
        return x.contiguous(memory_format=torch.channels_last)
    if layout == "every second":
        return torch.stack([x, torch.full_like(x, torch.nan)], -1)[..., 0]
    return x.mT.contiguous().mT


@pytest.mark.parametrize("layout", ["channels last", "every second", "transposed"])
def test_any_layout(backend, device, layout):
    x, weights, ops, params = arguments((2, 3, 13, 18), device=device)
    plain = result_and_gradients(mixture, x, weights, ops, params, backend=backend)
    params = {
        name: value.mT.contiguous().mT if value.dim() > 2 else value.T.contiguous().T for name, value in params.items()
    }
    weights = weights.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    other = result_and_gradients(mixture, laid_out(x, layout), weights, ops, params, backend=backend)
    assert all(torch.equal(one, two) for one, two in zip(plain, other, strict=True))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "torch"])
def test_what_is_not_finite(backend, device, value):
    """It spreads as far as in torch, and so do its gradients."""
    for name in EVERY:
        x, weights, ops, params = arguments((1, 3, 20, 40), [name], stages=1, device=device)
        x[0, 1, 9, 17] = value
        ours, plain = (
            result_and_gradients(mixture, x, weights, ops, params, backend=b, straight_through=True)
            for b in (backend, "torch")
        )
        for one, other in zip(ours[:2], plain[:2], strict=True):
            assert torch.equal(one.isnan(), other.isnan()), name
            torch.testing.assert_close(one.nan_to_num(), other.nan_to_num(), rtol=1e-5, atol=1e-5)
        # A sum that meets infinities of both signs is NaN in one order and infinite in another.
        assert torch.equal(ours[2].isfinite(), plain[2].isfinite()), name


@pytest.mark.parametrize("shape", [(0, 3, 20, 20), (2, 1, 0, 20), (2, 3, 20, 0), (0, 1, 0, 0)])
def test_no_pixels(backend, device, shape):
    ops = EVERY if min(shape[2:]) > 0 else FITS_SMALL
    x, weights, params = case(*shape, ops=ops, device=device)
    result, of_x, of_weights = result_and_gradients(mixture, x, weights, ops, params, backend=backend)
    assert result.shape == of_x.shape == shape
    assert of_weights.shape == weights.shape and (of_weights == 0).all()


def test_many_operations_of_a_kind(backend, device):
    ops = [
        f"{kind}_{share}" for kind in ("contrast", "saturation", "sharpness") for share in (0, 0.1, 0.5, 0.9, 1, 1.2)
    ]
    ops += [f"max_pool_resize_{factor}" for factor in (2, 3, 4, 5)] + ["gaussian_blur", "gaussian_blur_0.8"]
    ops += ["stripe", "identity", "stripe", "average_pool_resize_5", "average_pool_resize_4", "bicubic_resize_4"]
    ops += ["noise", "noise", "row_stripe", "gain", "wide_blur", "wide_blur", "glow", "dead", "shading", "glow"]
    assert len(ops) >= 32
    for shape in ((2, 3, 17, 26), (1, 1, 19, 40)):
        check_case(arguments(shape, ops, stages=2, device=device), None, backend, 1e-5)


@pytest.mark.parametrize("scale", [0.0, -1.0, 100.0])
def test_weights_need_not_be_shares(backend, device, scale):
    x, weights, ops, params = arguments((1, 1, 13, 18), MOVES, stages=1, device=device)
    check_case((x, weights * scale, ops, params), None, backend, 1e-5)


def test_weights_that_are_not_finite(backend, device):
    x, weights, ops, params = arguments((2, 1, 13, 18), stages=2, device=device)
    weights[1, 0, 3] = math.nan
    y = mixture(x, weights, ops, params, backend=backend)
    assert y[1].isnan().any() and not y[0].isnan().any()


def test_samples_do_not_see_each_other(backend, device):
    x, weights, ops, params = arguments((3, 1, 30, 41), device=device)
    together = result_and_gradients(mixture, x, weights, ops, params, backend=backend)
    for b in range(3):
        own = {name: value[b : b + 1] for name, value in params.items()}
        x_b, weights_b = (t[b : b + 1].detach().clone().requires_grad_() for t in (x, weights))
        y = mixture(x_b, weights_b, ops, own, backend=backend)
        assert torch.equal(y, together[0][b : b + 1])


def test_bits_do_not_depend_on_the_threads():
    before = torch.get_num_threads()
    for shape in ((1, 1, 301, 270), (1, 3, 77, 300), (3, 1, 64, 64), (5, 3, 33, 40)):
        given, results = arguments(shape), []
        try:
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                results.append(result_and_gradients(mixture, *given, backend="cpp"))
        finally:
            torch.set_num_threads(before)
        for other in results[1:]:
            assert all(torch.equal(one, two) for one, two in zip(results[0], other, strict=True))


def test_apply_is_a_stage_of_one_operation(backend, device):
    for name in EVERY:
        x, _, _, params = arguments((2, 3, 13, 18), [name], stages=1, device=device)
        weights = torch.ones(2, 1, 1, device=device)
        values = params[name][:, 0] if params else None
        assert torch.equal(
            apply(name, x, values, backend=backend), mixture(x, weights, [name], params, backend=backend)
        )


def test_module(backend, device):
    x, weights, ops, params = arguments((2, 1, 13, 18), DEAL_OPS, device=device)
    layer = Mixture(DEAL_OPS, straight_through=True, checkpoint=True, backend=backend)
    expected = result_and_gradients(mixture, x, weights, ops, params, straight_through=True, backend=backend)
    ours = result_and_gradients(lambda x, w, ops, p: layer(x, w, p), x, weights, ops, params)
    assert all(torch.equal(one, other) for one, other in zip(ours, expected, strict=True))
    assert "posterize_5, gaussian_blur" in repr(layer) and not list(layer.parameters())
    torch.manual_seed(3)
    first, second = layer(x, weights), layer(x, weights)
    assert first.shape == x.shape and not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(layer(x, weights), first)
    plain = Mixture(["identity", "contrast_0.5"], backend=backend)
    assert torch.equal(plain(x, weights[..., :2]), mixture(x, weights[..., :2], plain.ops, backend=backend))
