"""Compares snnTorch's neurons with what `swap` makes of them, over a grid of settings.

PYTHONPATH=FOLDER/snntorch-1.0.0 python tests/peers/snntorch_grid.py

Spikes and states have the same bits in every step, and their dtypes are the same. Gradients of the input differ by less
than 3e-6 of the largest; those of parameters, whose terms cancel, are compared in float64.
"""

import copy
import itertools
import warnings

import torch
from own_steps import OWN, count_own_steps
from snntorch import Lapicque, Leaky, Synaptic, surrogate

from deal_kernels.compat import swap

T, B, N = 9, 3, 7
FORMS = ("passed", "kept", "hidden", "hidden with states")


def drawn(*shape):
    return torch.rand(shape) * 0.5 + 0.4


def leaky():
    values = ("number", (1,), (N,), (1, N), (B, 1), (B, N), "whole", "too large")
    for beta, threshold, reset, delay, (learnt, factor), form in itertools.product(
        values, ("number", (N,), (B, N), "whole"), ("subtract", "zero", "none"), (True, False),
        ((False, 1.0), (True, 0.7)), FORMS,
    ):  # fmt: skip
        if ("whole" in (beta, threshold) and learnt) or (reset, delay) == ("zero", False):
            continue
        yield Leaky, {
            "beta": value(beta), "threshold": value(threshold), "reset_mechanism": reset, "reset_delay": delay,
            "learn_beta": learnt, "learn_threshold": learnt, "learn_graded_spikes_factor": learnt,
            "graded_spikes_factor": factor,
        }, form  # fmt: skip
    for slope, reset, delay in itertools.product(
        (
            surrogate.atan(3.0), surrogate.fast_sigmoid(10), surrogate.sigmoid(4), surrogate.triangular(),
            surrogate.straight_through_estimator(), surrogate.heaviside(), surrogate.spike_rate_escape(),
            surrogate.SFS(B=0.1), surrogate.custom_surrogate(lambda u, grad, spikes: grad * torch.exp(-u * u)),
        ),
        ("subtract", "zero", "none"), (True, False),
    ):  # fmt: skip
        if (reset, delay) != ("zero", False):
            yield Leaky, {"beta": 0.9, "spike_grad": slope, "reset_mechanism": reset, "reset_delay": delay}, "passed"


def value(kind):
    return {"number": 0.7, "whole": 1, "too large": 1.5}[kind] if isinstance(kind, str) else drawn(*kind)


def lapicque():
    for decay, step, reset, threshold, form in itertools.product(
        (
            {"beta": 0.9}, {"beta": 0.5}, {"R": 2.0, "C": 3.0}, {"R": 5, "C": 3}, {"beta": 0.8, "R": 0.5},
            {"beta": 0.8, "C": 2.0},
        ),
        (1, 0.5), ("subtract", "zero", "none"), (1.0, 0.3), FORMS,
    ):  # fmt: skip
        yield Lapicque, {
            **decay, "time_step": step, "reset_mechanism": reset, "threshold": threshold,
            "learn_threshold": threshold < 1,
        }, form  # fmt: skip


def synaptic():
    for alpha, beta, threshold, reset, delay, learnt, form in itertools.product(
        ("number", (N,), (B, N)), ("number", (N,)), ("number", (B, N)), ("subtract", "zero", "none"), (True, False),
        (False, True), FORMS,
    ):  # fmt: skip
        if (reset, delay) != ("zero", False):
            yield Synaptic, {
                "alpha": value(alpha), "beta": value(beta), "threshold": value(threshold), "reset_mechanism": reset,
                "reset_delay": delay, "learn_alpha": learnt, "learn_beta": learnt, "learn_threshold": learnt,
            }, form  # fmt: skip


def run(neuron, inputs, form):
    results, states = [], ()
    for x in inputs:
        found = neuron(x, *states) if form == "passed" else neuron(x)
        found = found if isinstance(found, tuple) else (found,)
        states = found[1:]
        results.append(found)
    return [torch.stack(each) for each in zip(*results, strict=True)]


def compared(neuron, x, form):
    """The results of a neuron, the gradient of its input and those of its parameters."""
    x = x.clone().requires_grad_()
    results = run(neuron, x, form)
    total = sum((each * torch.linspace(-1, 1, each.numel()).view(each.shape)).sum() for each in results)
    parameters = list(neuron.parameters())
    of_x, *others = torch.autograd.grad(total, [x, *parameters], allow_unused=True)
    return results, of_x, [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, others, strict=True)]


def check(kind, settings, form):
    hidden = {"init_hidden": form.startswith("hidden"), "output": form == "hidden with states"}
    scale = 6.0 if kind is Lapicque else 1.5
    for dtype in (torch.float32, torch.float64):
        neuron = kind(**copy.deepcopy(settings), **hidden).to(dtype)
        other = kind(**copy.deepcopy(settings), **hidden).to(dtype)
        assert len(swap(other).replaced) == 1
        x = torch.randn(T, B, N, generator=torch.Generator().manual_seed(1)).to(dtype) * scale
        results, of_x, others = compared(neuron, x, form)
        ours, our_of_x, our_others = compared(other, x, form)
        for mine, theirs in zip(ours, results, strict=True):
            assert mine.dtype == theirs.dtype and torch.equal(mine, theirs)
        assert (our_of_x - of_x).abs().max() <= 3e-6 * of_x.abs().max()
        if dtype == torch.float64:
            for mine, theirs in zip(our_others, others, strict=True):
                assert (mine - theirs).abs().max() <= 3e-6 * theirs.abs().max().clamp(min=0.05)


def main():
    warnings.simplefilter("ignore")
    for kind in (Leaky, Lapicque, Synaptic):
        count_own_steps(kind)
    done = 0
    for kind, settings, form in itertools.chain(leaky(), lapicque(), synaptic()):
        try:
            torch.manual_seed(done)
            check(kind, settings, form)
        except AssertionError:
            print("differs:", kind.__name__, settings, form)
            raise
        done += 1
    print(f"{done} neurons agree; {OWN['steps']} steps were the library's own")
    assert OWN["steps"] == 0


if __name__ == "__main__":
    main()
