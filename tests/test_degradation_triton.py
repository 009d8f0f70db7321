"""The Triton mixture against an oracle in float64 and the reference, and what its kernels compile to."""

import math

import pytest
import torch
from degradation_oracle import EVERY, RANDOM, case, output_gradient, result_and_gradients
from degradation_oracle import mixture as oracle
from oracle import close
from triton_testing import (
    DEVICE,
    HALVES,
    INEXACT,
    ROUNDING,
    Recorder,
    compile_for,
    compiles,
    exact_ptx,
    interpreted,
    resources,
    runs,
)

from deal_kernels import backend as backends
from deal_kernels._common import dispatch
from deal_kernels.degradation import DEAL_OPS, mixture, op, triton_plan
from deal_kernels.degradation import triton as room
from deal_kernels.degradation.op import Settings

MOVES = [name for name in EVERY if not name.startswith(("posterize", "quantise"))]
POINTWISE = (
    "identity", "saturation_0.7", "posterize_5", "posterize_8", "stripe", "row_stripe", "gain", "noise", "row_gain",
    "tone", "dead", "glow", "shading", "partial_stripe", "quantise_8", "quantise_1", "clip",
)  # fmt: skip
# What has scratch memory or more than one channel.
SEVERAL = ("contrast_0.5", "saturation", "sharpness_0.3", "gaussian_blur", "max_pool_resize_2", "noise", "dead")


@interpreted(__file__)
def test_in_the_interpreter(interpreter):
    output, _ = interpreter.communicate()
    assert interpreter.returncode == 0, output


def given(shape, ops, **options):
    x, weights, params = case(*shape, ops=ops, device=DEVICE or "cpu", **options)
    return x, weights, ops, params


def double(x, weights, ops, params):
    return x.cpu().double(), weights.cpu().double(), ops, {name: value.cpu().double() for name, value in params.items()}


def check(arguments, tolerance=2e-6, expected=None, **options):
    """Values to `tolerance`, gradients to five times that of the largest."""
    found = result_and_gradients(mixture, *arguments, backend="triton", **options)
    if expected is None:
        expected = result_and_gradients(oracle, *double(*arguments), **options)
    for k, (one, other) in enumerate(zip(found, expected, strict=True)):
        limit = tolerance * (1 if k == 0 else 5) * max(1.0, other.abs().max().item())
        assert one.shape == other.shape and (one.cpu().double() - other.cpu().double()).abs().max() <= limit, k
    return found


def reference(arguments, **options):
    return result_and_gradients(mixture, *arguments, backend="torch", **options)


@runs
@pytest.mark.parametrize("name", EVERY)
def test_each_operation(name):
    """In rows of two blocks. Those of single pixels have the bits of the reference, and their gradients."""
    arguments = given((1, 3 if name.startswith(SEVERAL) else 1, 10, 27), [name], stages=1)
    plain = reference(arguments, straight_through=True)
    # A level that rounding has reached is one, so that the reference is all there is to compare with.
    level = name.startswith(("posterize", "quantise"))
    found = check(arguments, 6e-6 if "resize" in name else 2e-6, plain if level else None, straight_through=True)
    if name in POINTWISE:
        assert torch.equal(found[0], plain[0])
        assert name.startswith("saturation") or torch.equal(found[1], plain[1])


@runs
@pytest.mark.skipif(backends.unavailable("cpp", "cpu") is not None, reason="the extension is not built")
def test_the_bits_of_the_cpu():
    """Of all operations but contrast, whose mean is summed in another order."""
    ops = [name for name in EVERY if not name.startswith("contrast")]
    x, weights, _, params = given((1, 1, 11, 24), ops, stages=1)
    params = {name: value.cpu() for name, value in params.items()}
    found = mixture(x, weights, ops, {name: value.to(x.device) for name, value in params.items()}, backend="triton")
    assert torch.equal(found.cpu(), mixture(x.cpu(), weights.cpu(), ops, params, backend="cpp"))


@runs
def test_all_operations_in_stages():
    check(given((2, 1, 10, 11), MOVES), 2e-5)


@pytest.fixture
def guarded(monkeypatch):
    """Puts the kernels' own memory between numbers that must stay NaN."""
    made, new_empty = [], torch.Tensor.new_empty

    def create(like, *shape, **options):
        if options:  # of the interpreter
            return new_empty(like, *shape, **options)
        made.append(torch.full((math.prod(shape) + 128,), torch.nan, dtype=like.dtype, device=like.device))
        return made[-1][64:-64].view(shape)

    monkeypatch.setattr(torch.Tensor, "new_empty", create)
    yield
    assert len(made) == 6 and all(each[:64].isnan().all() and each[-64:].isnan().all() for each in made)


