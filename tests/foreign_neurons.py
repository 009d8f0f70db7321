"""Plain neurons with the attributes and call forms of snnTorch's and Norse's, for tests without these libraries."""

from types import SimpleNamespace
from typing import NamedTuple

import torch
from torch import nn


class Step(torch.autograd.Function):
    """Spikes where u > 0, with the derivative 1 / (1 + |u|)^2, or another one."""

    @staticmethod
    def forward(ctx, u, derivative):
        ctx.save_for_backward(u)
        ctx.derivative = derivative
        return (u > 0).float()

    @staticmethod
    def backward(ctx, grad):
        (u,) = ctx.saved_tensors
        return grad * ctx.derivative(u), None


def smooth(u):
    return 1 / (1 + u.abs()) ** 2


def spike(u):
    return Step.apply(u, smooth)


def bell(u):
    return Step.apply(u, lambda u: torch.exp(-(u**2)))


class Leaky(nn.Module):
    """The attributes and results of snnTorch's Leaky."""

    names = ("subtract", "zero", "none")

    def __init__(
        self, beta, threshold=1.0, spike_grad=spike, surrogate_disable=False, init_hidden=False, inhibition=False,
        learnt=False, reset_mechanism="subtract", state_quant=False, output=False, graded_spikes_factor=1.0,
        reset_delay=True,
    ):  # fmt: skip
        super().__init__()
        for name, value in (
            ("beta", beta), ("threshold", threshold), ("graded_spikes_factor", graded_spikes_factor),
        ):  # fmt: skip
            value = torch.as_tensor(value)
            if learnt:
                setattr(self, name, nn.Parameter(value))
            else:
                self.register_buffer(name, value)
        self.register_buffer("mem", torch.zeros(0), persistent=False)
        self.register_buffer("reset_mechanism_val", torch.tensor(self.names.index(reset_mechanism)))
        self.reset_mechanism, self.reset_delay = reset_mechanism, reset_delay
        self.state_function = (self._base_sub, self._base_zero, self._base_int)[self.names.index(reset_mechanism)]
        self.spike_grad = (lambda u: (u > 0).float()) if surrogate_disable else spike_grad
        self.surrogate_disable, self.init_hidden, self.output = surrogate_disable, init_hidden, output
        self.inhibition, self.state_quant = inhibition, state_quant
        self.own_steps = 0

    def charged(self, x, mem):
        return self.beta.clamp(0, 1) * mem + x

    def _base_sub(self, x, fired):
        return self.charged(x, self.mem) - fired * self.threshold

    def _base_zero(self, x, fired):
        return self.charged(x, (1 - fired) * self.mem)

    def _base_int(self, x, fired):
        return self.charged(x, self.mem)

    def mem_reset(self, mem):
        return self.spike_grad(mem - self.threshold).detach()

    def forward(self, x, mem=None):
        self.own_steps += 1
        if mem is not None:
            self.mem = mem
            if self.init_hidden:
                raise TypeError("mem")
        if self.mem.shape != x.shape:
            self.mem = torch.zeros_like(x)
        fired = self.mem_reset(self.mem)
        h = self.state_function(x, fired)
        spikes = self.spike_grad(h - self.threshold) * self.graded_spikes_factor
        self.mem = h
        if not self.reset_delay:
            change = spikes / self.graded_spikes_factor - fired
            self.mem = h - change * {0: self.threshold, 1: h, 2: 0.0}[int(self.reset_mechanism_val)]
        return spikes if self.init_hidden and not self.output else (spikes, self.mem)


class Lapicque(Leaky):
    """The attributes and results of snnTorch's Lapicque, of R and C."""

    def __init__(self, R, C, time_step=1, **named):
        super().__init__(0.0, **named)
        del self.reset_delay
        self.register_buffer("R", torch.as_tensor(R))
        self.register_buffer("C", torch.as_tensor(C))
        self.register_buffer("time_step", torch.as_tensor(time_step))

    reset_delay = True

    def charged(self, x, mem):
        rc = self.R * self.C
        return ((x * self.R) * (1 / rc)) * self.time_step + (1 - self.time_step / rc) * mem

    def _base_zero(self, x, fired):
        h = self.charged(x, self.mem)
        return h - fired * h


class Synaptic(Leaky):
    """The attributes and results of snnTorch's Synaptic."""

    def __init__(self, alpha, beta, **named):
        super().__init__(beta, **named)
        self.register_buffer("alpha", torch.as_tensor(alpha))
        self.register_buffer("syn", torch.zeros(0), persistent=False)

    def _base_zero(self, x, fired):
        h = self.charged(x, self.mem)
        return h - h * fired

    def forward(self, x, syn=None, mem=None):
        self.syn = self.syn if syn is None else syn
        if self.syn.shape != x.shape:
            self.syn = torch.zeros_like(x)
        self.syn = self.alpha.clamp(0, 1) * self.syn + x
        spikes, mem = super().forward(self.syn, mem)
        return spikes, self.syn, mem


class IAFState(NamedTuple):
    v: torch.Tensor


class BoxState(NamedTuple):
    v: torch.Tensor


class LIFState(NamedTuple):
    v: torch.Tensor
    i: torch.Tensor


