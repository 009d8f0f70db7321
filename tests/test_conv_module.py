"""The layer, and the spectra that are kept for it."""

import copy
import gc
import io

import pytest
import torch
from conftest import BACKENDS
from conv_oracle import distance
from torch import nn

from deal_kernels.conv import Conv2d, conv2d, spectra

CONFIGURATIONS = {
    "square": ((3, 8, 7), {"padding": 3}),
    "named": ((3, 8), {"kernel_size": (5, 7), "padding": "same", "padding_mode": "reflect", "bias": False}),
    "positional": ((3, 8, 5, 1, 2, 2, 1, True, "replicate"), {}),
    "strided": ((3, 8, 5, 2, 2), {"padding_mode": "reflect"}),
    "grouped": ((4, 8, 5), {"groups": 2, "padding": 2}),
    "circular": ((3, 8, 5), {"padding": 2, "padding_mode": "circular"}),
    "in double": ((3, 8, 5), {"padding": 2, "dtype": torch.float64}),
    "pointwise": ((3, 8, 1), {}),
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_drop_in(name):
    arguments, keywords = CONFIGURATIONS[name]
    torch.manual_seed(0)
    ours = Conv2d(*arguments, **keywords)
    torch.manual_seed(0)
    theirs = nn.Conv2d(*arguments, **keywords)
    assert isinstance(ours, nn.Conv2d) and repr(ours) == repr(theirs)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other)
    for shape in ((2, arguments[0], 24, 21), (arguments[0], 24, 21)):
        x = torch.randn(shape, dtype=ours.weight.dtype)
        assert distance(ours(x), theirs(x).double()) <= 3e-6
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())


@pytest.mark.parametrize("name", ["square", "strided", "grouped", "circular"])
def test_activation_and_residual(name):
    arguments, keywords = CONFIGURATIONS[name]
    layer = Conv2d(*arguments, **keywords, activation="relu")
    x = torch.randn(2, arguments[0], 24, 21)
    plain = nn.Conv2d._conv_forward(layer, x, layer.weight, layer.bias)
    residual = torch.randn_like(plain)
    assert distance(layer(x, residual), torch.relu(plain + residual).double()) <= 3e-6
    assert "activation='relu'" in repr(layer)


def test_training():
    """A step like that of torch's layer, and the same again from a copy."""
    torch.manual_seed(0)
    ours = nn.Sequential(Conv2d(3, 16, 7, padding=3, activation="relu"), Conv2d(16, 3, 5, padding=2))
    theirs = nn.Sequential(nn.Conv2d(3, 16, 7, padding=3), nn.ReLU(), nn.Conv2d(16, 3, 5, padding=2))
    theirs[0].load_state_dict(ours[0].state_dict()), theirs[2].load_state_dict(ours[1].state_dict())
    again, x = copy.deepcopy(ours), torch.randn(2, 3, 40, 40)
    losses = {}
    for name, network in (("ours", ours), ("theirs", theirs), ("again", again)):
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        losses[name] = []
        for _ in range(4):
            loss = (network(x) - x).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[name].append(loss.item())
    assert losses["ours"] == losses["again"] and losses["ours"][-1] < losses["ours"][0]
    assert losses["ours"] == pytest.approx(losses["theirs"], rel=1e-4)


engine = pytest.mark.skipif("cpp" not in BACKENDS, reason="the engine is not built")


class Count:
    """How many spectra are computed."""

    def __init__(self, monkeypatch):
        self.count, compute = 0, spectra.computed

        def counted(*arguments):
            self.count += 1
            return compute(*arguments)

        monkeypatch.setattr(spectra, "computed", counted)

    def of(self, call):
        before = self.count
        result = call()
        return result, self.count - before


CHANGES = {
    "in place": lambda layer: layer.weight.mul_(2),
    "through data": lambda layer: layer.weight.data.mul_(2),
    "of a part": lambda layer: layer.weight[0, 0, 0, 0].add_(1),
    "through numpy": lambda layer: layer.weight.detach().numpy().__imul__(2),
    "of the data": lambda layer: setattr(layer.weight, "data", layer.weight.data * 2),
    "of the parameter": lambda layer: setattr(layer, "weight", nn.Parameter(layer.weight * 2)),
    "by a state": lambda layer: layer.load_state_dict({k: v * 2 for k, v in layer.state_dict().items()}),
    "by a vector": lambda layer: nn.utils.vector_to_parameters(
        nn.utils.parameters_to_vector(layer.parameters()) * 2, layer.parameters()
    ),
}


@engine
@torch.no_grad()
@pytest.mark.parametrize("change", CHANGES)
def test_a_spectrum_is_kept_until_the_weight_changes(monkeypatch, change):
    layer, x, count = Conv2d(4, 6, 7, padding=3, backend="cpp"), torch.randn(1, 4, 30, 30), Count(monkeypatch)
    first, computed = count.of(lambda: layer(x))
    assert computed == 1
    same, computed = count.of(lambda: layer(x))
    assert computed == 0 and torch.equal(same, first)
    CHANGES[change](layer)
    changed, computed = count.of(lambda: layer(x))
    assert computed == 1 and not torch.equal(changed, first)
    assert torch.equal(changed, conv2d(x, layer.weight.clone(), layer.bias, padding=3, backend="cpp"))


@engine
def test_inference_mode_keeps_too(monkeypatch):
    layer, x, count = Conv2d(4, 6, 7, padding=3, backend="cpp"), torch.randn(1, 4, 30, 30), Count(monkeypatch)
    with torch.inference_mode():
        assert [count.of(lambda: layer(x))[1] for _ in range(3)] == [1, 0, 0]
        made = layer.weight.clone()  # without a version
        run = lambda: conv2d(x, made, backend="cpp")  # noqa: E731
        assert [count.of(run)[1] for _ in range(2)] == [1, 0]
        made.add_(1)
        changed, computed = count.of(run)
        assert computed == 1 and torch.equal(changed, conv2d(x, made.clone(), backend="cpp"))


@engine
def test_a_step_of_training_computes_each_spectrum_once_and_keeps_none(monkeypatch):
    layer, count = Conv2d(4, 6, 7, padding=3, backend="cpp"), Count(monkeypatch)
    x = torch.randn(1, 4, 30, 30, requires_grad=True)
    for _ in range(2):
        y, computed = count.of(lambda: layer(x))
        assert computed == 1 and count.of(lambda y=y: y.sum().backward())[1] == 1
    assert layer.weight not in spectra._kept


@engine
def test_frozen_weights_keep_theirs_for_both_passes(monkeypatch):
    layer, count = Conv2d(4, 6, 7, padding=3, backend="cpp").requires_grad_(False), Count(monkeypatch)
    x = torch.randn(1, 4, 30, 30, requires_grad=True)
    found = [count.of(lambda: torch.autograd.grad(layer(x).sum(), x)) for _ in range(3)]
    assert [computed for _, computed in found] == [2, 0, 0]
    assert all(torch.equal(found[0][0][0], grad) for (grad,), _ in found)


@engine
def test_spectra_go_with_their_weights():
    gc.collect()
    before = len(spectra._kept)
    layer = Conv2d(4, 6, 7, padding=3, backend="cpp")
    with torch.no_grad():
        layer(torch.randn(1, 4, 30, 30))
    assert len(spectra._kept) == before + 1
    file = io.BytesIO()
    torch.save(layer, file)
    assert file.tell() < 20_000  # no spectrum among it
    del layer
    gc.collect()
    assert len(spectra._kept) == before
