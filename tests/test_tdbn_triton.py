"""The Triton norm, alone and in front of the neuron, against the reference, and what its kernels compile to."""

import re

import pytest
import torch
from oracle import close
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

from deal_kernels._common.layout import ChannelLayout
from deal_kernels.tdbn import op, tdbn, tdbn_lif
from deal_kernels.tdbn import triton as room

LAYOUTS = ("contiguous", "channels last", "every second step")


@interpreted(__file__)
def test_in_the_interpreter(interpreter):
    output, _ = interpreter.communicate()
    assert interpreter.returncode == 0, output


def values(*shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator) * 1.5 + 0.3).to(DEVICE, dtype)


def arranged(x, layout):
    """The same values in another layout."""
    channels = 1 if x.dim() == 4 else 2
    if layout == "channels last":
        return x.movedim(channels, -1).contiguous().movedim(-1, channels)
    return torch.stack([x, x], 1).flatten(0, 1)[::2] if layout == "every second step" else x


def statistics(channels, training):
    """Running statistics, which only evaluation takes instead of the batch's."""
    mean, variance = values(channels, seed=5), values(channels, seed=6).abs() + 0.5
    return {"running_mean": mean, "running_var": variance, "training": training}


def of_channels(channels):
    return {"weight": values(channels, seed=7), "bias": values(channels, seed=8)}


def results(function, backend, tensors, **arguments):
    """What the function returns, and the gradients of the tensors."""
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
    returned = function(**leaves, backend=backend, **arguments)
    returned = returned if isinstance(returned, tuple) else (returned,)
    generator = torch.Generator().manual_seed(1)
    grads = [torch.randn(r.shape, generator=generator).to(r) for r in returned]
    return [r.detach() for r in returned], torch.autograd.grad(returned, list(leaves.values()), grads)


def assert_agrees(function, tensors, **arguments):
    """Results agree in every bit where the statistics are given, and otherwise to 1e-5, as gradients do."""
    (got, grads), (expected, expected_grads) = (results(function, b, tensors, **arguments) for b in ("triton", "torch"))
    for one, other in zip(got, expected, strict=True):
        exact = other.dtype == torch.float32 and not arguments["training"]
        assert one.dtype == other.dtype and one.stride() == other.stride()
        assert torch.equal(one, other) if exact else close(one.float(), other.float(), ROUNDING.get(one.dtype, 1e-5))
    for name, one, other in zip(tensors, grads, expected_grads, strict=True):
        assert one.dtype == other.dtype
        rounding = ROUNDING.get(tensors["x"].dtype, 1e-5)
        assert close(one.float(), other.float(), rounding), name


@runs
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "shape", [(3, 2, 5, 7, 3), (6, 5, 4, 9), (3, 5, 70), (1, 1, 2, 33, 65), (2, 3, 1, 5, 5)], ids=str
)
def test_norm_agrees_with_the_reference(shape, layout):
    channels = shape[1 if len(shape) == 4 else 2]
    x = arranged(values(*shape), layout)
    for training in (True, False):
        assert_agrees(tdbn, {"x": x, **of_channels(channels)}, **statistics(channels, training))


@runs
@pytest.mark.parametrize("dtype", HALVES)
def test_norm_of_halves_agrees_with_the_reference(dtype):
    for shape, layout in (((4, 3, 8, 4, 4), "contiguous"), ((4, 9, 5), "channels last")):
        x = arranged(values(*shape, dtype=dtype), layout)
        assert_agrees(tdbn, {"x": x, **of_channels(shape[2])}, **statistics(shape[2], True))


@runs
@pytest.mark.parametrize("layout", LAYOUTS)
def test_sums_are_taken_in_slices(layout, monkeypatch):
    """Of channels larger than a program takes, and far from zero."""
    monkeypatch.setattr(room, "PROGRAMS", 1)
    monkeypatch.setattr(room, "MOST_TILES", 3)
    for offset in (0.0, 1e4):
        middle = values(3, seed=3) + offset
        x, grad = arranged(values(5, 3, 3, 41, 43) + offset, layout), values(5, 3, 3, 41, 43, seed=2)
        tiles = room._tiling(ChannelLayout.of(x, 2))[0]
        assert tiles > 3 and tiles % 3
        moments, expected = op.launch_moments(x, 2, "triton"), op.launch_moments(x.double(), 2, "torch")
        assert close(moments[0], expected[0], 1e-6)
        assert (moments[1] / expected[1] - 1).abs().max() < 1e-5
        sums = op.launch_gradient_sums(grad, x, middle, 2, "triton")
        assert close(sums, op.launch_gradient_sums(grad.double(), x.double(), middle.double(), 2, "torch"), 1e-5)
        assert torch.equal(sums, op.launch_gradient_sums(grad, x, middle, 2, "triton"))


@runs
@pytest.mark.parametrize("dtype", (torch.float32, torch.float16))
def test_gradient_may_be_written_in_place(dtype):
    x, grad = values(3, 2, 5, 9, dtype=dtype), values(3, 2, 5, 9, dtype=dtype, seed=2)
    mean, *factors = (values(5, seed=seed) for seed in range(3, 7))
    expected = op.launch_gradient(grad, x, mean, factors, 2, "torch")
    assert torch.equal(op.launch_gradient(grad, x, mean, factors, 2, "triton"), expected)
    assert op.launch_gradient(grad, x, mean, factors, 2, "triton", reuse=True) is grad
    assert torch.equal(grad, expected)


