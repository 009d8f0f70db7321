"""Compares Norse's neurons with what `swap` makes of them, over a grid of parameters.

PYTHONPATH=FOLDER/norse-1.1.0 python tests/peers/norse_grid.py

Spikes and states have the same bits in every step, and their types are the same. Gradients of the input differ by less
than 3e-6 of the largest; those of parameters, whose terms cancel, are compared in float64.
"""

import itertools

import torch
from norse.torch.functional.iaf import IAFParameters
from norse.torch.functional.lif import LIFParameters
from norse.torch.functional.lif_box import LIFBoxParameters
from norse.torch.functional.lsnn import LSNNParameters
from norse.torch.functional.reset import reset_subtract, reset_value
from norse.torch.module.iaf import IAF, IAFCell
from norse.torch.module.lif import LIF, LIFCell
from norse.torch.module.lif_box import LIFBoxCell
from norse.torch.module.lsnn import LSNN, LSNNCell
from norse.torch.module.snn import SNN, SNNCell
from own_steps import OWN, count_own_steps
from torch import nn

from deal_kernels.compat import swap

T, B, N = 9, 3, 7


def grid():
    for method, alpha, shape, v_reset, learnt, starts in itertools.product(
        ("super", "triangle", "tanh", "circ", "heavi_erfc", "heaviside"), (100.0, 2.0), ((), (N,), (B, N)), (0.0, -0.2),
        (False, True), (False, True),
    ):  # fmt: skip
        common = {"method": method, "alpha": torch.tensor(alpha), "v_reset": torch.tensor(v_reset)}
        for kind in (IAF, IAFCell):
            yield kind, IAFParameters, {"v_th": drawn(shape, 0.5, 2.0)}, common, learnt, starts, False
        yield IAF, IAFParameters, {"v_th": drawn(shape, 0.5, 2.0)}, common, learnt, starts, True
        for reset in (reset_value, reset_subtract):
            tensors = {
                "v_th": drawn(shape, 0.4, 1.0), "tau_mem_inv": drawn(shape, 100.0, 300.0),
                "v_leak": drawn(shape, -0.3, 0.3),
            }  # fmt: skip
            yield LIFBoxCell, LIFBoxParameters, tensors, common | {"reset_method": reset}, learnt, starts, False

        tensors = {
            "v_th": drawn(shape, 0.2, 0.5), "tau_mem_inv": drawn(shape, 100.0, 300.0),
            "tau_syn_inv": drawn(shape, 150.0, 350.0),
        }  # fmt: skip
        common["v_leak"] = torch.tensor(v_reset / 2)
        for kind in (LIF, LIFCell):
            yield kind, LIFParameters, tensors, common, learnt, starts, False
        tensors = tensors | {"tau_adapt_inv": drawn(shape, 20.0, 50.0), "beta": drawn(shape, 0.4, 1.8)}
        yield LSNNCell, LSNNParameters, tensors, common, learnt, starts, False
        if not shape:  # LSNN takes no thresholds of several values
            yield LSNN, LSNNParameters, tensors, common, learnt, starts, False


def drawn(shape, low, high):
    return torch.rand(shape) * (high - low) + low


def run(neuron, x, state):
    """Spikes, and the state after every step that the neuron tells."""
    if isinstance(neuron, SNN):
        return neuron(x, state)
    results = []
    for step in x:
        z, state = neuron(step, state)
        results.append((z, *(each.expand(step.shape) for each in state)))
    spikes, *states = (torch.stack(each) for each in zip(*results, strict=True))
    return spikes, type(state)(*states)


def compared(neuron, x, v, parameters):
    """What the neuron returns, the gradient of its input and those of its parameters."""
    x = x.clone().requires_grad_()
    kind = type(neuron.state_fallback(x[0]))
    state = None if v is None else kind(*[v + 0.1 * k for k in range(len(kind._fields))])
    z, after = run(neuron, x, state)
    total = (z * torch.linspace(-1, 1, z.numel()).view(z.shape)).sum() + sum(each.sin().sum() for each in after)
    of_x, *others = torch.autograd.grad(total, [x, *parameters], allow_unused=True)
    return z, after, of_x, [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, others, strict=True)]


def check(kind, of, tensors, common, learnt, starts, records):
    for dtype in (torch.float32, torch.float64):
        typed = {name: p.to(dtype) for name, p in tensors.items()}
        typed = {name: nn.Parameter(p) for name, p in typed.items()} if learnt else typed
        parameters = list(typed.values()) if learnt else []
        x = torch.randn(T, B, N, generator=torch.Generator().manual_seed(1)).to(dtype) * (
            1.0 if of is IAFParameters else 4.0
        )
        v = x[0] * 0.3 if starts else None
        found = []
        for swapped in (False, True):
            p = of(**typed, **{name: each.clone() if name == "v_reset" else each for name, each in common.items()})
            neuron = kind(p)
            neuron.record_states = records
            assert not swapped or len(swap(neuron).replaced) == 1
            found.append(compared(neuron, x, v, parameters))
        (z, after, of_x, others), (our_z, ours, our_of_x, our_others) = found
        assert our_z.dtype == z.dtype and torch.equal(our_z, z)
        assert type(ours) is type(after)
        for mine, theirs in zip(ours, after, strict=True):
            assert mine.dtype == theirs.dtype and torch.equal(mine, theirs)
        assert (our_of_x - of_x).abs().max() <= 3e-6 * of_x.abs().max()
        if dtype == torch.float64:
            for mine, theirs in zip(our_others, others, strict=True):
                assert (mine - theirs).abs().max() <= 1e-9 * theirs.abs().max().clamp(min=0.05)


def check_sparse(kind, x):
    """Sparse input, of which the library returns sparse spikes."""
    z, after = run(kind(), x, None)
    neuron = kind()
    swap(neuron)
    our_z, ours = run(neuron, x, None)
    assert our_z.layout == z.layout and our_z.dtype == z.dtype and torch.equal(our_z.to_dense(), z.to_dense())
    assert z.to_dense().any() or x.dtype == torch.bool  # which is too weak for a spike
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(ours, after, strict=True))


def main():
    for kind in (SNN, SNNCell):
        count_own_steps(kind)
    torch.manual_seed(0)
    done = 0
    for each in grid():
        try:
            check(*each)
        except AssertionError:
            print("differs:", *each)
            raise
        done += 1
    for kind in (LIF, LIFCell):
        for dtype in (torch.float32, torch.bool):
            check_sparse(kind, ((torch.rand(T, B, N) < 0.4) * 8).to(dtype).to_sparse())
            done += 1
    print(f"{done} neurons agree; {OWN['steps']} steps were the library's own")
    assert OWN["steps"] == 0


if __name__ == "__main__":
    main()
