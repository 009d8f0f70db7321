"""The neuron as a torch operation: sizes that change, and what autograd keeps."""

import gc

import torch
from torch._dynamo.testing import CompileCounter

from deal_kernels.lif import lif


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


def test_kept_for_backward_is_the_input_alone(backend, device):
    x = torch.randn(4, 1000, device=device, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        spikes = lif(x, backend=backend)
    assert [t.data_ptr() for t in kept] == [x.data_ptr()]
    del spikes
    gc.collect()
