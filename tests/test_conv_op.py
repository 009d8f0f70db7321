"""The convolution as a torch operation: schema checks, compile, export, what autograd keeps, processes that fork."""

import subprocess
import sys

import pytest
import torch
from conv_oracle import distance, gradients, tensors
from torch.utils.data import DataLoader, Dataset

from deal_kernels import backend as backends
from deal_kernels.conv import Conv2d, conv2d

OPS = torch.ops.deal_kernels
ENGINE = pytest.mark.skipif(backends.unavailable("cpp", "cpu") is not None, reason="the engine is not built")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("last", [False, True])
def test_opcheck(dtype, last):
    x, weight, bias, residual = tensors((2, 8, 20, 17), (6, 8, 7, 5), padding=(3, 1), dtype=dtype)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    geometry = [3, 3, 1, 1], "reflect", [1, 1]
    check = torch.library.opcheck
    for bias_and_residual, relu, keep in (((None, None), False, False), ((bias, residual), True, True)):
        check(OPS.conv2d.default, (x, weight, *bias_and_residual, *geometry, relu, keep))
    y = OPS.conv2d.default(x, weight, bias, residual, *geometry, True, False)
    grad = torch.randn_like(y)
    for given, result, wanted in (
        (x, y, [True] * 4),
        (None, None, [True, False, False, False]),
        (x, None, [False, True, True, False]),
    ):
        check(OPS.conv2d_backward.default, (grad, given, weight, result, *geometry, last, False, wanted))


def network(x, layers):
    first, second, third = layers
    y = first(x * 1.5)
    return third(second(y, y)).square().mean()


def layers(backend=None):
    torch.manual_seed(0)
    return torch.nn.ModuleList([
        Conv2d(3, 8, 5, padding=2, padding_mode="reflect", activation="relu", backend=backend),
        Conv2d(8, 8, 7, padding="same", dilation=2, activation="relu", backend=backend),
        Conv2d(8, 2, 3, stride=2),
    ])  # fmt: skip


def gradients_of(loss, module, x):
    return torch.autograd.grad(loss, [x, *module.parameters()])


@pytest.mark.parametrize(("compiler", "grad"), [("aot_eager", False), ("inductor", True)])
@pytest.mark.parametrize("named", [pytest.param("cpp", marks=ENGINE), "torch", None])
def test_compile(named, compiler, grad):
    torch._dynamo.reset()
    module, x = layers(named), torch.randn(2, 3, 30, 28, requires_grad=grad)
    with torch.set_grad_enabled(grad):
        expected = network(x, module)
        result = torch.compile(network, backend=compiler, fullgraph=True)(x, module)
    torch.testing.assert_close(result, expected)
    if grad:
        for one, other in zip(*(gradients_of(each, module, x) for each in (result, expected)), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@ENGINE
def test_compile_with_sizes_that_change():
    torch._dynamo.reset()
    module = Conv2d(3, 8, 7, padding=3, padding_mode="reflect", backend="cpp")
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True, dynamic=True)
    for size in ((40, 30), (41, 37), (90, 33)):
        x = torch.randn(1, 3, *size, requires_grad=True)
        y, expected = compiled(x), module(x)
        assert torch.equal(y, expected)
        assert torch.equal(*(torch.autograd.grad(each.sum(), x)[0] for each in (y, expected)))


@ENGINE
def test_export():
    module = Conv2d(3, 8, 7, padding=3, padding_mode="reflect", activation="relu", backend="cpp").eval()
    x = torch.randn(1, 3, 40, 30)
    sizes = {2: torch.export.Dim("height", min=8), 3: torch.export.Dim("width", min=8)}
    for shapes in (None, (sizes, None)):
        program = torch.export.export(module, (x, None), dynamic_shapes=shapes)
        assert "deal_kernels.conv2d.default" in str(program.graph)
        assert torch.equal(program.module()(x, None), module(x))
    larger = torch.randn(1, 3, 71, 55)
    assert torch.equal(program.module()(larger, None), module(larger))


