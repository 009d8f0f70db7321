"""Contact sheets: images in rows, each with a label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
from PIL import Image, ImageDraw, ImageFont

LABEL_HEIGHT = 40  # pixels above an image
GAP = 8  # pixels between images


def row(images: Sequence[numpy.ndarray], titles: Sequence[str], notes: Sequence[str]) -> Image.Image:
    """Images of one size, uint8 [H, W], side by side, each below its title and note."""
    height, width = images[0].shape
    sheet = Image.new("L", (len(images) * (width + GAP) - GAP, height + LABEL_HEIGHT), 255)
    font, small = ImageFont.load_default(15), ImageFont.load_default(12)
    for position, (image, title, note) in enumerate(zip(images, titles, notes, strict=True)):
        panel = Image.new("L", (width, height + LABEL_HEIGHT), 255)
        draw = ImageDraw.Draw(panel)
        draw.text((2, 3), title, fill=0, font=font)
        draw.text((2, 23), note, fill=96, font=small)
        panel.paste(Image.fromarray(image), (0, LABEL_HEIGHT))
        sheet.paste(panel, (position * (width + GAP), 0))
    return sheet


def stack(rows: Sequence[Image.Image]) -> Image.Image:
    """Rows below each other."""
    size = max(each.width for each in rows), sum(each.height + GAP for each in rows) - GAP
    sheet, top = Image.new("L", size, 255), 0
    for each in rows:
        sheet.paste(each, (0, top))
        top += each.height + GAP
    return sheet
