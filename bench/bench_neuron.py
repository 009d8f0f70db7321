"""Neurons of the caller's own: forward and backward of `neuron(step)` against the loop over the same steps."""

import pytest
import torch
from figures import milliseconds
from memory import saved_bytes
from step_neurons import KLIF, GatedLIF, adaptive_exponential, izhikevich
from torch import Tensor, nn

from deal_kernels.neuron import neuron

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
STEPS, CHANNELS = 16, 64
ROW, SMOKE = (8, 14, 14, CHANNELS), (1, 3, 3, CHANNELS)  # channels last, as the parameters of a gated LIF broadcast
NEURONS = {  # the step, and how many tensors its state has
    "izhikevich": (lambda: izhikevich, 2), "adaptive exponential": (lambda: adaptive_exponential, 2), "KLIF": (KLIF, 1),
    "gated LIF": (lambda: GatedLIF(CHANNELS), 2),
}  # fmt: skip


def loop(step, x: Tensor, state):
    spikes = []
    for current in x:
        s, state = step(current, state)
        spikes.append(s)
    return torch.stack(spikes), state


@pytest.mark.parametrize("name", NEURONS)
def bench_against_the_loop(name, race, timed, report):
    torch.manual_seed(0)
    make, states = NEURONS[name]
    step = make()
    step = step.to(DEVICE) if isinstance(step, nn.Module) else step
    row = ROW if timed else SMOKE
    x, grad = (torch.randn(STEPS, *row, device=DEVICE) for _ in range(2))
    leaves = [x.requires_grad_(), *(step.parameters() if isinstance(step, nn.Module) else ())]
    start = tuple(torch.zeros(row, device=DEVICE) for _ in range(states))
    runs = {
        "loop": lambda x, state: loop(step, x, state),
        "recomputed": neuron(step, compiled=False),
        "compiled": neuron(step),
    }
    if not timed:
        del runs["compiled"]  # the tests compile

    def gradients(run) -> list[Tensor]:
        spikes, _ = run(x, start if states > 1 else start[0])
        return [spikes, *torch.autograd.grad(spikes, leaves, grad)]

    expected = gradients(runs["loop"])
    for run in runs.values():
        spikes, *grads = gradients(run)
        assert (spikes != expected[0]).float().mean() < 1e-5  # compiled code may round another way at a threshold
        for one, other in zip(grads, expected[1:], strict=True):
            assert (one - other).norm() < 1e-3 * other.norm()
    kept = {each: saved_bytes(lambda run=run: run(x, start if states > 1 else start[0])[0]) for each in runs}
    result = race({each: lambda run=run: gradients(run) for each, run in runs.items()}, 8.0)
    if result is not None:
        times = {each: f"{milliseconds(result.seconds(each))} ({result.ratio('loop', each):.2f}x)" for each in runs}
        report.add(
            "Neurons of the caller's own, forward and backward (ms; in brackets how often it fits into the loop)",
            neuron=name, T=str(STEPS), row=str(row), **times,
            **{f"kept_{each}": f"{kept[each] / kept['loop']:.2f}x" for each in list(runs)[1:]},
        )  # fmt: skip