def test_the_choice_does_not_tie_an_export_to_a_size():
    module = Conv2d(3, 8, 7, padding=3).eval()
    sizes = {2: torch.export.Dim("height", min=8), 3: torch.export.Dim("width", min=8)}
    program = torch.export.export(module, (torch.randn(1, 3, 40, 30), None), dynamic_shapes=(sizes, None))
    for size in ((9, 8), (400, 300)):
        x = torch.randn(1, 3, *size)
        assert distance(program.module()(x, None), module(x).double()) <= 1e-5


def test_an_exported_program_runs_without_the_extension(monkeypatch):
    """And on other devices: the operation itself falls back to the specification."""
    x, weight, bias, residual = (t.requires_grad_() for t in tensors((2, 8, 20, 17), (6, 8, 7, 5), padding=(3, 1)))
    geometry = [3, 3, 1, 1], "reflect", [1, 1]
    expected = conv2d(x, weight, bias, residual=residual, padding=(3, 1), padding_mode="reflect", activation="relu")
    monkeypatch.setattr(backends, "extension", lambda: None)
    y = OPS.conv2d.default(x.detach(), weight.detach(), bias.detach(), residual.detach(), *geometry, True, True)
    assert distance(y, expected.double()) <= 1e-5
    grad = torch.randn(y.shape)
    with torch.no_grad():
        found = OPS.conv2d_backward.default(grad, x, weight, y, *geometry, False, False, [True] * 4)
    expected = torch.autograd.grad(expected, (x, weight, bias, residual), grad)
    for one, other in zip(found, expected, strict=True):
        assert distance(one, other.double()) <= 1e-5
    for wanted in ([True, False, False, False], [False, False, True, False]):
        found = OPS.conv2d_backward.default(grad, None, weight.detach(), None, *geometry, False, False, wanted)
        assert [each.numel() > 0 for each in found] == wanted


def test_meta_and_fake_tensors():
    x, weight = torch.empty(2, 3, 20, 30, device="meta"), torch.empty(4, 3, 7, 7, device="meta")
    assert conv2d(x, weight, padding=3).shape == (2, 4, 20, 30)
    for dtype in (torch.float32, torch.bfloat16):
        with torch._subclasses.FakeTensorMode():
            x = torch.empty(2, 3, 20, 30, dtype=dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
            weight = torch.empty(4, 3, 7, 7, dtype=dtype, requires_grad=True)
            y = conv2d(x, weight, padding=3)
            y.float().sum().backward()
        assert y.dtype == dtype and y.is_contiguous(memory_format=torch.channels_last)
        assert x.grad.shape == x.shape and weight.grad.dtype == dtype


@ENGINE
@pytest.mark.parametrize("activation", [None, "relu"])
def test_kept_for_backward(activation):
    """x and the weight, and the result where it has been through a ReLU; without the weight's gradient no x."""
    x, weight, bias, _ = (t.requires_grad_() for t in tensors((1, 4, 20, 30), (6, 4, 7, 7), padding=3))

    def kept(*given):
        found = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: found.append(t.shape) or t, lambda t: t):
            y = conv2d(*given, padding=3, activation=activation, backend="cpp")
        return found, [y.shape] if activation else []

    found, result = kept(x, weight, bias)
    assert found == [x.shape, weight.shape, *result]
    found, result = kept(x, weight.detach(), bias)
    assert found == [weight.shape, *result]


def test_backward_twice_through_a_kept_graph():
    x, weight, bias, _ = (t.requires_grad_() for t in tensors((1, 4, 20, 30), (6, 4, 7, 7), padding=3))
    y = conv2d(x, weight, bias, padding=3, activation="relu").sum()
    runs = [torch.autograd.grad(y, (x, weight, bias), retain_graph=True) for _ in range(2)]
    assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))


def test_a_weight_that_changed_before_its_backward_pass_is_refused():
    x, weight, _, _ = (t.requires_grad_() for t in tensors((1, 4, 20, 30), (6, 4, 7, 7), padding=3))
    y = conv2d(x, weight, padding=3)
    with torch.no_grad():
        weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@ENGINE
