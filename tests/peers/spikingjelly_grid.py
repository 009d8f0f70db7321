"""Compares SpikingJelly's neurons with what `swap` makes of them, over a grid of settings.

PYTHONPATH=FOLDER/spikingjelly-VERSION python tests/peers/spikingjelly_grid.py VERSION

Spikes, state and record of the states have the same bits, in training and in evaluation, in two calls and after a
reset; gradients differ by less than 3e-6 of the largest.
"""

import copy
import itertools
import pickle
import sys

import torch

from deal_kernels.compat import swap

VERSION = sys.argv[1]
if VERSION == "0.0.0.0.12":
    from spikingjelly.clock_driven import functional, neuron, surrogate
else:
    from spikingjelly.activation_based import functional, neuron, surrogate

CLOSE = 3e-6
SURROGATES = [
    surrogate.Sigmoid(4.0), surrogate.ATan(2.0), surrogate.PiecewiseQuadratic(1.0), surrogate.PiecewiseExp(1.5),
    surrogate.SoftSign(3.0), surrogate.Erf(2.0), surrogate.PiecewiseLeakyReLU(0.8, 0.05), surrogate.S2NN(4.0, 1.0),
    surrogate.QPseudoSpike(2.0),
]  # fmt: skip
if VERSION != "0.0.0.0.12":
    SURROGATES += [surrogate.LeakyKReLU(leak=0.2, k=0.9), surrogate.LogTailedReLU(0.1)]
if VERSION == "2.0.0":
    SURROGATES += [surrogate.Rect(1.2), surrogate.SuperSpike(2.0), surrogate.NonzeroSignLogAbs(1.0)]


def neurons():
    """All of the grid. IF has no time constant, and only the first surrogate meets all other settings."""
    for kind, slope, tau, decay_input, v_reset, detach, threshold, many, trains in itertools.product(
        ("IF", "LIF", "ParametricLIF"), SURROGATES, (2.0, 3.0), (True, False), (0.0, None, -0.2), (True, False),
        (1.0, 0.5), (True, False), (True, False),
    ):  # fmt: skip
        if kind == "IF" and (tau != 2.0 or not decay_input):
            continue
        if slope is not SURROGATES[0] and (tau != (2.0 if kind == "IF" else 3.0) or threshold == 0.5 or not trains):
            continue
        decay = {"IF": {}, "LIF": {"tau": tau}, "ParametricLIF": {"init_tau": tau}}[kind]
        if kind != "IF":
            decay["decay_input"] = decay_input
        settings = decay | {
            "v_threshold": threshold, "v_reset": v_reset, "surrogate_function": slope, "detach_reset": detach,
        }  # fmt: skip
        name = f"{kind}Node"
        if VERSION == "0.0.0.0.12":
            name = f"MultiStep{name}" if many else name
        else:
            settings |= {"step_mode": "m" if many else "s", "store_v_seq": many}
        yield getattr(neuron, name)(**settings).train(trains), many, (name, settings, trains)


ONLINE = [{"decay_input": decays, "v_reset": v_reset} for decays in (True, False) for v_reset in (0.0, None)]
KINDS_OF_2 = {
    "ILIFNode": [{"tau": 3.0}, {"tau": 4 / 3}], "HalfThresholdIFNode": [{}], "SLTTLIFNode": ONLINE,
    "OTTTLIFNode": ONLINE,
}  # fmt: skip


def neurons_of_2():
    """The kinds that only 2.0.0 has. SLTT and OTTT take one step at a time."""
    for name, choices in KINDS_OF_2.items():
        for choice, detach, threshold, many, trains in itertools.product(
            choices, (True, False), (1.0, 0.5), (False,) if choices is ONLINE else (True, False), (True, False)
        ):
            settings = choice | {"v_threshold": threshold, "detach_reset": detach, "step_mode": "m" if many else "s"}
            node = getattr(neuron, name)(**settings).train(trains)
            node.store_v_seq = many
            yield node, many, (name, settings, trains)


def run(node, x, many):
    if many:
        return node(x)
    steps = [node(step) for step in x]
    return torch.stack([torch.stack(each) if isinstance(each, list) else each for each in steps])  # OTTT has a trace


def close(a, b):
    return bool((a - b).abs().max() <= CLOSE * a.abs().max())


def agree(theirs, ours, x, many):
    """Whether both do the same from their present state, forwards and backwards."""
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    spikes = [run(node, each, many) for node, each in zip((theirs, ours), inputs, strict=True)]
    same = torch.equal(*spikes) and torch.equal(theirs.v, ours.v)
    same = same and (not many or torch.equal(theirs.v_seq, ours.v_seq))
    if VERSION == "2.0.0":
        same = same and spikes[0].requires_grad == spikes[1].requires_grad
    if not spikes[0].requires_grad:  # 0.0.0.0.14 has no gradients in evaluation; its replacement does
        return same
    outputs = [
        (each, node.v, *([node.v_seq] if many else [])) for each, node in zip(spikes, (theirs, ours), strict=True)
    ]
    for pair in zip(*outputs, strict=True):
        weights = torch.randn_like(pair[0])
        gradients = [
            torch.autograd.grad(out, each, weights, retain_graph=True)[0]
            for out, each in zip(pair, inputs, strict=True)
        ]
        same = same and close(*gradients)
    return same


def conclude(count, different):
    """Prints how many of the neurons are different, with the first of them, and ends the process."""
    for each in different[:20]:
        print(*each)
    print(f"{count} neurons, {len(different)} different")
    sys.exit(bool(different))


def main():
    torch.manual_seed(0)
    different, count = [], 0
    for theirs, many, settings in (*neurons(), *(neurons_of_2() if VERSION == "2.0.0" else ())):
        ours = copy.deepcopy(theirs)
        assert len(swap(ours).replaced) == 1
        ours = pickle.loads(pickle.dumps(ours))
        x = torch.randn(7, 3, 11) * 1.5  # [T, B, C]
        same = [agree(theirs, ours, x, many), agree(theirs, ours, x, many)]
        for node in (theirs, ours):
            functional.reset_net(node)
        same.append(theirs.v == ours.v and agree(theirs, ours, x, many))
        count += 1
        if not all(same):
            different.append((settings, same))
    conclude(count, different)


if __name__ == "__main__":
    main()