@runs
def test_kernels_write_within_their_memory(guarded):
    """The windows of blurs and what is in scratch, and backward the sums of gray and the parts of products, too."""
    check(given((1, 3, 9, 8), [name for name in DEAL_OPS if name != "posterize_5"], stages=3), 2e-5)


@runs
@pytest.mark.parametrize("shape", [(2, 1, 1, 1), (1, 3, 2, 9)], ids=str)
def test_small_images(shape):
    check(given(shape, ("contrast_0.5", "sharpness_0.3", *POINTWISE)), straight_through=True)


@runs
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_halves_are_computed_in_float32(dtype):
    """The reference reads what the kernels have written for a stage."""
    x, weights, ops, params = given((1, 3, 9, 8), DEAL_OPS, stages=2, dtype=dtype)
    values = list(params.values())
    y, inputs = op.launch_forward(x, weights, values, Settings(ops, True, "triton"), True)
    expected, read = op.launch_forward(x, weights, values, Settings(ops, True, "torch"), True)
    rounding = ROUNDING[dtype]
    assert y.dtype == dtype and (inputs.float() - read.float()).abs().max() <= rounding
    assert (y.float() - expected.float()).abs().max() <= 2 * rounding
    grad = output_gradient(x)
    found, plain = (
        op.launch_backward(grad, inputs, x, weights, values, Settings(ops, True, each), (True, True))
        for each in ("triton", "torch")
    )
    assert found[0].dtype == dtype and close(found[0].float(), plain[0].float(), rounding)
    assert found[1].dtype == torch.float32 and close(found[1], plain[1], 1e-5)


@runs
def test_gradients_that_are_wanted():
    arguments = given((1, 1, 9, 8), ("contrast_0.5", "sharpness_0.3", "gaussian_blur", "max_pool_resize_2", "noise"))
    both = result_and_gradients(mixture, *arguments, backend="triton")
    for k, wanted in enumerate(((True, False), (False, True)), 1):
        result, gradient = result_and_gradients(mixture, *arguments, wanted, backend="triton")
        assert torch.equal(result, both[0]) and torch.equal(gradient, both[k])
    assert torch.equal(mixture(*arguments, backend="triton"), both[0])


@runs
def test_an_operation_without_weight_is_left_out():
    """Its weight has a gradient all the same."""
    x, weights, ops, params = given((2, 1, 9, 8), [*DEAL_OPS, "noise"], stages=1)
    weights[0, 0, [2, 4, 7]], weights[1] = 0, 0
    check((x, weights, ops, params))
    params["noise"][0] = torch.inf
    left = result_and_gradients(mixture, x, weights, ops, params, (True, False), backend="triton")
    assert all(each.isfinite().all() for each in left) and not left[0][1].any()


@runs
def test_programs_that_have_several_blocks(monkeypatch):
    """As in images of more blocks than a sample has programs."""
    arguments = given((2, 3, 18, 31), ("contrast_0.5", "sharpness_0.3", "average_pool_resize_5", "noise"), stages=1)
    plain = reference(arguments)
    monkeypatch.setattr(triton_plan, "MOST_PROGRAMS", 2)
    triton_plan.plan.cache_clear()
    check(arguments, 2e-6, plain)
    triton_plan.plan.cache_clear()


@runs
def test_of_equal_largest_values_the_first_has_the_gradient():
    x = torch.tensor([[3.0, 3.0, 1.0, 5.0], [3.0, 3.0, 5.0, 5.0]], device=DEVICE)[None, None].requires_grad_()
    mixture(x, torch.ones(1, 1, 1, device=DEVICE), ["max_pool_resize_2"], backend="triton").sum().backward()
    assert x.grad.nonzero()[:, 2:].tolist() == [[0, 0], [0, 3]]


@runs
@pytest.mark.filterwarnings("ignore:invalid value", "ignore:overflow")
@pytest.mark.parametrize("value", [float("nan"), -float("inf")])
def test_what_is_not_finite_spreads_as_far_as_in_torch(value):
    for name in (
        "sharpness_0.3",
        "gaussian_blur",
        "max_pool_resize_2",
        "bicubic_resize_2",
        "posterize_5",
        "dead",
        "clip",
    ):
        x, weights, ops, params = given((1, 1, 10, 12), [name], stages=1)
        x[0, 0, 4, 5] = value
        found = result_and_gradients(mixture, x, weights, ops, params, backend="triton", straight_through=True)
        plain = reference((x, weights, ops, params), straight_through=True)
        for one, other in zip(found[:2], plain[:2], strict=True):
            assert torch.equal(one.isnan(), other.isnan()), name
            torch.testing.assert_close(one.nan_to_num(), other.nan_to_num(), rtol=1e-5, atol=1e-5)
        assert torch.equal(found[2].isfinite(), plain[2].isfinite()), name


