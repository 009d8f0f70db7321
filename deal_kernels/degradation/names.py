"""The names of operations: a kind and, after the last underscore, its strength if it has one."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

PATTERNS = ("glow", "shading", "partial_stripe")  # their values make an image that is added
# The kinds that have kernels.
KINDS = (
    "identity", "contrast", "saturation", "sharpness", "gaussian_blur", "wide_blur", "max_pool_resize",
    "average_pool_resize", "bicubic_resize", "posterize", "quantise", "clip", "stripe", "row_stripe", "gain",
    "row_gain", "tone", "noise", "dead", *PATTERNS,
)  # fmt: skip
BLENDS = ("contrast", "saturation", "sharpness")
RESIZES = ("max_pool_resize", "average_pool_resize", "bicubic_resize", "coarse")
# They take a tensor of values.
RANDOM = ("gaussian_blur", "wide_blur", "stripe", "row_stripe", "gain", "row_gain", "tone", "noise", "dead", *PATTERNS)
REACH = {"gaussian_blur": 4, "wide_blur": 9}  # of a blur: the pixels on each side of one that it depends on

OPERATIONS = (
    "identity", "contrast_R", "saturation_R", "sharpness_R", "gaussian_blur", "gaussian_blur_S", "wide_blur",
    "max_pool_resize_K", "average_pool_resize_K", "bicubic_resize_K", "coarse_K", "posterize_B", "quantise_B", "clip",
    "stripe", "row_stripe", "partial_stripe", "gain", "row_gain", "tone", "noise", "dead", "glow", "shading",
)  # fmt: skip

# The seven of the released generator, in its order.
DEAL_OPS = (
    "sharpness_0.7", "saturation_0.7", "contrast_0.5", "posterize_5", "gaussian_blur", "max_pool_resize_4", "stripe",
)  # fmt: skip


class Name(NamedTuple):
    kind: str
    strength: float = 0.0  # a share, a deviation, a factor or a number of bits


def parsed(name: str) -> Name:
    """The kind and strength of a name. An error lists the known names."""
    if not isinstance(name, str):
        raise TypeError(f"ops must be names; got {type(name).__name__}")
    if name in ("identity", "clip", *RANDOM):
        return Name(name)
    kind, _, text = name.rpartition("_")
    if kind not in (*BLENDS, *RESIZES, "gaussian_blur", "posterize", "quantise") or not _is_number(text):
        raise ValueError(
            f"ops has the unknown name {name!r}; known are {', '.join(OPERATIONS)} "
            "(R: share of the image, S: deviation, K: factor, B: bits)"
        )
    strength = float(text)
    accepted = _limits(kind, strength)
    if accepted:
        raise ValueError(f"{kind} needs {accepted}; got {name!r} in ops")
    return Name(kind, strength)


known = functools.lru_cache(maxsize=1024)(parsed)


def _is_number(text: str) -> bool:
    return text.isascii() and text.replace(".", "", 1).isdigit()


def _limits(kind: str, strength: float) -> str | None:
    """The strengths a kind accepts, in words; None where this one is accepted."""
    if kind in BLENDS:
        return None if strength < math.inf else "a finite share of the image"
    if kind == "gaussian_blur":
        return None if 0 < strength < math.inf else "a positive, finite deviation"
    whole = strength < math.inf and strength == int(strength)
    if kind in ("posterize", "quantise"):
        return None if whole and 1 <= strength <= 8 else "1 to 8 bits"
    return None if whole and strength >= 2 else "an integer factor of at least 2"
