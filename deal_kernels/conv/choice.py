"""Which backend runs a convolution: the one that is named, or the one that is expected or measured to be faster."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

import torch
from torch import Tensor

from deal_kernels import backend as backends
from deal_kernels._common import first_use
from deal_kernels._common.dispatch import unobserved
from deal_kernels._common.layout import is_channels_last
from deal_kernels.conv import cost, op, reference
from deal_kernels.conv.reference import Geometry


def _has_matrix_unit() -> bool:
    """Whether torch's convolution in bfloat16 runs on a matrix unit. Older releases of torch do not tell."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "DEFAULT").upper()  # of the library that computes it
    if limit not in ("DEFAULT", "ALL") and "AMX" not in limit:
        return False
    return hasattr(torch.cpu, "get_capabilities") and bool(torch.cpu.get_capabilities().get("amx_bf16"))


MATRIX_UNIT = _has_matrix_unit()
NOT_BUILT = backends.unavailable("cpp", "cpu")  # found at import, where nothing traces
HALVES = torch.float16, torch.bfloat16
HAVE = ("cpp", "triton", "torch")


def chosen_backend(
    named: str | None, x: Tensor, weight: Tensor, g: Geometry, trains: bool, residual: Tensor | None = None,
    relu: bool = False,
) -> str:  # fmt: skip
    """The backend of this convolution. DEAL_KERNELS_BACKEND decides where it names one that there is."""
    named = named or (backends.FORCED if backends.FORCED in HAVE else None)
    if named in (None, "auto"):
        return _fastest(x, weight, g, trains, residual, relu)
    if named not in (*HAVE, "cuda"):
        raise ValueError(f"backend must be 'auto' or one of {', '.join(HAVE)}; got {named!r}")
    reason = _lacks(named, x, weight)
    if reason:
        raise RuntimeError(f"backend {named!r} cannot run: {reason}")
    return named


def _fastest(x: Tensor, weight: Tensor, g: Geometry, trains: bool, residual: Tensor | None, relu: bool) -> str:
    if not x.is_cpu:
        return "triton" if _triton_is_faster(x, weight, g, trains, residual, relu) else "torch"
    if _lacks("cpp", x, weight):
        return "torch"
    # A compiled or exported program must not depend on the size of its images: large ones are assumed.
    shape = (1, x.shape[1], 512, 512) if torch.compiler.is_compiling() else x.shape
    matrix_unit, passes = x.dtype == torch.bfloat16 and MATRIX_UNIT, relu + (residual is not None)
    faster = cost.engine_is_faster(shape, weight.shape, g, trains, is_channels_last(x), passes, matrix_unit)
    return "cpp" if faster else "torch"


def _lacks(backend: str, x: Tensor, weight: Tensor) -> str | None:
    """Why a backend cannot run this; None when it can."""
    if backend == "torch":
        return None
    if backend == "cuda":
        return "convolution has no kernel of its own there; backend 'torch' runs on any device"
    if x.dtype == torch.float64:
        return "it has no float64; backend 'torch' has"
    if backend == "triton":
        return op.triton_unavailable("cpu" if x.is_cpu else str(x.device))
    if max(weight.shape[2:]) > cost.LARGEST_KERNEL:
        return f"it has kernels up to {cost.LARGEST_KERNEL} pixels wide; backend 'torch' has all"
    return NOT_BUILT if x.is_cpu else backends.unavailable("cpp", x.device.type)


def _triton_is_faster(
    x: Tensor, weight: Tensor, g: Geometry, trains: bool, residual: Tensor | None, relu: bool
) -> bool:
    """Whether Triton's convolution has been measured to be faster than torch's on this GPU, for images like these.

    Only what can win is measured at its first use: channels-last images in half types.
    """
    if torch.compiler.is_compiling() or x.dtype not in HALVES or not (is_channels_last(x) and x.numel()):
        return False
    if (gpu := _tensor_cores(str(x.device))) is None:
        return False
    pixels = x.shape[0] * x.shape[2] * x.shape[3]  # told apart by powers of two
    key = (gpu, "conv2d", x.dtype, pixels.bit_length(), *weight.shape, *g, residual is not None, relu, trains)
    if first_use.known(key) is None and (not unobserved(x) or torch.cuda.is_current_stream_capturing()):
        return False
    given = [each.detach().requires_grad_(trains) for each in (x, weight)]
    added = None if residual is None else residual.detach()

    def run(convolution: Callable[..., Tensor]) -> list[Tensor]:
        y = convolution(*given, None, added, g, relu)
        return [y, *torch.autograd.grad(y, given, y.detach())] if trains else [y]

    # Hooks of the caller, as those of a checkpoint, must not see what a measurement keeps.
    with torch.cuda.device_of(x), torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
        by_triton = functools.partial(op.conv2d, backend="triton")
        return first_use.is_faster(key, lambda: run(by_triton), lambda: run(reference.conv2d))


@functools.cache
def _tensor_cores(device: str) -> str | None:
    """The name of a GPU whose tensor cores Triton uses; None for other devices."""
    if not device.startswith("cuda") or op.triton_unavailable(device):
        return None
    return torch.cuda.get_device_name(device) if torch.cuda.get_device_capability(device) >= (8, 0) else None
