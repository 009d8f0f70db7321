"""The Triton neuron against the reference, and what its kernels compile to."""

import itertools
import re

import pytest
import torch
from triton_testing import (
    DEVICE,
    HALVES,
    ROUNDING,
    Recorder,
    compiles,
    exact_ptx,
    interpreted,
    runs,
)

from deal_kernels import backend as backends
from deal_kernels._common.neuron import CHARGES, RESETS, lif_neuron
from deal_kernels.lif import lif, op
from deal_kernels.lif import triton as room
from deal_kernels.lif.reference import Inputs, Norm
from deal_kernels.surrogate import (
    KINDS,
    Erf,
    Exponential,
    FastSigmoid,
    Rectangle,
    Sigmoid,
    Triangle,
    Window,
    of_numbers,
)

CHARGE = {"decay_input": {"tau": 2.0}, "decay": {"tau": 3.0, "decay_input": False}, "beta": {"beta": 0.7}}
RESET = {
    "hard": {"v_reset": 0.1}, "soft": {"v_reset": None}, "none": {"reset": "none"},
    "next_hard": {"reset": "next_hard", "v_reset": 0.1}, "next_soft": {"reset": "next_soft", "reset_by": 0.8},
    "twice_soft": {"reset": "twice_soft", "v_rest": 0.2},
}  # fmt: skip


@interpreted(__file__)
def test_in_the_interpreter(interpreter):
    output, _ = interpreter.communicate()
    assert interpreter.returncode == 0, output


def run(backend, x, v0=None, wanted=(), **arguments):
    """Result, final state and the gradients of x and of `wanted`."""
    leaves = [x] + [tensor for tensor in (v0, *wanted) if tensor is not None]
    for leaf in leaves:
        leaf.requires_grad_(True)
    spikes, v = lif(x, v0, backend=backend, return_state=True, **arguments)
    generator = torch.Generator().manual_seed(1)
    grads = [torch.randn(t.shape, generator=generator).to(t) for t in (spikes, v)]
    return spikes.detach(), v.detach(), *torch.autograd.grad((spikes, v), leaves, grads)


def assert_agrees(x, v0=None, wanted=(), **arguments):
    """Results and states agree in every bit, gradients to 1e-6 of the largest of them."""
    spikes, v, *grads = run("triton", x, v0, wanted, **arguments)
    expected_spikes, expected_v, *expected_grads = run("torch", x, v0, wanted, **arguments)
    assert torch.equal(spikes, expected_spikes)
    assert torch.equal(v, expected_v)
    largest = max(expected.abs().max().double() for expected in expected_grads)
    for grad, expected in zip(grads, expected_grads, strict=True):
        assert grad.dtype == expected.dtype and grad.stride() == expected.stride()
        error = (grad.double() - expected.double()).abs().max()
        assert error <= ROUNDING.get(grad.dtype, 1e-6) * largest


def current(*shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator) * 1.5 + 0.3).to(DEVICE, dtype)


@runs
@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("charge", CHARGES)
def test_every_neuron_agrees_with_the_reference(charge, reset):
    steps = itertools.cycle((3, 4, 1))
    for fire, detach in (("ge", False), ("gt", True), ("levels", False), ("levels", True)):
        firing = {"levels": 4} if fire == "levels" else {"fire": fire}
        x = current(next(steps), 3, 7, 5)
        v0 = current(3, 7, 5, seed=2)
        assert_agrees(x, v0, detach_reset=detach, surrogate="atan", **firing, **CHARGE[charge], **RESET[reset])


@runs
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reset", ("hard", "soft"))
def test_every_surrogate_agrees_with_the_reference(kind, reset):
    threshold, slope = torch.tensor(0.9, device=DEVICE), of_numbers(kind, (0.3, 0.7, 0.1))
    assert_agrees(current(4, 37), wanted=(threshold,), v_threshold=threshold, surrogate=slope, **RESET[reset])


@runs
@pytest.mark.parametrize("steps", (1, 3, 4, 17))
@pytest.mark.parametrize("reduce", (None, "mean"))
def test_every_number_of_steps_agrees_with_the_reference(steps, reduce):
    assert_agrees(current(steps, 3, 8), reduce=reduce, surrogate="atan")
    assert_agrees(current(37), steps=steps, reduce=reduce, surrogate="triangle", v_reset=None)


