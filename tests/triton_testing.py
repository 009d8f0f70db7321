"""Triton kernels on a machine without a GPU: run in triton's interpreter, or compiled and looked at.

The interpreter has to be switched on before triton is imported, so a test waits for the others of its file, which run
in a process of their own.
"""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from packaging.version import Version

triton = pytest.importorskip("triton", reason="triton is not installed")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda" if torch.cuda.is_available() else None
TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"
HALVES = (torch.float16, torch.bfloat16)
ROUNDING = {torch.float16: 2**-10, torch.bfloat16: 2**-7}  # the interpreter cuts bfloat16 off instead of rounding it

# Approximate division, float64, and results that are flushed to 0, as division did before Triton 3.6.
FLUSHED = r"\.ftz" if Version(triton.__version__) >= Version("3.6") else r"(?<!div\.rn)\.ftz"
INEXACT = re.compile(rf"div\.full|div\.approx|rcp\.approx|\.f64|{FLUSHED}")

runs = pytest.mark.skipif(DEVICE is None, reason="runs in the interpreter, in a process of its own")
compiles = pytest.mark.skipif(
    INTERPRETED or not (shutil.which("ptxas") or (TOOLS / "ptxas").exists()),
    reason="the interpreter compiles nothing, or there is no ptxas",
)


def interpreted(*arguments):
    """Marks a test that waits for what pytest runs of these arguments in the interpreter."""
    if DEVICE is not None:
        return pytest.mark.skip(reason="the tests run in this process")
    return pytest.mark.interpreted(*arguments)


class Recorder:
    """Stands for a kernel and keeps what it would be launched with."""

    def __getitem__(self, grid):
        return lambda **arguments: self.__dict__.update(arguments=arguments)


def compile_for(capability, kernel, arguments):
    """Compiles the kernel as a launch with these arguments would, on a GPU of this capability."""
    from triton.backends.compiler import GPUTarget

    driver = SimpleNamespace(
        get_current_target=lambda: GPUTarget("cuda", capability, 32),
        get_current_device=lambda: capability,  # Triton keeps what it compiled by device
        get_current_stream=lambda device: 0,
    )
    triton.runtime.driver.set_active(driver)
    try:
        return kernel.warmup(grid=(1,), **arguments)
    finally:
        if torch.cuda.is_available():
            triton.runtime.driver.reset_active()


def resources(cubin):
    """What ptxas gave the kernel; None without the tool that tells."""
    if not (TOOLS / "cuobjdump").exists():
        return None
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run([TOOLS / "cuobjdump", "-res-usage", file.name], capture_output=True, text=True).stdout
    return {name: int(count) for name, count in re.findall(r"(REG|STACK|LOCAL):(\d+)", text)}


def exact_ptx(capability, kernel, arguments):
    """What the kernel compiles to: without contraction, approximate division, float64 or spilt registers."""
    compiled = compile_for(capability, kernel, arguments)
    ptx = compiled.asm["ptx"]
    assert "fma.rn.f32" not in ptx and not INEXACT.findall(ptx)
    spilt = (resources(compiled.asm["cubin"]) or {}).get("STACK", 0)
    assert spilt <= 8  # two registers cost nothing beside the rows
    return ptx
