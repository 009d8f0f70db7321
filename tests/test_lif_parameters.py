"""Decay and threshold as tensors: of a layer, of channels and of single neurons, and their gradients."""

import oracle
import pytest
import torch
from lif_kinds import RESETS, each
from oracle import close

from deal_kernels.lif import lif


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("shape", ["scalar", "one", "channel"])
@pytest.mark.parametrize("name", ["tau", "rate", "beta"])
@pytest.mark.parametrize("reset", each(RESETS))
@pytest.mark.parametrize("fire", each({"atan": {"surrogate": "atan"}, "levels": {"levels": 3}}))
@pytest.mark.parametrize("decay_input", [True, False], ids=["decay_input", "decay"])
def test_parameter_gradients(backend, device, name, shape, layout, reset, fire, decay_input):
    torch.manual_seed(1)
    size = {"scalar": (), "one": (1,), "channel": (5,)}[shape]
    p = (torch.rand(size, device=device) * 0.5 + (1.5 if name == "tau" else 0.3)).requires_grad_()
    theta = (torch.rand(size, device=device) * 0.5 + 0.5).requires_grad_()
    x = torch.randn(6 * 2, 5, 4, 3, device=device) * 1.5
    if layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    x = x.unflatten(0, (6, 2)).requires_grad_()  # [T, B, C, H, W]
    g = torch.randn(6, 2, 5, 4, 3, device=device)
    neuron = {**reset, **fire, "decay_input": decay_input}
    spikes = lif(x, **{name: p}, v_threshold=theta, **neuron, backend=backend)
    assert spikes.stride() == x.stride()
    grads = torch.autograd.grad(spikes, [x, p, theta], g)
    view = (-1, 1, 1) if shape == "channel" else ()
    # The oracle has parameters for each neuron. Their gradients are the terms of the sums that ours are.
    wide = x.detach().double().requires_grad_()
    each = [q.detach().double().reshape(view).expand(2, 5, 4, 3).clone().requires_grad_() for q in (p, theta)]
    expected_spikes, _ = oracle.lif(wide, **{name: each[0]}, v_threshold=each[1], **neuron)
    assert torch.equal(spikes, expected_spikes.float())
    expected, *terms = torch.autograd.grad(expected_spikes, [wide, *each], g.double())
    assert close(grads[0], expected, 3e-6)
    axes = (0, 2, 3) if shape == "channel" else (0, 1, 2, 3)
    for grad, term in zip(grads[1:], terms, strict=True):
        assert grad.shape == size
        assert ((grad - term.sum(axes)).abs() <= 3e-6 * term.abs().sum(axes)).all()


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "transposed"])
@pytest.mark.parametrize("shape", [(5, 4, 3), (5, 1, 1), (1, 4, 3), (2, 5, 4, 3), (2, 1, 1, 3)])
def test_parameters_of_each_neuron(backend, device, shape, layout):
    torch.manual_seed(1)
    x = torch.randn(6 * 2, 5, 4, 3, device=device) * 1.5
    if layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    x = x.unflatten(0, (6, 2))
    if layout == "transposed":
        x = x.transpose(1, 3).contiguous().transpose(1, 3)
    x.requires_grad_()
    tau = (torch.rand(shape, device=device) + 1.5).requires_grad_()
    theta = (torch.rand(5, device=device) * 0.5 + 0.5).requires_grad_()
    g = torch.randn(x.shape, device=device)
    spikes = lif(x, tau=tau, v_threshold=theta, v_reset=None, backend=backend)
    expected, _ = oracle.lif(x, tau=tau, v_threshold=theta[:, None, None], v_reset=None)
    assert torch.equal(spikes, expected)
    for grad, other in zip(
        torch.autograd.grad(spikes, [x, tau, theta], g), torch.autograd.grad(expected, [x, tau, theta], g), strict=True
    ):
        assert grad.shape == other.shape and close(grad, other, 3e-6)
