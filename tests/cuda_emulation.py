"""The CUDA kernels' own source, compiled to run on a CPU, and the tensors they are run on."""

import contextlib
import functools
import importlib.util
import math
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
HALVES = (torch.float32, torch.float16, torch.bfloat16)  # what the CUDA kernels compute in float32
MARGIN = 16  # elements before and after every tensor, which keep it aligned
ENUMS = {
    "dtype": "DType", "output": "Output", "charge": "Charge", "fire": "Fire", "reset": "Reset",
    "surrogate": "Surrogate", "kind": "Degradation", "mode": "Padding",
}  # fmt: skip


@functools.cache
def library():
    """The extension module of the emulated kernels."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++ is needed to build the emulated kernels")
    pybind11 = pytest.importorskip("pybind11")
    folder = ROOT / "tests" / "cuda_on_cpu"
    # A word read or written at an address it is not aligned to stops the process.
    flags = "-std=c++17 -O0 -fPIC -shared -fvisibility=hidden -ffp-contract=off"
    flags += " -fsanitize=alignment -fsanitize-undefined-trap-on-error"
    headers = [f"-I{folder}", "-isystem", pybind11.get_include(), "-isystem", sysconfig.get_paths()["include"]]
    kernels = map(str, sorted(ROOT.glob("csrc/cuda/*/*.cu")))
    sources = [str(folder / "module.cpp"), "-x", "c++", *kernels]
    with tempfile.TemporaryDirectory() as built:
        target = f"{built}/emulated.so"
        subprocess.run([compiler, *shlex.split(flags), *headers, *sources, "-o", target], check=True)
        spec = importlib.util.spec_from_file_location("emulated", target)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


class Kernels:
    """The kernels of an extension module, called by the names of their struct's fields.

    A field may be a tensor, or None where it is absent; enums and dtypes go by their names.
    """

    def __init__(self, module):
        self.module = module

    def make(self, struct, **fields):
        given = {name: self._value(name, value) for name, value in fields.items() if value is not None}
        return getattr(self.module, struct)(**given)

    def _value(self, name, value):
        if isinstance(value, torch.dtype):
            value = str(value).removeprefix("torch.")
        if name in ENUMS:
            return getattr(getattr(self.module, ENUMS[name]), value)
        return value.data_ptr() if isinstance(value, torch.Tensor) else value

    def call(self, kernel, **fields):
        return self.make("".join(word.title() for word in kernel.split("_")), **fields)


class Compiled(Kernels):
    """Those of the CPU, which leave the sums of a norm and of a loss put together."""

    emulated = False

    def run(self, kernel, **fields):
        getattr(self.module.cpu, kernel)(self.call(kernel, **fields), 1)


class Emulated(Kernels):
    """Those of CUDA, which leave their parts."""

    emulated = True

    def run(self, kernel, **fields):
        call = self.call(kernel, **fields)
        tensors = GuardedTensors()
        workspace = tensors.result(self.module.cuda.workspace(call), dtype=torch.uint8)
        getattr(self.module.cuda, kernel)(call, workspace.data_ptr(), 0)
        tensors.check()


@contextlib.contextmanager
def installed(module, driver=13000, image=True):
    """The emulated kernels with this version of the driver, and with code for the device or without."""
    module.installed(driver, image)
    try:
        yield
    finally:
        module.installed(13000, True)


class GuardedTensors:
    """Tensors between margins that must stay as they are; inputs and results `skew` elements off their alignment."""

    def __init__(self, skew=(0, 0)):
        self.skew = skew
        self.memory = []

    def place(self, tensor, skew=None):
        skew = self.skew[0] if skew is None else skew
        memory = torch.full((tensor.numel() + 2 * MARGIN + skew,), 77, dtype=tensor.dtype)
        begin = MARGIN + skew
        placed = memory[begin : begin + tensor.numel()].view(tensor.shape)
        placed.copy_(tensor)
        self.memory.append((memory, begin, begin + tensor.numel()))
        return placed

    def result(self, *shape, dtype=torch.float32, skew=None):
        skew = self.skew[1] if skew is None else skew
        return self.place(torch.full(shape, 255 if dtype is torch.uint8 else math.nan, dtype=dtype), skew)

    def check(self):
        for memory, begin, end in self.memory:
            assert (memory[:begin] == 77).all() and (memory[end:] == 77).all(), "wrote outside its tensor"
