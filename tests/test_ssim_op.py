"""SSIM as a torch operation: schema checks, compile, export, what autograd keeps, processes that fork."""

import subprocess
import sys

import pytest
import torch
from ssim_oracle import images
from torch.utils.data import DataLoader, Dataset

from deal_kernels.ssim import L1SSIM, l1_ssim, ssim, ssim_map
from deal_kernels.ssim.reference import Settings

OPS = torch.ops.deal_kernels
DTYPES = (torch.float32, torch.bfloat16)


@pytest.mark.parametrize(("valid", "dtype"), [(False, torch.float32), (True, torch.bfloat16)], ids=str)
def test_opcheck(backend, device, valid, dtype):
    a, b = images(2, 3, 13, 17, dtype=dtype, device=device)
    settings = Settings(1.0, valid, 1.1, -1.1, 0.75, backend)
    values, factor = OPS.ssim_map.default(a, b, *settings), torch.ones((), device=device)
    check = torch.library.opcheck
    check(OPS.ssim_map.default, (a.contiguous(memory_format=torch.channels_last), b, *settings))
    for wanted in ([False, False], [True, False]):
        check(OPS.ssim_loss.default, (a, b, *settings, wanted))
    for grad, wanted in ((torch.ones_like(values), [False, True]), (factor, [True, True])):
        check(OPS.ssim_backward.default, (grad, a, b, *settings, wanted))


def network(a, b):
    a = torch.relu(a * 1.5)
    return l1_ssim(a, b) + ssim(a, b, padding="valid") + ssim_map(a, b).square().mean()


@pytest.mark.parametrize(("compiler", "grad"), [("aot_eager", False), ("inductor", True)])
def test_compile(compiler, grad):
    torch._dynamo.reset()
    a, b = (image.requires_grad_(grad) for image in images(2, 3, 13, 17))
    expected, result = network(a, b), torch.compile(network, backend=compiler, fullgraph=True)(a, b)
    torch.testing.assert_close(result, expected)
    if grad:
        for one, other in zip(*(torch.autograd.grad(each, (a, b)) for each in (result, expected)), strict=True):
            torch.testing.assert_close(one, other)


def test_compile_of_halves():
    torch._dynamo.reset()
    a, b = (image.requires_grad_() for image in images(2, 3, 13, 17, dtype=torch.float16))
    expected, result = l1_ssim(a, b), torch.compile(l1_ssim, backend="aot_eager", fullgraph=True)(a, b)
    assert torch.equal(result, expected)
    for one, other in zip(*(torch.autograd.grad(each, (a, b)) for each in (result, expected)), strict=True):
        assert torch.equal(one, other)


def test_export():
    pair = images(2, 3, 13, 17)
    program = torch.export.export(L1SSIM(), pair)
    assert "deal_kernels.ssim_loss.default" in str(program.graph)
    assert torch.equal(program.module()(*pair), L1SSIM()(*pair))


def test_meta_and_fake_tensors():
    a = torch.empty(2, 3, 20, 30, device="meta")
    assert ssim_map(a, a, padding="valid").shape == (2, 3, 10, 20) and ssim(a, a).device.type == "meta"
    for dtype in DTYPES:
        with torch._subclasses.FakeTensorMode():
            a = torch.empty(2, 3, 20, 30, dtype=dtype, requires_grad=True)
            loss = l1_ssim(a, a.detach())
            (loss + ssim_map(a, a.detach()).float().sum()).backward()
        assert loss.dtype == torch.float32 and a.grad.shape == a.shape and a.grad.dtype == dtype


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


def test_backward_twice_through_a_kept_graph(backend, device):
    a, b = images(1, 2, 20, 30, device=device)
    a.requires_grad_()
    for function in (ssim, ssim_map):
        total = function(a, b, backend=backend).sum()
        first, second = (torch.autograd.grad(total, a, retain_graph=True)[0] for _ in range(2))
        first.zero_()
        assert second.abs().max() > 0 and torch.equal(torch.autograd.grad(total, a)[0], second)


def test_second_derivatives_are_refused(backend, device):
    a, b = images(1, 2, 20, 30, device=device)
    a.requires_grad_()
    for function in (ssim, ssim_map, l1_ssim):
        (grad,) = torch.autograd.grad(function(a, b, backend=backend).sum(), a, create_graph=True)
        with pytest.raises(RuntimeError):
            grad.sum().backward()


def test_dispatch_modes_see_the_operation():
    seen = []

    class Listener(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    a, b = images(1, 2, 20, 30)
    with Listener():
        ssim(a, b), ssim_map(a, b)
    assert seen == ["deal_kernels.ssim_loss.default", "deal_kernels.ssim_map.default"]


def test_same_input_same_bits(backend, device):
    a, b = (image.requires_grad_() for image in images(3, 2, 150, 200, device=device))
    runs = []
    for _ in range(3):
        loss = l1_ssim(a, b, backend=backend)
        runs.append((loss, *torch.autograd.grad(loss, (a, b))))
    for run in runs[1:]:
        assert all(torch.equal(one, other) for one, other in zip(run, runs[0], strict=True))


def test_autocast_takes_images_as_they_are(backend, device):
    a, b = images(1, 2, 20, 30, device=device)
    with torch.autocast(a.device.type, dtype=torch.bfloat16):
        assert torch.equal(ssim(a, b, backend=backend), ssim(a, b, backend=backend))
        assert ssim_map(a, b, backend=backend).dtype == torch.float32
        assert ssim_map(a.bfloat16(), b.bfloat16(), backend=backend).dtype == torch.bfloat16


def test_a_forked_child_computes_too():
    code = """
import os, torch
from deal_kernels.ssim import l1_ssim
torch.set_num_threads(2)
a, b = torch.rand(2, 1, 3, 256, 256)
expected = l1_ssim(a, b).item()
child = os.fork()
if child == 0:
    os._exit(0 if l1_ssim(a, b).item() == expected else 1)
print(os.waitpid(child, 0)[1])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "0", done.stderr


class Scores(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        a, b = images(1, 3, 120, 150, seed=index)
        return ssim(a, b)


def test_dataloader_workers():
    ssim(*images(1, 3, 256, 256))
    loader = DataLoader(Scores(), batch_size=4, num_workers=2, multiprocessing_context="fork")
    assert torch.equal(torch.cat(list(loader)), torch.stack([Scores()[index] for index in range(8)]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("named", ["cuda", "triton"])
def test_cuda_graph_replays_the_same_bits(named):
    a, b = images(2, 3, 200, 300, device="cuda")
    a.requires_grad_()

    def step():
        loss = l1_ssim(a, b, backend=named)
        return loss.detach(), torch.autograd.grad(loss, a)[0]

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        a.copy_(torch.rand_like(a))
    graph.replay()
    for replayed, expected in zip(captured, step(), strict=True):
        assert torch.equal(replayed, expected)
