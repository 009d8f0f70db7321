"""The neuron as a layer: parameters, and the state it keeps on request."""

import copy
import inspect
import pickle

import pytest
import torch
from torch import nn

from deal_kernels import surrogate
from deal_kernels.lif import LIF, Learned, lif
from deal_kernels.tdbn import TDBNLIF, SpikingConv, tdbn_lif


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


def test_repr_shows_the_neuron():
    assert repr(LIF(tau=3.0, surrogate="atan")) == "LIF(tau=3.0, v_threshold=1.0, surrogate=atan)"
    assert repr(LIF(beta=0.5)) == "LIF(beta=0.5, v_threshold=1.0)"
    assert repr(LIF(tau=Learned(3.0))) == "LIF(tau=Learned(3), v_threshold=1.0)"


def test_learnt_time_constant_stays_in_its_range():
    """A gradient step of any size leaves tau above 1 and beta between 0 and 1."""
    x = torch.randn(4, 2, 3)
    for name, start in (("tau", 2.0), ("beta", 0.8)):
        layer = LIF(**{name: Learned(start, 3)}, surrogate="atan")
        assert layer.w.shape == (3,) and torch.allclose(layer(x), lif(x, **{name: start}))
        layer(x).sum().backward()
        assert layer.w.grad.abs().max() > 0
        with torch.no_grad():
            layer.w += 5 * layer.w.grad.sign()
        value = 1 / layer.w.sigmoid() if name == "tau" else layer.w.sigmoid()
        assert (value > (1 if name == "tau" else 0)).all() and layer(x).isfinite().all()


def test_parametric_state_dict_of_spikingjelly_loads():
    """Its ParametricLIFNode has the parameter w, with tau = 1 / sigmoid(w)."""
    layer = LIF(tau=Learned(2.0))
    assert layer.w.item() == 0.0
    layer.load_state_dict({"w": torch.tensor(-1.0986123)})  # 1 / sigmoid(w) = 4
    x = torch.randn(4, 2, 3)
    assert torch.equal(layer(x), lif(x, tau=1 / torch.tensor(-1.0986123).sigmoid()))
    assert set(layer.state_dict()) == {"w"} and [name for name, _ in layer.named_parameters()] == ["w"]


def test_one_word_has_one_meaning_in_every_layer():
    """The same keywords make the same neuron, whatever stands in front of it."""
    neuron = {"surrogate": surrogate.ATan(4.0), "beta": 0.8, "v_reset": None, "v_threshold": 0.7}
    x = torch.randn(4, 2, 3, 5, 5, requires_grad=True)
    layers = LIF(**neuron), TDBNLIF(3, alpha=None, **neuron).eval(), SpikingConv(3, 3, **neuron).neuron
    layers[1].norm.eps = 0.0
    grads = [torch.autograd.grad(layer(x).sum(), x)[0] for layer in layers]
    for grad in grads[1:]:
        torch.testing.assert_close(grad, grads[0])


@pytest.mark.parametrize("function", [lif, tdbn_lif])
def test_signatures_name_every_argument(function):
    """help() and an editor show all of them, the same in functions and layers."""
    layer = LIF if function is lif else TDBNLIF
    of_function, of_layer = (inspect.signature(each).parameters for each in (function, layer.__init__))
    assert all(each.kind is not inspect.Parameter.VAR_KEYWORD for each in (*of_function.values(), *of_layer.values()))
    tensors = {"x", "v0", "out", "weight", "bias", "running_mean", "running_var", "training", "shortcut"}
    of_module = {
        "self",
        "stateful",
        "detach_state",
        "step_dims",
        "flattened_steps",
        "num_features",
        "affine",
        "track_running_stats",
    }
    assert set(of_function) - tensors == set(of_layer) - of_module
    assert {"tau", "v_threshold", "surrogate"} < set(of_function)
