"""The losses of training: what a network should make of degraded images, as one number per image.

`separation_loss` counts errors of the structure by the fourth root of their root mean square. An image with a heavy
degradation then has more influence than one with a light degradation, but by far not as much more as its error is
larger. Structure is compared with a clean image that has the contrast and brightness of the degraded one: a cut does
not show those of the scene, and their error would hide all others. The tone has a term of its own, whose gradient
reaches the tone alone. So have the patterns and the shading, which are judged where they can be seen: in the means of
columns and rows, and in the means of large patches. Patterns of columns and rows count by the logarithm of the root
mean square, so that a decibel counts the same for all images. Tone and shading count by the root mean square itself.
Many images need no change of them, and otherwise a small change would cost these images more than the others gain.

>>> import torch
>>> from deal.model.separation import DealU
>>> x = torch.rand(2, 1, 32, 48)
>>> separation_loss(x, DealU("deal-u-small").separate(x), x, x).shape  # [B]
torch.Size([2])
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from deal.model.filters import gaussian_smooth
from deal.model.parts import Parts

HIGH, SHADING, LINES, TONE = 0.7, 2.0, 0.1, 1.0  # the weights of the terms beside that of the structure
FLOOR, LINES_FLOOR = 1e-5, 1e-6  # squared errors of which less is not better
PATCH, THUMBNAIL_PATCH = 16, 4  # sides of the patches whose means are the low frequencies
SMOOTH = 8.0  # standard deviation, in pixels, of the Gaussian that separates patterns of lines from shading
LEAST = 1e-4  # lower bound of a deviation in divisions


def separation_loss(x_hat: Tensor, parts: Parts, x: Tensor, toned: Tensor) -> Tensor:
    """The loss [B] of the parts of degraded images.

    Args:
        x_hat: degraded images [B, C, H, W].
        parts: what was taken out of them.
        x: clean images.
        toned: clean images with the contrast and brightness of the degraded ones.
    """
    without_lines = x_hat - parts.columns - parts.rows
    without_shading = without_lines - parts.shading
    structure = without_shading - parts.detail
    scale = _deviation(x) / (_deviation(toned) + LEAST)  # errors count as in images of full contrast
    error = scale * _centred(structure - toned)
    low = functional.avg_pool2d(error, PATCH)
    return (
        _root(error)
        + HIGH * _root(error - _enlarged(low, error))
        + SHADING * _error(functional.avg_pool2d(scale * _centred(without_shading - toned), PATCH))
        + LINES * _lines_error(scale * (without_lines - toned))
        + TONE * _error(parts.gain * structure.detach() + parts.offset - x)
    )


def shading_loss(x_hat: Tensor, shading: Tensor, x: Tensor, toned: Tensor) -> Tensor:
    """The loss [B] of the shading alone, of thumbnails; arguments as of `separation_loss`."""
    scale = _deviation(x) / (_deviation(toned) + LEAST)
    error = scale * _centred(x_hat - shading - toned)
    return SHADING * _error(functional.avg_pool2d(error, THUMBNAIL_PATCH))


def structure_loss(y: Tensor, x: Tensor) -> Tensor:
    """The error [B] of y, images [B, C, H, W], after y and x are normalised."""
    return _root(_deviation(x) * (_normalised(y) - _normalised(x)))


def _error(error: Tensor, floor: float = FLOOR) -> Tensor:
    """The root mean square, [B]."""
    return (error.square().flatten(1).mean(1) + floor).sqrt()


def _root(error: Tensor, floor: float = FLOOR) -> Tensor:
    """The fourth root of the root mean square."""
    return _error(error, floor) ** 0.25


def _log(error: Tensor, floor: float) -> Tensor:
    """The logarithm of the root mean square."""
    return _error(error, floor).log()


def _centred(x: Tensor) -> Tensor:
    return x - x.mean((1, 2, 3), keepdim=True)


def _deviation(x: Tensor) -> Tensor:
    return x.std((1, 2, 3), keepdim=True)


def _normalised(x: Tensor) -> Tensor:
    return _centred(x) / (_deviation(x) + LEAST)


def _enlarged(small: Tensor, like: Tensor) -> Tensor:
    return functional.interpolate(small, like.shape[2:], mode="bilinear", align_corners=False)


def _lines_error(error: Tensor) -> Tensor:
    """The logarithm of what is left of patterns in the means of columns and of rows."""
    columns, rows = (error.mean(axis) for axis in (2, 3))
    left = (_log(profile - gaussian_smooth(profile, SMOOTH), LINES_FLOOR) for profile in (columns, rows))
    return torch.stack(list(left)).sum(0)
