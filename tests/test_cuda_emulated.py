"""The CUDA kernels' own source, run thread by thread on a CPU, against the CPU kernels."""

import ctypes
import itertools
import math
import shlex
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

ROOT = Path(__file__).parents[1]
DTYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2, torch.float64: 3}
SPIKES, MEAN, PACKED = range(3)
DECAY_INPUT, DECAY, LEAK = CHARGES = range(3)
GE, GT, LEVELS = FIRES = range(3)
HARD, SOFT, NONE = RESETS = range(3)
SIGMOID, ATAN, TRIANGLE, RECTANGLE = SURROGATES = range(4)
STEPS = (1, 3, 4, 7, 16, 17, 40)
SIZES = (1, 7, 517, 520, 1028)  # odd ones take neurons one by one
MARGIN = 16  # elements before and after every tensor, which keep it aligned

compiled = pytest.importorskip("deal_kernels._C", reason="the extension is not built")


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++ is needed to build the emulated kernels")
    library = tmp_path_factory.mktemp("cuda_on_cpu") / "kernels.so"
    folder = ROOT / "tests" / "cuda_on_cpu"
    # A word read or written at an address it is not aligned to stops the process.
    flags = "-std=c++17 -O0 -fPIC -shared -ffp-contract=off -fsanitize=alignment -fsanitize-undefined-trap-on-error"
    sources = [str(folder / "module.cpp"), "-x", "c++", str(ROOT / "csrc" / "cuda" / "lif.cu")]
    subprocess.run([compiler, *shlex.split(flags), f"-I{folder}", *sources, "-o", str(library)], check=True)
    kernels = ctypes.CDLL(str(library))
    for function in (kernels.forward, kernels.backward):
        function.restype = ctypes.c_char_p
    return kernels


class Emulated:
    """The two kernels with the arguments of those of deal_kernels._C."""

    def __init__(self, library, device=0):
        self.library = library
        self.device = device

    def forward(self, neuron, *numbers):
        self._call(self.library.forward, neuron, *numbers)

    def backward(self, neuron, steps, neurons, *numbers):
        starts = torch.full(((steps + 15) // 16 * neurons,), math.nan)
        self._call(self.library.backward, neuron, *numbers, starts.data_ptr())

    def _call(self, function, neuron, *numbers):
        numbers = *numbers, self.device
        error = function((ctypes.c_double * len(neuron))(*neuron), (ctypes.c_int64 * len(numbers))(*numbers))
        if error:
            raise RuntimeError(error.decode())


class Compiled:
    """The same two of the CPU backend."""

    def forward(self, neuron, *numbers):
        compiled.lif_forward(self._neuron(neuron), *numbers, 1)

    def backward(self, neuron, steps, neurons, *numbers):
        compiled.lif_backward(self._neuron(neuron), *numbers, 1)

    def _neuron(self, neuron):
        return compiled.Neuron(*map(int, neuron[:4]), *map(bool, neuron[4:6]), *neuron[6:])


class Rooms:
    """Tensors between margins that must stay as they are; inputs and results `skew` elements off their alignment."""

    def __init__(self, skew):
        self.skew = skew
        self.rooms = []

    def place(self, tensor, skew=None):
        skew = self.skew[0] if skew is None else skew
        room = torch.full((tensor.numel() + 2 * MARGIN + skew,), 77, dtype=tensor.dtype)
        begin = MARGIN + skew
        placed = room[begin : begin + tensor.numel()].view(tensor.shape)
        placed.copy_(tensor)
        self.rooms.append((room, begin, begin + tensor.numel()))
        return placed

    def result(self, *shape, dtype=torch.float32):
        return self.place(torch.full(shape, 255 if dtype is torch.uint8 else math.nan, dtype=dtype), self.skew[1])

    def check(self):
        for room, begin, end in self.rooms:
            assert (room[:begin] == 77).all() and (room[end:] == 77).all(), "wrote outside its tensor"


def layer(
    steps=4, neurons=520, dtype=torch.float32, *, charge=DECAY_INPUT, fire=GE, reset=SOFT, surrogate=ATAN, detach=False,
    decay=None, threshold=0.8, output=SPIKES, constant=False, state=True, decays=None, thresholds=None, inner=1,
    skew=(0, 0),
):  # fmt: skip
    """What a kernel is run on: random tensors, and of decay and threshold so many channels, or None for a number."""
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

    return SimpleNamespace(
        neuron=(charge, fire, reset, surrogate, detach, multiply, decay, threshold, rest, alpha, levels),
        dtype=dtype, steps=steps, neurons=neurons, output=output, constant=constant, inner=inner, rooms=rooms,
        x=normal(1 if constant else steps, neurons, dtype=dtype), v0=normal(neurons) if state else None,
        decay=parameter(decays, 0.3 if charge == LEAK else 1.2), threshold=parameter(thresholds, 0.5),
        grad=normal(1 if output == MEAN else steps, neurons, dtype=dtype), grad_v=normal(neurons) if state else None,
    )  # fmt: skip


def address(tensor):
    return 0 if tensor is None else tensor.data_ptr()


def channels(tensor):
    return 1 if tensor is None else tensor.numel()


def inputs(a):
    return (
        DTYPES[a.dtype], a.output, a.steps, a.neurons, 0 if a.constant else a.neurons, address(a.x), address(a.v0),
        address(a.decay), channels(a.decay), address(a.threshold), channels(a.threshold), a.inner,
    )  # fmt: skip


def forward(kernels, a):
    """The result, and the final state of a layer that has one."""
    shape, dtype = {
        SPIKES: ((a.steps, a.neurons), a.dtype),
        MEAN: ((a.neurons,), a.dtype),
        PACKED: ((a.steps, (a.neurons + 7) // 8), torch.uint8),
    }[a.output]
    out, v = a.rooms.result(*shape, dtype=dtype), None if a.v0 is None else a.rooms.result(a.neurons)
    kernels.forward(a.neuron, *inputs(a), address(out), address(v))
    a.rooms.check()
    return (out,) if v is None else (out, v)


def backward(kernels, a, shares=True):
    """The gradients of x, the initial state, decay and threshold."""
    grad_x = a.rooms.result(1 if a.constant else a.steps, a.neurons, dtype=a.dtype)
    states = [a.rooms.result(a.neurons) if wanted else None for wanted in (a.v0 is not None, shares, shares)]
    numbers = a.constant, address(a.grad), address(a.grad_v), address(grad_x), *map(address, states)
    kernels.backward(a.neuron, a.steps, a.neurons, *inputs(a), *numbers)
    a.rooms.check()
    return grad_x, *(state for state in states if state is not None)


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
