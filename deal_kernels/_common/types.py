"""The dtypes that kernels take."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from deal_kernels import backend as backends
from deal_kernels._common.dispatch import exports

Number = float | Tensor

# The dtypes of inputs, each with the dtype it is computed in.
STATE = {
    torch.float32: torch.float32,
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
    torch.float64: torch.float64,
}


@functools.cache
def compiled_dtype(dtype: torch.dtype) -> Any:
    """The extension's member for a dtype."""
    return getattr(backends.extension().DType, str(dtype).removeprefix("torch."))


def no_autocast(device: str) -> AbstractContextManager:
    """Keeps the dtypes of the products and convolutions within it as they are.

    In an exported program it would be a submodule, whose sizes torch compares with those of the example.
    """
    return nullcontext() if device == "meta" or exports() else torch.autocast(device, enabled=False)
