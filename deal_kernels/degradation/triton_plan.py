"""The table of operations that the kernels of the Triton mixture read, see triton_stage.py."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from deal_kernels.degradation import triton_stage as codes
from deal_kernels.degradation.names import PATTERNS, REACH, RESIZES
from deal_kernels.degradation.reference import Operation

BLOCK = 256  # pixels of a program, in memory order
MOST_PROGRAMS = 1024  # of a sample, whose sums each of them adds up
TAPS = codes.TAPS.value
KINDS = {
    "identity": codes.SAME, "tone": codes.TONE,
    **dict.fromkeys(("stripe", "row_stripe", "noise", *PATTERNS), codes.ADD),
    **dict.fromkeys(("gain", "row_gain"), codes.MULTIPLY), "dead": codes.REPLACE, "clip": codes.CLIP,
    "quantise": codes.QUANTISE, "posterize": codes.POSTERIZE, "saturation": codes.SATURATION,
    "sharpness": codes.SHARPNESS, "contrast": codes.CONTRAST, **dict.fromkeys(REACH, codes.BLUR),
    "max_pool_resize": codes.MAX_POOL, "average_pool_resize": codes.AVERAGE_POOL, "bicubic_resize": codes.BICUBIC,
}  # fmt: skip


class Shape(NamedTuple):
    """Of a call."""

    batch: int
    channels: int
    height: int
    width: int
    stages: int

    @property
    def blocks(self) -> int:
        """Of pixels, in a sample."""
        return self.channels * triton.cdiv(self.height * self.width, BLOCK)

    @property
    def programs(self) -> int:
        """Of a sample."""
        return min(self.blocks, MOST_PROGRAMS)


class Plan(NamedTuple):
    table: Tensor
    numbers: Tensor
    scratch: int  # how many floats all operations have in scratch memory


# Kept for good: a CUDA graph can capture no copy from the host, and reads the tables at each replay.
@functools.cache
def plan(operations: tuple[Operation, ...], s: Shape, backward: bool, device: torch.device) -> Plan:
    """Of operations without their values."""
    table, scratch, values = [], 0, 0
    for o in operations:
        factor = int(o.strength) if o.kind in RESIZES else 1
        whole = REACH.get(o.kind, int(o.straight_through) if o.kind == "posterize" else factor)
        tall, small = s.height // factor, s.width // factor
        count, *strides = _values(o.kind, s)
        table.append([_code(o.kind, s), whole, tall, small, scratch, values, count, *strides])
        scratch += _scratch(o.kind, tall * small, s, backward)
        values += count * s.batch * s.stages
    numbers = [_numbers(o) for o in operations]
    return Plan(
        torch.tensor(table, dtype=torch.int64, device=device),
        torch.tensor(numbers, dtype=torch.float32, device=device),
        scratch,
    )


def _code(kind: str, s: Shape) -> int:
    """Saturation needs three channels; sharpness needs pixels that are not on the border."""
    nothing = s.channels == 1 if kind == "saturation" else kind == "sharpness" and min(s.height, s.width) <= 2
    return (codes.SAME if nothing else KINDS[kind]).value


def _values(kind: str, s: Shape) -> tuple[int, ...]:
    """How many values there are for a sample and stage, and the strides of channels, rows and columns in them."""
    if kind in REACH:
        return TAPS, 0, 0, 0
    return {
        "tone": (2, 0, 0, 0),
        **dict.fromkeys(("stripe", "gain"), (s.width, 0, 0, 1)),
        **dict.fromkeys(("row_stripe", "row_gain"), (s.height, 0, 1, 0)),
        **dict.fromkeys(PATTERNS, (s.height * s.width, 0, s.width, 1)),
        **dict.fromkeys(("noise", "dead"), (s.channels * s.height * s.width, s.height * s.width, s.width, 1)),
    }.get(kind, (0, 0, 0, 0))


def _scratch(kind: str, pixels: int, s: Shape, backward: bool) -> int:
    """How many floats an operation has in scratch memory. max_pool has the places of its maxima, too."""
    if kind == "contrast":
        return s.batch * s.programs
    if kind in (*REACH, *RESIZES) or (backward and kind == "sharpness"):
        return s.batch * s.channels * pixels * (2 if backward and kind == "max_pool_resize" else 1)
    return 0


def _numbers(o: Operation) -> tuple[float, float]:
    """The shares of a blend, the levels of quantise, and the step of posterize and its inverse."""
    if o.kind == "posterize":
        return 2.0 ** (8 - o.strength), 2.0 ** (o.strength - 8)
    return (2.0**o.strength - 1 if o.kind == "quantise" else o.strength), 1 - o.strength
