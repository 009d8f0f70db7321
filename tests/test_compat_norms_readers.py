"""What reads the result of a swapped norm, and calls in which a norm stays as it is."""

import pytest
import torch
from normed_networks import B, C, Flat, H, T, W, assert_agree, drawn, pair, uses
from torch import nn
from torch.utils.checkpoint import checkpoint

from deal_kernels.compat import deferred, norms, swap
from deal_kernels.compat.deferred import DeferredNorm
from deal_kernels.compat.spikingjelly.standin.activation_based import neuron
from deal_kernels.compat.spikingjelly.standin.functional import reset_net
from deal_kernels.lif import lif


@pytest.fixture(autouse=True)
def also_small_inputs(monkeypatch):
    monkeypatch.setattr(norms, "SMALLEST", 0)


class Both(Flat):
    """The norm's result is read by the neuron and by an addition, either of them first."""

    def __init__(self, addition_first):
        super().__init__()
        self.addition_first = addition_first

    def forward(self, x):
        y = self.norm(x.flatten(0, 1)).unflatten(0, (T, B))
        if self.addition_first:
            return y * 0.5 + self.neuron(y)
        return self.neuron(y) + y * 0.5


@pytest.mark.parametrize("addition_first", [False, True])
def test_a_result_with_two_readers(addition_first):
    before, after, report = pair(lambda: Both(addition_first))
    for _ in range(2):
        assert_agree(before, after, drawn(Flat.shape))
    assert uses(report) == [(0, 1) if addition_first else (2, 2)]


class Reader(Flat):
    def __init__(self, read):
        super().__init__()
        self.read = read

    def forward(self, x):
        return self.read(self.norm(x.flatten(0, 1)).unflatten(0, (T, B)), self.neuron)


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, grad):
        return 2 * ctx.saved_tensors[0] * grad


def changed_in_place(y, fire):
    copied, view = y.transpose(2, 3).contiguous(), y.flatten(1)
    y += 1
    return fire(y) + view.reshape(y.shape) + copied.transpose(2, 3)


READERS = {
    "addition": lambda y, fire: y + 1,
    "indexing": lambda y, fire: fire(y[:, :, 1:]),
    "heads": lambda y, fire: fire(y.unflatten(2, (2, 3))),
    "channels mixed with space": lambda y, fire: fire(y.flatten(2)),
    "channels as time": lambda y, fire: fire(y.movedim(2, 0)).movedim(0, 2),
    "concatenation": lambda y, fire: torch.cat([y, y.flatten(3).view(y.shape)]),
    "relu in place": lambda y, fire: nn.functional.relu(y, inplace=True),
    "another neuron": lambda y, fire: torch.stack([Square.apply(each) for each in y]),
    "autograd function": lambda y, fire: Square.apply(y),
    "autograd function of a view": lambda y, fire: Square.apply(y.flatten(1).transpose(0, 1)),
    "changed in place": changed_in_place,
    "view without gradient": lambda y, fire: fire(torch.no_grad()(y.flatten)(3).unflatten(3, (H, W))) + y,
    "mean over time": lambda y, fire: deferred.lif(y, reduce="mean"),
    "lif": lambda y, fire: lif(y.transpose(3, 4)),
    "kept for later": lambda y, fire: torch.no_grad()(lambda: y.mean())() + y,
}


@pytest.mark.parametrize("name", READERS)
def test_anything_else_gets_the_values_of_the_library(name):
    before, after, report = pair(lambda: Reader(READERS[name]))
    assert_agree(before, after, drawn(Flat.shape))
    assert report.norms[0].uses.computed == 1
    x = drawn(Flat.shape)
    with torch.no_grad():
        reset_net(before), reset_net(after)
        assert torch.equal(before(x), after(x))


@pytest.mark.parametrize("reader", [lambda y, fire: fire(y), lambda y, fire: fire(y) + y, lambda y, fire: y.exp()])
def test_checkpoints(reader):
    """The call that is repeated in the backward pass keeps what the first one kept."""

    def read(y, fire):
        reset_net(fire)
        return reader(y, fire)

    before, after, _ = pair(lambda: Reader(read))
    x = drawn(Flat.shape)
    found = []
    for network in (before, after):
        given = x.clone().requires_grad_()
        checkpoint(network, given, use_reentrant=False).square().sum().backward()
        found.append([given.grad, network.norm.weight.grad])
    torch.testing.assert_close(*found)


def test_what_a_result_says_of_itself_does_not_compute_it():
    _, after, report = pair(lambda: nn.BatchNorm2d(C))
    y = after(drawn((B, C, H, W)))
    assert isinstance(y, DeferredNorm) and isinstance(y, torch.Tensor)
    assert (y.shape, y.dtype, y.ndim, len(y), y.requires_grad) == ((B, C, H, W), torch.float64, 4, B, True)
    assert y.size(1) == C and y.dim() == 4 and y.device.type == "cpu" and y.is_floating_point()
    assert uses(report) == [(0, 0)]
    assert "tensor" in repr(y) and type(y + 0) is torch.Tensor
    assert uses(report) == [(0, 1)]


