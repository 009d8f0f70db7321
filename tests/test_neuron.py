"""Neurons of the caller's own: the loop over the steps, in less memory and, compiled, in less time."""

import functools
import gc
import warnings

import pytest
import torch
from step_neurons import KLIF, GatedLIF, adaptive_exponential, izhikevich
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from deal_kernels import surrogate
from deal_kernels.lif import lif
from deal_kernels.neuron import neuron

ROW = 2, 5


def loop(step, x, state):
    spikes = []
    for current in x:
        s, state = step(current, state)
        spikes.append(s)
    return torch.stack(spikes), state


def pair():
    return torch.zeros(ROW), torch.randn(ROW)


STEPS = {
    "izhikevich": (lambda: izhikevich, pair),
    "adaptive exponential": (lambda: adaptive_exponential, pair),
    "KLIF": (KLIF, lambda: torch.randn(ROW)),
    "gated LIF": (lambda: GatedLIF(5), pair),
}


def results(run, step, x, state):
    """Spikes, state and all gradients."""
    states = state if isinstance(state, tuple) else (state,)
    leaves = [x, *states, *(step.parameters() if isinstance(step, nn.Module) else ())]
    for leaf in leaves:
        leaf.requires_grad_()
    spikes, last = run(x, state)
    outputs = [spikes, *(last if isinstance(last, tuple) else (last,))]
    generator = torch.Generator().manual_seed(1)
    grads = [torch.randn(each.shape, generator=generator) for each in outputs]
    return [each.detach() for each in outputs] + list(torch.autograd.grad(outputs, leaves, grads))


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("steps", [1, 8, 19])
def test_is_the_loop(name, steps):
    torch.manual_seed(0)
    make, start = STEPS[name]
    step, state, x = make(), start(), torch.randn(steps, *ROW) * 1.5
    ours = results(neuron(step, compiled=False), step, x, state)
    expected = results(functools.partial(loop, step), step, x, state)
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    assert all(torch.equal(*each) for each in list(zip(ours, expected, strict=True))[:2])  # spikes and state


@pytest.mark.parametrize("name", ["izhikevich", "KLIF"])
def test_compiled_is_the_loop(name):
    torch.manual_seed(0)
    make, start = STEPS[name]
    step, state, x = make(), start(), torch.randn(9, *ROW) * 1.5
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the neuron .* is not compiled")
        compiled = neuron(step, steps_at_once=3)
        ours = results(compiled, step, x, state)
    assert compiled.compiled
    for one, other in zip(ours, results(functools.partial(loop, step), step, x, state), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert torch.equal(ours[0], loop(step, x, state)[0])


def test_a_written_lif_is_the_fused_one():
    def step(x, v):
        h = v + (x - v) / 2.0
        s = surrogate.ATan().spike(h - 1.0)
        return s, torch.where(s > 0, 0.0, h)

    x = torch.randn(11, *ROW, requires_grad=True)
    ours, v = neuron(step, compiled=False)(x, torch.zeros(ROW))
    expected, expected_v = lif(x, surrogate="atan", detach_reset=True, return_state=True)
    assert torch.equal(ours, expected) and torch.equal(v, expected_v)
    grads = [torch.autograd.grad(each.sum(), x)[0] for each in (ours, expected)]
    torch.testing.assert_close(*grads, rtol=1e-6, atol=1e-6)


def test_state_carries_a_sequence():
    x, run = torch.randn(10, *ROW), neuron(izhikevich, steps_at_once=4, compiled=False)
    with torch.no_grad():
        whole, last = run(x, pair_of_zeros())
        state, parts = pair_of_zeros(), []
        for current in x.split(1):
            part, state = run(current, state)
            parts.append(part)
    assert torch.equal(torch.cat(parts), whole) and all(map(torch.equal, state, last))


def pair_of_zeros():
    return torch.zeros(ROW), torch.zeros(ROW)


def test_what_is_kept_for_the_backward_pass():
    """x, and the states before every eighth step."""
    x = torch.randn(32, 4, 1000, requires_grad=True)
    run = neuron(izhikevich, compiled=False)
    kept = memory_after(lambda: run(x, (torch.zeros(4, 1000), torch.zeros(4, 1000))))
    eager = memory_after(lambda: loop(izhikevich, x, (torch.zeros(4, 1000), torch.zeros(4, 1000))))
    assert kept < 0.4 * eager
    assert kept <= x.numel() * 4 * (1 + 2 * 4 / 32)


class Allocations(TorchDispatchMode):
    """The memory of every tensor that an operation returns."""

    def __init__(self):
        super().__init__()
        self.made = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        storages = [each.untyped_storage() for each in tree_leaves(result) if isinstance(each, torch.Tensor)]
        self.made += [(StorageWeakRef(each), each.nbytes()) for each in storages]
        return result

    def alive(self):
        """Bytes that are still in use; several tensors may share them."""
        return sum({each.cdata: size for each, size in self.made if not each.expired()}.values())


def memory_after(call):
    """Bytes that are alive after a call, x among them, but not its results."""
    with Allocations() as allocations:
        spikes, state = call()
    gc.collect()
    return allocations.alive() - sum(each.untyped_storage().nbytes() for each in (spikes, *state))


def test_noise_is_drawn_again_as_it_was():
    def noisy(x, v):
        h = v + x + torch.randn_like(x)
        s = surrogate.ATan().spike(h - 1.0)
        return s * torch.rand_like(s), h * (1 - s)

    x = torch.randn(12, *ROW, requires_grad=True)
    grads = []
    for run in (neuron(noisy, steps_at_once=5, compiled=False), functools.partial(loop, noisy)):
        torch.manual_seed(3)
        grads.append(torch.autograd.grad(run(x, torch.zeros(ROW))[0].sum(), x)[0])
    assert torch.equal(*grads)


def test_a_step_that_cannot_be_compiled_runs_with_a_warning():
    def step(x, v):
        return surrogate.ATan().spike(x + v), v + x

    run = neuron(step)
    run._compiled_steps = failing
    x = torch.randn(3, *ROW)
    with pytest.warns(UserWarning, match="the neuron step is not compiled, and slower: no compiler"):
        spikes, _ = run(x, torch.zeros(ROW))
    assert torch.equal(spikes, loop(step, x, torch.zeros(ROW))[0]) and not run.compiled


def failing(*_):
    raise torch._dynamo.exc.TorchDynamoException("no compiler\nand more")


def test_errors():
    with pytest.raises(ValueError, match="steps_at_once must be an integer of at least 1; got 0"):
        neuron(izhikevich, steps_at_once=0)
    with pytest.raises(ValueError, match="x must have at least one time step"):
        neuron(izhikevich)(torch.zeros(0, 3), (torch.zeros(3), torch.zeros(3)))
    with pytest.raises(ValueError, match="fire must be one of 'ge', 'gt'; got 'eq'"):
        surrogate.ATan().spike(torch.zeros(3), fire="eq")
