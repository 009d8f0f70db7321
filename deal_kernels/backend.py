"""Which implementation of an operation runs, and why others cannot."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from typing import Any

import torch

from deal_kernels.version import __version__

BACKENDS = ("cpp", "cuda", "triton", "torch")
PREFERENCE = {"cpu": ("cpp", "torch"), "cuda": ("cuda", "triton", "torch")}
OLDEST_TRITON = 3, 3  # the first with tuples in kernels
FORCED = os.environ.get("DEAL_KERNELS_BACKEND") or None


@functools.cache
def _loaded() -> tuple[Any, str | None]:
    """The compiled module, or None and why there is none."""
    try:
        return importlib.import_module("deal_kernels._C"), None
    except ModuleNotFoundError:
        return None, "the extension is not built: install a C++ compiler (g++ or clang++) and reinstall"
    except (ImportError, OSError) as error:
        return None, f"the extension does not load: {error}"


def extension() -> Any:
    """The compiled module, or None if there is none."""
    return _loaded()[0]


@functools.cache
def unavailable(backend: str, device: str) -> str | None:
    """The reason why a backend cannot run on the tensors of a device, such as "cuda:1"; None if it can."""
    kind = device.partition(":")[0]
    if backend == "torch":
        return None
    if backend == "triton":
        return _triton_unavailable(kind)
    wanted = "cpu" if backend == "cpp" else "cuda"
    if kind != wanted:
        return f"it runs on {wanted} tensors, not on {kind} ones"
    compiled, reason = _loaded()
    if compiled is None:
        return reason
    if backend == "cuda" and not hasattr(compiled, "cuda"):
        return "the extension was built without nvcc: install the CUDA toolkit and reinstall"
    if backend == "cuda" and not torch.cuda.is_available():
        return "torch sees no CUDA device"
    if backend == "cuda":
        with torch.cuda.device(device):
            return compiled.cuda.problem() or None
    return None


def _triton_unavailable(kind: str) -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if kind not in ("cpu", "cuda"):
        return f"it runs on cuda tensors, not on {kind} ones"
    if kind == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        return "on cpu tensors it needs TRITON_INTERPRET=1"
    if kind == "cuda" and not torch.cuda.is_available():
        return "torch sees no CUDA device"
    version = importlib.import_module("triton").__version__
    if tuple(map(int, version.split(".")[:2])) < OLDEST_TRITON:
        return f"triton is {version}; the kernels need at least {OLDEST_TRITON[0]}.{OLDEST_TRITON[1]}"
    return None


@functools.cache
def choose(named: str | None, device: str, dtype: torch.dtype) -> str:
    """The backend for the tensors of a device, such as "cuda:1", and a dtype. A named backend runs or raises."""
    named = named or FORCED
    if named in (None, "auto"):
        order = PREFERENCE.get(device.partition(":")[0], ("torch",))
        return next(b for b in order if not unavailable(b, device) and not _lacks(b, dtype))
    if named not in BACKENDS:
        raise ValueError(f"backend must be 'auto' or one of {', '.join(BACKENDS)}; got {named!r}")
    reason = unavailable(named, device) or _lacks(named, dtype)
    if reason:
        raise RuntimeError(f"backend {named!r} cannot run: {reason}")
    return named


def _lacks(backend: str, dtype: torch.dtype) -> str | None:
    if dtype == torch.float64 and backend in ("cuda", "triton"):
        return "it has no float64; backend 'torch' has"
    return None


def info() -> dict[str, Any]:
    """Versions, threads, instruction set, and the state of each backend on this machine.

    The state of a backend is "live", or the reason why it cannot run.

    >>> info()["backends"]["torch"]
    'live'
    """
    compiled = extension()
    home = {"cpp": "cpu", "cuda": "cuda", "triton": "cuda", "torch": "cpu"}
    if os.environ.get("TRITON_INTERPRET") == "1":
        home["triton"] = "cpu"
    return {
        "deal_kernels": __version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "isa": compiled.isa() if compiled else None,
        "openmp": compiled.openmp if compiled else None,
        "compiler": getattr(compiled, "compiler", None),
        "cuda_architectures": getattr(compiled, "cuda_architectures", None),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "forced": FORCED,
        "backends": {b: unavailable(b, home[b]) or "live" for b in BACKENDS},
    }
