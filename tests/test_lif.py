"""The neuron against an independent oracle: every kind, output, size, layout and dtype."""

import oracle
import pytest
import torch
from lif_kinds import CHARGES, FIRES, RESETS, each
from oracle import close

from deal_kernels import surrogate
from deal_kernels.lif import lif, unpack


def same(a, b):
    return torch.equal(a.nan_to_num(12345.0), b.nan_to_num(12345.0))


@pytest.mark.parametrize("fire", each(FIRES))
@pytest.mark.parametrize("reset", each(RESETS))
@pytest.mark.parametrize("charge", each(CHARGES))
@pytest.mark.parametrize("detach", [False, True], ids=["through", "detached"])
def test_oracle(backend, device, charge, reset, fire, detach):
    """Spikes and state bit for bit, and every gradient, for every kind of neuron."""
    torch.manual_seed(0)
    neuron = {**charge, **reset, **fire, "detach_reset": detach}
    x = (torch.randn(5, 2, 3, 7, device=device) * 1.5).requires_grad_()
    v0 = torch.randn(2, 3, 7, device=device, requires_grad=True)
    g, gv = torch.randn(5, 2, 3, 7, device=device), torch.randn(2, 3, 7, device=device)
    spikes, state = lif(x, v0, **neuron, return_state=True, backend=backend)
    grads = torch.autograd.grad([spikes, state], [x, v0], [g, gv])
    # On a GPU torch divides by a Python number by multiplying; a tensor divides truly.
    if neuron.get("tau") is not None:
        neuron["tau"] = torch.tensor(neuron["tau"], device=device)
    expected_spikes, expected_state = oracle.lif(x, v0, **neuron)
    expected = torch.autograd.grad([expected_spikes, expected_state], [x, v0], [g, gv])
    assert torch.equal(spikes, expected_spikes) and torch.equal(state, expected_state)
    assert close(grads[0], expected[0], 2e-6) and close(grads[1], expected[1], 2e-6)


@pytest.mark.parametrize("reset", each(RESETS))
@pytest.mark.parametrize("charge", each(CHARGES))
def test_gradient_within_a_step(backend, device, charge, reset):
    """Without the carried gradient each step learns from its own output, and the last one from the final state."""
    torch.manual_seed(0)
    neuron = {**charge, **reset, "carry_gradient": False, "surrogate": "atan"}
    x = torch.randn(20, 2, 9, device=device, requires_grad=True)
    v0 = torch.randn(2, 9, device=device, requires_grad=True)
    g = torch.randn(20, 2, 9, device=device), torch.randn(2, 9, device=device)
    grad, grad_v0 = torch.autograd.grad(lif(x, v0, **neuron, return_state=True, backend=backend), [x, v0], g)
    (expected,) = torch.autograd.grad(oracle.lif(x, v0, **neuron), [x], g)
    assert close(grad, expected, 2e-6) and not grad_v0.any()


@pytest.mark.parametrize("output", ["v", "h"])
@pytest.mark.parametrize("fire", each({"atan": {"surrogate": "atan"}, "levels": {"levels": 3}}))
@pytest.mark.parametrize("reset", each(RESETS))
def test_records(backend, device, reset, fire, output):
    """The states after and before the reset, with the gradients of everything."""
    torch.manual_seed(0)
    for dtype, steps in ((torch.float32, None), (torch.bfloat16, None), (torch.float32, 19)):
        x = torch.randn(*((19,) if steps is None else ()), 2, 3, 7, device=device).to(dtype).requires_grad_()
        wide = x.detach().float().requires_grad_()
        leaves = torch.randn(2, 3, 7), torch.rand(3) + 0.5, torch.rand(3) + 0.5
        v0, beta, theta = (leaf.to(device).requires_grad_() for leaf in leaves)
        neuron = {**reset, **fire, "output": output, "steps": steps}
        record, v = lif(x, v0, beta=beta, v_threshold=theta, **neuron, return_state=True, backend=backend)
        expected, expected_v = oracle.lif(wide, v0, beta=beta[:, None], v_threshold=theta[:, None], **neuron)
        assert record.dtype == torch.float32 and torch.equal(record, expected) and torch.equal(v, expected_v)
        g = torch.randn(record.shape, device=device), torch.randn(v.shape, device=device)
        grads = torch.autograd.grad([record, v], [x, v0, beta, theta], g, allow_unused=True)
        expected_grads = torch.autograd.grad([expected, expected_v], [wide, v0, beta, theta], g, allow_unused=True)
        for grad, other in zip(grads, expected_grads, strict=True):
            other = torch.zeros_like(grad) if other is None else other
            assert close(grad.float(), other, 1e-2 if grad.dtype == torch.bfloat16 else 3e-6)


