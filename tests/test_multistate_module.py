"""Neurons with several states as layers, and what they refuse."""

import copy
import inspect
import pickle

import pytest
import torch
from torch import nn

from deal_kernels.multistate import ALIF, CLIF, CUBA, LSNN, alif, clif, cuba, lsnn

LAYERS = {CUBA: cuba, ALIF: alif, LSNN: lsnn, CLIF: clif}
by_layer = pytest.mark.parametrize("layer", LAYERS)


@by_layer
def test_layer_is_the_function(layer):
    x = torch.randn(4, 2, 3)
    assert torch.equal(layer(v_threshold=0.5)(x), LAYERS[layer](x, v_threshold=0.5))
    (spikes, states), (expected, others) = layer(return_state=True)(x), LAYERS[layer](x, return_state=True)
    assert torch.equal(spikes, expected) and all(torch.equal(*pair) for pair in zip(states, others, strict=True))
    again, _ = layer(return_state=True)(x, *states)
    assert torch.equal(again, LAYERS[layer](x, *states))


@by_layer
def test_signatures_name_every_argument(layer):
    of_layer, of_function = (inspect.signature(each).parameters for each in (layer, LAYERS[layer]))
    own = {"stateful", "detach_state", "return_state"}
    settings = {name for name, each in of_function.items() if each.kind is each.KEYWORD_ONLY}
    assert set(of_layer) == settings | own
    with pytest.raises(TypeError, match=f"{layer.__name__}.* got an unexpected keyword argument 'thresh'"):
        layer(thresh=1.0)


@by_layer
def test_parameters_learn_and_buffers_are_saved(layer):
    net = layer(v_threshold=nn.Parameter(torch.full((3,), 0.8)))
    assert set(net.state_dict()) == {"v_threshold"} == {name for name, _ in net.named_parameters()}
    net(torch.randn(4, 2, 3)).sum().backward()
    assert net.v_threshold.grad.abs().max() > 0
    net = layer(v_threshold=torch.full((3,), 0.8))
    assert set(net.state_dict()) == {"v_threshold"} and not list(net.parameters())
    assert net.double().v_threshold.dtype == torch.float64


@by_layer
def test_states_continue_until_reset(layer):
    x, net = torch.randn(8, 2, 5), layer(stateful=True)
    assert torch.equal(torch.cat([net(x[:3]), net(x[3:])]), LAYERS[layer](x))
    net.reset()
    assert torch.equal(net(x), LAYERS[layer](x)) and not net.state_dict()


@by_layer
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_copy_starts_anew(layer, copied):
    net = layer(stateful=True)
    net(torch.randn(4, 5, requires_grad=True))
    assert copied(net).states is None and net.states is not None
    assert all(state.is_meta for state in net.to("meta").states)


@pytest.mark.parametrize("detach_state", [False, True])
def test_gradient_between_calls(detach_state):
    net = CUBA(stateful=True, reset="none", detach_state=detach_state)
    net(torch.randn(4, 5, requires_grad=True))
    assert net(torch.zeros(1, 5)).requires_grad != detach_state
    net.detach_()
    assert not any(state.requires_grad for state in net.states)


def test_repr_shows_the_settings():
    assert repr(ALIF(beta=0.9, surrogate="atan")) == "ALIF(beta=0.9, surrogate=atan)"


X = torch.zeros(4, 2, 3)


@pytest.mark.parametrize(
    ("function", "arguments", "error", "message"),
    [
        (cuba, {"x": [1.0]}, TypeError, "x must be a tensor; got list"),
        (cuba, {"x": torch.zeros(0, 3)}, ValueError, r"x must have at least one time step; got the shape \(0, 3\)"),
        (cuba, {"alpha": 0.5, "rate": 0.5}, ValueError, "alpha and beta, or current_rate and rate; got alpha=0.5"),
        (cuba, {"rate": 0.5}, ValueError, "alpha and beta, or current_rate and rate"),
        (cuba, {"alpha": "0.5"}, TypeError, "alpha must be a number; got str"),
        (cuba, {"i0": torch.zeros(3)}, ValueError, r"i0 must have the shape of one step, \(2, 3\); got \(3,\)"),
        (cuba, {"i0": 0.5}, TypeError, "i0 must be a tensor; got float"),
        (cuba, {"alpha": torch.zeros(4)}, ValueError, r"alpha must have one value, one per channel.*got the shape"),
        (cuba, {"beta": torch.zeros(2, 3, dtype=torch.int64)}, TypeError, "beta must be a dense floating-point tensor"),
        (cuba, {"reset": "later"}, ValueError, "reset must be one of 'auto', 'hard', 'soft', 'none', 'next_hard'"),
        (cuba, {"output": "h"}, ValueError, "output must be one of 'spikes', 'v'; got 'h'"),
        (cuba, {"surrogate": "step"}, ValueError, "surrogate must be one of 'sigmoid', 'atan'.*got 'step'"),
        (cuba, {"fire": ">"}, ValueError, "fire must be one of 'ge', 'gt'; got '>'"),
        (alif, {"reset": "next_soft"}, ValueError, "reset must be one of 'auto', 'hard', 'soft', 'none'; got 'next_s"),
        (alif, {"rate": 0.5, "beta": 0.5}, ValueError, "rate and beta exclude each other"),
        (alif, {"window": 1.0}, ValueError, r"window must be None or two numbers, \(low, high\); got 1.0"),
        (alif, {"window": (1.0, 0.0)}, ValueError, "window must have its low end below its high one"),
        (alif, {"strength": float("nan")}, ValueError, "strength must be finite; got nan"),
        (lsnn, {"adaptation_rate": None}, TypeError, "adaptation_rate must be a number; got NoneType"),
        (clif, {"tau": 0.5}, ValueError, "tau must be at least 1; got 0.5"),
        (clif, {"backend": "cpu"}, ValueError, "backend must be 'auto' or one of"),
    ],
)  # fmt: skip
def test_errors(function, arguments, error, message):
    with pytest.raises(error, match=message):
        function(**{"x": X, **arguments})
