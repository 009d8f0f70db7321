"""Infrared and visible images fused, and how much of both a fused image has.

Images are uint8 [H, W], a visible one in colours as its brightness (Pillow's mode "L"). "standard" is what a measure's
definition says. "legacy" is what the spreadsheets of the literature contain, computed with MATLAB's saturating 8 bits:
the published "SD" of 7 to 11 is one of these, and so are MI and VIF. EN, SCD and Qabf are the same in both.

>>> random = numpy.random.default_rng(0)
>>> infrared, visible = random.integers(0, 256, (2, 48, 64), numpy.uint8)
>>> fused = fuse(infrared, visible, "max")
>>> list(measures(fused, infrared, visible))
['EN', 'MI', 'SD', 'SCD', 'VIF', 'Qabf']
"""

from __future__ import annotations

import math
from typing import Literal

import numpy
from numpy import ndarray

from deal_kernels.lif.arguments import one_of

Variant = Literal["standard", "legacy"]
LEAST_SIZE = 41  # of images for VIF, whose last window would find no pixel of smaller ones


def fuse(infrared: ndarray, visible: ndarray, how: Literal["max", "mean"]) -> ndarray:
    """The larger of two pixels, or their mean, rounded up.

    Args:
        infrared, visible: uint8 [H, W].
    """
    one_of("how", how, ("max", "mean"))
    _check(infrared=infrared, visible=visible)
    if how == "max":
        return numpy.maximum(infrared, visible)
    return ((infrared.astype(numpy.uint16) + visible + 1) // 2).astype(numpy.uint8)


def measures(fused: ndarray, infrared: ndarray, visible: ndarray, variant: Variant = "standard") -> dict[str, float]:
    """All measures by the names they have in tables: EN, MI, SD, SCD, VIF and Qabf.

    Args:
        fused, infrared, visible: uint8 [H, W], of 41 x 41 pixels or more.
        variant: see the head of this module.
    """
    return {
        "EN": entropy(fused),
        "MI": mutual_information(fused, infrared, visible, variant),
        "SD": deviation(fused, variant),
        "SCD": scd(fused, infrared, visible),
        "VIF": vif(fused, infrared, visible, variant),
        "Qabf": gradient_transfer(fused, infrared, visible),
    }


def entropy(image: ndarray) -> float:
    """EN, of the histogram of a uint8 image [H, W], in bits: 0 to 8.

    >>> entropy(numpy.arange(256, dtype=numpy.uint8).reshape(16, 16))
    8.0
    """
    _check(image=image)
    return _entropy(image)


def mutual_information(fused: ndarray, infrared: ndarray, visible: ndarray, variant: Variant = "standard") -> float:
    """MI, of the fused image with either source, in bits, added up.

    Args:
        fused, infrared, visible: uint8 [H, W].
        variant: in "legacy" the joint histogram does not tell 254 from 255.
    """
    _check(variant, fused=fused, infrared=infrared, visible=visible)
    most = 255 if variant == "standard" else 254
    f, *sources = (numpy.minimum(image, most).astype(numpy.int64) for image in (fused, infrared, visible))
    alone = 2 * _entropy(fused) + _entropy(infrared) + _entropy(visible)
    return alone - sum(_entropy(256 * f + source) for source in sources)


def deviation(image: ndarray, variant: Variant = "standard") -> float:
    """SD, the standard deviation of the pixels.

    Args:
        image: uint8 [H, W].
        variant: in "legacy" what is darker than the mean counts as the mean, and what is brighter by 16 or more as
            brighter by sqrt(255): the result is below 15.97.
    """
    _check(variant, image=image)
    if variant == "standard":
        return float(image.std(dtype=numpy.float64))
    above = numpy.floor(image - image.mean(dtype=numpy.float64) + 0.5).clip(0)
    return math.sqrt(numpy.minimum(above**2, 255).mean())


def scd(fused: ndarray, infrared: ndarray, visible: ndarray) -> float:
    """SCD, the sum of correlations of differences: what was added to one source should be the other one.

    Args:
        fused, infrared, visible: uint8 [H, W].

    Returns:
        -2 to 2; NaN where a source is flat, or is the fused image but for an offset, as nothing correlates with a
        constant.
    """
    _check(fused=fused, infrared=infrared, visible=visible)
    f, a, b = (image.astype(numpy.float64) for image in (fused, infrared, visible))
    return _correlation(f - b, a) + _correlation(f - a, b)


def vif(fused: ndarray, infrared: ndarray, visible: ndarray, variant: Variant = "standard") -> float:
    """VIF, the visual information fidelity of the fused image to either source, in the domain of pixels, added up.

    Args:
        fused, infrared, visible: uint8 [H, W], of 41 x 41 pixels or more.
        variant: in "legacy" products of pixels end at 255, at the first of the four scales.

    Returns:
        NaN where a source is flat and has no information.
    """
    _check(variant, fused=fused, infrared=infrared, visible=visible)
    if min(fused.shape) < LEAST_SIZE:
        height, width = fused.shape
        raise ValueError(f"VIF needs images of {LEAST_SIZE} x {LEAST_SIZE} pixels or more; got {height} x {width}")
    return _fidelity(infrared, fused, variant) + _fidelity(visible, fused, variant)


def gradient_transfer(fused: ndarray, infrared: ndarray, visible: ndarray) -> float:
    """Q^AB/F, the share of the sources' edges that the fused image has, with their strength and direction.

    The values are those of the usual code on 0 to 255, which takes, where two gradients are equally strong, their
    strength for their ratio. There are tables computed on 0 to 1, where this costs fusion by maximum up to 0.25; else
    they differ by about 1e-3.

    Args:
        fused, infrared, visible: uint8 [H, W].

    Returns:
        0 to 1; NaN where both sources are black.
    """
    _check(fused=fused, infrared=infrared, visible=visible)
    edges = _edges(fused)
    sources = [_edges(source) for source in (infrared, visible)]
    total = sum(float(strength.sum()) for strength, _ in sources)
    kept = sum(float((_kept(source, edges) * source[0]).sum()) for source in sources)
    return kept / total if total else math.nan


def _entropy(values: ndarray) -> float:
    counts = numpy.bincount(values.reshape(-1))
    shares = counts[counts > 0] / values.size
    return abs(float((shares * numpy.log2(shares)).sum()))


def _correlation(one: ndarray, other: ndarray) -> float:
    one, other = one - one.mean(), other - other.mean()
    power = float((one * one).sum() * (other * other).sum())
    return float((one * other).sum()) / math.sqrt(power) if power else math.nan


def _fidelity(reference: ndarray, distorted: ndarray, variant: Variant) -> float:
    r, d = reference.astype(numpy.float64), distorted.astype(numpy.float64)
    passed = possible = 0.0
    for size in (17, 9, 5, 3):
        if size < 17:
            r, d = (_windowed(image, size)[::2, ::2] for image in (r, d))
        most = 255.0 if variant == "legacy" and size == 17 else math.inf
        of_r, of_d = _information(r, d, size, most)
        possible, passed = possible + of_r, passed + of_d
    return passed / possible if possible else math.nan


def _information(r: ndarray, d: ndarray, size: int, most: float) -> tuple[float, float]:
    """What the eye gets of the reference, and of it through the distorted image, at one scale."""
    least, eye = 1e-10, 2.0
    mean_r, mean_d = _windowed(r, size), _windowed(d, size)
    var_r, var_d, cov = (
        _windowed(numpy.minimum(a * b, most), size) - mean_a * mean_b
        for a, b, mean_a, mean_b in ((r, r, mean_r, mean_r), (d, d, mean_d, mean_d), (r, d, mean_r, mean_d))
    )
    var_r, var_d = var_r.clip(0), var_d.clip(0)
    gain = cov / (var_r + least)
    noise = var_d - gain * cov
    flat = var_r < least
    gain, noise, var_r = (numpy.where(flat, a, b) for a, b in ((0, gain), (var_d, noise), (0, var_r)))
    lost = var_d < least
    gain, noise = numpy.where(lost, 0, gain), numpy.where(lost, 0, noise)
    turned = gain < 0
    gain, noise = numpy.where(turned, 0, gain), numpy.where(turned, var_d, noise)
    passed = numpy.log10(1 + gain**2 * var_r / (noise.clip(least) + eye))
    return float(numpy.log10(1 + var_r / eye).sum()), float(passed.sum())


def _windowed(image: ndarray, size: int) -> ndarray:
    """Gaussian means under windows that lie in the image, their size five deviations."""
    taps = numpy.exp(-(((numpy.arange(size) - size // 2) / (size / 5)) ** 2) / 2)
    taps /= taps.sum()
    for _ in range(2):
        rows = len(image) - size + 1
        image = numpy.ascontiguousarray(sum(tap * image[k : k + rows] for k, tap in enumerate(taps)).T)
    return image


def _edges(image: ndarray) -> tuple[ndarray, ndarray]:
    """Strength and direction of Sobel's gradients, with zeros around the image; the direction is modulo pi."""
    wide = numpy.pad(image.astype(numpy.float64), 1)
    down = wide[:-2] - wide[2:]
    across = wide[:, 2:] - wide[:, :-2]
    y = down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]
    x = across[:-2] + 2 * across[1:-1] + across[2:]
    angle = numpy.arctan(numpy.divide(y, x, out=numpy.full_like(x, math.inf), where=x != 0))
    return numpy.hypot(x, y), angle


def _kept(source: tuple[ndarray, ndarray], fused: tuple[ndarray, ndarray]) -> ndarray:
    """How much of a source's edges at every pixel, 0 to 1."""
    (strength, angle), (strength_fused, angle_fused) = source, fused
    larger = numpy.maximum(strength, strength_fused)
    ratio = numpy.minimum(strength, strength_fused) / numpy.where(larger > 0, larger, 1)
    ratio = numpy.where(strength == strength_fused, strength_fused, ratio)
    alike = 1 - abs(angle - angle_fused) / (math.pi / 2)
    of_strength = 0.9994 / (1 + numpy.exp(-15 * (ratio - 0.5)))
    return of_strength * 0.9879 / (1 + numpy.exp(-22 * (alike - 0.8)))


def _check(variant: Variant = "standard", **images: ndarray) -> None:
    one_of("variant", variant, ("standard", "legacy"))
    first, *_ = images
    for name, image in images.items():
        if not isinstance(image, ndarray):
            raise TypeError(f"{name} must be a numpy array; got {type(image).__name__}")
        if image.dtype != numpy.uint8:
            raise TypeError(f"{name} must be uint8; got {image.dtype}")
        if image.ndim != 2 or not image.size:
            raise ValueError(f"{name} must be [H, W] with at least one pixel; got the shape {image.shape}")
        if image.shape != images[first].shape:
            raise ValueError(f"{name} must have the shape of {first}, {images[first].shape}; got {image.shape}")
