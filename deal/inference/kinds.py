"""Images in the kinds that Python programs have, as frames, and results in the same kind."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy
import torch
from PIL import Image
from torch import Tensor

from deal.io import formats
from deal.io.images import Frame, Location, UnusableImage, Window, read_frames, to_frame
from deal.io.reference import Reference

AnyImage = Location | numpy.ndarray | Image.Image | Tensor | Frame
Pack = Callable[[Sequence[numpy.ndarray]], Any]  # makes one result of those of the frames


class Unpacked(NamedTuple):
    """The frames of an image or a stack of images."""

    frames: list[Frame]
    image: Pack  # enhanced pixels in the kind and dtype of the input
    arrays: Pack  # other arrays of the frames, as tensors if the input is one
    numbers: Callable[[Sequence[float]], Any]  # one number of each frame, to be broadcast with the arrays


def unpack(image: AnyImage, window: Window = "auto", reference: Reference | None = None) -> Unpacked:
    """The frames of a path, an array, a PIL image, a tensor or a `Frame`. See `Enhancer.__call__`."""
    if isinstance(image, Tensor):
        return _of_tensor(image, window, reference)
    if isinstance(image, Frame):
        return Unpacked([image], _only, _only, _only)
    if isinstance(image, (str, os.PathLike)):
        return _pages(list(read_frames(image, window, reference=reference)))
    if isinstance(image, Image.Image):
        return Unpacked(
            [to_frame(image, window, reference=reference)], lambda found: _like(image, found[0]), _only, _only
        )
    if not isinstance(image, numpy.ndarray) or not image.size or not formats.is_stack(image.shape):
        return Unpacked([to_frame(image, window, reference=reference)], _only, _only, _only)
    return _stack([to_frame(each, window, reference=reference) for each in image])


def _pages(frames: list[Frame]) -> Unpacked:
    if len(frames) == 1:
        return Unpacked(frames, _only, _only, _only)
    sizes = {frame.pixels.shape for frame in frames}
    if len(sizes) > 1 or len({frame.pixels.dtype for frame in frames}) > 1:
        raise UnusableImage(f"{frames[0].name} has pages of different sizes or types: read them by `read_frames`")
    return _stack(frames)


def _stack(frames: list[Frame]) -> Unpacked:
    ones = (1,) * frames[0].pixels.ndim
    return Unpacked(frames, numpy.stack, numpy.stack, lambda found: numpy.array(found).reshape(-1, *ones))


def _only(found: Sequence[Any]) -> Any:
    return found[0]


def _like(image: Image.Image, pixels: numpy.ndarray) -> Image.Image:
    """Pixels as a PIL image with the notes of another one, such as its EXIF and resolution."""
    result = Image.fromarray(pixels)
    result.info = {name: value for name, value in image.info.items() if name != "transparency"}
    return result


def _of_tensor(image: Tensor, window: Window, reference: Reference | None) -> Unpacked:
    shape = image.shape
    if len(shape) not in (2, 3, 4) or (len(shape) > 2 and shape[-3] not in (1, 3)) or not image.numel():
        raise ValueError(
            "a tensor must be [H, W], [C, H, W] or [B, C, H, W] with 1 or 3 channels and at least one pixel; got the "
            f"shape {tuple(shape)}"
        )
    values = image.detach().cpu()
    if values.dtype == torch.bfloat16:
        values = values.float()
    picture = values.is_floating_point() and isinstance(window, str)
    if picture and not ((values >= 0) & (values <= 1)).all():
        raise ValueError(
            f"a tensor of floating point must have values from 0 to 1; got {values.min():g} to {values.max():g}: for "
            "other values, give a window of two numbers"
        )
    batch = values.reshape(-1, *((1,) * (3 - len(shape))), *shape[-3:])  # [B, C, H, W]
    layouts = [each[0] if len(each) == 1 else each.permute(1, 2, 0) for each in batch]
    frames = [
        to_frame(each.numpy(), (0.0, 1.0) if picture else window, reference=reference)._replace(picture=picture or None)
        for each in layouts
    ]

    def tensor(found: Sequence[numpy.ndarray]) -> Tensor:
        stacked = torch.stack([torch.from_numpy(each) for each in found])  # [B, ...]
        if stacked.dim() == 4 and stacked.shape[-1] == 3:
            stacked = stacked.permute(0, 3, 1, 2)
        return stacked.reshape(*shape[:-2], *stacked.shape[-2:]).to(image.device)

    def enhanced(found: Sequence[numpy.ndarray]) -> Tensor:
        result = tensor(found).to(image.dtype)
        return result.clamp(0, 1) if picture else result

    def numbers(found: Sequence[float]) -> Any:
        return found[0] if len(shape) < 4 else torch.tensor(found, device=image.device).reshape(-1, 1, 1, 1)

    return Unpacked(frames, enhanced, tensor, numbers)
