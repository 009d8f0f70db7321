"""Methods of other packages, which `pip install "deal-kernels[evaluate]"` installs."""

from __future__ import annotations

import importlib
import importlib.util

import torch
from torch import Tensor

from deal.evaluate.baselines.denoising import noise_deviation

# The module and the distribution that a method needs.
PACKAGES = {"destripe": ("destripe", "destripe"), "nl-means": ("skimage", "scikit-image")}
LEAST_SIDE = 3  # pixels; destripe needs as many
LEAST_NOISE = 1e-4  # nl-means leaves images with less as they are


def installed(method: str) -> bool:
    """Whether the package of a method is installed.

    >>> installed("fog")
    Traceback (most recent call last):
    KeyError: 'fog'
    """
    return importlib.util.find_spec(PACKAGES[method][0]) is not None


def check(method: str) -> None:
    """Raises unless the package of a method is installed."""
    if not installed(method):
        package = PACKAGES[method][1]
        raise ModuleNotFoundError(
            f'{method} needs {package}, which is not installed: pip install "deal-kernels[evaluate]"'
        )


def destripe(x: Tensor, weight: float = 0.01, penalty: float = 0.001, rounds: int = 500) -> Tensor:
    """Destriping by total variation and directional components (the package destripe).

    Args:
        x: [B, C, H, W]. The range of each channel is mapped to [0, 1] and back, as the package itself does for arrays.
            Channels of one value, or less than 3 pixels high or wide, stay as they are.
        weight, penalty: of the variation and of the stripes, mu1 and mu2 of the package. Its defaults, 0.33 and 0.003,
            smooth the scene and are worse by 12 dB; 0.1 and 0.001, its mildest advice, by 6.5 dB.
        rounds: the largest number of iterations.
    """
    solver = importlib.import_module("destripe").UniversalStripeRemover(weight, penalty, device="cpu")
    result = x.clone(memory_format=torch.contiguous_format)
    if min(x.shape[2:]) >= LEAST_SIDE:
        for image in result.flatten(0, 1):
            low, high = image.aminmax()
            if high > low:
                image.copy_(low + (high - low) * solver.process((image - low) / (high - low), rounds))
    return result


def nl_means(x: Tensor, patch: int = 5, distance: int = 4, strength: float = 0.8) -> Tensor:
    """Denoising by non-local means (the package scikit-image), for the noise that `noise_deviation` estimates.

    Args:
        x: [B, C, H, W]
        patch: width of the compared patches, in pixels. 3 is worse by 1 dB, 7 by 0.1 dB.
        distance: reach of the search, in pixels. 6 and 10 take two and five times as long, and are worse by 0.2 and
            0.4 dB.
        strength: the decay of the weights, in standard deviations of the noise; the package advises 0.8.
    """
    denoise = importlib.import_module("skimage.restoration").denoise_nl_means
    result = x.clone(memory_format=torch.contiguous_format)
    for image, noise in zip(result.flatten(0, 1), noise_deviation(x).flatten().tolist(), strict=True):
        if noise > LEAST_NOISE:
            pixels = denoise(image.numpy(), patch, distance, h=strength * noise, sigma=noise, preserve_range=True)
            image.copy_(torch.from_numpy(pixels))
    return result
