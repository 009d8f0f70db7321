"""Unidirectional total variation: along columns the image keeps its differences, along rows it has few."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad


def utv(x: Tensor, weight: float = 0.3, rounds: int = 50, alpha: float = 10.0, beta: float = 10.0) -> Tensor:
    """The u with the least |d/dy (u - x)| + weight |d/dx u|, both summed over pixels, by split Bregman iteration.

    Args:
        x: [B, C, H, W]
        weight: of the differences along rows.
        rounds: of the iteration; each solves a linear system by cosine transforms.
        alpha, beta: penalties of the two splittings: they change how fast it converges, not to what.
    """
    rows, columns = (_waves(count, x) for count in x.shape[2:])
    system = alpha * rows[:, None] + beta * columns
    system[0, 0] = 1  # of the mean, which stays that of x
    inverse = 1 / system
    inverse[0, 0] = 0
    mean = x.mean((2, 3), keepdim=True)
    down = x.diff(dim=2)
    p, b = torch.zeros_like(down), torch.zeros_like(down)
    q = torch.zeros_like(x.diff(dim=3))
    c = torch.zeros_like(q)
    u = x
    for _ in range(rounds):
        right = alpha * _back(down + p - b, 2) + beta * _back(q - c, 3)
        u = _solved(right, inverse)
        down_u = u.diff(dim=2) - down
        across = u.diff(dim=3)
        b += down_u
        p = torch.nn.functional.softshrink(b, 1 / alpha)
        b -= p
        c += across
        q = torch.nn.functional.softshrink(c, weight / beta)
        c -= q
    return u + mean


def _waves(count: int, like: Tensor) -> Tensor:
    """Eigenvalues of the second difference, for cosines."""
    return 2 - 2 * torch.cos(math.pi * torch.arange(count, dtype=torch.float64) / count).to(like)


def _back(x: Tensor, dim: int) -> Tensor:
    """The adjoint of the difference of neighbours."""
    edges = (0, 0, 1, 1) if dim == 2 else (1, 1)
    return -pad(x, edges).diff(dim=dim)


def _solved(x: Tensor, inverse: Tensor) -> Tensor:
    waves = _cosines(_cosines(x).mT) * inverse.T
    return _from_cosines(_from_cosines(waves).mT)


def _cosines(x: Tensor) -> Tensor:
    """The cosine transform along the last dimension, up to scale, by a Fourier transform of the same size."""
    count = x.shape[-1]
    folded = torch.cat([x[..., ::2], x[..., 1::2].flip(-1)], -1)
    return (torch.fft.fft(folded) * _turn(count, x)).real


def _from_cosines(waves: Tensor) -> Tensor:
    count = waves.shape[-1]
    turned = torch.complex(waves, -pad(waves[..., 1:].flip(-1), (1, 0)))
    folded = torch.fft.ifft(turned * _turn(count, waves).conj()).real
    x = torch.empty_like(folded)
    x[..., ::2] = folded[..., : (count + 1) // 2]
    x[..., 1::2] = folded[..., (count + 1) // 2 :].flip(-1)
    return x


def _turn(count: int, like: Tensor) -> Tensor:
    angle = -math.pi / (2 * count) * torch.arange(count, device=like.device, dtype=torch.float64)
    turn = torch.polar(torch.ones_like(angle), angle)
    return turn.to(torch.complex64 if like.dtype == torch.float32 else torch.complex128)
