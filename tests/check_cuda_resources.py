"""Compiles csrc/cuda and fails where a kernel spills registers, needs local memory or more registers than its limit.

Needs nvcc, no GPU.

python tests/check_cuda_resources.py [architecture ...]
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
ARCHITECTURES = ("80", "86", "89", "90")
FLAGS = ["-std=c++17", "-O3", "--fmad=false", "-Xptxas", "-v", "--threads", "2"]
REPORT = re.compile(
    r"Compiling entry function '(?P<symbol>\w+)' for 'sm_(?P<architecture>\w+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers",
    re.DOTALL,
)

# The most registers of kernels whose names begin like this, so that enough threads are resident to hide latencies.
LIMITS = {
    "forward_few<Direct, float": 40,
    "forward_few<Normalised, float": 64,
    "backward_few<Direct, float": 64,
    "backward_few<Direct, __": 96,
    "backward_few<Normalised, float": 96,
    "backward_few<Normalised, __": 128,
}


class Kernel(NamedTuple):
    name: str
    architecture: int
    registers: int
    stack: int
    spilled: int


def compiler_report(source: Path, architectures: list[str]) -> str:
    codes = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in architectures]
    with tempfile.TemporaryDirectory() as folder:
        command = ["nvcc", *FLAGS, *codes, "-c", str(source), "-o", f"{folder}/kernels.o"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(done.stdout)
    return done.stdout


def readable(symbols: list[str]) -> dict[str, str]:
    """Demangled names without namespaces and parameters, where c++filt is installed."""
    try:
        text = subprocess.run(["c++filt"], input="\n".join(symbols), capture_output=True, text=True).stdout
    except FileNotFoundError:
        return {symbol: symbol for symbol in symbols}
    names = (re.sub(r"(deal|cuda|\(anonymous namespace\))::|^void ", "", line) for line in text.splitlines())
    return {symbol: re.sub(r"(>|^\w+)\(.*", r"\1", name) for symbol, name in zip(symbols, names, strict=True)}


def kernels(report: str) -> list[Kernel]:
    found = [match.groupdict() for match in REPORT.finditer(report)]
    names = readable([each["symbol"] for each in found])
    return sorted(
        Kernel(
            names[each["symbol"]], int(each["architecture"]), int(each["registers"]), int(each["stack"]),
            int(each["stores"]) + int(each["loads"]),
        )
        for each in found
    )  # fmt: skip


def faults(kernel: Kernel) -> list[str]:
    found = [
        f"{limit} registers at most"
        for name, limit in LIMITS.items()
        if kernel.name.startswith(name) and kernel.registers > limit
    ]
    if kernel.stack or kernel.spilled:
        found.append(f"{kernel.stack} bytes of stack, {kernel.spilled} spilled")
    return found


def main(architectures: list[str]) -> int:
    reports = [compiler_report(source, architectures) for source in sorted(ROOT.glob("csrc/cuda/*/*.cu"))]
    all_kernels = [kernel for report in reports for kernel in kernels(report)]
    if not all_kernels:
        sys.exit("nvcc reported no kernels")
    width = max(len(kernel.name) for kernel in all_kernels)
    print(f"{'kernel':<{width}}  arch   registers")
    for kernel in all_kernels:
        print(f"{kernel.name:<{width}}  sm_{kernel.architecture}  {kernel.registers:>9}")
    faulty = [f"{k.name} on sm_{k.architecture}: {fault}" for k in all_kernels for fault in faults(k)]
    faulty += [
        f"no kernel is called {name}" for name in LIMITS if not any(k.name.startswith(name) for k in all_kernels)
    ]
    print(*faulty, sep="\n")
    return bool(faulty)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(ARCHITECTURES)))
