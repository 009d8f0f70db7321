"""Images beside each other and below each other, each under its label, as one picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

BAR = 40  # pixels above an image, for its label
GAP = 8  # pixels between images


def grey(x: Tensor) -> numpy.ndarray:
    """An image of one channel, [..., H, W] in [0, 1], as 8 bits [H, W]."""
    pixels = (255 * x.reshape(x.shape[-2:]).clamp(0, 1)).round().to(torch.uint8)
    return numpy.asarray(pixels.numpy())


def strip(images: Sequence[numpy.ndarray], titles: Sequence[str], notes: Sequence[str]) -> Image.Image:
    """Images [H, W] of 8 bits and one size beside each other, each under its title and note."""
    height, width = images[0].shape
    sheet = Image.new("L", (len(images) * (width + GAP) - GAP, height + BAR), 255)
    font, small = ImageFont.load_default(15), ImageFont.load_default(12)
    for place, (image, title, note) in enumerate(zip(images, titles, notes, strict=True)):
        panel = Image.new("L", (width, height + BAR), 255)
        draw = ImageDraw.Draw(panel)
        draw.text((2, 3), title, fill=0, font=font)
        draw.text((2, 23), note, fill=96, font=small)
        panel.paste(Image.fromarray(image), (0, BAR))
        sheet.paste(panel, (place * (width + GAP), 0))
    return sheet


def stacked(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures below each other."""
    size = max(each.width for each in pictures), sum(each.height + GAP for each in pictures) - GAP
    sheet, top = Image.new("L", size, 255), 0
    for each in pictures:
        sheet.paste(each, (0, top))
        top += each.height + GAP
    return sheet
