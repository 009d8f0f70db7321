"""Layers as parts of what torch does with modules: export, tracing, checkpoints, profiles, and the state they keep."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.export import Dim
from torch.profiler import profile
from torch.utils.checkpoint import checkpoint

from deal_kernels.conv import Conv2d
from deal_kernels.lif import LIF, Learned, lif
from deal_kernels.ssim import L1SSIM
from deal_kernels.tdbn import TDBNLIF, SpikingConv, TDBatchNorm2d, tdbn

ANY_SIZE = {
    "lif": lambda: LIF(),
    "lif, state": lambda: LIF(tau=Learned(2.0, 3), v_reset=None, return_state=True),
    "lif, mean": lambda: LIF(reduce="mean", levels=4),
    "lif, packed": lambda: LIF(pack=True),
    "tdbn_lif": lambda: TDBNLIF(3),
    "spiking conv": lambda: SpikingConv(3, 4, 3, padding=1),
    "spiking conv, mean": lambda: SpikingConv(3, 4, 3, padding=1, reduce="mean"),
}
SIZES = (5, 3, 3, 9, 7), (2, 1, 3, 4, 4), (8, 4, 3, 64, 64)  # the last beyond the size that torch allocates


def tensors_of(result):
    return result if isinstance(result, tuple) else (result,)


def equal(one, other):
    return all(torch.equal(*pair) for pair in zip(tensors_of(one), tensors_of(other), strict=True))


@pytest.mark.parametrize("name", ANY_SIZE)
@pytest.mark.parametrize("strict", [False, True])
def test_export_with_any_number_of_steps_samples_and_pixels(name, strict, each_device):
    model = ANY_SIZE[name]().eval().to(each_device)
    example = torch.randn(4, 2, 3, 6, 5, device=each_device)
    free = dict.fromkeys((0, 1, 3, 4), Dim.DYNAMIC)
    with torch.no_grad():
        program = torch.export.export(model, (example,), dynamic_shapes=(free,), strict=strict).module()
        for shape in SIZES:
            x = torch.randn(shape, device=each_device)
            assert equal(program(x), model(x))


@pytest.mark.parametrize("name", ["lif, state", "lif, mean", "tdbn_lif"])
def test_compile_for_any_size(name, each_device):
    """One compilation for all sizes, with gradients."""
    torch._dynamo.reset()
    model = ANY_SIZE[name]().to(each_device)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for steps, batch, _, height, width in ((5, 2, 3, 9, 7), (4, 3, 3, 6, 5), (8, 4, 3, 64, 63)):
            x = torch.randn(steps, batch, 3, height, width, requires_grad=True, device=each_device)
            given, copied = tensors_of(model(x)), tensors_of(compiled(x))
            grads = [torch.randn_like(each) for each in given]
            assert equal(copied, given)
            assert equal(torch.autograd.grad(copied, x, grads), torch.autograd.grad(given, x, grads))


@pytest.mark.parametrize("strict", [False, True])
def test_a_state_is_not_lost_in_an_export(strict):
    x = torch.randn(4, 2, 3)
    for module in (LIF(stateful=True), nn.Sequential(nn.Linear(3, 3), LIF(stateful=True))):
        with pytest.raises(RuntimeError, match="return_state=True, with the state as v0"):
            torch.export.export(module, (x,), strict=strict)
    with pytest.raises(RuntimeError, match="stateful=False"):
        torch.jit.trace(LIF(stateful=True), x)


def test_a_state_that_is_exported_as_an_argument(each_device):
    layer, x = LIF(return_state=True, v_reset=None), torch.randn(8, 2, 3, device=each_device)
    v0 = torch.zeros_like(x[0])
    program = torch.export.export(layer, (x[:4], v0)).module()
    first, v = program(x[:4], v0)
    second, v = program(x[4:], v)
    assert equal((torch.cat([first, second]), v), layer(x))


def test_torchscript_traces_the_operation(each_device):
    """For any size, also with a function as surrogate."""
    for layer in (LIF(), LIF(surrogate=lambda u: u.cos())):
        with torch.no_grad():
            traced = torch.jit.trace(layer, torch.randn(4, 2, 3, device=each_device))
        assert "deal_kernels::lif" in str(traced.inlined_graph)
        x = torch.randn(7, 5, 3, device=each_device)
        assert torch.equal(traced(x), layer(x))


class Layers(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = Conv2d(3, 3, 5, padding=2), TDBatchNorm2d(3)
        self.block = nn.Sequential(TDBNLIF(3, alpha=None, stateful=True), SpikingConv(3, 3, 3, padding=1, tau=3.0))
        self.neurons, self.loss = LIF(tau=Learned(2.0), surrogate="atan", reduce="mean"), L1SSIM()

    def forward(self, images):
        x = self.norm(torch.stack([self.conv(images), images]))
        rates = self.neurons(self.block(x).relu())
        return self.loss(y_hat=rates, y=images) + rates.mean()


def test_fx_keeps_layers_as_they_are(each_device):
    model, images = Layers().to(each_device), torch.rand(2, 3, 9, 8, device=each_device)
    traced = torch.fx.symbolic_trace(copy.deepcopy(model))
    modules = {node.target for node in traced.graph.nodes if node.op == "call_module"}
    assert modules == {"conv", "norm", "block.0", "block.1", "neurons", "loss"}
    for training in (True, False):
        assert torch.equal(traced.train(training)(images), model.train(training)(images))
    assert all("deal_kernels" not in str(node.target) for node in traced.graph.nodes)


torch.fx.wrap("lif")


def test_fx_records_functions_that_are_wrapped(each_device):
    def network(x):
        return lif(x * 2, tau=3.0) + 1

    x = torch.randn(4, 5, device=each_device)
    assert torch.equal(torch.fx.symbolic_trace(network)(x), network(x))
    with pytest.raises(TypeError, match="write torch.fx.wrap"):
        torch.fx.symbolic_trace(lambda x: tdbn(x, training=True))


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("started", [True, False])
def test_a_state_in_a_checkpoint_is_refused(reentrant, started):
    layer, x = LIF(stateful=True, detach_state=True), torch.randn(4, 2, 3, requires_grad=True)
    if started:
        layer(x.detach())
    y = checkpoint(nn.Sequential(nn.Linear(3, 3), layer, nn.Linear(3, 3)), x, use_reentrant=reentrant)
    with pytest.raises(RuntimeError, match="was run again in the backward pass"):
        y.sum().backward()


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints(reentrant, each_device):
    """Without a state, and with one that is given."""
    for settings in ({}, {"return_state": True}):
        layer = LIF(tau=nn.Parameter(torch.tensor(2.0)), surrogate="atan", **settings).to(each_device)
        x, v0 = (torch.randn(shape, requires_grad=True, device=each_device) for shape in ((4, 2, 3), (2, 3)))
        found = tensors_of(checkpoint(layer, x, v0, use_reentrant=reentrant))
        sum(each.cos().sum() for each in found).backward()
        leaves = x, v0, layer.tau
        expected = torch.autograd.grad(sum(each.cos().sum() for each in tensors_of(layer(x, v0))), leaves)
        assert equal(tuple(leaf.grad for leaf in leaves), expected)


@pytest.mark.parametrize("steps", [None, 3])
def test_a_step_of_another_shape_starts_at_rest(steps, each_device):
    layer = LIF(stateful=True, steps=steps)
    shapes = ((4, 8, 5), (4, 3, 5), (4, 3, 5, 2)) if steps is None else ((8, 5), (3, 5), (3, 5, 2))
    for shape in shapes:
        x = torch.randn(shape, device=each_device)
        assert torch.equal(layer(x), lif(x, steps=steps))
        before = layer.v
        assert torch.equal(layer(x), lif(x, before, steps=steps))


def test_a_state_in_another_type_goes_on(each_device):
    layer, x = LIF(stateful=True), torch.randn(4, 3, device=each_device)
    layer(x)
    before = layer.v
    assert torch.equal(layer(x.bfloat16()), lif(x.bfloat16(), before))


def test_an_input_without_a_time_axis_is_warned_of_once():
    layer = LIF(step_dims=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(torch.randn(4, 2, 3))
    with pytest.warns(
        UserWarning, match=r"step_dims=2 takes 3 dimensions.*\(2, 3\), whose first axis it takes as time"
    ):
        layer(torch.randn(2, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(torch.randn(2, 3))
    with pytest.warns(UserWarning, match="takes 4 dimensions, those of a step; got x"):
        TDBNLIF(3, step_dims=4, steps=2)(torch.randn(4, 3, 2, 5, 5))
    with pytest.raises(ValueError, match="step_dims must be an integer of at least 1; got 0"):
        LIF(step_dims=0)


@pytest.mark.parametrize("grad", [True, False])
def test_profiles_name_the_operation(grad, each_device):
    x = torch.randn(4, 2, 3, 5, requires_grad=grad, device=each_device)
    with profile() as recorded:
        y = TDBNLIF(3).to(each_device)(LIF()(x))
        if grad:
            y.sum().backward()
    names = {event.key for event in recorded.key_averages()}
    expected = {"deal_kernels::lif", "deal_kernels::tdbn_lif"}
    assert expected <= names and (not grad or {f"{name}_backward" for name in expected} <= names)
