"""`ssim`, `ssim_map` and `l1_ssim`: check, dispatch, return."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from deal_kernels._common.checks import check_tensor, number, one_of, positive
from deal_kernels.ssim import op
from deal_kernels.ssim.reference import WINDOW, Settings

Padding = Literal["zeros", "valid"]


def ssim(
    a: Tensor, b: Tensor, *, data_range: float = 1.0, padding: Padding = "zeros", backend: str | None = None
) -> Tensor:
    """The mean structural similarity of two batches of images, over all pixels, channels and samples.

    Args:
        a, b: [B, C, H, W] or [C, H, W], of one shape, device and dtype: float32, float16, bfloat16 or float64. Half
            types are computed in float32. Images that are not contiguous (channels-last too) are copied once.
        data_range: the largest value that a pixel may have minus the smallest.
        padding: "zeros" pads the images with zeros, so that every pixel has a window; "valid" takes only windows that
            lie within the image, and needs images of 11 x 11 pixels or more.
        backend: "cpp", "cuda", "triton" or "torch" runs that one or raises. None or "auto" chooses.

    Returns:
        A scalar: float64 for float64 images, else float32. NaN for an empty batch.

    >>> a = torch.rand(2, 3, 64, 48, requires_grad=True)  # [B, C, H, W]
    >>> ssim(a, a.detach() / 2).backward()
    >>> a.grad.shape
    torch.Size([2, 3, 64, 48])
    """
    return op.loss(a, b, _settings(a, b, data_range, padding, backend))


def ssim_map(
    a: Tensor, b: Tensor, *, data_range: float = 1.0, padding: Padding = "zeros", backend: str | None = None
) -> Tensor:
    """The structural similarity at every pixel. The arguments are those of `ssim`.

    Returns:
        A contiguous tensor like a; with padding "valid" [B, C, H - 10, W - 10].

    >>> a, b = torch.rand(2, 1, 3, 64, 48)
    >>> ssim_map(a, b, padding="valid").shape
    torch.Size([1, 3, 54, 38])
    """
    return op.similarity(a, b, _settings(a, b, data_range, padding, backend))


def l1_ssim(
    y_hat: Tensor, y: Tensor, alpha: float = 0.75, beta: float = 1.1, *, data_range: float = 1.0,
    padding: Padding = "zeros", backend: str | None = None,
) -> Tensor:  # fmt: skip
    """The loss alpha * mean(|y_hat - y|) + beta * (1 - ssim(y_hat, y)), in one pass over the images.

    Args:
        y_hat, y, data_range, padding, backend: as in `ssim`. The absolute error is always averaged over all pixels.
        alpha, beta: weights of the two terms.

    Returns:
        A scalar as from `ssim`.

    >>> y = torch.rand(2, 3, 64, 48)  # [B, C, H, W]
    >>> l1_ssim(y + 0.5, y, beta=0)
    tensor(0.3750)
    """
    plain = _settings(y_hat, y, data_range, padding, backend, names=("y_hat", "y"))
    alpha, beta = number("alpha", alpha), number("beta", beta)
    return op.loss(y_hat, y, plain._replace(offset=beta, structure=-beta, pixel=alpha))


def _settings(
    a: Tensor, b: Tensor, data_range: float, padding: str, backend: str | None, names: tuple[str, str] = ("a", "b")
) -> Settings:
    """The settings, after checking them and the images."""
    for name, image in zip(names, (a, b), strict=True):
        check_tensor(name, image)
    first, second = names
    if a.dim() not in (3, 4):
        raise ValueError(f"{first} must be [B, C, H, W] or [C, H, W]; got the shape {tuple(a.shape)}")
    pairs = {"shape": (tuple(a.shape), tuple(b.shape)), "dtype": (a.dtype, b.dtype), "device": (a.device, b.device)}
    for what, (one, other) in pairs.items():
        if one != other:
            raise ValueError(f"{second} must have the {what} of {first}, {one}; got {other}")
    data_range = positive("data_range", data_range)
    one_of("padding", padding, ("zeros", "valid"))
    height, width = a.shape[-2:]
    if padding == "valid" and (height < WINDOW or width < WINDOW):
        raise ValueError(f"padding='valid' needs images of {WINDOW} x {WINDOW} pixels or more; got {height} x {width}")
    return Settings(data_range, padding == "valid", backend=backend)
