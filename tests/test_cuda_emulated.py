"""The CUDA kernels' own source, run thread by thread on a CPU, against the CPU kernels."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from cuda_emulation import HALVES, Compiled, Emulated, GuardedTensors, installed, library

CHARGES = ("decay_input", "decay", "beta")
FIRES = ("ge", "gt", "levels")
RESETS = ("hard", "soft", "none", "next_hard", "next_soft", "twice_soft")
SURROGATES = (
    "sigmoid", "atan", "triangle", "rectangle", "fast_sigmoid", "erf", "exponential", "sides", "window", "given",
)  # fmt: skip
EXPONENTIALS = ("sigmoid", "erf", "exponential")
OUTPUTS = ("spikes", "mean", "packed")
RECORDS = ("states", "membranes")
STEPS = (1, 3, 4, 5, 7, 16, 17, 40)
SIZES = (1, 7, 517, 520, 1028)  # odd ones take neurons one by one

compiled = Compiled(pytest.importorskip("deal_kernels._C", reason="the extension is not built"))


@pytest.fixture(scope="module")
def emulated():
    return Emulated(library())


def layer(
    steps=4, neurons=520, dtype=torch.float32, *, charge="decay_input", fire="ge", reset="soft", surrogate="atan",
    detach=False, decay=None, threshold=0.8, output="spikes", constant=False, state=True, decays=None, thresholds=None,
    norms=None, shortcut=False, inner=1, skew=(0, 0), carries=True, amount=None, scale=1.0, rest=None,
    rate=None, groups=1,
):  # fmt: skip
    """What a kernel is run on: random tensors, and of decay, threshold and norm so many channels, or None."""
    random = torch.Generator().manual_seed(steps * 1000 + neurons)
    decay = decay or (0.75 if charge == "beta" else 0.5)
    reset_to = -0.25 if "hard" in reset else 0.0
    alphas = {"sigmoid": 4.0, "atan": 2.0, "fast_sigmoid": 3.0, "window": -0.5}
    neuron = {
        "charge": charge, "fire": fire, "reset": reset, "surrogate": "window" if fire == "levels" else surrogate,
        "detach_reset": detach, "carries": carries,
        "rate": charge != "beta" and (decays is None and decay < 1 if rate is None else rate),
        "own_amount": amount is not None, "decay": decay, "threshold": threshold,
        "rest": reset_to if rest is None else rest, "reset_to": reset_to, "amount": amount or 0.0,
        "alpha": alphas.get(surrogate, 1.0), "height": 0.7, "outside": 0.1, "levels": 4 if fire == "levels" else 1,
        "scale": scale,
    }  # fmt: skip
    tensors = GuardedTensors(skew)

    def normal(*shape, dtype=torch.float32):
        return tensors.place((torch.randn(shape, generator=random) * 1.5 + 0.3).to(dtype))

    def parameter(channels, low):
        return None if channels is None else tensors.place(torch.rand(channels, generator=random) + low)

    rows = 1 if constant else steps
    grad_type = torch.float32 if output in RECORDS else dtype
    return SimpleNamespace(
        neuron=neuron, dtype=dtype, steps=steps, neurons=neurons, output=output, constant=constant, inner=inner,
        group=neurons // groups, tensors=tensors, x=normal(rows, neurons, dtype=dtype),
        v0=normal(neurons) if state else None,
        decay=parameter(decays, 0.3 if charge == "beta" else 1.2), threshold=parameter(thresholds, 0.5),
        grad=normal(1 if output == "mean" else steps, neurons, dtype=grad_type),
        grad_v=normal(neurons) if state else None,
        norm=[parameter(norms, low) for low in (0.0, 0.8, -0.4)] if norms else None,
        shortcut=normal(rows, neurons, dtype=dtype) if shortcut else None,
        slopes=normal(steps, neurons) if surrogate == "given" else None,
    )  # fmt: skip


def channels(tensor):
    return 1 if tensor is None else tensor.numel()


def inputs(kernels, a):
    """The fields that both directions have."""
    norm = None
    if a.norm is not None:
        mean, scale, shift = a.norm
        norm = kernels.make(
            "Norm", mean=mean, scale=scale, shift=shift, channels=len(mean), inner=a.inner, shortcut=a.shortcut
        )
    return {
        "neuron": kernels.make("Neuron", **a.neuron), "dtype": a.dtype, "output": a.output, "steps": a.steps,
        "neurons": a.neurons, "group": a.group, "time_stride": 0 if a.constant else a.group, "x": a.x, "v0": a.v0,
        "decay": a.decay, "decay_channels": channels(a.decay), "decay_inner": a.inner, "threshold": a.threshold,
        "threshold_channels": channels(a.threshold), "threshold_inner": a.inner, "norm": norm,
    }  # fmt: skip


def forward(kernels, a):
    """The result, and the final state of a layer that has one."""
    shape, dtype = {
        "spikes": ((a.steps, a.neurons), a.dtype),
        "mean": ((a.neurons,), a.dtype),
        "packed": ((a.steps, (a.neurons + 7) // 8), torch.uint8),
        "states": ((a.steps, a.neurons), torch.float32),
        "membranes": ((a.steps, a.neurons), torch.float32),
    }[a.output]
    out, v = a.tensors.result(*shape, dtype=dtype), None if a.v0 is None else a.tensors.result(a.neurons)
    kernels.run("lif_forward", **inputs(kernels, a), out=out, v=v)
    a.tensors.check()
    return (out,) if v is None else (out, v)


def backward(kernels, a, shares=True):
    """The gradients of x, the initial state, decay and threshold."""
    grad_x = a.tensors.result(1 if a.constant else a.steps, a.neurons, dtype=a.dtype)
    states = [a.tensors.result(a.neurons) if wanted else None for wanted in (a.v0 is not None, shares, shares)]
    by_neuron = kernels.emulated and not kernels.module.cuda.sums_by_channel(a.inner)
    a.sums = a.tensors.result(2, a.neurons if by_neuron else len(a.norm[0])) if a.norm else None
    grad_v0, grad_decay, grad_threshold = states
    kernels.run(
        "lif_backward", **inputs(kernels, a), constant=a.constant, grad=a.grad, grad_v=a.grad_v, slopes=a.slopes,
        grad_x=grad_x,
        grad_v0=grad_v0, grad_decay=grad_decay, grad_threshold=grad_threshold, norm_sums=a.sums,
    )  # fmt: skip
    a.tensors.check()
    return grad_x, *(state for state in states if state is not None)


def by_channel(sums, a):
    """The sums of a norm, also where they were left by neuron."""
    if sums.shape[1] == len(a.norm[0]):
        return sums.double()
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


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_forward(emulated, dtype, output):
    for steps, neurons in itertools.product(STEPS, SIZES):
        for options in ({}, {"constant": True, "state": False}):
            a = layer(steps, neurons, dtype, output=output, **options)
            assert same(forward(emulated, a), forward(compiled, a)), (steps, neurons, options)


@pytest.mark.parametrize("output", OUTPUTS[:2])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_backward(emulated, dtype, output):
    for steps, neurons in itertools.product(STEPS, SIZES):
        for options in ({}, {"constant": True, "state": False}):
            a = layer(steps, neurons, dtype, output=output, **options)
            for shares in (False, True):
                ours, expected = (backward(kernels, a, shares) for kernels in (emulated, compiled))
                assert same(ours, expected), (steps, neurons, options, shares)


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("fire", FIRES)
@pytest.mark.parametrize("charge", CHARGES)
def test_neurons(emulated, charge, fire, reset):
    for surrogate, detach, neurons in itertools.product(SURROGATES, (False, True), (131, 132)):
        for decay in (None, 0.9 if charge == "beta" else 3.0):
            options = {"surrogate": surrogate, "detach": detach, "decay": decay}
            a = layer(19, neurons, charge=charge, fire=fire, reset=reset, **options)
            assert same(forward(emulated, a), forward(compiled, a)), options
            compare = close if surrogate in EXPONENTIALS and fire != "levels" else same
            assert compare(backward(emulated, a), backward(compiled, a)), options


@pytest.mark.parametrize("output", OUTPUTS + RECORDS)
@pytest.mark.parametrize("reset", RESETS)
def test_rest_amount_scale_and_carried_gradient(emulated, reset, output):
    for neurons, charge, dtype in itertools.product((131, 132), CHARGES, HALVES):
        for options in ({"carries": False, "rest": 0.1}, {"amount": 0.4, "scale": 1.0 if output == "packed" else 0.3}):
            a = layer(19, neurons, dtype, reset=reset, output=output, charge=charge, **options)
            assert same(forward(emulated, a), forward(compiled, a)), (charge, options)
            if output != "packed":
                assert same(backward(emulated, a), backward(compiled, a)), (charge, options)


USUAL = tuple(itertools.product(("decay_input", "beta"), ("hard", "soft"), ("sigmoid", "atan")))


def usual(steps, neurons, dtype, kind, **options):
    charge, reset, surrogate = kind
    return layer(steps, neurons, dtype, charge=charge, reset=reset, surrogate=surrogate, **options)


@pytest.mark.parametrize("norms", (None, 5))
@pytest.mark.parametrize("kind", USUAL, ids=str)
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_usual_neurons(emulated, dtype, kind, norms):
    compare = close if kind[2] in EXPONENTIALS else same
    sizes = ((80, 16), (640, 64), (980, 196), (1080, 8)) if norms else ((515, 1), (516, 1), (1024, 1), (3, 1))
    options = {"detach": True, "shortcut": norms}, {"state": False}, {"decays": 1, "thresholds": 1, "rate": True}
    calls = zip(itertools.product((1, 3, 4, 5), sizes), itertools.cycle(options))
    for (steps, (neurons, inner)), given in calls:
        a = usual(steps, neurons, dtype, kind, norms=norms, inner=inner, **given)
        assert same(forward(emulated, a), forward(compiled, a)), (steps, neurons, given)
        ours, sums = backward(emulated, a, shares=False), a.sums
        assert compare(ours, backward(compiled, a, shares=False)), (steps, neurons, given)
        if norms:
            scale = a.steps * a.neurons**0.5
            torch.testing.assert_close(by_channel(sums, a), a.sums.double(), rtol=1e-5, atol=1e-6 * scale)


@pytest.mark.parametrize("norms", (None, 2))
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_usual_neurons_have_kernels_of_their_own(emulated, dtype, norms):
    def kernels(run, steps, **options):
        """Of each kind those that run it, but for the one that adds up the parts of a norm."""
        found = []
        for kind in USUAL:
            a = usual(steps, 64, dtype, kind, norms=norms, inner=16, **options)
            emulated.module.launched()
            run(emulated, a)
            found.append(emulated.module.launched())
        return [kernels - set.intersection(*found) if norms and run is ours else kernels for kernels in found]

    def ours(kernels, a):
        backward(kernels, a, shares=False)

    for run, count in ((forward, 4), (ours, 8)):
        few = [set().union(*kernels(run, steps)) for steps in (1, 4)]
        assert few[0] == few[1]
        assert len(few[0]) == count
        for other in ({"fire": "gt"}, {"detach": True, "skew": (1, 1)}, {"output": "mean"}, {"constant": True}):
            assert not few[0] & set().union(*kernels(run, 4, **other)), other
        assert not few[0] & set().union(*kernels(run, 5))


@pytest.mark.parametrize("output", RECORDS)
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_records(emulated, dtype, output):
    for steps, neurons in itertools.product(STEPS, SIZES):
        for options in ({}, {"constant": True, "state": False}, {"surrogate": "given", "reset": "twice_soft"}):
            a = layer(steps, neurons, dtype, output=output, **options)
            assert same(forward(emulated, a), forward(compiled, a)), (steps, neurons, options)
            for shares in (False, True):
                ours, expected = (backward(kernels, a, shares) for kernels in (emulated, compiled))
                assert same(ours, expected), (steps, neurons, options, shares)


@pytest.mark.parametrize("charge", CHARGES)
@pytest.mark.parametrize(("decays", "thresholds"), [(1, None), (None, 1), (5, 1), (1, 5), (5, 5), (3, None)])
def test_parameters(emulated, charge, decays, thresholds):
    for inner, neurons, fire in itertools.product((1, 3, 4, 64), (240, 241), ("ge", "levels")):
        options = {"charge": charge, "decays": decays, "thresholds": thresholds, "inner": inner, "fire": fire}
        for output, rate in zip(OUTPUTS, (False, True, True), strict=True):
            a = layer(5, neurons, output=output, rate=rate, **options)
            assert same(forward(emulated, a), forward(compiled, a)), (options, output)
            if output != "packed":
                assert same(backward(emulated, a), backward(compiled, a)), (options, output)


@pytest.mark.parametrize("skew", ((1, 0), (0, 1), (2, 4), (4, 2)))
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_alignment(emulated, dtype, skew):
    for steps, output, state in itertools.product((4, 18), OUTPUTS, (False, True)):
        a = layer(steps, 264, dtype, output=output, skew=skew, state=state)
        assert same(forward(emulated, a), forward(compiled, a)), (steps, output)
        if output != "packed":
            ours, expected = (backward(kernels, a, shares=state) for kernels in (emulated, compiled))
            assert same(ours, expected), (steps, output)


@pytest.mark.parametrize("shortcut", (False, True))
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_norm(emulated, dtype, output, shortcut):
    sizes = (1, 1, 1), (241, 5, 3), (517, 1, 11), (520, 8, 1), (520, 5, 4), (1152, 3, 64)
    for steps, (neurons, norms, inner), constant in itertools.product((1, 4, 7, 18, 40), sizes, (False, True)):
        options = {"norms": norms, "inner": inner, "shortcut": shortcut, "constant": constant}
        a = layer(steps, neurons, dtype, output=output, state=not constant, **options)
        assert same(forward(emulated, a), forward(compiled, a)), (steps, neurons, options)
        if output != "packed":
            check_norm_gradients(emulated, a, shares=steps % 2 == 0)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_sums_of_a_norm_by_channel(emulated, dtype):
    """Planes of a part of a block, of several blocks, and of blocks that begin within one."""
    planes = (13, 5, 16), (2, 3, 20), (3, 2, 196), (1, 3, 512), (2, 1, 516), (1, 1, 2052), (1, 2, 1028)
    for steps, (rows, norms, inner), skew in itertools.product((4, 18), planes, ((0, 0), (1, 1))):
        a = layer(steps, rows * norms * inner, dtype, norms=norms, inner=inner, shortcut=steps == 4, skew=skew)
        assert emulated.module.cuda.sums_by_channel(inner)
        check_norm_gradients(emulated, a, shares=steps > 4)


def check_norm_gradients(emulated, a, shares):
    ours = backward(emulated, a, shares)
    sums = by_channel(a.sums, a)
    assert same(ours, backward(compiled, a, shares)), a
    torch.testing.assert_close(sums, a.sums.double(), rtol=1e-5, atol=1e-6 * a.steps * a.neurons**0.5)


@pytest.mark.parametrize("charge", CHARGES)
def test_norm_and_parameters_by_channel(emulated, charge):
    for inner, neurons, reset, constant in itertools.product((1, 4, 6), (240, 241), RESETS, (False, True)):
        options = {"charge": charge, "decays": 5, "thresholds": 5, "inner": inner, "reset": reset, "constant": constant}
        a = layer(18, neurons, norms=5, shortcut=True, **options)
        assert same(forward(emulated, a), forward(compiled, a)), options
        check_norm_gradients(emulated, a, shares=True)


@pytest.mark.parametrize("skew", ((1, 0), (0, 1), (2, 4), (4, 2)))
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_alignment_with_norm(emulated, dtype, skew):
    for output in OUTPUTS:
        a = layer(18, 264, dtype, output=output, skew=skew, norms=6, inner=4, shortcut=True)
        assert same(forward(emulated, a), forward(compiled, a)), output
        if output != "packed":
            check_norm_gradients(emulated, a, shares=False)


@pytest.mark.parametrize("output", OUTPUTS + RECORDS)
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_groups(emulated, dtype, output):
    for steps, groups, group, reset in itertools.product((1, 4, 18), (2, 5), (48, 67, 520), ("soft", "next_hard")):
        if output == "packed" and group % 8:
            continue
        options = {"groups": groups, "reset": reset, "decays": 3, "thresholds": 3, "inner": 7}
        a = layer(steps, groups * group, dtype, output=output, **options)
        assert same(forward(emulated, a), forward(compiled, a)), (steps, groups, group)
        if output == "packed":
            continue
        for shares in (False, True):
            ours, expected = (backward(kernels, a, shares) for kernels in (emulated, compiled))
            assert same(ours, expected), (steps, groups, group, shares)


@pytest.mark.parametrize("output", OUTPUTS)
def test_norm_of_groups(emulated, output):
    for steps, (group, norms, inner), shortcut in itertools.product(
        (4, 18), ((48, 8, 1), (66, 3, 11), (520, 5, 4)), (False, True)
    ):
        if output == "packed" and group % 8:
            continue
        options = {"groups": 3, "norms": norms, "inner": inner, "shortcut": shortcut}
        a = layer(steps, 3 * group, output=output, **options)
        assert same(forward(emulated, a), forward(compiled, a)), (steps, group)
        if output != "packed":
            check_norm_gradients(emulated, a, shares=False)


def test_bits_past_the_last_neuron_are_zero(emulated):
    a = layer(neurons=13, threshold=-9.0, output="packed")
    assert forward(emulated, a)[0].tolist() == [[0xFF, 0x1F]] * a.steps


def test_errors_name_what_is_missing(emulated):
    with pytest.raises(RuntimeError, match="float64"):
        forward(emulated, SimpleNamespace(**vars(layer()) | {"dtype": torch.float64}))
    with installed(emulated.module, image=False), pytest.raises(RuntimeError, match="no kernel image"):
        forward(emulated, layer())


@pytest.mark.parametrize(
    ("driver", "image", "said"),
    [
        (13000, True, ""), (14010, True, ""),
        (12080, True, "the driver is for CUDA 12.8, and the kernels are built with CUDA 13.2"),
        (13000, False, "no kernel image is available for execution on the device"),
    ],
)  # fmt: skip
def test_a_device_that_cannot_run_the_kernels_is_known_before(emulated, driver, image, said):
    with installed(emulated.module, driver, image):
        assert emulated.module.cuda.problem() == said
