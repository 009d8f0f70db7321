"""The neuron against the recorded outputs of other libraries."""

import itertools

import pytest
import torch
from oracle import close

from deal_kernels import surrogate as surrogates
from deal_kernels.lif import lif
from deal_kernels.surrogate import ATan, Sigmoid, Triangle


@pytest.mark.parametrize(
    ("decay", "reset", "detach", "surrogate"),
    list(itertools.product((0, 1), ("soft", "0.0", "-0.3"), (0, 1), ("sigmoid4", "atan2", "pwl1"))),
)
def test_spikingjelly(golden, backend, device, decay, reset, detach, surrogate):
    recorded = golden("spikingjelly.npz")
    x, s, v, g, gx = (
        recorded[f"lif_decay{decay}_reset{reset}_detach{detach}_{surrogate}_{part}"].to(device)
        for part in ("x", "s", "v", "g", "gx")
    )
    x.requires_grad_()
    kind = {"s": Sigmoid, "a": ATan, "p": Triangle}[surrogate[0]]
    spikes, state = lif(
        x, tau=2.0, decay_input=bool(decay), v_reset=None if reset == "soft" else float(reset),
        detach_reset=bool(detach), surrogate=kind(float(surrogate[-1])), return_state=True, backend=backend,
    )  # fmt: skip
    spikes.backward(g)
    assert torch.equal(spikes, s) and torch.equal(state, v)
    assert close(x.grad, gx)


@pytest.mark.parametrize(
    ("name", "neuron"),
    [
        ("lif_esdnet", {"decay_input": False, "v_threshold": 0.15}),
        ("if_hard", {"tau": None}),
        ("if_soft", {"tau": None, "v_reset": None}),
    ],
)
def test_spikingjelly_variants(golden, backend, device, name, neuron):
    recorded = golden("spikingjelly.npz")
    x, s, g, gx = (recorded[f"{name}_{part}"].to(device) for part in ("x", "s", "g", "gx"))
    x.requires_grad_()
    spikes, state = lif(x, **neuron, return_state=True, backend=backend)
    spikes.backward(g)
    assert torch.equal(spikes, s)
    if f"{name}_v" in recorded:
        assert torch.equal(state, recorded[f"{name}_v"].to(state.device))
    assert close(x.grad, gx)


def test_spikingjelly_plif(golden, backend, device):
    recorded = {key: value.to(device) for key, value in golden("spikingjelly.npz").items()}
    x = recorded["plif_x"].requires_grad_()
    w = recorded["plif_w"].requires_grad_()
    spikes = lif(x, rate=torch.sigmoid(w), backend=backend)
    assert torch.equal(spikes, recorded["plif_s"])
    spikes.backward(recorded["plif_g"])
    assert close(x.grad, recorded["plif_gx"])
    assert close(w.grad, recorded["plif_gw"])


@pytest.mark.parametrize(
    ("name", "neuron"),
    [
        ("zero_delay0", {}),
        ("zero_delay1", {"reset": "next_hard"}),
        ("subtract_delay0", {"reset": "twice_soft"}),
        ("subtract_delay1", {"reset": "next_soft"}),
        ("none_delay0", {"reset": "none"}),
        ("none_delay1", {"reset": "none"}),
    ],
)
def test_snntorch(golden, backend, device, name, neuron):
    recorded = {key: value.to(device) for key, value in golden("snntorch.npz").items()}
    x = recorded[f"leaky_{name}_x"].requires_grad_()
    neuron = {"beta": 0.8, "v_threshold": 0.9, "fire": "gt", "surrogate": "atan", **neuron, "backend": backend}
    spikes = lif(x, **neuron)
    spikes.backward(recorded[f"leaky_{name}_g"])
    assert torch.equal(spikes, recorded[f"leaky_{name}_s"])
    assert torch.equal(lif(x, output="v", **neuron), recorded[f"leaky_{name}_mem"])
    assert close(x.grad, recorded[f"leaky_{name}_gx"])


def test_norse_box(golden, backend, device):
    recorded = {key: value.to(device) for key, value in golden("norse.npz").items() if key.startswith("box")}
    x = recorded["box_x"].requires_grad_()
    rate = torch.tensor(0.001) * 100  # their step times their inverse time constant
    slope = surrogates.FastSigmoid(slope=1.0)
    spikes, v = lif(x, rate=rate.item(), fire="gt", surrogate=slope, return_state=True, backend=backend)
    spikes.backward(recorded["box_g"])
    assert torch.equal(spikes, recorded["box_s"]) and torch.equal(v, recorded["box_v"])
    assert close(x.grad, recorded["box_gx"])


@pytest.mark.parametrize("name", ["varying", "constant"])
def test_integer_neuron(golden, backend, device, name):
    recorded = {key: value.to(device) for key, value in golden("integer_lif.npz").items()}
    x, s, g, gx = (recorded[f"{name}_{part}"] for part in ("x", "s", "g", "gx"))
    neuron = {"beta": 0.25, "levels": 4, "v_reset": None, "detach_reset": True, "backend": backend}
    x.requires_grad_()
    spikes = lif(x, **neuron)
    spikes.backward(g)
    assert torch.equal(spikes, s)
    assert close(x.grad, gx)
    if name == "constant":
        current = x[0].detach().requires_grad_()
        spikes = lif(current, steps=4, **neuron)
        spikes.backward(g)
        assert torch.equal(spikes, s)
        assert close(current.grad, gx.sum(0))