@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("constant", [True, False])
def test_second_derivatives_are_those_of_torch(activation, constant):
    """As of a penalty on the gradient, whether or not its own gradient depends on anything."""
    drawn = [t.requires_grad_() for t in tensors((1, 4, 20, 30), (6, 4, 7, 7), padding=3)]
    x, weight, bias, residual = drawn
    options = {"padding": 3, "padding_mode": "reflect", "activation": activation}
    found = []
    for named in ("cpp", "torch"):
        y = conv2d(x, weight, bias, residual=residual, backend=named, **options)
        leaves = x, weight
        first = torch.autograd.grad(y.sum() if constant else y.square().sum(), leaves, create_graph=True)
        penalty = sum(each.square().mean() for each in first)
        found.append(torch.autograd.grad(penalty, drawn, materialize_grads=True, allow_unused=True))
    for one, other in zip(*found, strict=True):
        assert distance(one, other.double()) <= 1e-5


def test_second_derivatives_of_torch():
    x, weight, bias, _ = (t.double().requires_grad_() for t in tensors((1, 1, 4, 3), (2, 1, 3, 2)))
    run = lambda *given: conv2d(*given, padding=1, padding_mode="reflect", activation="relu")  # noqa: E731
    assert torch.autograd.gradcheck(run, (x, weight, bias)) and torch.autograd.gradgradcheck(run, (x, weight, bias))


@ENGINE
def test_dispatch_modes_see_the_operation():
    seen = []

    class Listener(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    x, weight, bias, _ = tensors((1, 4, 20, 30), (6, 4, 7, 7), padding=3)
    with Listener():
        conv2d(x, weight, bias, padding=3, backend="cpp")
    assert seen == ["deal_kernels.conv2d.default"]


def test_autocast():
    x, weight, bias, residual = (t.requires_grad_() for t in tensors((1, 8, 20, 30), (8, 8, 7, 7), padding=3))
    for named in ("torch", "cpp") if backends.unavailable("cpp", "cpu") is None else ("torch",):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = conv2d(x, weight, bias, residual=residual, padding=3, activation="relu", backend=named)
            again = conv2d(y, weight, bias, padding=3, backend=named)
        assert y.dtype == again.dtype == torch.bfloat16
        found = torch.autograd.grad(again.float().sum(), (x, weight, bias, residual))
        assert [each.dtype for each in found] == [torch.float32] * 4
        single = conv2d(
            conv2d(x, weight, bias, residual=residual, padding=3, activation="relu"), weight, bias, padding=3
        )
        for one, other in zip(found, torch.autograd.grad(single.sum(), (x, weight, bias, residual)), strict=True):
            assert distance(one, other.double()) <= 2e-2


def test_same_input_same_bits():
    drawn = [t.requires_grad_() for t in tensors((2, 16, 50, 60), (16, 16, 7, 7), padding=3)]
    x, weight, bias, residual = drawn
    runs = []
    for _ in range(3):
        y = conv2d(x, weight, bias, residual=residual, padding=3, activation="relu")
        runs.append((y.detach(), *gradients(y, drawn)))
    for run in runs[1:]:
        assert all(torch.equal(one, other) for one, other in zip(run, runs[0], strict=True))


@ENGINE
def test_a_forked_child_computes_too():
    code = """
import os, torch
from deal_kernels.conv import conv2d
torch.set_num_threads(2)
torch.manual_seed(0)
x, weight = torch.randn(1, 32, 128, 128), torch.randn(32, 32, 7, 7)
other = weight.clone()
run = lambda weight: conv2d(x, weight, padding=3, backend="cpp").numpy()
expected = run(weight)
child = os.fork()
if child == 0:
    # With the kept spectrum, and with a new one.
    os._exit(0 if (run(weight) == expected).all() and (run(other) == expected).all() else 1)
print(os.waitpid(child, 0)[1])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "0", done.stderr


class Filtered(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        x, weight, _, _ = tensors((3, 50, 60), (4, 3, 7, 7), seed=index)
        return conv2d(x, weight, padding=3)


def test_dataloader_workers():
    Filtered()[0]
    loader = DataLoader(Filtered(), batch_size=4, num_workers=2, multiprocessing_context="fork")
    assert torch.equal(torch.cat(list(loader)), torch.stack([Filtered()[index] for index in range(8)]))
