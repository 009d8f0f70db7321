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

import pytest
import torch

triton = pytest.importorskip("triton", reason="triton is not installed")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda" if torch.cuda.is_available() else None
TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"
POINTERS = {torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.uint8: "*u8"}
HALVES = (torch.float16, torch.bfloat16)
ROUNDING = {torch.float16: 2**-10, torch.bfloat16: 2**-7}  # the interpreter cuts bfloat16 off instead of rounding it

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
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    arguments = dict(arguments)
    options = {name: arguments.pop(name) for name in ("num_warps", "enable_fp_fusion")}
    types, constants, alignments = {}, {}, {}
    for k, parameter in enumerate(kernel.params):
        value = arguments[parameter.name]
        if parameter.is_constexpr or value is None:
            types[parameter.name] = "constexpr"
            constants[parameter.name] = value
        elif isinstance(value, torch.Tensor):
            types[parameter.name] = POINTERS[value.dtype]
            alignments[(k,)] = [["tt.divisibility", 16]]
        else:
            types[parameter.name] = "fp32" if isinstance(value, float) else "i32"
    source = ASTSource(kernel, types, constants, alignments)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


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
    assert not re.findall(r"fma\.rn\.f32|div\.full|div\.approx|rcp\.approx|\.f64|\.ftz", ptx)
    spilt = (resources(compiled.asm["cubin"]) or {}).get("STACK", 0)
    assert spilt <= 8  # two registers cost nothing beside the rows
    return ptx
