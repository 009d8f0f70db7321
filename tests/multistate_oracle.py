"""Independent neurons with several states: plain loops with torch's autograd behind them, and the cases to try."""

import oracle
import torch

from deal_kernels import multistate

RESETS = {"hard": {"v_reset": -0.3}, "soft": {"v_reset": None}, "none": {"reset": "none"}}
DELAYED = {
    "next_hard": {"reset": "next_hard", "v_reset": -0.3}, "next_soft": {"reset": "next_soft"},
    "twice_soft": {"reset": "twice_soft", "reset_by": 0.6},
}  # fmt: skip
SHARE, THRESHOLD = (0.3, 0.9), {"v_threshold": (0.5, 1.0)}
STATES = {"cuba": "vi", "alif": "va", "lsnn": "vib", "clif": "vm"}
# The parameters of each model by name, with the range that they are drawn from.
MODELS = {
    "cuba": {"alpha": SHARE, "beta": SHARE, **THRESHOLD},
    "cuba, rates": {"current_rate": (0.1, 0.5), "rate": (0.1, 0.6), **THRESHOLD},
    "alif, tau": {"tau": (1.5, 3.0), "adaptation": SHARE, "strength": (0.1, 0.5), **THRESHOLD},
    "alif, rate": {"rate": SHARE, "adaptation": SHARE, "strength": (0.1, 0.5), **THRESHOLD},
    "alif, beta": {"beta": SHARE, "adaptation": SHARE, "strength": (0.1, 0.5), **THRESHOLD},
    "lsnn": {
        "rate": (0.1, 0.6), "current_rate": (0.1, 0.5), "adaptation_rate": (0.05, 0.3), "strength": (0.1, 0.5),
        **THRESHOLD,
    },
    "clif": {"tau": (1.5, 3.0), **THRESHOLD},
}  # fmt: skip
OPTIONS = {
    "cuba": [*RESETS.values(), *DELAYED.values()],
    "alif": [*RESETS.values(), {"v_reset": None, "decay_input": False, "v_rest": 0.2, "window": (-0.2, 1.5)}],
    "lsnn": [*RESETS.values(), {"v_rest": 0.2, "window": (-0.2, 1.5)}],
    "clif": [{}],
}
# Every model with every reset; those that share their spiking part with others in one of two ways to fire.
CASES = {}
for at, name in enumerate(MODELS):
    kind = name.split(",")[0]
    for number, options in enumerate(OPTIONS[kind]):
        for way in (0, 1) if kind == "lsnn" else (0,) if kind == "clif" else ((at + number) % 2,):
            fire = {"fire": "gt", "detach_reset": True} if way else {"fire": "ge"}
            CASES[f"{name}, {number}, {fire['fire']}"] = name, {**options, **fire}


def ours(name):
    """The function of a model."""
    return getattr(multistate, name.split(",")[0])


def count(name):
    """The number of its states."""
    return len(STATES[name.split(",")[0]])


def drawn(name, shape, dtype=torch.float32, device="cpu", seed=0):
    """Parameters of a model."""
    generator = torch.Generator().manual_seed(seed)
    return {
        each: (torch.rand(shape, generator=generator, dtype=torch.float64) * (high - low) + low).to(device, dtype)
        for each, (low, high) in MODELS[name].items()
    }


def shapes():
    """One value, one per channel, and two per neuron, for steps [2, 4, 8]."""
    return [(), (4,), (4, 8), (2, 1, 8)]


def wide(p):
    """A parameter as it broadcasts against [2, 4, 8]."""
    return p[:, None] if isinstance(p, torch.Tensor) and p.shape == (4,) else p


