"""A block of neurons in a Triton kernel: its lanes and its parameters."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from deal_kernels._common.triton_neuron import number


@triton.jit
def parameter(p, channels, inner, first, KIND: tl.constexpr, BLOCK: tl.constexpr):
    """A parameter of a block of neurons. p is a number, or a pointer to one value or to one per channel."""
    if KIND == "number":
        return number(p)
    elif KIND == "one":
        return tl.load(p)
    else:
        # Slow 64-bit divisions are done once, for the first neuron of the block.
        within = (first % inner).to(tl.uint32) + tl.arange(0, BLOCK).to(tl.uint32)
        channel = (first // inner % channels).to(tl.uint32) + within // inner.to(tl.uint32)
        return tl.load(p + channel % channels.to(tl.uint32))


@triton.jit
def block_lanes(neurons, UNIT: tl.constexpr, BLOCK: tl.constexpr):
    """The block's first neuron, its lanes, and how many of them are neurons."""
    first = tl.program_id(0).to(tl.int64) * BLOCK
    # The hint keeps one layout for every access, even if only some rows are aligned.
    return first, tl.max_contiguous(tl.arange(0, BLOCK), UNIT), tl.minimum(neurons - first, BLOCK).to(tl.int32)


@triton.jit
def lanes_of_group(neurons, group, steps, UNIT: tl.constexpr, GROUPED: tl.constexpr, BLOCK: tl.constexpr):
    """The block's first neuron, where its first step is, its lanes, and how many of them are neurons."""
    first, lane, left = block_lanes(neurons, UNIT, BLOCK)
    place = first
    if GROUPED:
        blocks = tl.cdiv(group, BLOCK)
        before, within = tl.program_id(0) // blocks * group, tl.program_id(0) % blocks * BLOCK
        first, place = before + within, before * steps + within
        left = tl.minimum(group - within, BLOCK).to(tl.int32)
    return first, place, lane, left


@triton.jit
def inside_if(exists, lane, left):
    """Which lanes of a row are neurons. A row that does not exist has none."""
    return lane < tl.where(exists, left, 0)


def block_of(group: int, neurons: int, most: int) -> int:
    """How many neurons a block has, at most so many: fewer where they lie in smaller groups."""
    return most if group == neurons else min(most, max(128, triton.next_power_of_2(group)))


def kind_of(parameter: Tensor | None) -> str:
    """The KIND of a parameter, a tensor or None for a number."""
    if parameter is None:
        return "number"
    return "one" if parameter.numel() == 1 else "channels"
