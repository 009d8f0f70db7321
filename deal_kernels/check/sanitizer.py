"""The CUDA kernels on tiny tensors, and the same under NVIDIA's compute-sanitizer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import partial

import torch

from deal_kernels.check import cases
from deal_kernels.check.calls import Call
from deal_kernels.check.cases import Target
from deal_kernels.check.registry import CALLS
from deal_kernels.check.runner import Check, NotApplicable, Outcome

TOOLS = ("memcheck", "racecheck")
SECONDS = 60.0
ERRORS = 86  # the exit status of a run with errors
INSTALLED = "/usr/local/cuda/bin"


def tiny(targets: list[Target]) -> list[Check]:
    """Every call once; what runs it looks at each access to memory."""
    return [
        Check("tiny", f"{call.name}, {target}", partial(runs, call, target))
        for call in CALLS
        for target in cases.own_targets(call, targets)
        if target.backend != "triton"  # compiles too long under a tool
    ]


def runs(call: Call, target: Target) -> Outcome:
    for dtype in cases.DTYPES:
        given = call.tensors(target.device, dtype)
        for tensors in (given, [cases.offset(tensor) for tensor in given]):
            for k, tensor in enumerate(call.with_gradients(tensors, target.backend)):
                assert torch.isfinite(tensor).all(), f"{dtype}: result or gradient {k} is not finite"
    return Outcome("")


def sanitizer(targets: list[Target]) -> list[Check]:
    if not any(target.backend == "cuda" for target in targets):
        return []
    return [Check("sanitizer", f"compute-sanitizer, {tool}", partial(sanitized, tool)) for tool in TOOLS]


def sanitized(tool: str) -> Outcome:
    """The part "tiny" in a process of its own. Every tensor has memory of its own there, so that its ends are seen."""
    program = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path=INSTALLED)
    if program is None:
        raise NotApplicable("compute-sanitizer is not installed")
    command = [program, "--tool", tool, "--error-exitcode", str(ERRORS), sys.executable, "-m", "deal_kernels"]
    try:
        done = subprocess.run(
            [*command, "--check", "--only", "tiny"], capture_output=True, text=True, timeout=SECONDS,
            env=os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise NotApplicable(f"took longer than {SECONDS:.0f} s") from None
    assert done.returncode == 0, f"exit status {done.returncode}: {complaint(done.stdout + done.stderr)}"
    return Outcome("no error")


def complaint(output: str) -> str:
    """The line that tells what was found first."""
    lines = [line.strip("= ") for line in output.splitlines() if line.startswith("=========") or " FAIL " in line]
    found = [line for line in lines if line and not line.startswith("COMPUTE-SANITIZER")]
    return found[0] if found else (output.strip().splitlines() or ["no output"])[-1]
