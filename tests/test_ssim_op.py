"""SSIM as a torch operation: half types, and what autograd keeps."""

import torch
from ssim_oracle import images

from deal_kernels.ssim import l1_ssim, ssim, ssim_map


def test_compile_of_halves():
    torch._dynamo.reset()
    a, b = (image.requires_grad_() for image in images(2, 3, 13, 17, dtype=torch.float16))
    expected, result = l1_ssim(a, b), torch.compile(l1_ssim, backend="aot_eager", fullgraph=True)(a, b)
    assert torch.equal(result, expected)
    for one, other in zip(*(torch.autograd.grad(each, (a, b)) for each in (result, expected)), strict=True):
        assert torch.equal(one, other)


def test_kept_for_backward(backend, device):
    """The gradients of a loss that are wanted, as they are found in the same pass; otherwise the images alone."""
    pair = [image.requires_grad_() for image in images(1, 2, 20, 30, device=device)]

    def kept(function, a, b):
        found = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: found.append(t) or t, lambda t: t):
            result = function(a, b, backend=backend)
        assert result.requires_grad
        return found

    addresses = [image.data_ptr() for image in pair]
    assert [t.shape for t in kept(ssim, *pair)] == [pair[0].shape] * 2
    assert [t.shape for t in kept(ssim, pair[0], pair[1].detach())] == [pair[0].shape]
    assert [t.data_ptr() for t in kept(ssim_map, *pair)] == addresses
    halves = [image.detach().half().requires_grad_() for image in pair]
    assert [t.data_ptr() for t in kept(l1_ssim, *halves)] == [image.data_ptr() for image in halves]