@runs
@pytest.mark.parametrize("charge", CHARGES)
@pytest.mark.parametrize("fire", ("ge", "levels"))
def test_gradients_of_parameters_agree_with_the_reference(charge, fire):
    firing = {"levels": 3} if fire == "levels" else {}
    name = "beta" if charge == "beta" else "tau"
    for shape, channels_last, count in (((9, 2, 5, 3, 3), True, 5), ((3, 3, 5), False, 1)):
        x = current(*shape)
        if channels_last:
            x = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, shape[:2])
        decay = current(count).abs() * 0.1 + (0.5 if charge == "beta" else 1.1)
        threshold = current(count, seed=3).abs() * 0.1 + 0.8
        assert_agrees(
            x, current(*shape[1:], seed=4), (decay, threshold), v_threshold=threshold, surrogate="atan",
            **{**CHARGE[charge], name: decay}, **RESET["soft"], **firing,
        )  # fmt: skip


@runs
@pytest.mark.parametrize("output", ("v", "h"))
@pytest.mark.parametrize("reset", RESETS)
def test_records_agree_with_the_reference(reset, output):
    threshold = torch.tensor(0.9, device=DEVICE)
    for x in (current(11, 3, 5), current(11, 3, 5, dtype=torch.bfloat16)):
        assert_agrees(x, wanted=(threshold,), v_threshold=threshold, surrogate="atan", output=output, **RESET[reset])
    assert_agrees(current(37), steps=5, output=output, surrogate="triangle", **RESET[reset])


@runs
@pytest.mark.parametrize("reset", RESETS)
def test_scale_rate_and_carried_gradient_agree_with_the_reference(reset):
    rate = torch.rand(5, generator=torch.Generator().manual_seed(0)).add(0.1).to(DEVICE)
    for options in ({"scale": 0.3}, {"scale": 0.3, "reduce": "mean"}, {"carry_gradient": False}):
        x = current(11, 3, 5)
        assert_agrees(x, current(3, 5, seed=2), (rate,), rate=rate, surrogate="atan", **options, **RESET[reset])


@runs
def test_a_function_as_surrogate_and_parameters_of_each_neuron_agree_with_the_reference():
    tau = torch.rand(3, 5, 2, generator=torch.Generator().manual_seed(0)).add(1.1).to(DEVICE)
    for reduce in (None, "mean"):
        assert_agrees(
            current(11, 4, 3, 5, 2), wanted=(tau,), tau=tau, surrogate=lambda u: 1 / (1 + u * u), reduce=reduce,
            v_reset=None,
        )  # fmt: skip


@runs
@pytest.mark.parametrize("dtype", HALVES)
def test_halves_agree_with_the_reference(dtype):
    assert_agrees(current(4, 2, 1200, dtype=dtype), surrogate="atan", v_reset=None)
    assert_agrees(current(16, 37, dtype=dtype), current(37), reduce="mean", surrogate="triangle", v_reset=None)
    assert_agrees(current(37, dtype=dtype), steps=3, levels=4, v_reset=None)


@runs
@pytest.mark.parametrize("dtype", (torch.float32, *HALVES))
def test_bits_agree_with_the_reference(dtype):
    for shape in ((3, 1), (4, 37), (1, 2, 640)):
        x = current(*shape, dtype=dtype)
        packed, v = lif(x, pack=True, return_state=True, backend="triton")
        expected, expected_v = lif(x, pack=True, return_state=True, backend="torch")
        assert torch.equal(packed, expected) and torch.equal(v, expected_v)


@runs
def test_a_strided_time_axis_and_writing_in_place():
    x = current(6, 2, 40)
    assert_agrees(x.clone()[::2], surrogate="atan")
    expected = lif(x, backend="torch")
    assert lif(x, backend="triton", out=x) is x
    assert torch.equal(x, expected)


@runs
def test_values_exactly_at_the_threshold():
    x = torch.tensor([[2.0, 1.0, -0.0, 4.0, 5.0, 3.0]], device=DEVICE)
    for arguments in ({"fire": "ge"}, {"fire": "gt"}, {"levels": 2}, {"levels": 4, "v_threshold": 0.5}):
        assert_agrees(x.clone(), surrogate="rectangle", v_reset=None, **arguments)


