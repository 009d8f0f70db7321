"""Random images, and stripes on images, the same each time."""

import torch


def drawn(*shape, seed=0, dtype=torch.float32):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def striped(x, kind, strength):
    columns = strength * torch.randn(len(x), 1, 1, x.shape[3], generator=torch.Generator().manual_seed(7))
    return x + columns if kind == "stripe" else x * (1 + columns)
