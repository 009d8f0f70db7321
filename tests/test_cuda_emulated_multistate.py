"""The CUDA kernels of neurons with several states, run thread by thread on a CPU, against the CPU kernels."""

import pytest
import torch
from cuda_emulation import HALVES, Compiled, Emulated, GuardedTensors, library

STATES = {"cuba": 2, "alif": 2, "lsnn": 3, "clif": 2}
PARAMETERS = {"cuba": 3, "alif": 4, "lsnn": 5, "clif": 2}
RESETS = ("hard", "soft", "none", "next_hard", "next_soft", "twice_soft")

compiled = Compiled(pytest.importorskip("deal_kernels._C", reason="the extension is not built"))


@pytest.fixture(scope="module")
def emulated():
    return Emulated(library())


class Layer:
    """What a kernel is run on: random tensors, and so many channels of every parameter, or its number."""

    def __init__(
        self, model, steps=4, neurons=131, dtype=torch.float32, *, channels=None, inner=1, output="spikes",
        given=True, surrogate="atan", reset="hard", rate=False, fire="ge", window=None, amount=None, groups=1,
    ):  # fmt: skip
        random = torch.Generator().manual_seed(steps * 1000 + neurons)
        self.tensors = tensors = GuardedTensors()
        self.model, self.steps, self.neurons, self.dtype, self.output = model, steps, neurons, dtype, output
        self.group = neurons // groups
        divides = model in ("alif", "clif") and not rate  # by tau, which is above 1
        charge = {"cuba": "beta", "alif": "decay_input", "lsnn": "beta", "clif": "decay"}[model]
        self.neuron = {
            "charge": charge, "fire": fire, "reset": "none" if model == "clif" else reset, "surrogate": surrogate,
            "detach_reset": False, "carries": True, "rate": rate, "own_amount": amount is not None,
            "decay": 2.5 if divides else 0.6,
            "threshold": 0.8, "rest": 0.0 if model == "clif" else 0.1, "reset_to": -0.2, "amount": amount or 0.0,
            "alpha": 2.0, "height": 0.7, "outside": 0.1, "levels": 1, "scale": 1.0,
        }  # fmt: skip

        def normal(*shape, dtype=torch.float32):
            return tensors.place((torch.randn(shape, generator=random) * 1.5 + 0.3).to(dtype))

        self.x = normal(steps, neurons, dtype=dtype)
        self.grad = normal(steps, neurons, dtype=torch.float32 if output == "states" else dtype)
        self.starts = [normal(neurons) if given else None for _ in range(STATES[model])]
        self.grad_states = [normal(neurons) if given else None for _ in range(STATES[model])]
        self.fields = {"windowed": window is not None, "low": (window or (0, 0))[0], "high": (window or (0, 0))[1]}
        for k in range(PARAMETERS[model]):
            if channels is not None:
                value = tensors.place(
                    torch.rand(channels, generator=random) * 0.6 + (1.2 if k == 1 and divides else 0.2)
                )
                self.fields |= {f"parameter_{k}": value, f"channels_{k}": channels, f"inner_{k}": inner}
            elif k > 1:
                self.fields[f"number_{k}"] = 0.3 + 0.1 * k

    def inputs(self, kernels):
        """The fields that both directions have."""
        return {
            "model": getattr(kernels.module.Model, self.model), "neuron": kernels.make("Neuron", **self.neuron),
            "dtype": self.dtype, "output": self.output, "steps": self.steps, "neurons": self.neurons,
            "group": self.group, "time_stride": self.group, "x": self.x, **named("start", self.starts), **self.fields,
        }  # fmt: skip

    def forward(self, kernels):
        """The result and the final states."""
        dtype = torch.float32 if self.output == "states" else self.dtype
        out = self.tensors.result(self.steps, self.neurons, dtype=dtype)
        states = [self.tensors.result(self.neurons) for _ in self.starts]
        kernels.run("multistate_forward", **self.inputs(kernels), out=out, **named("state", states))
        self.tensors.check()
        return [out, *states]

    def backward(self, kernels, wanted=True):
        """The gradients of x, the initial states and the parameters."""
        grad_x = self.tensors.result(self.steps, self.neurons, dtype=self.dtype)
        count = PARAMETERS[self.model] if wanted else 0
        starts, shares = ([self.tensors.result(self.neurons) for _ in range(n)] for n in (len(self.starts), count))
        kernels.run(
            "multistate_backward", **self.inputs(kernels), grad=self.grad, grad_x=grad_x,
            **named("grad_state", self.grad_states), **named("grad_start", starts), **named("grad_parameter", shares),
        )  # fmt: skip
        self.tensors.check()
        return [grad_x, *starts, *shares]


def named(name, values):
    return {f"{name}_{k}": value for k, value in enumerate(values)}


def agree(ours, expected, exact):
    """In every bit, or up to an exponential; a half type may round either way."""
    for a, b in zip(ours, expected, strict=True):
        if exact:
            assert torch.equal(a, b)
        else:
            relative = {torch.float32: 2e-6, torch.float16: 2**-10, torch.bfloat16: 2**-7}[a.dtype]
            torch.testing.assert_close(a, b, rtol=relative, atol=2e-6 * b.abs().max().float().item())


def check(emulated, layer, exact=True, wanted=True):
    exact = exact and layer.model != "clif"  # which has an exponential in its state
    agree(layer.forward(emulated), layer.forward(compiled), exact)
    agree(layer.backward(emulated, wanted), layer.backward(compiled, wanted), exact)


@pytest.mark.parametrize("model", STATES)
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_sizes(emulated, model, dtype):
    for steps, neurons in ((1, 1), (3, 7), (16, 130), (17, 131), (40, 260)):
        for output, given in (("spikes", False), ("states", True), ("spikes", True)):
            check(emulated, Layer(model, steps, neurons, dtype, output=output, given=given), wanted=given)


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("model", ("cuba", "alif", "lsnn"))
def test_resets(emulated, model, reset):
    for rate, fire, window in ((False, "gt", None), (True, "ge", (-0.5, 1.5))):
        if model != "cuba" and reset in RESETS[3:]:
            continue
        for amount in (None, 0.4) if "soft" in reset and model == "cuba" else (None,):
            check(emulated, Layer(model, 19, reset=reset, rate=rate, fire=fire, window=window, amount=amount))


@pytest.mark.parametrize("model", STATES)
def test_surrogates(emulated, model):
    for surrogate in ("triangle", "rectangle", "fast_sigmoid", "sides"):
        check(emulated, Layer(model, 5, surrogate=surrogate))
    for surrogate in ("sigmoid", "erf", "exponential"):
        check(emulated, Layer(model, 5, surrogate=surrogate), exact=False)


@pytest.mark.parametrize("model", STATES)
@pytest.mark.parametrize(("channels", "inner"), [(1, 1), (5, 1), (5, 3), (4, 64), (131, 1)])
def test_parameters(emulated, model, channels, inner):
    for rate in (False, True):
        check(emulated, Layer(model, 18, channels=channels, inner=inner, rate=rate))


@pytest.mark.parametrize("model", STATES)
def test_groups(emulated, model):
    for steps, groups, group, output in ((1, 2, 67, "spikes"), (4, 5, 48, "states"), (18, 2, 131, "spikes")):
        check(emulated, Layer(model, steps, groups * group, channels=3, inner=7, output=output, groups=groups))


def test_float64_is_refused(emulated):
    layer = Layer("cuba")
    layer.dtype = torch.float64
    with pytest.raises(RuntimeError, match="float64"):
        emulated.run("multistate_forward", **layer.inputs(emulated), out=layer.x)
