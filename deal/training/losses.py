"""The losses of training: what a network should make of degraded images, as one number per image.

`separation_loss` counts errors of the structure by the logarithm of their root mean square: a decibel counts the same
for a heavy degradation and for a light one. Structure is compared with a clean image that has the contrast and
brightness of the degraded one: a cut does not show those of the scene, and their error would hide all others. What is
left of patterns of columns and rows counts once more, in the means of columns and rows. The shading and the tone learn
nothing here, as a cut does not show the whole frame: `whole_frame_loss` teaches them on thumbnails.

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

HIGH, LINES = 0.7, 1.0  # the weights of the terms beside that of the structure
FLOOR, LINES_FLOOR, TONE_FLOOR = 1e-5, 1e-6, 1e-4  # squared errors of which less is not better
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
    structure = without_lines - parts.shading.detach() - parts.detail
    scale = _deviation(x) / (_deviation(toned) + LEAST)  # errors count as in images of full contrast
    error = scale * _centred(structure - toned)
    low = functional.avg_pool2d(error, PATCH)
    return (
        _log(error) + HIGH * _log(error - _enlarged(low, error)) + LINES * _lines_error(scale * (without_lines - toned))
    )


def whole_frame_loss(x_hat: Tensor, shading: Tensor, tone: tuple[Tensor, Tensor], x: Tensor, toned: Tensor) -> Tensor:
    """The loss [B] of the shading and of the tone, a gain and an offset, of thumbnails; other arguments as of
    `separation_loss`."""
    scale = _deviation(x) / (_deviation(toned) + LEAST)
    without_shading = x_hat - shading
    error = scale * _centred(without_shading - toned)
    gain, offset = tone
    of_tone = gain * without_shading.detach() + offset - x
    return _log(functional.avg_pool2d(error, THUMBNAIL_PATCH)) + _log(of_tone, TONE_FLOOR)


def structure_loss(y: Tensor, x: Tensor) -> Tensor:
    """The error [B] of y, images [B, C, H, W], after y and x are normalised."""
    return _log(_deviation(x) * (_normalised(y) - _normalised(x)))


def _log(error: Tensor, floor: float = FLOOR) -> Tensor:
    """The logarithm of the root mean square, [B]."""
    return 0.5 * (error.square().flatten(1).mean(1) + floor).log()


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