@runs
@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("surrogate", ("atan", "triangle", "rectangle"))
@pytest.mark.parametrize("firing", ({"fire": "ge"}, {"levels": 4}))
def test_nan_goes_where_the_reference_lets_it(surrogate, firing):
    x = current(3, 12)
    x[1, ::3] = torch.nan
    x[0, 1] = torch.inf
    for reset in ("hard", "soft"):
        got = run("triton", x.clone(), surrogate=surrogate, **RESET[reset], **firing)
        expected = run("torch", x.clone(), surrogate=surrogate, **RESET[reset], **firing)
        for one, other in zip(got, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6, equal_nan=True)


@runs
@pytest.mark.skipif(DEVICE != "cpu", reason="the C++ kernels run on the CPU")
@pytest.mark.parametrize(
    ("charge", "reset", "surrogate", "levels"),
    [("decay_input", "hard", "atan", 1), ("decay", "soft", "triangle", 1), ("beta", "none", "rectangle", 3)],
)
def test_gradients_have_the_bits_of_the_compiled_kernels(charge, reset, surrogate, levels):
    reason = backends.unavailable("cpp", "cpu")
    if reason:
        pytest.skip(reason)
    decay, threshold = torch.tensor(1.3), torch.tensor(0.7)
    name = "beta" if charge == "beta" else "tau"
    arguments = {**CHARGE[charge], **RESET[reset], name: decay, "levels": levels}
    arguments["surrogate"] = of_numbers(surrogate, (1.3, 1.0, 0.0))
    for shape, steps in (((11, 3, 41), None), ((3, 41), 3)):
        x, v0 = current(*shape), current(3, 41, seed=2)
        results = [
            run(backend, x, v0, (decay, threshold), steps=steps, v_threshold=threshold, **arguments)
            for backend in ("triton", "cpp")
        ]
        for one, other in zip(*results, strict=True):
            assert torch.equal(one, other)


@runs
@pytest.mark.parametrize("shape", ((2, 4, 3, 13), (3, 9, 640), (2, 17, 3, 300)))
def test_samples_agree_with_the_reference(shape):
    """[B, T, ...], read as it lies in memory."""
    x, v0 = current(*shape), current(shape[0], *shape[2:], seed=2)
    tau, threshold = (current(shape[2], seed=seed).abs() + 1.1 for seed in (3, 4))
    for options in ({}, {"reduce": "mean"}, {"output": "v"}, {"output": "h"}):
        assert_agrees(
            x, v0, (tau, threshold), tau=tau, v_threshold=threshold, surrogate="atan", time_axis=1, **options
        )  # fmt: skip
    for options in ({"time_axis": 1}, {}):
        assert_agrees(x, surrogate=lambda u: 1 / (1 + u * u), **options)
    assert torch.equal(*(lif(x.detach(), pack=True, time_axis=1, backend=backend) for backend in ("triton", "torch")))


NEURON = lif_neuron(v_reset=0.1, surrogate="atan")


def launched(name, i, output, monkeypatch):
    """The arguments of a launch with every result wanted."""
    recorder = Recorder()
    state = torch.empty(i.row().shape)
    with monkeypatch.context() as patch:
        patch.setattr(room, f"{name}_kernel", recorder)
        if name == "forward":
            room.forward(i, output, op.spikes_like(i, output), state)
        else:
            grad, grad_x = op.spikes_like(i, output), op.spikes_like(i, "spikes" if i.steps is None else "mean")
            parameters = (None if p is None else state for p in (i.decay, i.threshold))
            sums = None if i.norm is None else torch.empty((2, *i.row().shape))
            slopes = None if i.neuron.has_kernels() else torch.empty((i.length(), *i.row().shape))
            room.backward(i, grad, state, output, slopes, grad_x, state, *parameters, sums)
    return recorder.arguments


