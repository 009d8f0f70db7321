"""Which implementation runs, the environment that forces one, and processes that fork."""

import contextlib
import importlib
import json
import os
import subprocess
import sys
import types

import pytest
import torch
from torch.utils.data import DataLoader
from workers import Spikes

import deal_kernels
from deal_kernels import backend
from deal_kernels._common.dispatch import run_compiled
from deal_kernels.lif import lif

ISAS = ("baseline", "avx2", "avx512")
HAS_CPP = backend.unavailable("cpp", "cpu") is None
needs_cpp = pytest.mark.skipif(not HAS_CPP, reason="the extension is not built")


def python(code, **environment):
    """Runs code in a fresh interpreter."""
    environment = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)


def test_info_names_every_backend():
    info = deal_kernels.info()
    assert set(info["backends"]) == {"cpp", "cuda", "triton", "torch"}
    assert info["backends"]["torch"] == "live"
    json.dumps(info)


def test_main_prints_it():
    result = subprocess.run([sys.executable, "-m", "deal_kernels"], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0
    assert all(name in result.stdout for name in ("cpp", "cuda", "triton", "torch"))


@needs_cpp
def test_auto_takes_the_compiled_one():
    assert backend.choose(None, "cpu", torch.float32) == "cpp"
    assert backend.choose("auto", "cpu", torch.float64) == "cpp"
    assert backend.choose(None, "meta", torch.float32) == "torch"


def test_the_environment_forces_a_backend():
    code = "import torch; from deal_kernels import backend; print(backend.choose(None, 'cpu', torch.float32))"
    assert python(code, DEAL_KERNELS_BACKEND="torch").stdout.strip() == "torch"
    refused = python(
        "import torch; from deal_kernels.lif import lif; lif(torch.zeros(2, 2))", DEAL_KERNELS_BACKEND="cuda"
    )
    assert refused.returncode != 0 and "backend 'cuda' cannot run" in refused.stderr


def test_without_the_extension_torch_serves():
    code = """
import sys
sys.modules["deal_kernels._C"] = None
import torch, deal_kernels
from deal_kernels._common.dispatch import run_compiled
from deal_kernels.lif import lif
x = torch.randn(4, 8, requires_grad=True)
lif(x).sum().backward()
try:
    lif(x, backend="cpp")
except RuntimeError as error:
    print(error)
"""
    result = python(code)
    assert "backend 'cpp' cannot run: the extension is not built: install a C++ compiler" in result.stdout, (
        result.stderr
    )


@pytest.fixture
def two_gpus(monkeypatch):
    """A machine whose extension runs on its second GPU only, and says why not on the first."""
    at = []

    @contextlib.contextmanager
    def device(name):
        at.append(name)
        yield
        at.pop()

    def problem():
        return "no kernel image" if at[-1] == "cuda:0" else ""

    built = types.SimpleNamespace(cuda=types.SimpleNamespace(problem=problem))
    monkeypatch.setattr(backend, "_loaded", lambda: (built, None))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device", device)
    yield from without_memory(backend.unavailable, backend.choose)


def without_memory(*functions):
    for function in functions:
        function.cache_clear()
    yield
    for function in functions:
        function.cache_clear()


def test_auto_leaves_cuda_where_its_kernels_cannot_run(two_gpus, monkeypatch):
    triton = types.SimpleNamespace(__version__="3.6.0")
    monkeypatch.setitem(sys.modules, "triton", triton)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: triton)
    assert backend.choose(None, "cuda:1", torch.float32) == "cuda"
    assert backend.choose(None, "cuda:0", torch.float32) == "triton"
    with pytest.raises(RuntimeError, match="backend 'cuda' cannot run: no kernel image"):
        backend.choose("cuda", "cuda:0", torch.float32)


def test_a_kernel_is_launched_with_the_device_of_its_tensor_current(two_gpus, monkeypatch):
    """By torch, which leaves no context on the device that was current before."""
    launched = []
    current = contextlib.contextmanager(lambda x: (yield launched.append("current")))
    monkeypatch.setattr(torch.cuda, "device_of", current)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: types.SimpleNamespace(cuda_stream=7))
    compiled = types.SimpleNamespace(workspace=lambda call: 0, kernel=lambda *arguments: launched.append(arguments))
    monkeypatch.setattr(backend, "_loaded", lambda: (types.SimpleNamespace(cuda=compiled), None))
    run_compiled("kernel", "call", torch.zeros(1), "cuda")
    assert launched == ["current", ("call", 0, 7)]


def test_an_old_triton_is_refused(two_gpus, monkeypatch):
    triton = types.SimpleNamespace(__version__="3.2.0+git")
    monkeypatch.setitem(sys.modules, "triton", triton)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: triton)
    assert backend.choose(None, "cuda:0", torch.float32) == "torch"
    with pytest.raises(RuntimeError, match=r"triton is 3\.2\.0\+git; the kernels need at least 3\.3"):
        backend.choose("triton", "cuda:0", torch.float32)


def test_an_extension_that_does_not_load_says_why(monkeypatch):
    def load(name):
        raise ImportError("libgomp.so.1: cannot open shared object file")

    monkeypatch.setattr(importlib, "import_module", load)
    for _ in without_memory(backend._loaded, backend.unavailable, backend.choose):
        assert backend.choose(None, "cpu", torch.float32) == "torch"
        assert backend.unavailable("cpp", "cpu") == (
            "the extension does not load: libgomp.so.1: cannot open shared object file"
        )


@needs_cpp
@pytest.mark.parametrize("isa", ISAS)
def test_every_instruction_set_computes_the_same_bits(isa, tmp_path):
    """All kinds of neuron and dtypes, forward and backward, hashed and compared with this process's set."""
    code = f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); import bits; print(bits.digest())"
    result = python(code, DEAL_KERNELS_ISA=isa)
    if "this processor does not run it" in result.stderr:
        pytest.skip(f"this processor does not run {isa}")
    import bits

    assert result.stdout.strip() == bits.digest(), result.stderr


@needs_cpp
def test_an_unknown_instruction_set_is_refused():
    result = python("import torch; from deal_kernels.lif import lif; lif(torch.zeros(2, 2))", DEAL_KERNELS_ISA="sse9")
    assert "DEAL_KERNELS_ISA=sse9 is not one of" in result.stderr


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_dataloader_workers(method):
    lif(torch.randn(4, 200_000))
    loader = DataLoader(Spikes(), batch_size=4, num_workers=2, multiprocessing_context=method)
    batches = torch.cat(list(loader))
    assert torch.equal(batches[5], Spikes()[5])