def test_a_result_that_nobody_reads_counts_in_the_statistics():
    before, after, report = pair(lambda: nn.BatchNorm2d(C))
    for network in (before, after):
        network(drawn((B, C, H, W)))
    torch.testing.assert_close(dict(after.named_buffers()), dict(before.named_buffers()))
    assert after.num_batches_tracked == 1 and uses(report) == [(0, 0)]


def test_a_norm_without_a_neuron_is_the_librarys_again():
    _, after, report = pair(lambda: nn.BatchNorm2d(C))
    x = drawn((B, C, H, W))
    after(x) + 1
    assert type(after(x)) is torch.Tensor
    again = swap(after, norms=True)
    assert isinstance(after(x), DeferredNorm) and again.norms[0].kind == report.norms[0].kind == "BatchNorm2d"


def deferring(**changes):
    norm = nn.BatchNorm2d(C, **changes)
    swap(norm, norms=True)
    return norm


def hooked():
    norm = deferring()
    norm.register_forward_hook(lambda module, args, result: None)
    return norm


@pytest.mark.parametrize(
    ("norm", "x"),
    [
        (hooked(), torch.randn(B, C, H, W)),
        (deferring(momentum=1.5), torch.randn(B, C, H, W)),
        (nn.Sequential(deferring()), torch.randn(B, C, H, W).as_subclass(type("Mine", (torch.Tensor,), {}))),
        (deferring().eval(), torch.randn(0, C, H, W)),
    ],
)
def test_where_the_norm_stays_as_it_is(norm, x):
    assert not isinstance(norm(x), DeferredNorm)


def test_small_inputs_stay_as_they_are(monkeypatch):
    monkeypatch.setattr(norms, "SMALLEST", B * C * H * W + 1)
    assert type(deferring()(torch.randn(B, C, H, W))) is torch.Tensor


def test_errors_are_those_of_torch():
    norm = deferring()
    for x, message in (
        (torch.randn(B, C), "expected 4D input"),
        (torch.randn(1, C, 1, 1), "more than 1 value per channel"),
        (torch.randn(B, C + 1, H, W), "running_mean should contain"),
    ):
        with pytest.raises((ValueError, RuntimeError), match=message):
            norm(x)


def test_inference_mode():
    _, after, report = pair(Flat)
    with torch.inference_mode():
        after(drawn(Flat.shape))
    assert uses(report) == [(0, 0)]


def test_tracing_and_transforms():
    before, after, report = pair(lambda: nn.Sequential(nn.BatchNorm2d(C), nn.ReLU()))
    before.eval(), after.eval()
    x = drawn((B, C, H, W))
    wanted = before(x)
    found = {
        "compiled": torch.compile(after, backend="eager", fullgraph=True)(x),
        "exported": torch.export.export(after, (x,)).module()(x),
        "vmap": torch.vmap(lambda each: after(each[None])[0])(x),
        "jit": torch.jit.trace(after, x, check_trace=False)(x),
    }
    assert uses(report) == [(0, 0)]
    found["fx"] = torch.fx.symbolic_trace(after)(x)
    for name, value in found.items():
        torch.testing.assert_close(value, wanted, msg=name)


def test_a_change_of_the_input_is_seen():
    norm, x = deferring(), torch.randn(B, C, H, W)
    y = norm(x)
    x += 1
    with pytest.raises(RuntimeError, match="changed in place before its result was read"):
        y + 1


def test_gradient_hooks_of_a_result():
    before, after, _ = pair(Flat)
    x, found = drawn((B, C, H, W)), []
    for network in (before, after):
        y = network.norm(x)
        y.retain_grad()
        network.neuron(y.unsqueeze(0)).sum().backward()
        found.append(network.norm.weight.grad)
    torch.testing.assert_close(*found)
    swap(after, norms=True)
    y = after.norm(x)
    after.neuron(y.unsqueeze(0))
    with pytest.raises(RuntimeError, match="would miss the gradient"):
        y.register_hook(print)


def test_a_backward_hook_of_a_container():
    def build():
        return nn.Sequential(nn.Sequential(nn.BatchNorm2d(C)), neuron.LIFNode())

    before, after, _ = pair(build)
    seen = []
    for network in (before, after):
        network[0].register_full_backward_hook(lambda module, given, grads: seen.append(grads[0]))
    assert_agree(before, after, drawn((B, C, H, W)))
    torch.testing.assert_close(*seen)


def test_a_norm_without_gradient_before_a_neuron_with_one():
    _, after, report = pair(Flat)
    x = drawn((T * B, C, H, W)).requires_grad_()
    with torch.no_grad():
        y = after.norm(x)
    spikes = after.neuron(y.unflatten(0, (T, B)))
    assert uses(report) == [(1, 0)] and not spikes.requires_grad


def test_readers_outside_python_cannot_change_a_result():
    y = deferring()(torch.randn(B, C, H, W))
    with torch._C.DisableTorchFunctionSubclass(), pytest.raises(RuntimeError, match="would change the result"):
        y.add_(1)
    assert deferred.like(y).shape == y.shape
