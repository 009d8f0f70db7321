"""The neuron as a layer: parameters, and the state it keeps on request."""

import copy
import pickle

import pytest
import torch
from torch import nn

from deal_kernels.lif import LIF, lif


def test_layer_is_the_function():
    x = torch.randn(4, 2, 3)
    assert torch.equal(LIF(tau=3.0, v_reset=None)(x), lif(x, tau=3.0, v_reset=None))
    spikes, v = LIF(return_state=True)(x)
    assert v.shape == (2, 3) and spikes.shape == x.shape


def test_parameters_learn():
    layer = LIF(tau=nn.Parameter(torch.full((3,), 2.0)), v_threshold=nn.Parameter(torch.tensor(1.0)))
    assert set(layer.state_dict()) == {"tau", "v_threshold"}
    layer(torch.randn(4, 2, 3)).sum().backward()
    assert layer.tau.grad.shape == (3,) and layer.v_threshold.grad.shape == ()


def test_a_tensor_that_is_no_parameter_moves_and_is_saved():
    layer = LIF(tau=torch.full((3,), 2.0))
    assert set(layer.state_dict()) == {"tau"} and not list(layer.parameters())
    assert layer.double().tau.dtype == torch.float64


def test_state_continues_until_reset():
    x = torch.randn(8, 2, 5)
    layer = LIF(stateful=True)
    parts = torch.cat([layer(x[:3]), layer(x[3:])])
    assert torch.equal(parts, lif(x))
    layer.reset()
    assert torch.equal(layer(x), lif(x))


def test_state_is_no_part_of_the_state_dict():
    layer = LIF(stateful=True)
    layer(torch.randn(4, 5))
    assert layer.v is not None and not layer.state_dict()
    LIF(stateful=True).load_state_dict(layer.state_dict())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_starts_at_rest(copied):
    layer = LIF(stateful=True)
    layer(torch.randn(4, 5, requires_grad=True))
    assert copied(layer).v is None and layer.v is not None


def test_state_moves_with_the_layer():
    layer = LIF(stateful=True)
    layer(torch.randn(4, 5))
    assert layer.to("meta").v.device.type == "meta"


@pytest.mark.parametrize("detach_state", [False, True])
def test_gradient_between_calls(detach_state):
    x = torch.randn(4, 5, requires_grad=True)
    layer = LIF(stateful=True, reset="none", detach_state=detach_state)
    layer(x)
    assert layer(torch.zeros(1, 5)).requires_grad != detach_state


def test_detach_keeps_the_state():
    layer = LIF(stateful=True)
    layer(torch.randn(4, 5, requires_grad=True))
    before = layer.v
    layer.detach_()
    assert torch.equal(layer.v, before) and before.requires_grad and not layer.v.requires_grad


def test_another_batch_size_needs_a_reset():
    layer = LIF(stateful=True)
    layer(torch.randn(4, 8, 5))
    with pytest.raises(ValueError, match="v0 must have the shape of one step"):
        layer(torch.randn(4, 3, 5))
    layer.reset()
    assert layer(torch.randn(4, 3, 5)).shape == (4, 3, 5)


def test_repr_shows_the_neuron():
    assert repr(LIF(tau=3.0, surrogate="atan")) == "LIF(tau=3.0, leak=None, v_threshold=1.0, surrogate=atan)"
