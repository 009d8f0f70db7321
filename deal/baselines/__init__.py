"""Classical methods to compare a network with, as functions of images [B, C, H, W] in [0, 1], by name.

Stripes are vertical, and every channel is treated by itself. Values are not clamped, except by "clahe". "none" leaves
images as they are: where resolution is in question images come enlarged, bicubically, and "none" is that.

Parameters were chosen for the best mean PSNR over additive stripes N(0, s^2) and gains N(1, s^2), s = 0.05 and 0.1, and
for "clahe" over contrasts of 0.7 and 0.5: on crops of 256 x 320 pixels from the middle of 20 images of RoadScene and 6
of M2VD, either set counting half, that no network is trained on. The decibels in the docstrings are this mean's.

>>> import torch
>>> cascade = method("median-difference+clahe")
>>> cascade(torch.rand(2, 1, 48, 64)).shape
torch.Size([2, 1, 48, 64])
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from deal.baselines.columns import median_difference, midway, moment_matching
from deal.baselines.contrast import clahe, stretch
from deal.baselines.guided import guided_filter
from deal.baselines.variation import utv
from deal.baselines.wavelets import wavelet_fourier

Method = Callable[[Tensor], Tensor]

BASELINES: dict[str, Method] = {
    "none": lambda x: x,
    "median-difference": median_difference,
    "moment-matching": moment_matching,
    "guided-filter": guided_filter,
    "midway": midway,
    "utv": utv,
    "wavelet-fourier": wavelet_fourier,
    "clahe": clahe,
    "stretch": stretch,
}


def method(name: str) -> Method:
    """A method by its name, or several, joined with "+", as a cascade, the left one first.

    Returns:
        A function of images [B, C, H, W] of float32 or float64, with at least one pixel, that checks them.

    Raises:
        ValueError: names what is unknown, and the known names.
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a string; got {type(name).__name__}")
    parts = name.split("+")
    for part in parts:
        if part not in BASELINES:
            known = ", ".join(BASELINES)
            raise ValueError(f"there is no method {part!r}; got {name!r}, known are {known}, and cascades with '+'")

    def run(x: Tensor) -> Tensor:
        _check(x)
        for part in parts:
            x = BASELINES[part](x)
        return x

    return run


def _check(x: Tensor) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a tensor; got {type(x).__name__}")
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"x must be float32 or float64, in [0, 1]; got {x.dtype}")
    if x.dim() != 4 or not x.numel():
        raise ValueError(f"x must be [B, C, H, W] with at least one pixel; got the shape {tuple(x.shape)}")
