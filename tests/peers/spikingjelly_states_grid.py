"""Compares SpikingJelly's neurons with two states, and its parallel neurons, with what `swap` makes of them.

PYTHONPATH=FOLDER/spikingjelly-2.0.0 python tests/peers/spikingjelly_states_grid.py 2.0.0

Spikes, states and records of states have the same bits, in training and in evaluation, in two calls and after a reset;
gradients differ by less than 3e-6 of the largest; those of parameters, whose terms cancel, are compared in float64. The
sigmoid of ComplementaryLIFNode has torch's bits in float32 where a step has a whole number of vectors; otherwise its
states are close.
"""

import copy
import itertools
import pickle

import torch
from spikingjelly.activation_based import functional, neuron
from spikingjelly_grid import SURROGATES, close, conclude, run

from deal_kernels.compat import swap

T, WHOLE, ODD = 7, (4, 8), (3, 11)
STATEFUL = neuron.CUBALIFNode, neuron.ComplementaryLIFNode
WEIGHTS = torch.randn(T * 64, dtype=torch.float64)


def with_currents():
    for slope, c_decay, v_decay, v_reset, threshold, detach, many, trains in itertools.product(
        SURROGATES, (0.5, 0.9, 0.0), (0.75, 0.3), (0.0, None, -0.2), (0.5, 1.0), (False, True), (True, False),
        (True, False),
    ):  # fmt: skip
        if slope is not SURROGATES[0] and (c_decay != 0.9 or v_decay != 0.75 or threshold == 1.0 or not trains):
            continue
        node = neuron.CUBALIFNode(c_decay, v_decay, threshold, v_reset, slope)
        node.detach_reset, node.step_mode, node.store_v_seq = detach, "m" if many else "s", many
        yield node.train(trains), ODD


def complementary():
    for slope, tau, threshold, many, stored, trains, row in itertools.product(
        SURROGATES, (2.0, 3.0), (1.0, 0.5), (True, False), (True, False), (True, False), (WHOLE, ODD)
    ):
        if slope is not SURROGATES[0] and (tau == 2.0 or threshold == 1.0 or stored or not many):
            continue
        mode = "m" if many else "s"
        yield neuron.ComplementaryLIFNode(tau, threshold, slope, mode, stored).train(trains), row


def parallel():
    for slope, trains in itertools.product(SURROGATES, (True, False)):
        yield neuron.PSN(T, slope).train(trains), ODD
        for k, share, many in itertools.product((1, 3, T + 2), (0.0, 0.4, 1.0), (True, False)):
            if many or share == 1.0:
                yield neuron.MaskedPSN(k, T, share, slope, "m" if many else "s").train(trains), ODD
        for k, exp_init, many in itertools.product((1, 3, T + 2), (True, False), (True, False)):
            yield neuron.SlidingPSN(k, exp_init, slope, "m" if many else "s").train(trains), ODD


def results(node, x):
    """The spikes, and what the node keeps after them, by name."""
    many = isinstance(node, neuron.PSN) or node.step_mode == "m"
    found = {"spikes": run(node, x, many)}
    if isinstance(node, STATEFUL):
        found |= dict(node.named_memories())
        records = [("v_seq", node.v_seq), *enumerate(getattr(node, "state_seqs", None) or ())]
        found |= {name: record for name, record in records if record is not None}
    return found


def gradients(value, x, node):
    leaves = [x, *node.parameters()] if x.dtype == torch.float64 else [x]
    weights = WEIGHTS[: value.numel()].view_as(value).to(value)
    return torch.autograd.grad(value, leaves, weights, retain_graph=True)


def difference(theirs, ours, x):
    """What both do not do alike from their present state, forwards or backwards; an empty text if they do."""
    xs = [x.clone().requires_grad_() for _ in range(2)]
    expected, found = (results(node, each) for node, each in zip((theirs, ours), xs, strict=True))
    assert expected.keys() == found.keys()
    exact = isinstance(theirs, neuron.ComplementaryLIFNode) <= (x.dtype == torch.float32 and x[0].numel() % 32 == 0)
    for name, value in expected.items():
        same = torch.equal if exact or name == "spikes" else close
        if not same(value, found[name]) or value.requires_grad != found[name].requires_grad:
            return f"{name} differs"
        if value.requires_grad:
            pairs = zip(gradients(value, xs[0], theirs), gradients(found[name], xs[1], ours), strict=True)
            if not all(close(*pair) for pair in pairs):
                return f"a gradient of {name} differs"
    return ""


def main():
    torch.manual_seed(0)
    different, count = [], 0
    for (theirs, row), dtype in itertools.product(
        (*with_currents(), *complementary(), *parallel()), (torch.float32, torch.float64)
    ):
        if dtype == torch.float64 and isinstance(theirs, STATEFUL) and theirs.surrogate_function is not SURROGATES[0]:
            continue
        theirs = copy.deepcopy(theirs).to(dtype)
        ours = copy.deepcopy(theirs)
        assert len(swap(ours).replaced) == 1
        ours = pickle.loads(pickle.dumps(ours))
        x = torch.randn(T, *row, dtype=dtype) * 1.5
        found = []
        for calls in (2, 1) if isinstance(theirs, STATEFUL) else (1,):
            found += [difference(theirs, ours, x) for _ in range(calls)]
            for node in (theirs, ours):
                functional.reset_net(node)
        count += 1
        if any(found):
            different.append((theirs, theirs.training, row, dtype, found))
    conclude(count, different)


if __name__ == "__main__":
    main()
