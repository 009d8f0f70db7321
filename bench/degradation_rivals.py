"""What a user would run instead of `mixture`: torch's operations one by one, for one image after the other as many
generators of degradations do, or for a whole batch at once; and torch.compile of both."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from lif_rivals import DEVICE
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, max_pool2d, pad

from deal_kernels.degradation import DEAL_OPS, sample_params

SHARE, CONTRAST, BITS, FACTOR = 0.7, 0.5, 5, 4  # those of DEAL


class Case(NamedTuple):
    batch: int
    channels: int
    height: int
    width: int
    stages: int = 5
    dtype: torch.dtype = torch.float32
    compiled: bool = False  # torch.compile takes part; it needs minutes

    def images(self) -> Tensor:
        shape = self.batch, self.channels, self.height, self.width
        return torch.rand(shape, generator=torch.Generator(DEVICE).manual_seed(0), device=DEVICE).to(self.dtype)

    def weights(self) -> Tensor:
        generator = torch.Generator(DEVICE).manual_seed(1)
        shape = self.batch, self.stages, len(DEAL_OPS)
        return torch.randn(shape, generator=generator, device=DEVICE).softmax(-1)

    def params(self) -> dict[str, Tensor]:
        return sample_params(DEAL_OPS, self.images(), self.stages, generator=torch.Generator(DEVICE).manual_seed(2))

    def __str__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        shape = "x".join(map(str, (self.batch, self.channels, self.height, self.width)))
        return f"{shape} {dtype}, {self.stages} stages"


def blend(x: Tensor, other: Tensor, share: float) -> Tensor:
    return (share * x + (1 - share) * other).clamp(0, 1)


def gray(x: Tensor) -> Tensor:
    if x.shape[1] == 1:
        return x
    red, green, blue = x.unbind(1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue)[:, None]


def sharpness(x: Tensor) -> Tensor:
    kernel = torch.ones(3, 3, dtype=x.dtype, device=x.device)
    kernel[1, 1] = 5
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, 3, 3)
    smooth = x.clone()
    smooth[..., 1:-1, 1:-1] = conv2d(x, kernel, groups=x.shape[1])
    return blend(x, smooth, SHARE)


def saturation(x: Tensor) -> Tensor:
    return x if x.shape[1] == 1 else blend(x, gray(x), SHARE)


def contrast(x: Tensor) -> Tensor:
    return blend(x, gray(x).mean((1, 2, 3), keepdim=True), CONTRAST)


def posterize(x: Tensor) -> Tensor:
    levels = (x.detach().clamp(0, 1) * 255).to(torch.uint8)
    return (levels & (256 - 2 ** (8 - BITS))).to(x.dtype) / 255


def gaussian_blur(x: Tensor, deviation: Tensor) -> Tensor:
    """With one window of 9 x 9 for each sample."""
    offsets = torch.arange(-4.0, 5.0, device=x.device)
    taps = torch.exp(-0.5 * (offsets / deviation[:, None]) ** 2)
    taps = taps / taps.sum(1, keepdim=True)
    batch, channels, *size = x.shape
    windows = (taps[:, :, None] * taps[:, None, :]).to(x.dtype).repeat_interleave(channels, 0)
    padded = pad(x, (4, 4, 4, 4), mode="reflect").reshape(1, batch * channels, size[0] + 8, size[1] + 8)
    return conv2d(padded, windows[:, None], groups=batch * channels).reshape(x.shape)


def max_pool_resize(x: Tensor) -> Tensor:
    return interpolate(max_pool2d(x, FACTOR), size=x.shape[2:], mode="bilinear")


def stage(x: Tensor, weights: Tensor, deviation: Tensor, columns: Tensor) -> Tensor:
    """Of [B, C, H, W] with weights [B, N], a deviation for each sample and columns [B, W]."""
    results = (
        sharpness(x), saturation(x), contrast(x), posterize(x), gaussian_blur(x, deviation), max_pool_resize(x),
        x + columns[:, None, None, :],
    )  # fmt: skip
    return sum(weights[:, j, None, None, None] * result for j, result in enumerate(results))


def batched(x: Tensor, weights: Tensor, deviations: Tensor, columns: Tensor) -> Tensor:
    for i in range(weights.shape[1]):
        x = stage(x, weights[:, i].to(x.dtype), deviations[:, i], columns[:, i].to(x.dtype))
    return x


def image_by_image(x: Tensor, weights: Tensor, deviations: Tensor, columns: Tensor) -> Tensor:
    return torch.cat(
        [batched(*each) for each in zip(*(t.split(1) for t in (x, weights, deviations, columns)), strict=True)]
    )


Rival = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def rivals(compiled: bool) -> dict[str, Rival]:
    made: dict[str, Rival] = {"loop": image_by_image, "batched": batched}
    if compiled:
        torch._dynamo.reset()
        made |= {"compile batched": torch.compile(batched, dynamic=False)}
        one = torch.compile(batched, dynamic=False)
        made |= {
            "compile loop": lambda *tensors: torch.cat(
                [one(*each) for each in zip(*(t.split(1) for t in tensors), strict=True)]
            )
        }
    return made
