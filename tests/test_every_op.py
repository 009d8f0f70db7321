"""What every operation has to do as a part of torch, whatever it computes."""

import copy
import os
import pickle
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import ops_registry as registry
import pytest
import torch
from conftest import BACKENDS
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.data import DataLoader, Dataset

from deal_kernels.check.streams import captured
from deal_kernels.conv import conv2d

FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def on_backends(calls):
    """Runs a test with every call on every backend that is live and has it."""
    cases = [(call, backend) for call in calls for backend in BACKENDS if backend in call.backends]
    return pytest.mark.parametrize(("call", "backend"), cases, ids=[f"{call.name}-{name}" for call, name in cases])


def by_name(cases):
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


def equal(one, other):
    return len(one) == len(other) and all(torch.equal(*pair) for pair in zip(one, other, strict=True))


class Listener(TorchDispatchMode):
    """Keeps the operations of this package that it sees, with their arguments."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "deal_kernels":
            self.seen.append((func, args))
        return func(*args, **(kwargs or {}))

    @property
    def names(self):
        return tuple(func._schema.name.removeprefix("deal_kernels::") for func, _ in self.seen)


def pattern(operation, arguments):
    """What two calls have in common for which opcheck does the same."""
    return str(operation), tree_map_only(torch.Tensor, lambda t: (t.dtype, t.dim(), t.is_contiguous()), arguments)


CHECKED = []


@on_backends((registry.CALLS[0], *registry.VARIANTS))
def test_opcheck(call, backend, device):
    """Every operation that the forward and the backward pass dispatch to."""
    with Listener() as listener:
        call.with_gradients(call.tensors(device), backend)
    assert listener.seen or backend == "torch"
    for operation, arguments in listener.seen:
        if (like := pattern(operation, arguments)) not in CHECKED:
            CHECKED.append(like)
            torch.library.opcheck(operation, tree_map_only(torch.Tensor, torch.Tensor.detach, arguments))


@on_backends(registry.CALLS)
def test_dispatch_modes_see_the_operation(call, backend, device):
    tensors = call.tensors(device)
    with Listener() as listener:
        call.results(tensors, backend)
    assert listener.names == call.operations or (backend == "torch" and not listener.names)


@on_backends(registry.CALLS)
def test_same_input_same_bits(call, backend, device):
    tensors = call.tensors(device, large=device != "cpu" or backend == "cpp")
    first = call.with_gradients(tensors, backend)
    for _ in range(2):
        assert equal(call.with_gradients(tensors, backend), first)


@pytest.mark.skipif("cpp" not in BACKENDS, reason="the extension is not built")
@by_name([call for call in registry.CALLS if call.any_threads and "cpp" in call.backends])
def test_any_number_of_threads_gives_the_same_bits(case):
    tensors, before, found = case.tensors(large=True), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(case.with_gradients(tensors, "cpp"))
    finally:
        torch.set_num_threads(before)
    assert equal(found[1], found[0]) and equal(found[2], found[0])


@on_backends(registry.CALLS)
def test_python_threads_at_once(call, backend, device):
    given = [call.tensors(device, seed=seed) for seed in range(8)]
    expected = [call.with_gradients(tensors, backend) for tensors in given]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(2):
            found = pool.map(lambda tensors: call.with_gradients(tensors, backend), given)
            assert all(equal(*pair) for pair in zip(found, expected, strict=True))


@on_backends(registry.CALLS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_takes_inputs_as_they_are(call, backend, device, dtype):
    if call.autocasts:
        pytest.skip("follows autocast, which its own tests check")
    tensors = call.tensors(device, dtype)
    expected = call.with_gradients(tensors, backend)
    with torch.autocast(tensors[0].device.type, dtype=torch.bfloat16):
        found = call.with_gradients(tensors, backend)
    assert [tensor.dtype for tensor in found] == [tensor.dtype for tensor in expected]
    assert equal(found, expected)


@on_backends(registry.CALLS)
def test_inference_mode(call, backend, device):
    tensors = call.tensors(device)
    expected = call.results(tensors, backend)
    with torch.inference_mode():
        assert equal(call.results(tensors, backend), expected)
        assert equal(call.results([tensor.clone() for tensor in tensors], backend), expected)


@by_name(registry.CALLS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_meta_and_fake_tensors(case, dtype):
    """They have the shapes, types and strides of real ones, and so have their gradients."""

    def described(tensors):
        return [(tensor.shape, tensor.dtype, tensor.stride()) for tensor in tensors]

    expected = described(case.with_gradients(case.tensors(dtype=dtype)))
    metas = [tensor.to("meta") for tensor in case.tensors(dtype=dtype)]
    results = case.results(metas)
    assert described(results) == expected[: len(results)] and all(tensor.is_meta for tensor in results)
    with torch._subclasses.FakeTensorMode() as mode:
        fakes = [mode.from_tensor(tensor) for tensor in case.tensors(dtype=dtype)]
        given = case.leaf_tensors(fakes)
        results = case.results(given)
        leaves, grads = [given[k] for k in case.leaves], [torch.empty_like(result) for result in results]
        gradients = torch.autograd.grad(results, leaves, grads) if leaves else []
    assert described([*results, *gradients]) == expected


@on_backends(registry.CALLS)
def test_backward_twice_and_out_of_order(call, backend, device):
    first, second = ([*call.tensors(device, seed=seed)] for seed in (0, 1))
    expected = [call.with_gradients(tensors, backend) for tensors in (first, second)]
    graphs = [(given, call.results(given, backend)) for given in map(call.leaf_tensors, (first, second))]
    for (given, results), wanted in zip(graphs, expected, strict=True):
        once = call.gradients(results, given, retain_graph=True)
        kept = [gradient.clone() for gradient in once]
        for gradient in once:
            gradient.zero_()
        again = call.gradients(results, given)
        assert equal(again, kept) and equal(again, wanted[len(results) :])


@on_backends([call for call in registry.CALLS if not call.second_derivatives])
def test_second_derivatives_are_refused(call, backend, device):
    given = call.leaf_tensors(call.tensors(device))
    gradients = call.gradients(call.results(given, backend), given, create_graph=True)
    penalty = sum(gradient.float().sum() for gradient in gradients)
    with pytest.raises(NotImplementedError, match="no second derivatives"):
        (sum(given[k].float().sum() for k in call.leaves) + penalty).backward()


def far_apart(tensor):
    """The same values, with 2^32 bytes and more between two samples. Pages between them are never touched."""
    step = -(-(1 << 32) // tensor.element_size()) + 3
    storage = torch.UntypedStorage((step + tensor.numel()) * tensor.element_size())
    row = tensor[0].contiguous()
    spread = torch.tensor([], dtype=tensor.dtype).set_(storage, 0, (2, *row.shape), (step, *row.stride()))
    return spread.copy_(tensor[:2])


@by_name(registry.CALLS)
def test_huge_strides(case):
    """Of the first tensor, whose samples or steps are far apart."""
    for dtype in (torch.float32, torch.bfloat16):
        x, *others = case.tensors(dtype=dtype)
        if len(x) > 2:
            x = x[:2].contiguous()
        spread = far_apart(x)
        assert equal(case.with_gradients([spread, *others]), case.with_gradients([x, *others]))


@by_name(registry.CALLS)
def test_inputs_that_are_not_dense(case):
    """Of every tensor every second element, between others that are NaN."""
    tensors = case.tensors()
    spread = [torch.stack([each, torch.full_like(each, torch.nan)], -1)[..., 0] for each in tensors]
    assert equal(case.with_gradients(spread), case.with_gradients(tensors))


def forked():
    """Run in a process of its own: what a forked child of it computes wrongly, or never. The parent has its threads by
    then. Each operation has a child, as one that takes a single thread would help those that follow.

    The child takes the same tensors and copies of them, and compares without torch, whose threads it does not have.
    """
    torch.set_num_threads(2)
    images, weight = torch.randn(4, 8, 128, 128), torch.randn(8, 8, 1, 1)
    calls = {
        **{call.name: (call.results, call.tensors(large=True)) for call in registry.CALLS},
        "conv2d, torch's": (lambda given: [conv2d(*given, backend="torch")], [images, weight]),
    }

    def computed(run, tensors):
        return [result.numpy().tobytes() for result in run(tensors)]

    copies = {name: [tensor.clone() for tensor in tensors] for name, (_, tensors) in calls.items()}
    expected = {name: computed(*call) for name, call in calls.items()}
    wrong = []
    for name, (run, tensors) in calls.items():
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            same = {computed(run, each) == expected[name] for each in (tensors, copies[name])}
            os._exit(same != {True})
        if os.waitpid(child, 0)[1] != 0:
            wrong.append(name)
    print(*wrong, sep="\n")
    sys.exit(bool(wrong))


@FORKS
def test_a_forked_child_computes_too():
    code = f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); import test_every_op as t; t.forked()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


class Results(Dataset):
    """Those of every call."""

    def __len__(self):
        return 2 * len(registry.CALLS)

    def __getitem__(self, index):
        call = registry.CALLS[index // 2]
        return call.results(call.tensors(large=True, seed=index % 2))


@FORKS
def test_dataloader_workers():
    expected = [Results()[index] for index in range(len(Results()))]
    loader = DataLoader(Results(), batch_size=None, num_workers=2, multiprocessing_context="fork")
    for call, found, wanted in zip([call for call in registry.CALLS for _ in range(2)], loader, expected, strict=True):
        assert equal(found, wanted), call.name


COMPILERS = [("eager", True), ("aot_eager", False), ("inductor", True)]


@by_name(registry.NETWORKS)
@pytest.mark.parametrize(("compiler", "grad"), COMPILERS)
def test_compile(case, compiler, grad):
    """Two calls, which update running statistics alike."""
    torch._dynamo.reset()
    eager, other = case.module(), case.module()
    compiled = torch.compile(other, backend=compiler, fullgraph=True)
    for seed in range(2):
        given = [tensor.requires_grad_(grad and k in case.leaves) for k, tensor in enumerate(case.tensors(seed))]
        with torch.set_grad_enabled(grad):
            expected, result = eager(*given), compiled(*given)
        torch.testing.assert_close(result, expected)
        assert not case.exact or torch.equal(result, expected)
        if grad:
            inputs = [tensor for tensor in given if tensor.requires_grad]
            grads = torch.autograd.grad(expected.square().sum(), [*inputs, *eager.parameters()])
            found = torch.autograd.grad(result.square().sum(), [*inputs, *other.parameters()])
            torch.testing.assert_close(found, grads, rtol=case.rtol, atol=case.atol)
    for name, tensor in other.state_dict().items():
        torch.testing.assert_close(tensor, eager.state_dict()[name])


@by_name(registry.NETWORKS)
def test_export(case):
    module, tensors = case.module().eval(), case.tensors()
    program = torch.export.export(module, tuple(tensors))
    assert all(f"deal_kernels.{name}.default" in str(program.graph) for name in case.operations)
    assert torch.equal(program.module()(*tensors), module(*tensors))


@by_name(registry.NETWORKS)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_compute_the_same(case, copied):
    module, tensors = case.module(), case.tensors()
    again = copied(module)
    assert equal([*module.state_dict().values()], [*again.state_dict().values()])
    for _ in range(2):  # in training, and in evaluation with the statistics of that
        assert torch.equal(module(*tensors), again(*tensors))
        module.eval(), again.eval()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@by_name(registry.CALLS)
@pytest.mark.parametrize("backend", ["cuda", "triton"])
def test_cuda_graph_replays_the_same_bits(case, backend):
    if backend not in case.backends:
        pytest.skip("the operation does not have this backend")
    tensors = case.leaf_tensors(case.tensors("cuda", large=True))

    def step():
        results = case.results(tensors, backend)
        grads = [torch.ones_like(result) for result in results]
        return [*results, *torch.autograd.grad(results, [tensors[k] for k in case.leaves], grads)]

    found, replay = captured(step)
    with torch.no_grad():
        for tensor, new in zip(tensors, case.tensors("cuda", large=True, seed=1), strict=True):
            tensor.copy_(new)
    replay()
    assert equal(found, step())