class Settings:
    def __init__(
        self, v_reset=0.0, v_rest=None, reset="auto", reset_by=None, detach_reset=False, surrogate="sigmoid", fire="ge",
        window=None, decay_input=True,
    ):  # fmt: skip
        self.kind = ("soft" if v_reset is None else "hard") if reset == "auto" else reset
        self.back = v_reset if "hard" in self.kind else 0.0
        self.rest = self.back if v_rest is None else v_rest
        self.by, self.detach, self.surrogate, self.fire = reset_by, detach_reset, surrogate, fire
        self.window, self.decay_input = window, decay_input

    def spikes(self, h, threshold):
        u = h - threshold
        slope = oracle.slope(self.surrogate, u.detach())
        if self.window is not None:
            low, high = self.window
            slope = slope * ((h > low) & (h < high)).detach()
        return oracle.Spike.apply(u, slope, self.fire)

    def earlier(self, v, threshold):
        """The spike of the state that enters a step, where it resets at this one."""
        return oracle.fired(v, threshold, self.fire, 1)

    def amount(self, threshold):
        return threshold if self.by is None else self.by

    def late(self, v, h, threshold):
        """What the spike of the step before does to the membrane."""
        if self.kind == "next_hard":
            r = self.earlier(v, threshold)
            return r * self.back + (1 - r) * h
        if self.kind in ("next_soft", "twice_soft"):
            return h - self.earlier(v, threshold) * self.amount(threshold)
        return h

    def left(self, v, h, s, threshold):
        s = s.detach() if self.detach else s
        if self.kind == "hard":
            return s * self.back + (1 - s) * h
        if self.kind == "soft":
            return h - s * self.amount(threshold)
        if self.kind == "twice_soft":
            return h - (s - self.earlier(v, threshold)) * self.amount(threshold)
        return h


def cuba_step(n, x, v, i, alpha=None, beta=None, current_rate=None, rate=None, v_threshold=None):
    if alpha is not None:
        i = alpha * i + x
        h = beta * v + i
    else:
        i = i + x
        h = v + rate * ((n.rest - v) + i)
        i = i - current_rate * i
    h = n.late(v, h, v_threshold)
    s = n.spikes(h, v_threshold)
    return s, (n.left(v, h, s, v_threshold), i)


def alif_step(n, x, v, a, adaptation, strength, v_threshold, tau=None, rate=None, beta=None):
    threshold = v_threshold + strength * a
    h = oracle.charged(v, x, n.rest, tau, rate, beta, n.decay_input)
    s = n.spikes(h, threshold)
    return s, (n.left(v, h, s, threshold), adaptation * a + s)


def lsnn_step(n, x, v, i, b, rate, current_rate, adaptation_rate, strength, v_threshold):
    h = v + rate * ((n.rest - v) + i)
    i = (i - current_rate * i) + x
    b = b + adaptation_rate * (v_threshold - b)
    s = n.spikes(h, b)
    return s, (n.left(v, h, s, b), i, b + s * strength)


def clif_step(n, x, v, m, tau, v_threshold):
    h = (v - v / tau) + x
    m = m * torch.sigmoid(h / tau)
    s = n.spikes(h, v_threshold)
    m = m + s
    return s, (h - s * (v_threshold + torch.sigmoid(m)), m)


STEPS = {"cuba": cuba_step, "alif": alif_step, "lsnn": lsnn_step, "clif": clif_step}


def run(name, x, *states, parameters, output="spikes", **options):
    """The output and the final states of a model; parameters broadcast against one step."""
    kind = name.split(",")[0]
    if kind == "clif":
        options = {"surrogate": "rectangle", **options}
    n = Settings(**options)
    start = {"v": n.rest, "b": parameters.get("v_threshold")}
    zero = torch.zeros_like(x[0])
    given = [*states, *[None] * (len(STATES[kind]) - len(states))]
    states = [
        (zero + start.get(letter, 0.0)).detach() if state is None else state
        for letter, state in zip(STATES[kind], given, strict=True)
    ]
    outputs = []
    for current in x:
        s, states = STEPS[kind](n, current, *states, **parameters)
        outputs.append(s if output == "spikes" else states[0])
    return torch.stack(outputs), tuple(states)


def draws(*shapes, dtype=torch.float64, device="cpu", seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(shape, generator=generator, dtype=torch.float64) * scale).to(device, dtype) for shape in shapes
    ]
