"""The parts that a network separates from an image, and the image without them.

>>> import torch
>>> zero = torch.zeros(1, 1, 2, 2)
>>> parts = Parts(columns=zero + 0.1, rows=zero, shading=zero, detail=zero, gain=zero + 2, offset=zero)
>>> restored = parts.restored(zero + 0.3), parts.restored(zero + 0.3, {"columns": 0.5})
>>> [round(each.mean().item(), 4) for each in restored]
[0.4, 0.25]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from deal_kernels._common.checks import number, one_of

Runner = Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]  # of a network and an image

SUBTRACTED = ("columns", "rows", "shading", "detail")
NAMES = (*SUBTRACTED, "tone")


class Parts(NamedTuple):
    """The parts of images x [B, C, H, W].

    The restored images are gain * (x - columns - rows - shading - detail) + offset. Gain and offset are the tone.
    """

    columns: Tensor  # a pattern of columns, in the shape of x, like the next three
    rows: Tensor  # a pattern of rows
    shading: Tensor  # slow changes as wide as the frame
    detail: Tensor  # noise, and what blur took away, with a negative sign
    gain: Tensor  # [B, 1, 1, 1]
    offset: Tensor  # [B, 1, 1, 1]

    def restored(self, x: Tensor, strengths: Mapping[str, float] | None = None) -> Tensor:
        """x without the parts.

        Args:
            strengths: how much of each part is taken out, by name; 1 is all of it, and parts that are not named stay in
                the image. None takes out all parts.
        """
        amounts = dict.fromkeys(NAMES, 1.0) if strengths is None else strengths
        for name in SUBTRACTED:
            amount = amounts.get(name, 0.0)
            if amount:
                x = torch.sub(x, getattr(self, name), alpha=amount)
        tone = amounts.get("tone", 0.0)
        if tone == 1:
            return torch.addcmul(self.offset, self.gain, x)
        return x + tone * ((self.gain - 1) * x + self.offset) if tone else x

    def without_mean(self) -> Parts:
        """Parts that keep the mean of each channel, and the tone of the image."""
        parts = (getattr(self, name) for name in SUBTRACTED)
        columns, rows, shading, detail = (part - part.mean((2, 3), keepdim=True) for part in parts)
        gain, offset = torch.ones_like(self.gain), torch.zeros_like(self.offset)
        return Parts(columns, rows, shading, detail, gain, offset)


def only_detail(detail: Tensor) -> Parts:
    """Parts of which all but the detail [B, C, H, W] are empty."""
    none = torch.zeros_like(detail)
    return Parts(none, none, none, detail, gain=detail.new_ones(1, 1, 1, 1), offset=detail.new_zeros(1, 1, 1, 1))


def check_strengths(parts: Iterable[str] | Mapping[str, float] | None, strength: float = 1.0) -> dict[str, float]:
    """How much of each part is taken out, by name.

    Args:
        parts: names, or a number for each name; None means all parts.
        strength: a factor for all of them.

    >>> check_strengths(["columns", "rows"], 0.5)
    {'columns': 0.5, 'rows': 0.5}
    """
    if isinstance(parts, str):
        raise TypeError(f"parts must be a list of names, or names with numbers; got {parts!r}")
    factor = _strength("strength", strength)
    named = parts if isinstance(parts, Mapping) else dict.fromkeys(NAMES if parts is None else parts, 1.0)
    for name in named:
        one_of("a part", name, NAMES)
    return {name: factor * _strength(f"the strength of {name}", value) for name, value in named.items()}


def _strength(name: str, value: object) -> float:
    checked = number(name, value)
    if not 0 <= checked <= 2:
        raise ValueError(f"{name} must be from 0 to 2; got {checked}")
    return checked
