"""The device that a network runs on."""

from __future__ import annotations

import torch


def choose_device(device: str | torch.device, cuda_index: int | None = None) -> torch.device:
    """The named device, checked to exist.

    Args:
        device: "cpu", "cuda", "cuda:1", ...; "auto" means CUDA if a GPU is available, else the CPU.
        cuda_index: the GPU to use where `device` gives no index.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        if chosen.type == "cuda" and chosen.index is None and cuda_index is not None:
            chosen = torch.device("cuda", cuda_index)
        torch.zeros(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device must be 'auto' or a device of this machine; got {str(device)!r}: {reason}") from error
    return chosen
