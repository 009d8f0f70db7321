"""Attention over time, channels and places of spikes [T, B, C, H, W].

A gate is sigmoid(f(mean) + f(maximum)), and f has two layers without bias and a ReLU between them: Yao et al.,
Temporal-wise attention spiking neural networks for event streams classification, 2021, and Attention spiking neural
networks, 2023.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deal_kernels._common.checks import one_of
from deal_kernels.compat.spikingjelly.standin.memory import MultiStepModule


def _check_reduction(name: str, width: int, reduction: int) -> None:
    if not 1 <= reduction <= width:
        raise ValueError(f"the reduction of {name} must be from 1 to {name}, {width}; got {reduction}")


class TemporalWiseAttention(nn.Module, MultiStepModule):
    """Weighs the time steps.

    Args:
        T: number of time steps.
        reduction: T over the width of the middle layer.
        dimension: 4 for x [T, B, C, H, W], 2 for x [T, B, N].
    """

    def __init__(self, T: int, reduction: int = 16, dimension: int = 4) -> None:
        super().__init__()
        self.step_mode = "m"
        one_of("dimension", dimension, (2, 4))
        _check_reduction("T", T, reduction)
        self.dimension = dimension
        middle = T // reduction
        self.sharedMLP = nn.Sequential(nn.Linear(T, middle, bias=False), nn.ReLU(), nn.Linear(middle, T, bias=False))

    def forward(self, x_seq: Tensor) -> Tensor:
        if x_seq.dim() != self.dimension + 1:
            shape = "[T, B, C, H, W]" if self.dimension == 4 else "[T, B, N]"
            raise ValueError(f"x_seq must be {shape}; got the shape {tuple(x_seq.shape)}")
        x = x_seq.transpose(0, 1)
        places = x.flatten(2)  # [B, T, C * H * W]
        mean, most = places.mean(2), F.adaptive_max_pool1d(places, 1).squeeze(2)
        gate = torch.sigmoid(self.sharedMLP(mean) + self.sharedMLP(most))
        return (x * gate.reshape(*gate.shape, *[1] * (x.dim() - 2))).transpose(0, 1)


class _PooledGate(nn.Module):
    """A gate for each entry of axis 1 of x [B, N, ...], from its mean and maximum over the other axes."""

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        middle = width // reduction
        self.sharedMLP = nn.Sequential(
            nn.Conv3d(width, middle, 1, bias=False), nn.ReLU(), nn.Conv3d(middle, width, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        mean, most = F.adaptive_avg_pool3d(x, 1), F.adaptive_max_pool3d(x, 1)
        return torch.sigmoid(self.sharedMLP(mean) + self.sharedMLP(most))


class _PlaceGate(nn.Module):
    """A gate for each place of x [B, T, C, H, W], from its mean and maximum over time and channels."""

    def __init__(self, kernel_size: int) -> None:
        super().__init__()
        one_of("kernel_size", kernel_size, (3, 7))
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1, 2)
        pooled = torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True).values], 1)
        return torch.sigmoid(self.conv(pooled)).unsqueeze(1)


class MultiDimensionalAttention(nn.Module, MultiStepModule):
    """Weighs the time steps, then the channels, then the places of x [T, B, C, H, W], and applies a ReLU.

    Args:
        T, C: number of time steps and of channels.
        reduction_t, reduction_c: T and C over the width of their middle layers.
        kernel_size: of the convolution that weighs the places, 3 or 7.
    """

    def __init__(self, T: int, C: int, reduction_t: int = 16, reduction_c: int = 16, kernel_size: int = 3) -> None:
        super().__init__()
        self.step_mode = "m"
        _check_reduction("T", T, reduction_t)
        _check_reduction("C", C, reduction_c)
        self.ta, self.ca, self.sa = _PooledGate(T, reduction_t), _PooledGate(C, reduction_c), _PlaceGate(kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 5:
            raise ValueError(f"x must be [T, B, C, H, W]; got the shape {tuple(x.shape)}")
        x = x.transpose(0, 1)
        x = self.ta(x) * x
        x = self.ca(x.transpose(1, 2)).transpose(1, 2) * x
        x = self.sa(x) * x
        return torch.relu(x).transpose(0, 1)
