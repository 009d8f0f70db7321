"""Structural similarity as it is usually written: five images under a window of 11 x 11, and torch's autograd."""

import torch
from torch.nn.functional import conv2d


def window(like):
    taps = torch.exp(-(torch.arange(-5, 6, dtype=torch.float64) ** 2) / 4.5)
    return torch.outer(taps, taps).div(taps.sum() ** 2).to(like)


def similarity(a, b, data_range=1.0, padding="zeros"):
    """The map of images [..., H, W], in their own precision."""
    weight, edge = window(a)[None, None], 5 if padding == "zeros" else 0

    def mean(image):
        return conv2d(image.reshape(-1, 1, *image.shape[-2:]), weight, padding=edge)

    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b, cov = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2, mean(a * b) - mean_a * mean_b
    value = (2 * mean_a * mean_b + c1) * (2 * cov + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return value.reshape(*a.shape[:-2], *value.shape[-2:])


def l1_ssim(a, b, alpha=0.75, beta=1.1, **options):
    return alpha * (a - b).abs().mean() + beta * (1 - similarity(a, b, **options).mean())


def images(*shape, dtype=torch.float32, device="cpu", seed=0, data_range=1.0):
    """A pair that is alike, some of its pixels equal."""
    generator = torch.Generator().manual_seed(seed)
    a = torch.rand(shape, generator=generator, dtype=torch.float64)
    noise = torch.randn(shape, generator=generator, dtype=torch.float64) * 0.1
    b = (a + noise * (noise > -0.05)).clamp(0, 1)
    return (a * data_range).to(device, dtype), (b * data_range).to(device, dtype)


def gradients(result, leaves, seed=1):
    """With random gradients of the result, or one of a scalar that is not 1."""
    generator = torch.Generator().manual_seed(seed)
    grad = torch.randn(result.shape, generator=generator, dtype=torch.float64) if result.dim() else torch.tensor(0.7)
    return torch.autograd.grad(result, leaves, grad.to(result))
