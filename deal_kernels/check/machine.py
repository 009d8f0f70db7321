"""What the machine has: versions, driver, devices, and why a backend that is installed does not run."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
from functools import partial
from typing import Any

import torch

from deal_kernels import backend as backends
from deal_kernels.check.runner import Check, NotApplicable, Outcome


def machine() -> list[Check]:
    return [
        Check("machine", "GPU", gpu),
        *(Check("machine", f"backend {name}", partial(backend, name)) for name in backends.BACKENDS),
    ]


def description() -> dict[str, Any]:
    """What identifies the machine and what is installed on it."""
    found = backends.info()
    found["python"], found["system"] = platform.python_version(), platform.platform()
    found["cpu"], found["cpus"] = cpu_name(), os.cpu_count()
    found["triton"] = importlib.import_module("triton").__version__ if importlib.util.find_spec("triton") else None
    found["torch_cuda"], found["driver_cuda"] = torch.version.cuda, driver_version()
    found["gpus"] = [gpu_description(index) for index in range(torch.cuda.device_count())]
    return found


def gpu_description(index: int) -> str:
    p = torch.cuda.get_device_properties(index)
    return f"{p.name}, sm_{p.major}{p.minor}, {p.multi_processor_count} processors, {p.total_memory / 2**30:.0f} GB"


def cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def driver() -> ctypes.CDLL | None:
    """The driver of NVIDIA GPUs; None where it is not installed."""
    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def driver_version() -> str | None:
    """The newest CUDA that the driver knows."""
    library, number = driver(), ctypes.c_int()
    if library is None or library.cuDriverGetVersion(ctypes.byref(number)) != 0:
        return None
    return f"{number.value // 1000}.{number.value % 1000 // 10}"


def driver_devices() -> int:
    """How many GPUs the driver sees, whatever torch makes of them."""
    library, count = driver(), ctypes.c_int()
    if library is None or library.cuInit(0) != 0 or library.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def gpu() -> Outcome:
    """Torch uses the GPU that the machine has."""
    if torch.cuda.is_available():
        return Outcome(f"{torch.cuda.get_device_name()}, driver for CUDA {driver_version()}")
    if not driver_devices():
        raise NotApplicable("the machine has no NVIDIA GPU")
    if torch.version.cuda is None:
        raise NotApplicable("the machine has an NVIDIA GPU, but this torch is built without CUDA")
    knows, wants = driver_version(), torch.version.cuda
    raise AssertionError(f"torch does not use the GPU: the driver is for CUDA {knows}, torch is built for {wants}")


def installed(name: str) -> str | None:
    """None if a backend is installed and has a device to run on, else what it lacks."""
    gpus = torch.cuda.is_available()
    if name in ("cuda", "triton") and not gpus:
        return "torch sees no CUDA device"
    if name == "triton":
        return None if importlib.util.find_spec("triton") else "triton is not installed"
    built = importlib.util.find_spec("deal_kernels._C") is not None
    if (name != "torch" and not built) or (name == "cuda" and not hasattr(backends.extension(), "cuda")):
        return backends.unavailable(name, "cuda" if name == "cuda" else "cpu")
    return None


def backend(name: str) -> Outcome:
    """A backend that is installed runs, on every GPU."""
    if lacks := installed(name):
        raise NotApplicable(lacks)
    gpus = range(torch.cuda.device_count()) if name in ("cuda", "triton") else ()
    for device in [f"cuda:{index}" for index in gpus] or ["cpu"]:
        reason = backends.unavailable(name, device)
        assert reason is None, f"{device}: {reason}"
    detail = {"cpp": backends.info()["isa"], "cuda": backends.info()["cuda_architectures"]}.get(name)
    return Outcome(str(detail) if detail else "live")
