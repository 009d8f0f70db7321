"""What a user would run instead of `deal_kernels.ssim`: five convolutions, torch.compile of them, and the libraries."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import conv2d

C1, C2 = 1e-4, 9e-4

Similarity = Callable[[Tensor, Tensor], Tensor]


def window(channels: int, like: Tensor) -> Tensor:
    """[C, 1, 11, 11], a Gaussian of deviation 1.5."""
    distance = torch.arange(11, dtype=like.dtype, device=like.device) - 5
    row = torch.exp(-(distance**2) / (2 * 1.5**2))
    row = row / row.sum()
    return torch.outer(row, row).expand(channels, 1, 11, 11)


class FiveConvolutions:
    """The usual formulation, with zero padding: both means, both squares and the product, each convolved."""

    def __init__(self, like: Tensor) -> None:
        self.channels = like.shape[1]
        self.window = window(self.channels, like).contiguous()

    def filtered(self, image: Tensor) -> Tensor:
        return conv2d(image, self.window, padding=5, groups=self.channels)

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        mean_a, mean_b = self.filtered(a), self.filtered(b)
        variance_a = self.filtered(a * a) - mean_a.pow(2)
        variance_b = self.filtered(b * b) - mean_b.pow(2)
        covariance = self.filtered(a * b) - mean_a * mean_b
        over = (2 * mean_a * mean_b + C1) * (2 * covariance + C2)
        under = (mean_a.pow(2) + mean_b.pow(2) + C1) * (variance_a + variance_b + C2)
        return (over / under).mean()


def rivals(like: Tensor, *, compiled: bool) -> dict[str, Similarity]:
    """Each takes two batches of images to a mean; the libraries leave out windows that reach over the edge."""
    five = FiveConvolutions(like)
    calls: dict[str, Similarity] = {"five convolutions": five}
    if compiled:
        torch._dynamo.reset()
        calls["compile"] = torch.compile(five, dynamic=False)
    if importlib.util.find_spec("pytorch_msssim"):
        from pytorch_msssim import ssim as valid_ssim

        calls["pytorch-msssim"] = lambda a, b: valid_ssim(a, b, data_range=1.0)
    if importlib.util.find_spec("torchmetrics"):
        from torchmetrics.functional.image import structural_similarity_index_measure

        calls["torchmetrics"] = lambda a, b: structural_similarity_index_measure(a, b, data_range=1.0)  # type: ignore
    if like.is_cuda and importlib.util.find_spec("fused_ssim"):
        from fused_ssim import fused_ssim

        calls["fused-ssim"] = fused_ssim
    return calls
