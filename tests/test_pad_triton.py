"""The Triton padding, run in the interpreter by the tests of every backend, and what its kernels compile to."""

import re
from pathlib import Path

import pytest
import torch
from triton_testing import Recorder, compiles, exact_ptx, interpreted

from deal_kernels.pad import triton as room
from deal_kernels.pad.reference import MODES, Border

AROUND = 5, 5, 5, 5
FORMATS = {"channels": torch.contiguous_format, "channels-last": torch.channels_last}


@interpreted(str(Path(__file__).with_name("test_pad.py")), "-k", "triton")
def test_in_the_interpreter(interpreter):
    output, _ = interpreter.communicate()
    assert interpreter.returncode == 0, output


def launched(name, dtype, mode, memory_format, monkeypatch):
    """The arguments a kernel is launched with."""
    small, large = (torch.empty(2, 32, *size, dtype=dtype) for size in ((64, 48), (74, 58)))
    small, large = (images.contiguous(memory_format=memory_format) for images in (small, large))
    recorder = Recorder()
    monkeypatch.setattr(room, f"{name}_kernel", recorder)
    pair = (small, large) if name == "pad" else (large, small)
    getattr(room, name)(*pair, Border(AROUND, mode))
    return recorder.arguments


@compiles
@pytest.mark.parametrize("name", ["pad", "unpad"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("capability, dtype", [(90, torch.float32), (80, torch.bfloat16)], ids=str)
def test_what_the_kernels_compile_to(capability, dtype, memory_format, mode, name, monkeypatch):
    kernel = getattr(room, f"{name}_kernel")
    arguments = launched(name, dtype, mode, FORMATS[memory_format], monkeypatch)
    ptx = exact_ptx(capability, kernel, arguments)
    assert not re.search(r"\batom\.|\bred\.", ptx)  # nothing is added in memory
    if memory_format == "channels-last":
        assert re.search(r"ld\.global\S*\.v4\.b32", ptx) and re.search(r"st\.global\S*\.v4\.b32", ptx)