@pytest.mark.parametrize("reset", each(RESETS))
@pytest.mark.parametrize("reduce", [None, "mean"])
def test_surrogate_of_the_caller(backend, device, reset, reduce):
    """A function computes the derivatives of all steps at once; everything else is that of a built-in surrogate."""
    torch.manual_seed(0)
    calls = []

    def tanh_slope(u):
        calls.append(u.shape)
        return 0.5 * (1 - torch.tanh(u).square())

    x = torch.randn(20, 2, 3, 7, device=device, requires_grad=True)
    theta = (torch.rand(3, device=device) + 0.5).requires_grad_()
    neuron = {**reset, "v_threshold": theta, "reduce": reduce, "backend": backend}
    mine, built_in = lif(x, surrogate=tanh_slope, **neuron), lif(x, surrogate=surrogate.Sigmoid(2.0), **neuron)
    assert torch.equal(mine, built_in)
    g = torch.randn_like(mine)
    for grad, other in zip(
        torch.autograd.grad(mine, [x, theta], g), torch.autograd.grad(built_in, [x, theta], g), strict=True
    ):
        assert close(grad, other, 1e-5)
    assert calls == [(20, 2, 3, 7)]


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.uint8])
def test_whole_numbers(backend, device, dtype):
    x = torch.randint(0, 2, (4, 2, 9), device=device).to(dtype)
    assert torch.equal(lif(x, tau=None, backend=backend), lif(x.float(), tau=None, backend=backend))