NEURONS = (
    {"surrogate": "atan"},
    {"tau": 3.0, "decay_input": False, "v_reset": None, "surrogate": "triangle"},
    {"beta": 0.7, "reset": "none", "levels": 4},
)


@runs
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("neuron", NEURONS, ids=("hard", "soft", "levels"))
def test_fused_agrees_with_the_reference(neuron, layout):
    for shape, training in (((4, 3, 5, 7), False), ((3, 2, 8, 4), True)):
        x, shortcut = (arranged(values(*shape, seed=seed), layout) for seed in (0, 2))
        tensors = {"x": x, "shortcut": shortcut, **of_channels(shape[2]), "v0": values(*shape[1:], seed=3)}
        assert_agrees(tdbn_lif, tensors, return_state=True, **neuron, **statistics(shape[2], training))


@runs
@pytest.mark.parametrize("reduce", (None, "mean"))
@pytest.mark.parametrize("steps", (1, 4, 17))
def test_every_number_of_steps_agrees_with_the_reference(steps, reduce):
    for training in (False, True):
        for shape, constant in (((steps, 2, 3, 5), None), ((2, 3, 5), steps)):
            tensors = {"x": values(*shape), **of_channels(3)}
            if training:
                tensors["shortcut"] = values(*shape, seed=2)
            assert_agrees(
                tdbn_lif, tensors, steps=constant, reduce=reduce, return_state=True, surrogate="atan",
                **statistics(3, training),
            )  # fmt: skip


@runs
def test_learnt_parameters_agree_with_the_reference():
    for layout, count in (("contiguous", 5), ("channels last", 5), ("contiguous", 1)):
        tensors = {"x": arranged(values(9, 2, 5, 7), layout), **of_channels(5)}
        tensors["tau"] = values(count, seed=3).abs() * 0.1 + 1.1
        tensors["v_threshold"] = values(count, seed=4).abs() * 0.1 + 0.8
        assert_agrees(tdbn_lif, tensors, return_state=True, surrogate="atan", **statistics(5, False))


@runs
@pytest.mark.parametrize("dtype", HALVES)
def test_fused_halves_agree_with_the_reference(dtype):
    x, shortcut = (values(4, 2, 3, 200, dtype=dtype, seed=seed) for seed in (0, 2))
    tensors = {"x": x, "shortcut": shortcut, **of_channels(3)}
    assert_agrees(tdbn_lif, tensors, return_state=True, surrogate="atan", **statistics(3, False))


@runs
@pytest.mark.parametrize("dtype", (torch.float32, *HALVES))
def test_bits_agree_with_the_reference(dtype):
    for shape, steps in (((4, 1, 5, 11), None), ((2, 3, 640), None), ((2, 5, 11), 3)):
        x, shortcut = (values(*shape, dtype=dtype, seed=seed) for seed in (0, 2))
        channels = shape[2 if steps is None else 1]
        options = {"steps": steps, "pack": True, "return_state": True, **statistics(channels, False)}
        got, expected = (
            tdbn_lif(x, **of_channels(channels), shortcut=shortcut, backend=backend, **options)
            for backend in ("triton", "torch")
        )
        for one, other in zip(got, expected, strict=True):
            assert torch.equal(one, other)


@runs
def test_a_shortcut_of_every_step_beside_one_repeated_input():
    x, shortcut = values(1, 2, 3, 5).expand(4, 2, 3, 5), values(4, 2, 3, 5, seed=2)
    options = {"shortcut": shortcut, **statistics(3, False)}
    got, expected = (tdbn_lif(x, backend=backend, **options) for backend in ("triton", "torch"))
    assert torch.equal(got, expected)


KERNELS = ("moments", "sums", "merge", "normalise", "gradient")


def launched(name, x, monkeypatch):
    """The arguments a kernel is launched with for x [T, B, C, ...]."""
    recorders = {kernel: Recorder() for kernel in KERNELS}
    each, like, layout = torch.ones(x.shape[2]), torch.empty_like(x), ChannelLayout.of(x, 2)
    with monkeypatch.context() as patch:
        for kernel, recorder in recorders.items():
            patch.setattr(room, f"{kernel}_kernel", recorder)
        room.moments(x, layout, each, each)
        room.gradient_sums(x, layout, like, each, torch.empty(2, x.shape[2]))
        room.normalise(x, layout, each, each, each, like)
        room.gradient(x, layout, like, each, each, each, each, like)
    return recorders[name].arguments


SHAPES = {"wide": (4, 2, 8, 32, 32), "odd": (4, 16, 8, 7, 7), "columns": (4, 8, 64), "odd columns": (4, 8, 5)}
TARGETS = (90, torch.float32), (80, torch.bfloat16)


@compiles
@pytest.mark.parametrize("capability, dtype", TARGETS, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", KERNELS)
def test_what_the_kernels_compile_to(name, shape, capability, dtype, monkeypatch):
    arguments = launched(name, torch.empty(SHAPES[shape], dtype=dtype), monkeypatch)
    ptx = exact_ptx(capability, getattr(room, f"{name}_kernel"), arguments)
    if name != "merge" and not shape.startswith("odd"):
        assert re.search(r"ld\.global\S*\.v4", ptx)
    if name in ("normalise", "gradient") and not shape.startswith("odd"):
        assert re.search(r"st\.global\S*\.v4", ptx)
