"""The CUDA kernels' own source, run thread by thread on a CPU, against the CPU kernels."""

import ctypes
import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from cuda_emulation import DTYPES, Rooms, address, integers, library, run

SPIKES, MEAN, PACKED = range(3)
DECAY_INPUT, DECAY, LEAK = CHARGES = range(3)
GE, GT, LEVELS = FIRES = range(3)
HARD, SOFT, NONE = RESETS = range(3)
SIGMOID, ATAN, TRIANGLE, RECTANGLE = SURROGATES = range(4)
STEPS = (1, 3, 4, 7, 16, 17, 40)
SIZES = (1, 7, 517, 520, 1028)  # odd ones take neurons one by one

compiled = pytest.importorskip("deal_kernels._C", reason="the extension is not built")


@pytest.fixture(scope="module")
def emulated():
    return library()


class Emulated:
    """The two kernels, which leave the sums of a norm by neuron."""

    by_neuron = True

    def __init__(self, library, device=0):
        self.library = library
        self.device = device

    def forward(self, neuron, inputs, norm, *results):
        self._call(self.library.forward, neuron, *inputs, *(norm or [0] * 6), *results)

    def backward(self, neuron, inputs, norm, *results):
        steps, neurons = inputs[2:4]
        starts = torch.full(((steps + 15) // 16 * neurons,), math.nan)
        self._call(self.library.backward, neuron, *inputs, *(norm or [0] * 6), *results, starts.data_ptr())

    def _call(self, function, neuron, *numbers):
        run(function, (ctypes.c_double * len(neuron))(*neuron), integers(*numbers, self.device))


class Compiled:
    """The same two of the CPU backend, which leave those sums by channel."""

    by_neuron = False

    def forward(self, neuron, inputs, norm, *results):
        compiled.lif_forward(self._neuron(neuron), *inputs, norm and compiled.Norm(*norm), *results, 1)

    def backward(self, neuron, inputs, norm, *results):
        compiled.lif_backward(self._neuron(neuron), *inputs, norm and compiled.Norm(*norm), *results, 1)

    def _neuron(self, neuron):
        return compiled.Neuron(*map(int, neuron[:4]), *map(bool, neuron[4:6]), *neuron[6:])


def layer(
    steps=4, neurons=520, dtype=torch.float32, *, charge=DECAY_INPUT, fire=GE, reset=SOFT, surrogate=ATAN, detach=False,
    decay=None, threshold=0.8, output=SPIKES, constant=False, state=True, decays=None, thresholds=None, norms=None,
    shortcut=False, inner=1, skew=(0, 0),
):  # fmt: skip
    """What a kernel is run on: random tensors, and of decay, threshold and norm so many channels, or None."""
    random = torch.Generator().manual_seed(steps * 1000 + neurons)
    decay = decay or (0.75 if charge == LEAK else 2.0)
    multiply = charge != LEAK and decays is None and math.frexp(decay)[0] == 0.5
    rest = -0.25 if reset == HARD else 0.0
    levels = 4 if fire == LEVELS else 1
    alpha = {SIGMOID: 4.0, ATAN: 2.0}.get(surrogate, 1.0)
    rooms = Rooms(skew)

    def normal(*shape, dtype=torch.float32):
        return rooms.place((torch.randn(shape, generator=random) * 1.5 + 0.3).to(dtype))

    def parameter(channels, low):
        return None if channels is None else rooms.place(torch.rand(channels, generator=random) + low)

    rows = 1 if constant else steps
    return SimpleNamespace(
        neuron=(charge, fire, reset, surrogate, detach, multiply, decay, threshold, rest, alpha, levels),
        dtype=dtype, steps=steps, neurons=neurons, output=output, constant=constant, inner=inner, rooms=rooms,
        x=normal(rows, neurons, dtype=dtype), v0=normal(neurons) if state else None,
        decay=parameter(decays, 0.3 if charge == LEAK else 1.2), threshold=parameter(thresholds, 0.5),
        grad=normal(1 if output == MEAN else steps, neurons, dtype=dtype), grad_v=normal(neurons) if state else None,
        norm=[parameter(norms, low) for low in (0.0, 0.8, -0.4)] if norms else None,
        shortcut=normal(rows, neurons, dtype=dtype) if shortcut else None,
    )  # fmt: skip


def channels(tensor):
    return 1 if tensor is None else tensor.numel()


def inputs(a):
    return (
        DTYPES[a.dtype], a.output, a.steps, a.neurons, 0 if a.constant else a.neurons, address(a.x), address(a.v0),
        address(a.decay), channels(a.decay), address(a.threshold), channels(a.threshold), a.inner,
    )  # fmt: skip


def norm(a):
    return None if a.norm is None else (*map(address, a.norm), len(a.norm[0]), a.inner, address(a.shortcut))


def forward(kernels, a):
    """The result, and the final state of a layer that has one."""
    shape, dtype = {
        SPIKES: ((a.steps, a.neurons), a.dtype),
        MEAN: ((a.neurons,), a.dtype),
        PACKED: ((a.steps, (a.neurons + 7) // 8), torch.uint8),
    }[a.output]
    out, v = a.rooms.result(*shape, dtype=dtype), None if a.v0 is None else a.rooms.result(a.neurons)
    kernels.forward(a.neuron, inputs(a), norm(a), address(out), address(v))
    a.rooms.check()
    return (out,) if v is None else (out, v)


def backward(kernels, a, shares=True):
    """The gradients of x, the initial state, decay and threshold."""
    grad_x = a.rooms.result(1 if a.constant else a.steps, a.neurons, dtype=a.dtype)
    states = [a.rooms.result(a.neurons) if wanted else None for wanted in (a.v0 is not None, shares, shares)]
    a.sums = a.rooms.result(2, a.neurons if kernels.by_neuron else len(a.norm[0])) if a.norm else None
    numbers = a.constant, *map(address, (a.grad, a.grad_v, grad_x, *states, a.sums))
    kernels.backward(a.neuron, inputs(a), norm(a), *numbers)
    a.rooms.check()
    return grad_x, *(state for state in states if state is not None)


def by_channel(sums, a):
    """The sums of a norm that were left by neuron."""
    channel = torch.arange(a.neurons) // a.inner % len(a.norm[0])
    return torch.zeros(2, len(a.norm[0]), dtype=torch.float64).index_add(1, channel, sums.double())


def same(ours, expected):
    return all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))


def close(ours, expected):
    """Equal up to the two exponentials; a half type may round either way."""
    for a, b in zip(ours, expected, strict=True):
        scale = b.abs().max().float().item()
        relative = {torch.float32: 1e-6, torch.float16: 2**-10, torch.bfloat16: 2**-7}[a.dtype]
        torch.testing.assert_close(a, b, rtol=relative, atol=1e-6 * scale)
    return True


@pytest.mark.parametrize("output", (SPIKES, MEAN, PACKED))
@pytest.mark.parametrize("dtype", list(DTYPES)[:3], ids=str)
def test_forward(emulated, dtype, output):
    for steps, neurons in itertools.product(STEPS, SIZES):
        for options in ({}, {"constant": True, "state": False}):
            a = layer(steps, neurons, dtype, output=output, **options)
            assert same(forward(Emulated(emulated), a), forward(Compiled(), a)), (steps, neurons, options)


@pytest.mark.parametrize("output", (SPIKES, MEAN))
@pytest.mark.parametrize("dtype", list(DTYPES)[:3], ids=str)
def test_backward(emulated, dtype, output):
    for steps, neurons in itertools.product(STEPS, SIZES):
        for options in ({}, {"constant": True, "state": False}):
            a = layer(steps, neurons, dtype, output=output, **options)
            for shares in (False, True):
                ours, expected = (backward(kernels, a, shares) for kernels in (Emulated(emulated), Compiled()))
                assert same(ours, expected), (steps, neurons, options, shares)


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("fire", FIRES)
@pytest.mark.parametrize("charge", CHARGES)
def test_neurons(emulated, charge, fire, reset):
    for surrogate, detach, neurons in itertools.product(SURROGATES, (False, True), (131, 132)):
        for decay in (None, 0.9 if charge == LEAK else 3.0):
            options = {"surrogate": surrogate, "detach": detach, "decay": decay}
            a = layer(19, neurons, charge=charge, fire=fire, reset=reset, **options)
            assert same(forward(Emulated(emulated), a), forward(Compiled(), a)), options
            compare = close if surrogate == SIGMOID and fire != LEVELS else same
            assert compare(backward(Emulated(emulated), a), backward(Compiled(), a)), options


@pytest.mark.parametrize("charge", CHARGES)
@pytest.mark.parametrize(("decays", "thresholds"), [(1, None), (None, 1), (5, 1), (1, 5), (5, 5), (3, None)])
def test_parameters(emulated, charge, decays, thresholds):
    for inner, neurons, fire in itertools.product((1, 3, 4, 64), (240, 241), (GE, LEVELS)):
        options = {"charge": charge, "decays": decays, "thresholds": thresholds, "inner": inner, "fire": fire}
        for output in (SPIKES, MEAN, PACKED):
            a = layer(5, neurons, output=output, **options)
            assert same(forward(Emulated(emulated), a), forward(Compiled(), a)), (options, output)
            if output != PACKED:
                assert same(backward(Emulated(emulated), a), backward(Compiled(), a)), (options, output)


@pytest.mark.parametrize("skew", ((1, 0), (0, 1), (2, 4), (4, 2)))
@pytest.mark.parametrize("dtype", list(DTYPES)[:3], ids=str)
def test_alignment(emulated, dtype, skew):
    for steps, output, state in itertools.product((4, 18), (SPIKES, MEAN, PACKED), (False, True)):
        a = layer(steps, 264, dtype, output=output, skew=skew, state=state)
        assert same(forward(Emulated(emulated), a), forward(Compiled(), a)), (steps, output)
        if output != PACKED:
            ours, expected = (backward(kernels, a, shares=state) for kernels in (Emulated(emulated), Compiled()))
            assert same(ours, expected), (steps, output)


@pytest.mark.parametrize("shortcut", (False, True))
@pytest.mark.parametrize("output", (SPIKES, MEAN, PACKED))
@pytest.mark.parametrize("dtype", list(DTYPES)[:3], ids=str)
def test_norm(emulated, dtype, output, shortcut):
    sizes = (1, 1, 1), (241, 5, 3), (517, 1, 11), (520, 8, 1), (520, 5, 4), (1028, 3, 64)
    for steps, (neurons, norms, inner), constant in itertools.product((1, 4, 7, 18, 40), sizes, (False, True)):
        options = {"norms": norms, "inner": inner, "shortcut": shortcut, "constant": constant}
        a = layer(steps, neurons, dtype, output=output, state=not constant, **options)
        assert same(forward(Emulated(emulated), a), forward(Compiled(), a)), (steps, neurons, options)
        if output != PACKED:
            check_norm_gradients(emulated, a, shares=steps % 2 == 0)


def check_norm_gradients(emulated, a, shares):
    ours = backward(Emulated(emulated), a, shares)
    sums = by_channel(a.sums, a)
    assert same(ours, backward(Compiled(), a, shares)), a
    torch.testing.assert_close(sums, a.sums.double(), rtol=1e-5, atol=1e-6 * a.steps * a.neurons**0.5)


@pytest.mark.parametrize("charge", CHARGES)
def test_norm_and_parameters_by_channel(emulated, charge):
    for inner, neurons, reset, constant in itertools.product((1, 4, 6), (240, 241), RESETS, (False, True)):
        options = {"charge": charge, "decays": 5, "thresholds": 5, "inner": inner, "reset": reset, "constant": constant}
        a = layer(18, neurons, norms=5, shortcut=True, **options)
        assert same(forward(Emulated(emulated), a), forward(Compiled(), a)), options
        check_norm_gradients(emulated, a, shares=True)


@pytest.mark.parametrize("skew", ((1, 0), (0, 1), (2, 4), (4, 2)))
@pytest.mark.parametrize("dtype", list(DTYPES)[:3], ids=str)
def test_alignment_with_norm(emulated, dtype, skew):
    for output in (SPIKES, MEAN, PACKED):
        a = layer(18, 264, dtype, output=output, skew=skew, norms=6, inner=4, shortcut=True)
        assert same(forward(Emulated(emulated), a), forward(Compiled(), a)), output
        if output != PACKED:
            check_norm_gradients(emulated, a, shares=False)


def test_bits_past_the_last_neuron_are_zero(emulated):
    a = layer(neurons=13, threshold=-9.0, output=PACKED)
    assert forward(Emulated(emulated), a)[0].tolist() == [[0xFF, 0x1F]] * a.steps


def test_errors_name_what_is_missing(emulated):
    with pytest.raises(RuntimeError, match="float64"):
        forward(Emulated(emulated), SimpleNamespace(**vars(layer()) | {"dtype": torch.float64}))
    with pytest.raises(RuntimeError, match="invalid device"):
        forward(Emulated(emulated, device=5), layer())


def test_device_is_current_only_while_launching(emulated):
    forward(Emulated(emulated, device=1), layer())
    assert emulated.device() == 0