@runs
def test_a_named_backend_says_what_it_lacks():
    x, weights, _, _ = given((1, 1, 9, 8), ["coarse_2"], stages=1)
    with pytest.raises(RuntimeError, match="backend 'triton' cannot run: it has no coarse_2; 'torch' has"):
        mixture(x, weights, ["coarse_2"], backend="triton")
    with pytest.raises(RuntimeError, match="backend 'triton' cannot run: it has no float64"):
        mixture(x.double(), weights, ["clip"], backend="triton")
    large = x[:, :, :1, :1].expand(1, 1, 2**15, 2**15)
    with pytest.raises(RuntimeError, match="it has no images of 1073741824 pixels and more; got 32768 x 32768"):
        op.chosen_backend(Settings(("clip",), False, "triton"), large)


def test_auto_takes_triton_for_what_it_has(monkeypatch):
    monkeypatch.setattr(dispatch, "chosen_backend", lambda named, x: "triton")
    x = torch.zeros(1, 1, 9, 8)
    assert op.chosen_backend(Settings(DEAL_OPS), x) == "triton"
    assert op.chosen_backend(Settings((*DEAL_OPS, "coarse_2")), x) == "torch"


KERNELS = ("taps", "look", "mix", "gray", "look_back", "mix_back")


class Launches(Recorder):
    """Counts them, too."""

    count = 0

    def __getitem__(self, grid):
        self.count += 1
        return super().__getitem__(grid)


def launched(monkeypatch, dtype=torch.float32, shape=(2, 3, 40, 50), ops=EVERY, stages=2):
    """Of each kernel the arguments of the last launch, and how many there are, forward and backward."""
    x, weights, params = case(*shape, ops=ops, stages=stages, dtype=dtype)
    operations = op._operations(x, [params[name] for name in ops if name in RANDOM], Settings(ops))
    recorders = {name: Launches() for name in KERNELS}
    with monkeypatch.context() as patch:
        for name, recorder in recorders.items():
            patch.setattr(room, f"{name}_kernel", recorder)
        room.forward(x, weights, operations, torch.empty_like(x), None)
        inputs = torch.empty(stages - 1, *shape, dtype=dtype)
        room.backward(x, inputs, x, weights, operations, torch.empty_like(x), torch.empty_like(weights))
    return recorders


def test_a_stage_takes_two_launches_in_each_direction(monkeypatch):
    found = launched(monkeypatch, ops=DEAL_OPS, stages=5)
    assert [found[name].count for name in KERNELS] == [2, 5, 5, 2, 5, 5]
    found = launched(monkeypatch, ops=("identity", "noise", "sharpness_0.3"), stages=5)
    assert [found[name].count for name in KERNELS] == [0, 0, 5, 0, 5, 5]


@compiles
@pytest.mark.parametrize("name", KERNELS[1:])
@pytest.mark.parametrize("capability, dtype", [(90, torch.float32), (80, torch.bfloat16)], ids=str)
def test_what_the_kernels_compile_to(capability, dtype, name, monkeypatch):
    kernel, arguments = getattr(room, f"{name}_kernel"), launched(monkeypatch, dtype)[name].arguments
    exact_ptx(capability, kernel, arguments)
    compiled = compile_for(capability, kernel, arguments)
    found = resources(compiled.asm["cubin"])
    assert compiled.metadata.shared <= 64 and (found is None or found["REG"] <= room.REGISTERS[name])


@compiles
def test_the_windows_of_blurs_compile_to_exact_double_precision(monkeypatch):
    ptx = compile_for(80, room.taps_kernel, launched(monkeypatch)["taps"].arguments).asm["ptx"]
    assert "div.rn.f64" in ptx and not {"div.full", "div.approx", "rcp.approx"} & set(INEXACT.findall(ptx))


@compiles
def test_a_kernel_is_compiled_once_for_all_lists_of_operations_and_sizes(monkeypatch):
    """Of a dtype."""
    some = launched(monkeypatch, ops=("contrast_0.5", "max_pool_resize_2"), shape=(2, 3, 40, 50))
    others = launched(monkeypatch, ops=DEAL_OPS, shape=(1, 1, 16, 16), stages=3)
    for name in KERNELS[1:]:
        kernel = getattr(room, f"{name}_kernel")
        assert compile_for(90, kernel, some[name].arguments) is compile_for(90, kernel, others[name].arguments)