class LSNNState(NamedTuple):
    v: torch.Tensor
    i: torch.Tensor
    b: torch.Tensor


class Parameters(NamedTuple):
    """Of all neurons of Norse."""

    v_th: torch.Tensor = torch.tensor(1.0)
    v_reset: torch.Tensor = torch.tensor(0.0)
    method: str = "super"
    alpha: torch.Tensor = torch.tensor(100.0)
    tau_mem_inv: torch.Tensor = torch.tensor(300.0)
    tau_syn_inv: torch.Tensor = torch.tensor(200.0)
    tau_adapt_inv: torch.Tensor = torch.tensor(40.0)
    beta: torch.Tensor = torch.tensor(1.8)
    v_leak: torch.Tensor = torch.tensor(0.0)
    reset_method: object = None


def threshold(u, method, alpha):
    derivative = {"super": smooth, "tanh": lambda u: 1 - torch.tanh(alpha * u) ** 2}
    return (u > 0).to(u.dtype) if method == "heaviside" else Step.apply(u, derivative[method]).to(u.dtype)


def reset_value(z, v, reset, th):
    return (1 - z) * v + z * reset


def reset_subtract(z, v, reset, th):
    return (1 - z) * v + z * (v - th)


def iaf_feed_forward_step(x, state, p, dt):
    h = state.v + x
    z = threshold(h - p.v_th, p.method, p.alpha)
    return z, IAFState(reset_value(z, h, p.v_reset, p.v_th))


def lif_box_feed_forward_step(x, state, p, dt):
    h = state.v + dt * p.tau_mem_inv * (x + p.v_leak - state.v)
    z = threshold(h - p.v_th, p.method, p.alpha)
    return z, BoxState(p.reset_method(z, h, p.v_reset, p.v_th))


def lif_feed_forward_step(x, state, p, dt):
    jumped = state.i + x
    h = state.v + dt * p.tau_mem_inv * (p.v_leak - state.v + jumped)
    z = threshold(h - p.v_th, p.method, p.alpha)
    return z, LIFState(reset_value(z, h, p.v_reset, p.v_th), jumped + -dt * p.tau_syn_inv * jumped)


def lsnn_feed_forward_step(x, state, p, dt):
    h = state.v + dt * p.tau_mem_inv * (p.v_leak - state.v + state.i)
    i = state.i + -dt * p.tau_syn_inv * state.i
    b = state.b + dt * p.tau_adapt_inv * (p.v_th - state.b)
    z = threshold(h - b, p.method, p.alpha)
    return z, LSNNState(reset_value(z, h, p.v_reset, p.v_th), i + x, b + z * p.beta)


class Cell(nn.Module):
    """Norse's way of calling a step."""

    def __init__(self, p, dt=0.001):
        super().__init__()
        self.p, self.dt, self.record_states, self.own_steps = p, dt, False, 0
        self.activation, self.state_fallback = self.step, self.initial_state

    def initial_state(self, x):
        return self.State(self.p.v_reset.detach().clone().requires_grad_())

    def forward(self, x, state=None):
        self.own_steps += 1
        return self.activation(x, self.state_fallback(x) if state is None else state, self.p, self.dt)


class IAFCell(Cell):
    step, State = staticmethod(iaf_feed_forward_step), IAFState


class LIFBoxCell(Cell):
    step, State = staticmethod(lif_box_feed_forward_step), BoxState


class LIFCell(Cell):
    step, State = staticmethod(lif_feed_forward_step), LIFState

    def initial_state(self, x):
        return LIFState(self.p.v_leak.clone().requires_grad_(), torch.zeros(x.shape))


class LSNNCell(Cell):
    step, State = staticmethod(lsnn_feed_forward_step), LSNNState

    def initial_state(self, x):
        v = torch.full(x.shape, float(self.p.v_leak), dtype=x.dtype, requires_grad=True)
        return LSNNState(v, torch.zeros_like(x), self.p.v_th.detach())


class IAF(IAFCell):
    def forward(self, x, state=None):
        states, spikes = [self.state_fallback(x[0]) if state is None else state], []
        for current in x:
            z, state = super().forward(current, states[-1])
            spikes.append(z)
            states.append(state)
        record = IAFState(torch.stack([each.v for each in states[1:]]))
        return torch.stack(spikes), record if self.record_states else states[-1]


# What the adapters take from norse.torch.functional, by the name of the module.
FUNCTIONAL = {
    "iaf": SimpleNamespace(iaf_feed_forward_step=iaf_feed_forward_step, IAFFeedForwardState=IAFState),
    "lif_box": SimpleNamespace(
        lif_box_feed_forward_step=lif_box_feed_forward_step, LIFBoxFeedForwardState=BoxState
    ),
    "lif": SimpleNamespace(lif_feed_forward_step=lif_feed_forward_step, LIFFeedForwardState=LIFState),
    "lsnn": SimpleNamespace(lsnn_feed_forward_step=lsnn_feed_forward_step, LSNNFeedForwardState=LSNNState),
    "reset": SimpleNamespace(reset_value=reset_value, reset_subtract=reset_subtract),
    "threshold": SimpleNamespace(threshold=threshold),
}  # fmt: skip
