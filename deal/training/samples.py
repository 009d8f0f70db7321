"""A picture of validation images: degraded, restored and clean side by side, with their PSNR."""

from __future__ import annotations

import numpy
from PIL import Image
from torch import Tensor

from deal.io import contact_sheet
from deal.io.images import centre_crop, to_uint8

ROWS = 4  # images
LEAST, MOST = 160, 384  # sides in pixels: smaller images are enlarged, larger ones cropped


def clamped_psnr(y: Tensor, clean: Tensor) -> Tensor:
    """The PSNR of each image in dB, [B], for a peak of 1, after a clamp of y to [0, 1].

    >>> clamped_psnr(torch.tensor([0.1, -3.0]).expand(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))
    tensor([23.0103])
    """
    error = (y.clamp(0, 1) - clean).square().mean((1, 2, 3))
    return -10 * error.log10()


def sheet(degraded: Tensor, restored: Tensor, clean: Tensor, step: int) -> Image.Image:
    """The first images of a batch, one per row.

    Args:
        degraded, restored, clean: [B, C, H, W] in [0, 1], of 1 or 3 channels.
        step: the training step, for the label.

    >>> sheet(*torch.rand(3, 2, 1, 200, 240), step=7).size
    (736, 488)
    """
    shown = [images[:ROWS].float().cpu() for images in (degraded, restored, clean)]
    notes = [[f"{each:.2f} dB" for each in clamped_psnr(images, shown[2]).tolist()] for images in shown[:2]]
    notes.append([f"step {step}"] * len(shown[2]))
    rows = zip(*shown, strict=True), zip(*notes, strict=True)
    return contact_sheet.stack(
        [
            contact_sheet.row([_pixels(image) for image in images], ["degraded", "restored", "clean"], texts)
            for images, texts in zip(*rows, strict=True)
        ]
    )


def _pixels(image: Tensor) -> numpy.ndarray:
    height, width = (min(side, MOST) for side in image.shape[-2:])
    factor = -(-LEAST // width)
    return to_uint8(centre_crop(image, height, width)).repeat(factor, 0).repeat(factor, 1)
