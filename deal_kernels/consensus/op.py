"""The operation `deal_kernels::consensus`: launcher, schema, fake result. It has no gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from deal_kernels import backend as backends
from deal_kernels._common.dispatch import Op, as_they_are, run_compiled
from deal_kernels._common.types import STATE
from deal_kernels.consensus import reference
from deal_kernels.consensus.ranks import sorted_quartiles


def chosen_backend(named: str | None, x: Tensor) -> str:
    """cpp or torch. DEAL_KERNELS_BACKEND decides where it names one of them."""
    named = named or (backends.FORCED if backends.FORCED in ("cpp", "torch") else None)
    if named in ("cuda", "triton"):
        raise RuntimeError(f"backend {named!r} cannot run: the consensus has no kernel there; backend 'torch' runs")
    lacks = "it has no float64" if x.dtype == torch.float64 else backends.unavailable("cpp", x.device.type)
    if named in (None, "auto"):
        return "torch" if lacks else "cpp"
    if named == "cpp" and lacks:
        raise RuntimeError(f"backend 'cpp' cannot run: {lacks}; backend 'torch' runs")
    return backends.choose(named, x.device.type, x.dtype)


def launch(x: Tensor, weights: Tensor, tolerance: Tensor, backend: str | None) -> Tensor:
    dtype = x.dtype
    x, weights, tolerance = (each.to(STATE[dtype]).contiguous() for each in (x, weights, tolerance))
    if chosen_backend(backend, x) == "torch":
        return reference.consensus(x, weights, tolerance).to(dtype)
    batch, rows, columns = x.shape
    result = x.new_empty(batch, columns)
    lower, upper = (reference.rank(share, rows) for share in reference.QUARTILES)
    call = backends.extension().Consensus(
        batch=batch, rows=rows, columns=columns, x=x.data_ptr(), weights=weights.data_ptr(),
        tolerance=tolerance.data_ptr(), lower=lower, upper=upper, out=result.data_ptr(),
    )  # fmt: skip
    run_compiled("consensus", call, x, "cpp")
    return result.to(dtype)


def fake(x: Tensor, weights: Tensor, tolerance: Tensor, backend: str | None) -> Tensor:
    return x.new_empty(x.shape[0], x.shape[2])


def plain(x: Tensor, weights: Tensor, tolerance: Tensor, backend: str | None) -> Tensor:
    dtype = x.dtype
    x, weights, tolerance = (each.to(STATE[dtype]) for each in (x, weights, tolerance))
    return reference.consensus(x, weights, tolerance, sorted_quartiles).to(dtype)


CONSENSUS = Op(
    "consensus(Tensor x, Tensor weights, Tensor tolerance, str? backend) -> Tensor",
    launch=launch, fake=fake, flat=as_they_are, structured=as_they_are, plain=plain,
)  # fmt: skip
