"""The CUDA kernels' own source, compiled to run on a CPU, and the tensors they are run on."""

import ctypes
import functools
import math
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
DTYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2, torch.float64: 3}
MARGIN = 16  # elements before and after every tensor, which keep it aligned


@functools.cache
def library():
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++ is needed to build the emulated kernels")
    folder = ROOT / "tests" / "cuda_on_cpu"
    # A word read or written at an address it is not aligned to stops the process.
    flags = "-std=c++17 -O0 -fPIC -shared -ffp-contract=off -fsanitize=alignment -fsanitize-undefined-trap-on-error"
    kernels = map(str, sorted(ROOT.glob("csrc/cuda/*.cu")))
    sources = [str(folder / "module.cpp"), "-x", "c++", *kernels]
    with tempfile.TemporaryDirectory() as built:
        target = f"{built}/kernels.so"
        subprocess.run([compiler, *shlex.split(flags), f"-I{folder}", *sources, "-o", target], check=True)
        return ctypes.CDLL(target)


def run(function, *arguments):
    """Calls a function of the library, which returns what went wrong."""
    function.restype = ctypes.c_char_p
    error = function(*arguments)
    if error:
        raise RuntimeError(error.decode())


def integers(*numbers):
    return (ctypes.c_int64 * len(numbers))(*numbers)


def address(tensor):
    return 0 if tensor is None else tensor.data_ptr()


class Rooms:
    """Tensors between margins that must stay as they are; inputs and results `skew` elements off their alignment."""

    def __init__(self, skew=(0, 0)):
        self.skew = skew
        self.rooms = []

    def place(self, tensor, skew=None):
        skew = self.skew[0] if skew is None else skew
        room = torch.full((tensor.numel() + 2 * MARGIN + skew,), 77, dtype=tensor.dtype)
        begin = MARGIN + skew
        placed = room[begin : begin + tensor.numel()].view(tensor.shape)
        placed.copy_(tensor)
        self.rooms.append((room, begin, begin + tensor.numel()))
        return placed

    def result(self, *shape, dtype=torch.float32, skew=None):
        skew = self.skew[1] if skew is None else skew
        return self.place(torch.full(shape, 255 if dtype is torch.uint8 else math.nan, dtype=dtype), skew)

    def check(self):
        for room, begin, end in self.rooms:
            assert (room[:begin] == 77).all() and (room[end:] == 77).all(), "wrote outside its tensor"