LEVELS = {"levels": 4, "reset": "soft", "surrogate": Window(0.0, 4.0)}
ALIGNED, UNALIGNED = (4, 2, 8, 64), (4, 2, 5, 7)
VARIANTS = {  # changes to NEURON, shape of x, output, constant current, v0 and parameters per channel, norm
    "plain": ({}, ALIGNED, "spikes", False, False, ""),
    "true division": ({"decay": 3.0}, UNALIGNED, "spikes", False, False, ""),
    "learnt": ({"charge": "decay", "reset": "soft"}, ALIGNED, "spikes", False, True, ""),
    "learnt, long": ({"fire": "gt"}, (17, *ALIGNED[1:]), "spikes", False, True, ""),
    "learnt, long, unaligned": ({"surrogate": Sigmoid()}, (17, *UNALIGNED[1:]), "spikes", False, True, ""),
    "mean": ({"surrogate": Triangle(), "detach_reset": True}, (8, *ALIGNED[1:]), "mean", False, False, ""),
    "constant": ({"charge": "beta", "surrogate": Rectangle(), "reset": "none"}, ALIGNED[1:], "mean", True, False, ""),
    "fast sigmoid": ({"surrogate": FastSigmoid()}, ALIGNED, "spikes", False, False, ""),
    "erf": ({"surrogate": Erf()}, UNALIGNED, "spikes", False, False, ""),
    "exponential": ({"surrogate": Exponential(), "reset": "next_soft"}, ALIGNED, "spikes", False, False, ""),
    "next hard, learnt": ({"reset": "next_hard"}, ALIGNED, "spikes", False, True, ""),
    "twice, learnt, long": ({"reset": "twice_soft"}, (17, *ALIGNED[1:]), "spikes", False, True, ""),
    "states": ({"carries": False}, ALIGNED, "states", False, False, ""),
    "membranes": ({"scale": 0.5, "amount": 0.5, "reset": "soft"}, UNALIGNED, "membranes", False, True, ""),
    "given": ({"surrogate": torch.ones_like}, ALIGNED, "mean", False, False, ""),
    "levels": (LEVELS, (8, *ALIGNED[1:]), "spikes", False, True, ""),
    "bits": ({}, ALIGNED, "packed", False, False, ""),
    "bits, unaligned": ({}, UNALIGNED, "packed", False, False, ""),
    "norm": ({}, ALIGNED, "spikes", False, False, "norm"),
    "norm, constant": ({}, ALIGNED[1:], "spikes", True, False, "norm"),
    "norm, bits": ({}, ALIGNED, "packed", False, False, "norm"),
    "norm, learnt": ({}, ALIGNED, "spikes", False, True, "norm and shortcut"),
    "norm, long": ({"reset": "soft"}, (17, *ALIGNED[1:]), "mean", False, False, "norm and shortcut"),
    "norm, learnt, long, unaligned": ({}, (17, *UNALIGNED[1:]), "spikes", False, True, "norm and shortcut"),
}
TARGETS = (90, torch.float32), (80, torch.float32), (80, torch.bfloat16), (90, torch.float16)  # all for the first
EVERYWHERE = ("true division", "learnt, long", "bits", "norm", "norm, learnt")


def compilations():
    for (capability, dtype), (name, variant) in itertools.product(TARGETS, VARIANTS.items()):
        for kernel in ("forward", "backward"):
            chosen = (capability, dtype) == TARGETS[0] or name in EVERYWHERE
            if chosen and (kernel == "forward" or variant[2] != "packed"):
                yield pytest.param(capability, dtype, kernel, *variant, id=f"sm_{capability}-{dtype}-{kernel}-{name}")


@compiles
@pytest.mark.parametrize(
    "capability, dtype, name, changes, shape, output, constant, companions, norm", list(compilations())
)
def test_what_the_kernels_compile_to(
    capability, dtype, name, changes, shape, output, constant, companions, norm, monkeypatch
):
    x = torch.empty(shape, dtype=dtype)
    row = x if constant else x[0]
    each = torch.ones(row.shape[1])
    v0, decay = (torch.empty(row.shape), each) if companions else (None, None)
    norm = Norm(each, each, each, x if norm == "norm and shortcut" else None) if norm else None
    i = Inputs(NEURON._replace(**changes), x, v0, decay, decay, 4 if constant else None, norm)
    arguments = launched(name, i, output, monkeypatch)
    ptx = exact_ptx(capability, getattr(room, f"{name}_kernel"), arguments)

    divides = not arguments["RATE"] and i.neuron.charge != "beta"
    assert not divides or re.search(r"div\.rn(\.ftz)?\.f32", ptx)
    if i.neuron.levels > 1:
        assert "0f4B400000" in ptx and "0fCB400000" in ptx  # the rounding constant, added and subtracted
    if arguments["UNIT"] > 1 and name == "forward" and output == "spikes":
        assert re.search(r"ld\.global\S*\.v4", ptx) and re.search(r"st\.global\S*\.v4", ptx)
