"""The losses of training: what a network should make of degraded images, as one number per image.

`separation_loss` measures in the logarithm of root mean squares: a decibel counts the same for a light degradation as
for a heavy one. It compares structure after both images are normalised to mean 0 and the same deviation, because no cut
shows the contrast and brightness of the scene, and their error would hide all others. The tone has a term of its own,
whose gradient reaches the tone alone. So have the patterns and the shading, which are judged where they can be seen: in
the means of columns and rows, and in the means of large patches.

>>> import torch
>>> from deal.model.separation import DealU
>>> x = torch.rand(2, 1, 32, 48)
>>> separation_loss(x, DealU("deal-u-small").separate(x), x).shape  # [B]
torch.Size([2])
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from deal.model.filters import gaussian_smooth
from deal.model.parts import Parts

HIGH, SHADING, LINES, TONE, SCALE = 0.7, 0.3, 0.2, 0.3, 0.02  # the weights of the terms beside that of the structure
FLOOR, LINES_FLOOR = 1e-5, 1e-6  # squared errors of which less is not better
PATCH = 16  # side of the patches whose means are the low frequencies
THUMBNAIL_PATCH = 4  # likewise, in thumbnails
SMOOTH = 8.0  # standard deviation, in pixels, of the Gaussian that separates patterns of lines from shading
LEAST = 1e-4  # lower bound of a deviation in divisions


def separation_loss(x_hat: Tensor, parts: Parts, x: Tensor) -> Tensor:
    """The loss [B] of the parts of degraded images x_hat [B, C, H, W] for the clean images x."""
    without_lines = x_hat - parts.columns - parts.rows
    without_shading = without_lines - parts.shading
    structure = without_shading - parts.detail
    error = _aligned_error(structure, x)
    toned = parts.gain * structure.detach() + parts.offset
    return (
        _log_error(error)
        + HIGH * _log_error(error - _enlarged(functional.avg_pool2d(error, PATCH), error))
        + SHADING * _log_error(functional.avg_pool2d(_aligned_error(without_shading, x), PATCH))
        + LINES * _lines_error(without_lines, x)
        + TONE * _log_error(toned - x)
        + SCALE * _scale_error(structure, x_hat)
    )


def shading_loss(x_hat: Tensor, shading: Tensor, x: Tensor) -> Tensor:
    """The loss [B] of the shading alone, of thumbnails x_hat and x."""
    return SHADING * _log_error(functional.avg_pool2d(_aligned_error(x_hat - shading, x), THUMBNAIL_PATCH))


def structure_loss(y: Tensor, x: Tensor) -> Tensor:
    """The logarithm of the root mean square [B] of y - x, images [B, C, H, W], after alignment."""
    return _log_error(_aligned_error(y, x))


def _log_error(error: Tensor, floor: float = FLOOR) -> Tensor:
    return 0.5 * (error.square().flatten(1).mean(1) + floor).log()


def _aligned_error(y: Tensor, x: Tensor) -> Tensor:
    """y - x after both are normalised, in units of x."""
    return x.std((1, 2, 3), keepdim=True) * (_normalised(y) - _normalised(x))


def _normalised(x: Tensor) -> Tensor:
    return (x - x.mean((1, 2, 3), keepdim=True)) / (x.std((1, 2, 3), keepdim=True) + LEAST)


def _enlarged(small: Tensor, like: Tensor) -> Tensor:
    return functional.interpolate(small, like.shape[2:], mode="bilinear", align_corners=False)


def _lines_error(y: Tensor, x: Tensor) -> Tensor:
    """The logarithm of what is left of patterns in the means of columns and of rows."""
    y, x = (images - images.mean((1, 2, 3), keepdim=True) for images in (y, x))
    gain = ((y * x).sum((1, 2, 3)) / x.square().sum((1, 2, 3)).clamp_min(LEAST)).detach()
    error = y - gain[:, None, None, None] * x
    profiles = (error.mean(axis) for axis in (2, 3))
    return sum(_log_error(profile - gaussian_smooth(profile, SMOOTH), LINES_FLOOR) for profile in profiles)  # type: ignore[return-value]


def _scale_error(structure: Tensor, x_hat: Tensor) -> Tensor:
    """How far the contrast of the structure is from that of the input: the other terms do not see it.

    What was taken out is uncorrelated with what is left, if the contrast is right.
    """
    y, x = (images - images.mean((1, 2, 3), keepdim=True) for images in (structure, x_hat))
    gain = (y * x).sum((1, 2, 3)) / y.square().sum((1, 2, 3)).clamp_min(LEAST)
    return gain.clamp_min(0.1).log().square()
