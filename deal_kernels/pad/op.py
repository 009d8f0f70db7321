"""The operations `deal_kernels::pad2d` and `unpad2d`, each the derivative of the other, and how a call reaches them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_legacy_batchedtensor

from deal_kernels import backend as backends
from deal_kernels._common import dispatch
from deal_kernels._common.dispatch import Op, needs_gradient, run_compiled, transformed
from deal_kernels._common.layout import arranged, empty, image_strides, is_channels_last
from deal_kernels._common.types import compiled_dtype
from deal_kernels.pad import reference
from deal_kernels.pad.reference import Border

WAYS = ("cuda", "triton", "torch")


def chosen_backend(named: str | None, x: Tensor) -> str:
    """The backend of this call. On a CPU torch pads. DEAL_KERNELS_BACKEND decides where it names one of the three."""
    named = named or (backends.FORCED if backends.FORCED in WAYS else "auto")
    if named == "cpp":
        raise RuntimeError("backend 'cpp' cannot run: padding has no kernel there; backend 'torch' runs on any device")
    return "torch" if named == "auto" and x.is_cpu else dispatch.chosen_backend(named, x)


def _laid_out(x: Tensor) -> Tensor:
    """x, contiguous or channels-last: itself, or a copy."""
    return arranged(x, image_strides(x.shape, is_channels_last(x)))


def _result(x: Tensor, b: Border, sign: int) -> Tensor:
    """The empty result for x, in its layout."""
    shape = b.around(x.shape, sign)
    return empty(shape, image_strides(shape, is_channels_last(x)), x, x.dtype)


def fake_pad(x: Tensor, b: Border) -> Tensor:
    return _result(x, b, 1)


def fake_unpad(grad: Tensor, b: Border) -> Tensor:
    return _result(grad, b, -1)


def launch_pad(x: Tensor, b: Border) -> Tensor:
    x, backend = _laid_out(x), chosen_backend(b.backend, x)
    out = fake_pad(x, b)
    if out.numel() == 0:
        return out
    if backend == "torch":
        return out.copy_(reference.pad2d(x, b))
    if backend == "triton":
        from deal_kernels.pad import triton

        triton.pad(x, out, b)
    else:
        call = backends.extension().PadForward(**_shape_of(x, b), x=x.data_ptr(), out=out.data_ptr())
        run_compiled("pad_forward", call, x, backend)
    return out


def launch_unpad(grad: Tensor, b: Border) -> Tensor:
    """The gradient of x from that of the padded x."""
    grad, backend = _laid_out(grad), chosen_backend(b.backend, grad)
    grad_x = fake_unpad(grad, b)
    if grad_x.numel() == 0:
        return grad_x
    if backend == "torch":
        return grad_x.copy_(reference.unpad2d(grad, b))
    if backend == "triton":
        from deal_kernels.pad import triton

        triton.unpad(grad, grad_x, b)
    else:
        call = backends.extension().PadBackward(
            **_shape_of(grad_x, b), grad=grad.data_ptr(), grad_x=grad_x.data_ptr()
        )  # fmt: skip
        run_compiled("pad_backward", call, grad, backend)
    return grad_x


def _shape_of(image: Tensor, b: Border) -> dict[str, Any]:
    """The fields that PadForward and PadBackward share, for the image without padding."""
    batch, channels, height, width = image.shape
    left, right, above, below = b.padding
    last = is_channels_last(image)
    return {
        "dtype": compiled_dtype(image.dtype), "planes": batch if last else batch * channels, "height": height,
        "width": width, "inner": channels if last else 1, "top": above, "bottom": below, "left": left, "right": right,
        "mode": getattr(backends.extension().Padding, b.mode),
    }  # fmt: skip


_BORDER = "SymInt[4] padding, str mode, str? backend"

PAD = Op(
    f"pad2d(Tensor x, {_BORDER}) -> Tensor", launch=launch_pad, fake=fake_pad, flat=lambda x, b: (x, *b),
    structured=lambda x, *border: (x, Border(*border)), plain=reference.pad2d,
)  # fmt: skip
UNPAD = Op(
    f"unpad2d(Tensor grad, {_BORDER}) -> Tensor", launch=launch_unpad, fake=fake_unpad, flat=lambda grad, b: (grad, *b),
    structured=lambda grad, *border: (grad, Border(*border)),
)  # fmt: skip


class PadFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, b):
        ctx.border = b
        return PAD(x, x, b)

    @staticmethod
    def backward(ctx, grad):
        return unpad2d(grad, ctx.border), None


class UnpadFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, grad, b):
        ctx.border = b
        return UNPAD(grad, grad, b)

    @staticmethod
    def backward(ctx, grad):
        return pad2d(grad, ctx.border), None


def pad2d(x: Tensor, b: Border) -> Tensor:
    """The padded images, through autograd where a gradient is needed. torch.func differentiates torch's own pad."""
    if transformed():
        return reference.pad2d(x, b)
    return PadFunction.apply(x, b) if needs_gradient(x) else PAD(x, x, b)


def unpad2d(grad: Tensor, b: Border) -> Tensor:
    """The gradient of x from that of the padded x, through autograd where it has one itself."""
    if transformed() or _is_batched(grad):
        return reference.unpad2d(grad, b)
    return UnpadFunction.apply(grad, b) if needs_gradient(grad) else UNPAD(grad, grad, b)


def _is_batched(grad: Tensor) -> bool:
    """Whether it stands for several gradients, by is_grads_batched=True."""
    return not torch.compiler.is_compiling() and is_legacy_batchedtensor(grad)
