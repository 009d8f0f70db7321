"""The Triton SSIM, run in the interpreter by the tests of every backend, and what its kernel compiles to."""

from pathlib import Path

import pytest
import torch
from ssim_oracle import images
from triton_testing import Recorder, compiles, exact_ptx, interpreted

from deal_kernels.ssim import triton as room
from deal_kernels.ssim.reference import Settings


@interpreted(str(Path(__file__).with_name("test_ssim.py")), "-k", "triton")
def test_in_the_interpreter(interpreter):
    output, _ = interpreter.communicate()
    assert interpreter.returncode == 0, output


KERNELS = ("moments", "map", "slopes", "gradient")


def launched(dtype, monkeypatch):
    """The arguments each kernel is launched with, for a loss and its gradients."""
    a, b = images(2, 1, 70, 90, dtype=dtype)
    recorders = {name: Recorder() for name in KERNELS}
    results = torch.empty_like(a), torch.empty_like(a)
    with monkeypatch.context() as patch:
        for name, recorder in recorders.items():
            patch.setattr(room, f"{name}_kernel", recorder)
        room.run(a, b, Settings(), 1.0, 1.0, torch.empty_like(a), torch.empty(()), torch.ones(()), results)
    return {name: recorder.arguments for name, recorder in recorders.items()}


@compiles
@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("capability, dtype", [(90, torch.float32), (80, torch.bfloat16)], ids=str)
def test_what_the_kernels_compile_to(capability, dtype, name, monkeypatch):
    exact_ptx(capability, getattr(room, f"{name}_kernel"), launched(dtype, monkeypatch)[name])


def test_the_window_is_copied_to_a_device_once(monkeypatch):
    """A CUDA graph cannot capture a copy from the host."""
    first, second = (launched(torch.float32, monkeypatch)["map"]["window"] for _ in range(2))
    assert first is second
