"""What a call keeps for its backward pass, the most memory it takes, and a call whose memory is all new."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from deal_kernels._common import page_cache

STATUS, PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def saved_bytes(call: Callable[[], Tensor]) -> int:
    """What the forward pass keeps alive for the backward pass; each storage counts once."""
    storages: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage  # holding it keeps its address from being reused
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = call()
    assert result.requires_grad
    return sum(storage.nbytes() for storage in storages.values())


def peak_bytes(call: Callable[[], object]) -> int | None:
    """The most memory that a call takes beyond what was there before; None where the system does not say."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    if not PEAK.exists():
        return None
    page_cache.release()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)  # what malloc has kept of earlier calls would hide what this one takes
    PEAK.write_text("5")  # forgets the peak so far
    before = resident("VmRSS")
    call()
    return resident("VmHWM") - before


def fresh(call: Callable[[], object]) -> Callable[[], object]:
    """The call without the pages that earlier results gave back."""

    def run() -> object:
        page_cache.release()
        return call()

    return run


def resident(field: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) << 10
