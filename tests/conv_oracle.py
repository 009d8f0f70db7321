"""Convolution as a product of the spectra of whole images, and torch's autograd, in the precision of the images."""

import torch


def indices(size, before, after, mode):
    """Where in the image each pixel of the padded image lies, and whether it is there at all."""
    index = torch.arange(-before, size + after)
    inside = (index >= 0) & (index < size)
    if mode == "reflect":
        index = index.abs()
        index = torch.where(index >= size, 2 * (size - 1) - index, index)
    return index.clamp(0, max(size - 1, 0)), inside if mode == "zeros" else torch.ones_like(inside)


def padded(x, padding, mode):
    above, below, left, right = padding
    rows, there = indices(x.shape[-2], above, below, mode)
    columns, here = indices(x.shape[-1], left, right, mode)
    image = x[..., rows, :][..., columns]
    return torch.where(there[:, None] & here, image, 0)


def four(padding, kernel, dilation):
    if padding == "valid":
        return 0, 0, 0, 0
    if padding == "same":
        total = [(size - 1) * each for size, each in zip(kernel, dilation, strict=True)]
        return total[0] // 2, total[0] - total[0] // 2, total[1] // 2, total[1] - total[1] // 2
    down, across = padding if isinstance(padding, tuple) else (padding, padding)
    return down, down, across, across


def conv2d(
    x, weight, bias=None, residual=None, *, padding=0, padding_mode="zeros", dilation=1, activation=None, backend=None
):
    """Of [B, C, H, W] or [C, H, W]."""
    down, across = dilation if isinstance(dilation, tuple) else (dilation, dilation)
    kernel = weight.shape[2:]
    image = padded(x, four(padding, kernel, (down, across)), padding_mode)
    size = image.shape[-2:]
    spread = weight.new_zeros(*weight.shape[:2], *size)
    spread[:, :, : (kernel[0] - 1) * down + 1 : down, : (kernel[1] - 1) * across + 1 : across] = weight
    spectrum = torch.einsum("ochw,...chw->...ohw", torch.fft.rfft2(spread).conj(), torch.fft.rfft2(image))
    around = torch.fft.irfft2(spectrum, size)
    y = around[..., : size[0] - (kernel[0] - 1) * down, : size[1] - (kernel[1] - 1) * across]
    if bias is not None:
        y = y + bias[:, None, None]
    if residual is not None:
        y = y + residual
    return torch.relu(y) if activation else y


def tensors(x_shape, weight_shape, *, seed=0, dtype=torch.float32, device="cpu", **geometry):
    """x, weight, bias and a residual, drawn at random."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape, scale=1.0):
        return torch.randn(shape, generator=generator, dtype=torch.float64).mul(scale).to(device, dtype)

    x = draw(*x_shape)
    weight = draw(*weight_shape, scale=(weight_shape[1] * weight_shape[2] * weight_shape[3]) ** -0.5)
    result = conv2d(x.cpu().double(), weight.cpu().double(), **geometry)
    return x, weight, draw(weight_shape[0]), draw(*result.shape)


def gradients(y, leaves, seed=1):
    generator = torch.Generator().manual_seed(seed)
    grad = torch.randn(y.shape, generator=generator, dtype=torch.float64)
    return torch.autograd.grad(y, leaves, grad.to(y))


def distance(one, other):
    """The norm of the difference, relative to that of the expected."""
    return (one.detach().cpu().double() - other.detach().cpu()).norm().item() / max(other.detach().norm().item(), 1e-30)
