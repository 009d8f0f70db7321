"""Contact sheets: images in rows, each with a label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
from PIL import Image, ImageDraw, ImageFont

LABEL_HEIGHT = 40  # pixels above an image
GAP = 8  # pixels between images


def row(images: Sequence[numpy.ndarray], titles: Sequence[str], notes: Sequence[str]) -> Image.Image:
    """Images of one size, uint8 [H, W] or [H, W, 3], side by side, each below its title and note."""
    height, width = images[0].shape[:2]
    mode = Image.fromarray(images[0]).mode
    sheet = Image.new(mode, (len(images) * (width + GAP) - GAP, height + LABEL_HEIGHT), "white")
    font, small = ImageFont.load_default(15), ImageFont.load_default(12)
    for position, (image, title, note) in enumerate(zip(images, titles, notes, strict=True)):
        panel = Image.new(mode, (width, height + LABEL_HEIGHT), "white")
        draw = ImageDraw.Draw(panel)
        draw.text((2, 3), title, fill="black", font=font)
        draw.text((2, 23), note, fill="#606060", font=small)
        panel.paste(Image.fromarray(image), (0, LABEL_HEIGHT))
        sheet.paste(panel, (position * (width + GAP), 0))
    return sheet


def stack(rows: Sequence[Image.Image]) -> Image.Image:
    """Rows below each other."""
    size = max(each.width for each in rows), sum(each.height + GAP for each in rows) - GAP
    sheet, top = Image.new(rows[0].mode, size, "white"), 0
    for each in rows:
        sheet.paste(each, (0, top))
        top += each.height + GAP
    return sheet
