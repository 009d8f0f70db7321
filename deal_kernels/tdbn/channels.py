"""The operations on the few values of each channel that the others of `deal_kernels.tdbn` need, each one launch."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from deal_kernels import backend as backends
from deal_kernels._common.dispatch import Op, as_they_are, chosen_backend, run_compiled
from deal_kernels._common.types import compiled_dtype
from deal_kernels.tdbn import reference


def launch_scale(variance: Tensor, weight: Tensor, eps: float, values: int, backend: str | None) -> Tensor:
    """Scale, one over the deviation, and the unbiased variance of each channel, [3, C]."""
    backend = chosen_backend(backend, variance)
    if backend == "torch" or variance.numel() == 0:
        return reference.scale(variance, weight, eps, values)
    out, correction = fake_scale(variance, weight, eps, values, backend), values / (values - 1)
    return _run_on_channels("scale", backend, out, eps=eps, correction=correction, variance=variance, weight=weight)


def fake_scale(variance: Tensor, weight: Tensor, eps: float, values: int, backend: str | None) -> Tensor:
    return variance.new_empty(3, len(variance))


def plain_scale(variance: Tensor, weight: Tensor, eps: float, values: int, backend: str | None) -> Tensor:
    return reference.scale(variance, weight, eps, values)


def launch_factors(
    sums: Tensor, own: Tensor, weight: Tensor, inverse: Tensor, values: int | None, backend: str | None
) -> Tensor:
    """The factors of `launch_gradient` and the gradient of the weight, [4, C], see `reference.factors`."""
    backend = chosen_backend(backend, sums)
    if backend == "torch" or sums.numel() == 0:
        return reference.factors(sums, own, weight, inverse, values)
    out = fake_factors(sums, own, weight, inverse, values, backend)
    share = -1 / values if values else 0.0
    return _run_on_channels("factors", backend, out, share=share, sums=sums, own=own, weight=weight, inverse=inverse)


def fake_factors(
    sums: Tensor, own: Tensor, weight: Tensor, inverse: Tensor, values: int | None, backend: str | None
) -> Tensor:
    return sums.new_empty(4, sums.shape[1])


def _run_on_channels(name: str, backend: str, out: Tensor, **arguments: Any) -> Tensor:
    """Runs Triton's or the extension's kernel `name` on values per channel, and returns its result `out`."""
    given = {field: each.contiguous() if isinstance(each, Tensor) else each for field, each in arguments.items()}
    if backend == "triton":
        from deal_kernels.tdbn import triton

        getattr(triton, name)(out, **given)
        return out
    addresses = {field: each.data_ptr() if isinstance(each, Tensor) else each for field, each in given.items()}
    make = getattr(backends.extension(), "Tdbn" + name.title())
    call = make(dtype=compiled_dtype(out.dtype), channels=out.shape[1], out=out.data_ptr(), **addresses)
    run_compiled(f"tdbn_{name}", call, out, backend)
    return out


SCALE = Op(
    "tdbn_scale(Tensor variance, Tensor weight, float eps, SymInt values, str? backend) -> Tensor",
    launch=launch_scale, fake=fake_scale, flat=as_they_are, structured=as_they_are, plain=plain_scale,
)  # fmt: skip
FACTORS = Op(
    "tdbn_factors(Tensor sums, Tensor own, Tensor weight, Tensor inverse, SymInt? values, str? backend) -> Tensor",
    launch=launch_factors, fake=fake_factors, flat=as_they_are, structured=as_they_are,
)  # fmt: skip
