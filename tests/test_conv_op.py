"""The convolution as a torch operation: sizes that change, export, what autograd keeps, second derivatives."""

import pytest
import torch
from conv_oracle import distance, tensors

from deal_kernels import backend as backends
from deal_kernels.conv import Conv2d, choice, conv2d
from deal_kernels.conv.reference import Geometry

OPS = torch.ops.deal_kernels
ENGINE = pytest.mark.skipif(backends.unavailable("cpp", "cpu") is not None, reason="the engine is not built")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_a_matrix_unit_changes_the_choice_for_bfloat16_alone(monkeypatch, dtype):
    x = torch.zeros(1, 32, 128, 128, dtype=dtype).contiguous(memory_format=torch.channels_last)
    geometry = Geometry(padding=(1, 1, 1, 1), padding_mode="zeros", dilation=(1, 1))
    found = []
    for unit in (False, True):
        monkeypatch.setattr(choice, "MATRIX_UNIT", unit)
        found.append(choice.chosen_backend(None, x, torch.zeros(32, 32, 3, 3), geometry, trains=False))
    assert found[1] == ("torch" if dtype == torch.bfloat16 else found[0])


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


def test_compile_of_layers_in_a_row_for_any_size():
    """By inductor, where the backend is chosen while it traces."""
    torch._dynamo.reset()
    module = torch.nn.Sequential(Conv2d(1, 8, 3, padding=1, activation="relu"), Conv2d(8, 1, 3, padding=1))
    compiled = torch.compile(module, fullgraph=True, dynamic=True)
    for size in ((1, 1, 32, 32), (2, 1, 48, 40), (3, 1, 100, 77)):
        x = torch.rand(size, requires_grad=True)
        y, expected = compiled(x), module(x)
        torch.testing.assert_close(y, expected)
        torch.testing.assert_close(*(torch.autograd.grad(each.sum(), x)[0] for each in (y, expected)))


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
    y = OPS.conv2d.default(x.detach(), weight.detach(), bias.detach(), residual.detach(), *geometry, True, True, "cpp")
    assert distance(y, expected.double()) <= 1e-5
    grad = torch.randn(y.shape)
    with torch.no_grad():
        found = OPS.conv2d_backward.default(grad, x, weight, y, *geometry, False, False, "cpp", [True] * 4)
    expected = torch.autograd.grad(expected, (x, weight, bias, residual), grad)
    for one, other in zip(found, expected, strict=True):
        assert distance(one, other.double()) <= 1e-5
    for wanted in ([True, False, False, False], [False, False, True, False]):
        found = OPS.conv2d_backward.default(grad, None, weight.detach(), None, *geometry, False, False, "cpp", wanted)
        assert [each.numel() > 0 for each in found] == wanted


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


@pytest.mark.parametrize(
    ("limit", "capable", "expected"),
    [
        (None, True, True), ("avx512_core_amx", True, True), ("ALL", True, True), ("AVX2", True, False),
        ("AVX512_CORE_BF16", True, False), (None, False, False),
    ],
)  # fmt: skip
def test_matrix_unit_within_the_limit_of_the_library(monkeypatch, limit, capable, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": capable}, raising=False)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    if limit is not None:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert choice._has_matrix_unit() is expected
