"""The neuron as a torch operation: schema checks, compile, export, and what autograd keeps."""

import gc

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from deal_kernels.lif import lif
from deal_kernels.lif.neuron import Neuron
from deal_kernels.lif.neuron import flat as flat_neuron
from deal_kernels.lif.reference import Inputs
from deal_kernels.surrogate import ATan

NEURON = Neuron("decay_input", 2.0, 1.0, "hard", 0.0, False, ATan(), "ge", 1)


def arguments(device, backend, output="spikes", steps=None, state=True):
    x = torch.randn(4, 2, 3, 5, device=device)
    row = x if steps else x[0]
    channels = torch.rand(row.shape[1], device=device) + 1
    return Inputs(NEURON, x, torch.randn_like(row), channels, channels.clone(), steps), output, state, backend


def flat(i):
    return i.x, i.v0, i.decay, i.threshold, *flat_neuron(i.neuron)


@pytest.mark.parametrize("steps", [None, 3])
@pytest.mark.parametrize("state", [False, True])
@pytest.mark.parametrize("output", ["spikes", "mean", "packed"])
def test_opcheck_forward(backend, device, output, state, steps):
    i, *_ = arguments(device, backend, output, steps, state)
    torch.library.opcheck(torch.ops.deal_kernels.lif.default, (*flat(i), output, steps, state, backend))


@pytest.mark.parametrize("steps", [None, 3])
@pytest.mark.parametrize("wanted", [[False] * 3, [True] * 3])
@pytest.mark.parametrize("output", ["spikes", "mean"])
def test_opcheck_backward(backend, device, output, wanted, steps):
    i, *_ = arguments(device, backend, output, steps)
    shape = i.row.shape if output == "mean" else (i.length, *i.row.shape)
    grads = torch.randn(shape, device=device), torch.randn(i.row.shape, device=device)
    torch.library.opcheck(
        torch.ops.deal_kernels.lif_backward.default, (*grads, *flat(i), output, steps, wanted, backend)
    )


def layer(x, w, tau):
    return lif(torch.relu(x) * w, tau=tau, v_reset=None, surrogate="atan").sum(0)


@pytest.mark.parametrize("compiler", ["eager", "aot_eager", "inductor"])
@pytest.mark.parametrize("grad", [False, True])
def test_compile(compiler, grad):
    torch._dynamo.reset()
    x = torch.randn(4, 6, 20, requires_grad=grad)
    w = torch.ones(20, requires_grad=grad)
    tau = torch.tensor(2.0, requires_grad=grad)
    compiled = torch.compile(layer, backend=compiler, fullgraph=True)
    expected, result = layer(x, w, tau), compiled(x, w, tau)
    assert torch.equal(result, expected)
    if grad:
        inputs = [x, w, tau]
        grads = torch.autograd.grad(result.sum(), inputs)
        for one, other in zip(grads, torch.autograd.grad(expected.sum(), inputs), strict=True):
            torch.testing.assert_close(one, other)


def test_compile_dynamic_shapes():
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(lambda x: lif(x, return_state=True), backend=counter, fullgraph=True, dynamic=True)
    for shape in ((4, 3, 20), (5, 2, 33), (7, 6, 41)):
        x = torch.randn(shape)
        spikes, v = compiled(x)
        expected, expected_v = lif(x, return_state=True)
        assert torch.equal(spikes, expected) and torch.equal(v, expected_v)
    assert counter.frame_count == 1


def test_export():
    class Net(torch.nn.Module):
        def forward(self, x):
            return lif(x * 2, reduce="mean")

    x = torch.randn(4, 3, 5)
    program = torch.export.export(Net(), (x,))
    assert "deal_kernels.lif.default" in str(program.graph)
    assert torch.equal(program.module()(x), Net()(x))


def test_kept_for_backward_is_the_input_alone(backend, device):
    x = torch.randn(4, 1000, device=device, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        spikes = lif(x, backend=backend)
    assert [t.data_ptr() for t in kept] == [x.data_ptr()]
    del spikes
    gc.collect()


def test_second_backward_is_refused(backend, device):
    x = torch.randn(4, 10, device=device, requires_grad=True)
    (grad,) = torch.autograd.grad(lif(x, backend=backend).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        grad.sum().backward()


def test_meta_and_fake_tensors():
    spikes, v = lif(torch.empty(4, 2, 8, device="meta"), return_state=True)
    assert spikes.shape == (4, 2, 8) and v.shape == (2, 8) and spikes.device.type == "meta"
    with torch._subclasses.FakeTensorMode():
        x = torch.empty(4, 2, 8, dtype=torch.bfloat16, requires_grad=True)
        spikes, v = lif(x, return_state=True)
        spikes.sum().backward()
    assert spikes.dtype == torch.bfloat16 and v.dtype == torch.float32 and x.grad.shape == x.shape


def test_dispatch_modes_see_the_operation():
    seen = []

    class Listener(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    with Listener():
        lif(torch.randn(4, 8))
    assert "deal_kernels.lif.default" in seen


def test_same_input_same_bits(backend, device):
    x = torch.randn(8, 30_000, device=device, requires_grad=True)
    tau = torch.rand((), device=device).add(1).requires_grad_()
    runs = []
    for _ in range(3):
        spikes = lif(x, tau=tau, backend=backend)
        runs.append((spikes, *torch.autograd.grad(spikes, [x, tau], torch.ones_like(x))))
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(run, runs[0], strict=True))


def test_autocast_keeps_the_dtype(backend, device):
    x = torch.randn(4, 8, device=device)
    with torch.autocast(x.device.type, dtype=torch.bfloat16):
        assert lif(x, backend=backend).dtype == torch.float32
        assert lif(x.bfloat16(), backend=backend).dtype == torch.bfloat16


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("named", ["cuda", "triton"])
def test_cuda_graph_replays_the_same_bits(named):
    x = torch.randn(4, 100_000, device="cuda", requires_grad=True)
    g = torch.randn_like(x)

    def step():
        spikes = lif(x, backend=named)
        return spikes, torch.autograd.grad(spikes, x, g)[0]

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        x.copy_(torch.randn_like(x))
    graph.replay()
    for replayed, expected in zip(captured, step(), strict=True):
        assert torch.equal(replayed, expected)
