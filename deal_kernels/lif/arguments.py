"""Argument validation for the neuron, shared with the batch norm that is fused with it."""

from __future__ import annotations

import torch
from torch import Tensor

from deal_kernels._common.checks import check_steps, check_tensor, is_integer, one_of
from deal_kernels._common.neuron import Neuron
from deal_kernels._common.parameters import checked_parameter, checked_state

RECORDS = {"spikes": "spikes", "v": "states", "h": "membranes"}


def output_of(output: str, reduce: str | None, pack: bool, neuron: Neuron) -> str:
    """The output of the kernels: "spikes", "mean", "packed", "states" or "membranes"."""
    if output == "spikes" and reduce is None and not pack:
        return "spikes"
    one_of("output", output, tuple(RECORDS))
    one_of("reduce", reduce, (None, "mean"))
    if pack + (reduce is not None) + (output != "spikes") > 1:
        raise ValueError(
            f"pack=True, reduce='mean' and output exclude each other; got {pack=}, {reduce=} and {output=}"
        )
    if pack and (neuron.levels > 1 or neuron.scale != 1):
        raise ValueError(
            f"pack=True keeps one bit a spike and needs levels=1 and scale=1; got {neuron.levels} and {neuron.scale:g}"
        )
    return "packed" if pack else RECORDS[output] if reduce is None else "mean"


def check_input(x: Tensor, steps: int | None) -> None:
    check_tensor("x", x)
    if steps is None:
        check_steps(x)
    elif not (is_integer(steps) or isinstance(steps, torch.SymInt)) or steps < 1:
        raise ValueError(f"steps must be an integer of at least 1; got {steps!r}")


def state_and_parameters(
    x: Tensor, steps: int | None, v0: Tensor | None, decay: Tensor | None, threshold: Tensor | None
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """State and parameters, checked and in the state's dtype."""
    row = x.shape if steps is not None else x.shape[1:]
    v0 = checked_state("v0", v0, x, row)
    decay = checked_parameter("tau, rate or beta", decay, x, row)
    return v0, decay, checked_parameter("v_threshold", threshold, x, row)