@pytest.mark.parametrize("steps", [1, 2, 7, 16, 17, 33, 100])
@pytest.mark.parametrize("neurons", [1, 15, 16, 63, 64, 65, 511, 513, 1100])
def test_sizes(backend, device, steps, neurons):
    """Every tail of a vector, a tile and a segment; odd sizes and long sequences."""
    if backend == "triton" and neurons > 513 and steps > 33:
        steps = 34
    torch.manual_seed(2)
    x = torch.randn(steps, neurons, device=device, requires_grad=True)
    g, gv = torch.randn_like(x), torch.randn_like(x[0])
    neuron = {"v_reset": None, "surrogate": "atan", "tau": 2.0}
    spikes, state = lif(x, **neuron, return_state=True, backend=backend)
    grad = torch.autograd.grad([spikes, state], x, [g, gv])[0]
    expected_spikes, expected_state = oracle.lif(x, **neuron)
    assert torch.equal(spikes, expected_spikes) and torch.equal(state, expected_state)
    assert close(grad, torch.autograd.grad([expected_spikes, expected_state], x, [g, gv])[0], 2e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("reduce", [None, "mean"])
def test_half(backend, device, dtype, reduce):
    """Half types are float32 inside: the result is that of float32 input, rounded once."""
    torch.manual_seed(3)
    x = torch.randn(4, 3, 50, device=device).to(dtype).requires_grad_()
    wide = x.detach().float().requires_grad_()
    spikes, state = lif(x, tau=3.0, reduce=reduce, return_state=True, backend=backend)
    expected, expected_state = lif(wide, tau=3.0, reduce=reduce, return_state=True, backend=backend)
    assert spikes.dtype == dtype and state.dtype == torch.float32
    assert torch.equal(spikes, expected.to(dtype)) and torch.equal(state, expected_state)
    g = torch.randn(spikes.shape, device=x.device).to(dtype)
    spikes.backward(g)
    expected.backward(g.float())
    assert torch.equal(x.grad, wide.grad.to(dtype))


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("fire", each(FIRES))
@pytest.mark.parametrize("reset", each(RESETS))
def test_double(backend, device, reset, fire, detach):
    """Gradients of everything at once, in float64."""
    if backend in ("cuda", "triton"):
        with pytest.raises(RuntimeError, match="float64"):
            lif(torch.zeros(2, 2, dtype=torch.float64, device=device), backend=backend)
        return
    torch.manual_seed(4)
    kwargs = {"dtype": torch.float64, "device": device}
    x = torch.randn(20, 2, 3, 5, **kwargs).mul(1.5).requires_grad_()
    tensors = [torch.randn(2, 3, 5, **kwargs), torch.rand(3, **kwargs) + 1.5, torch.rand(3, **kwargs) + 0.5]
    v0, tau, theta = (t.requires_grad_() for t in tensors)
    neuron = {**reset, **fire, "detach_reset": detach}
    spikes = lif(x, v0, tau=tau, v_threshold=theta, **neuron, backend=backend)
    expected, _ = oracle.lif(x, v0, tau=tau[:, None], v_threshold=theta[:, None], **neuron)
    assert torch.equal(spikes, expected)
    g = torch.randn_like(spikes)
    inputs = [x, v0, tau, theta]
    for grad, reference in zip(
        torch.autograd.grad(spikes, inputs, g), torch.autograd.grad(expected, inputs, g), strict=True
    ):
        assert close(grad, reference, 1e-12)


@pytest.mark.parametrize("reduce", [None, "mean"])
def test_constant_current(backend, device, reduce):
    torch.manual_seed(5)
    x = torch.randn(2, 3, 9, device=device, requires_grad=True)
    held = x.detach().expand(6, *x.shape).clone().requires_grad_()
    spikes, state = lif(x, steps=6, reduce=reduce, return_state=True, backend=backend)
    expected, expected_state = lif(held, reduce=reduce, return_state=True, backend=backend)
    assert torch.equal(spikes, expected) and torch.equal(state, expected_state)
    g = torch.randn_like(spikes)
    spikes.backward(g)
    expected.backward(g)
    assert close(x.grad, held.grad.sum(0), 1e-6)


def test_mean(backend, device):
    x = torch.randn(7, 40, device=device, requires_grad=True)
    g = torch.randn(40, device=x.device)
    rate = lif(x, v_reset=None, reduce="mean", backend=backend)
    spikes = lif(x, v_reset=None, backend=backend)
    assert torch.equal(rate, spikes.sum(0) / torch.full_like(rate, 7))
    grads = torch.autograd.grad(rate, x, g)[0]
    expected = torch.autograd.grad(spikes, x, (g / torch.full_like(g, 7)).expand(7, 40))[0]
    assert torch.equal(grads, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("neurons", [1, 7, 8, 9, 64, 515, 1030])
def test_packed(backend, device, neurons, dtype):
    x = torch.randn(5, neurons, device=device).to(dtype)
    packed, state = lif(x, pack=True, return_state=True, backend=backend)
    spikes, expected_state = lif(x, return_state=True, backend=backend)
    assert packed.dtype == torch.uint8 and packed.shape == (5, (neurons + 7) // 8)
    assert torch.equal(unpack(packed, x[0]), spikes)
    assert torch.equal(state, expected_state)
    bits = (packed[:, :, None].int() >> torch.arange(8, device=x.device)) & 1
    assert bits.flatten(1)[:, neurons:].sum() == 0


def test_packed_steps_of_one_neuron(backend, device):
    """Without an axis of neurons."""
    x = torch.tensor([0.0, 9.0, 9.0, -1.0, 9.0], device=device)
    packed = lif(x, pack=True, backend=backend)
    assert packed.tolist() == [[0], [1], [1], [0], [1]]
    assert torch.equal(unpack(packed, x[0]), lif(x, backend=backend))


def test_packed_channels_last(backend, device):
    x = torch.randn(8, 3, 5, 4, device=device).contiguous(memory_format=torch.channels_last)
    x = x.unflatten(0, (4, 2))
    packed = lif(x, pack=True, backend=backend)
    assert torch.equal(unpack(packed, x[0]), lif(x, backend=backend))


@pytest.mark.parametrize(
    "arrange",
    [
        lambda x: x[:, :, ::2],
        lambda x: x[:, 1:],
        lambda x: x[::2],
        lambda x: x[:, 0],
        lambda x: x.transpose(1, 2),
        lambda x: x.transpose(0, 2),
        lambda x: x[:1].expand(5, -1, -1),
        lambda x: x[:, :1].expand(-1, 4, -1),
        lambda x: x.contiguous().flip(0),
    ],
)
def test_layouts(backend, device, arrange):
    torch.manual_seed(6)
    base = torch.randn(6, 4, 10, device=device)
    x = arrange(base).detach().requires_grad_()
    neuron = {"surrogate": "atan", "return_state": True, "backend": backend}
    spikes, state = lif(x, **neuron)
    g = torch.randn(*spikes.shape[::-1], device=x.device).permute(*range(spikes.dim())[::-1])  # not like the spikes
    copy = x.detach().contiguous().requires_grad_()
    expected, expected_state = lif(copy, **neuron)
    assert torch.equal(spikes, expected) and torch.equal(state, expected_state)
    gv = torch.randn_like(state)
    grads = torch.autograd.grad([spikes, state], x, [g, gv])[0]
    assert torch.equal(grads, torch.autograd.grad([expected, expected_state], copy, [g, gv])[0])


def test_dense_layouts_are_kept(backend, device):
    x = torch.randn(8, 3, 5, 4, device=device).contiguous(memory_format=torch.channels_last).unflatten(0, (4, 2))
    spikes, state = lif(x, return_state=True, backend=backend)
    assert spikes.stride() == x.stride() and state.stride() == x[0].stride()
    assert lif(x[0], steps=3, backend=backend).stride()[1:] == x[0].stride()


def test_state_carries_a_sequence(backend, device):
    """Two halves joined by their state are the whole, gradients included."""
    torch.manual_seed(7)
    x = torch.randn(10, 33, device=device, requires_grad=True)
    g = torch.randn(10, 33, device=x.device)
    first, v = lif(x[:4], surrogate="atan", return_state=True, backend=backend)
    second, v = lif(x[4:], v, surrogate="atan", return_state=True, backend=backend)
    whole, v_whole = lif(x, surrogate="atan", return_state=True, backend=backend)
    assert torch.equal(torch.cat([first, second]), whole) and torch.equal(v, v_whole)
    parts = torch.autograd.grad(torch.cat([first, second]), x, g)[0]
    assert torch.equal(parts, torch.autograd.grad(whole, x, g)[0])


def test_only_the_state_has_a_gradient(backend, device):
    x = torch.randn(3, 20, device=device, requires_grad=True)
    _, v = lif(x, return_state=True, backend=backend)
    (grad,) = torch.autograd.grad(v.sum(), x)
    _, expected = oracle.lif(x)
    assert close(grad, torch.autograd.grad(expected.sum(), x)[0], 2e-6)


def test_at_the_threshold(backend, device):
    x = torch.tensor([[1.0, 1.0 - 2**-24, 1.0 + 2**-23, -0.0]], device=device)
    neuron = {"tau": None, "backend": backend}
    assert lif(x, **neuron).tolist() == [[1.0, 0.0, 1.0, 0.0]]
    assert lif(x, fire="gt", **neuron).tolist() == [[0.0, 0.0, 1.0, 0.0]]
    halves = torch.tensor([[0.5, 1.5, 2.5, 3.5, 4.5, 9.0, -1.0]], device=x.device)
    assert lif(halves, levels=4, v_reset=None, **neuron).tolist() == [[0.0, 2.0, 2.0, 4.0, 4.0, 4.0, 0.0]]


@pytest.mark.parametrize("fire", each(FIRES))
@pytest.mark.parametrize("reset", each(RESETS))
def test_nan_and_infinity(backend, device, reset, fire):
    """Special values go where plain torch sends them."""
    special = torch.tensor([float("nan"), float("inf"), -float("inf"), 3e38, -3e38, 1e-42, 0.0])
    x = torch.stack([special, special.roll(1), special.roll(2)]).to(device)
    for output in (None, "mean"):
        spikes, state = lif(x, tau=4.0, **reset, **fire, reduce=output, return_state=True, backend=backend)
        expected, expected_state = oracle.lif(x, tau=4.0, **reset, **fire, reduce=output)
        assert same(spikes, expected) and same(state, expected_state)


def test_out(backend, device):
    x = torch.randn(4, 100, device=device)
    expected = lif(x, backend=backend)
    out = torch.full_like(x, 7)
    assert lif(x, out=out, backend=backend) is out
    assert torch.equal(out, expected)
    lif(x, out=x, backend=backend)
    assert torch.equal(x, expected)


@pytest.mark.parametrize("shape", [(4, 0), (1, 0, 3), (3, 2, 0, 5)])
def test_no_elements(backend, device, shape):
    x = torch.zeros(shape, device=device, requires_grad=True)
    tau = torch.tensor(2.0, device=x.device, requires_grad=True)
    spikes, v = lif(x, tau=tau, return_state=True, backend=backend)
    assert spikes.shape == x.shape and v.shape == x.shape[1:]
    spikes.sum().backward()
    assert x.grad.shape == x.shape and tau.grad.item() == 0
    assert lif(x.detach(), pack=True, backend=backend).shape == (shape[0], 0)


def test_expanded_cotangent(backend, device):
    x = torch.randn(3, 70, device=device, requires_grad=True)
    lif(x, backend=backend).sum().backward()
    expected = torch.autograd.grad(lif(x, backend=backend), x, torch.ones_like(x))[0]
    assert torch.equal(x.grad, expected)


def test_beyond_32_bit_offsets():
    """The element that lies past 2^31 bytes is computed like any other."""
    x = torch.zeros(3, (1 << 28) + 3, dtype=torch.bfloat16)
    x[2, -2:] = 5.0
    packed = lif(x, pack=True, backend=None if x.is_cpu else "torch")
    assert packed.sum(dtype=torch.int64).item() == int(packed[2, -1]) + int(packed[2, -2])
    assert unpack(packed[:, -1:], (3,))[2].tolist() == [0.0, 1.0, 1.0]
