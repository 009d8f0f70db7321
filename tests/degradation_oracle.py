"""The degradation mixture image by image, from dense matrices and torch's autograd, in the precision of its input."""

import functools
import math

import torch
from torch.nn.functional import interpolate

RANDOM = (
    "gaussian_blur", "stripe", "row_stripe", "gain", "noise", "wide_blur", "row_gain", "tone", "dead", "glow",
    "shading", "partial_stripe",
)  # fmt: skip
EVERY = (
    "identity", "contrast_0.9", "contrast_0.5", "saturation_0.7", "saturation_0", "sharpness_0.3", "sharpness_1.8",
    "gaussian_blur", "gaussian_blur_1.3", "max_pool_resize_2", "max_pool_resize_4", "average_pool_resize_3",
    "bicubic_resize_2", "bicubic_resize_3", "posterize_5", "posterize_1", "posterize_8", "stripe", "row_stripe",
    "gain", "noise", "wide_blur", "row_gain", "tone", "dead", "glow", "shading", "partial_stripe", "quantise_8",
    "quantise_1", "clip",
)  # fmt: skip


@functools.cache
def blur_matrix(size, deviation, reach=4):
    taps = [math.exp(-((k / deviation) ** 2) / 2) for k in range(-reach, reach + 1)]
    rows = [[0.0] * size for _ in range(size)]
    for i in range(size):
        for k, tap in enumerate(taps):
            at = abs(i + k - reach)
            rows[i][at if at < size else 2 * size - 2 - at] += tap / sum(taps)
    return torch.tensor(rows, dtype=torch.float64)


def cubic(distance):
    d = abs(distance)
    if d <= 1:
        return 1.25 * d**3 - 2.25 * d**2 + 1
    return -0.75 * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0.0


@functools.cache
def resize_matrix(size, of, kind):
    """What `size` pixels take of `of` ones."""
    rows = [[0.0] * of for _ in range(size)]
    for i in range(size):
        place = (i + 0.5) * of / size - 0.5
        if kind == "bilinear":
            place = max(place, 0.0)
        low = math.floor(place)
        for at in range(low - 1, low + 3):
            weight = cubic(place - at) if kind == "bicubic" else max(0.0, 1 - abs(place - at))
            rows[i][min(max(at, 0), of - 1)] += weight
    return torch.tensor(rows, dtype=torch.float64)


def pooled(x, factor, kind):
    """[C, H, W] in blocks; of equal largest values only the first has a gradient."""
    height, width = x.shape[1] // factor, x.shape[2] // factor
    blocks = x[:, : height * factor, : width * factor].reshape(-1, height, factor, width, factor)
    blocks = blocks.transpose(2, 3).flatten(3)
    if kind == "average_pool":
        return blocks.mean(-1)
    nan = blocks.isnan()
    wanted = torch.where(nan.any(-1, keepdim=True), nan, blocks == blocks.amax(-1, keepdim=True))
    first = wanted & (wanted.cumsum(-1) == 1)
    return torch.where(first, blocks, 0).sum(-1)


def resized(x, kind, factor):
    small = x.shape[1] // factor, x.shape[2] // factor
    if kind == "bicubic":
        down, along = (resize_matrix(to, of, "bicubic").to(x) for to, of in zip(small, x.shape[1:], strict=True))
        found = down @ x @ along.T
    else:
        found = pooled(x, factor, kind)
    down, along = (resize_matrix(to, of, "bilinear").to(x) for to, of in zip(x.shape[1:], small, strict=True))
    return down @ found @ along.T


def coarse(x, factor):
    small = [-(-side // factor) for side in x.shape[1:]]
    down = interpolate(x[None], small, mode="bicubic", antialias=True)
    return interpolate(down, x.shape[1:], mode="bicubic", antialias=True)[0]


def gray(x):
    return (
        x
        if len(x) == 1
        else torch.einsum("c,chw->hw", torch.tensor([0.2989, 0.587, 0.114], dtype=torch.float64).to(x), x)[None]
    )


def sharpened(x, share):
    if min(x.shape[1:]) <= 2:
        return x
    smooth = x.clone()
    for i in range(1, x.shape[1] - 1):
        rows = x[:, i - 1 : i + 2].sum(1)
        smooth[:, i, 1:-1] = (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * x[:, i, 1:-1]) / 13
    return clipped(share * x + (1 - share) * smooth)


class Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.round(x)

    @staticmethod
    def backward(ctx, grad):
        return grad


def glowing(shape, value):
    """Pixel by pixel."""
    row, column, near, far = value.tolist()
    height, width = shape
    apart = [
        [math.hypot(i + 0.5 - row * height, k + 0.5 - column * width) for k in range(width)] for i in range(height)
    ]
    largest = max(max(line) for line in apart) or 1.0
    share = [[math.cos(p / largest * math.pi / 2) ** 4 for p in line] for line in apart]
    return torch.tensor([[near * n + far * (1 - n) for n in line] for line in share], dtype=torch.float64)


def cosines(size):
    return torch.tensor(
        [[math.cos(math.pi * u * (i + 0.5) / size) for i in range(size)] for u in range(4)], dtype=torch.float64
    )


def partly(height, value):
    """[H, W]"""
    at = [(i + 0.5) / height for i in range(height)]
    lines = [[offset if first <= place < end else 0.0 for offset, first, end in value.T.tolist()] for place in at]
    return torch.tensor(lines, dtype=torch.float64)


def pattern(name, shape, value):
    value = value.double()
    if name == "glow":
        return glowing(shape, value)
    if name == "shading":
        down, across = map(cosines, shape)
        return down.T @ value.cpu() @ across
    return partly(shape[0], value)


class Quantised(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, bits, straight_through):
        ctx.save_for_backward((x >= 0) & (x <= 1) & straight_through)
        mask = 256 - 2 ** (8 - bits)
        level = (x.clamp(0, 1) * 255).nan_to_num().long() & mask
        return torch.where(x.isnan(), x, level.to(x.dtype) / 255)

    @staticmethod
    def backward(ctx, grad):
        return torch.where(ctx.saved_tensors[0], grad, 0), None, None


def clipped(x):
    """With the gradient of the values that are not changed, 0 and 1 among them. torch's is 0 there from 2.14 on."""
    return torch.where(x < 0, 0, torch.where(x > 1, 1, x))


def operation(name, x, value=None, straight_through=False):
    """Of one image [C, H, W]."""
    kind, _, strength = name.rpartition("_")
    number = float(strength) if kind and strength.replace(".", "").isdigit() else None
    if name == "identity" or (kind == "saturation" and len(x) == 1):
        return x
    if kind == "contrast":
        return clipped(number * x + (1 - number) * gray(x).mean())
    if kind == "saturation":
        return clipped(number * x + (1 - number) * gray(x))
    if kind == "sharpness":
        return sharpened(x, number)
    if name == "gaussian_blur" or kind == "gaussian_blur":
        down, along = (blur_matrix(size, number or value.item()).to(x) for size in x.shape[1:])
        return down @ x @ along.T
    if name == "wide_blur":
        down, along = (blur_matrix(size, value.item(), 9).to(x) for size in x.shape[1:])
        return down @ x @ along.T
    if kind.endswith("_resize"):
        return resized(x, kind.removesuffix("_resize"), int(number))
    if kind == "coarse":
        return coarse(x, int(number))
    if kind == "posterize":
        return Quantised.apply(x, int(number), straight_through)
    if kind == "quantise":
        levels = 2 ** int(number) - 1
        return Rounded.apply(clipped(x) * levels) / levels
    if name == "clip":
        return clipped(x)
    if name == "tone":
        return x * value[0] + value[1]
    if name == "dead":
        return torch.where(value.isnan(), x, value)
    if name in ("glow", "shading", "partial_stripe"):
        return x + pattern(name, x.shape[1:], value).to(x)
    if name in ("gain", "row_gain"):
        return x * (value[:, None] if name == "row_gain" else value)
    return x + (value[:, None] if name == "row_stripe" else value)


def mixture(x, weights, ops, params=None, *, straight_through=False):
    results = []
    for b, image in enumerate(x):
        for i in range(weights.shape[1]):
            total = 0
            for j, name in enumerate(ops):
                value = params[name][b, i] if name in RANDOM else None
                total = total + weights[b, i, j] * operation(name, image, value, straight_through)
            image = total
        results.append(image)
    return torch.stack(results) if results else x.clone()


def values(name, batch, stages, channels, height, width, generator):
    """Of an operation that takes some: [B, S, ...] in float64."""
    image = channels, height, width
    shape = {
        "gaussian_blur": (), "wide_blur": (), "row_stripe": (height,), "row_gain": (height,), "noise": image,
        "dead": image, "tone": (2,), "glow": (4,), "shading": (4, 4), "partial_stripe": (3, width),
    }.get(name, (width,))  # fmt: skip
    shape = batch, stages, *shape
    uniform = lambda: torch.rand(shape, generator=generator, dtype=torch.float64)  # noqa: E731
    if name == "gaussian_blur":
        return 1 + uniform() / 2
    if name == "wide_blur":
        return 1 + 2 * uniform()
    if name == "dead":
        return torch.where(uniform() < 0.2, uniform(), torch.nan)
    if name == "glow":
        return uniform() * torch.tensor([1, 1, 0.3, 0.2], dtype=torch.float64)
    if name == "partial_stripe":
        offset, *span = uniform().unbind(2)
        first, end = torch.stack(span).sort(0).values
        return torch.stack([offset - 0.5, first, end], 2)
    if name == "tone":
        return uniform() + torch.tensor([0.3, -0.5], dtype=torch.float64)
    mean = 1 if name in ("gain", "row_gain") else 0
    return mean + 0.1 * torch.randn(shape, generator=generator, dtype=torch.float64)


def case(*shape, ops=EVERY, stages=2, seed=0, dtype=torch.float32, device="cpu"):
    """Images, some of whose pixels lie outside of [0, 1], weights whose sum is 1, and params."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(shape, generator=generator, dtype=torch.float64) * 1.2 - 0.1
    weights = torch.randn(shape[0], stages, len(ops), generator=generator, dtype=torch.float64).softmax(-1)
    params = {name: values(name, shape[0], stages, *shape[1:], generator) for name in ops if name in RANDOM}
    state = torch.float64 if dtype == torch.float64 else torch.float32
    params = {name: value.to(device, state) for name, value in params.items()}
    return x.to(device, dtype), weights.to(device, state), params


def output_gradient(result):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(result.shape, generator=generator, dtype=torch.float64).to(result)


def result_and_gradients(function, x, weights, ops, params, wanted=(True, True), **options):
    x, weights = (t.detach().requires_grad_(each) for t, each in zip((x, weights), wanted, strict=True))
    result = function(x, weights, ops, params, **options)
    leaves = [leaf for leaf in (x, weights) if leaf.requires_grad]
    return result.detach(), *(torch.autograd.grad(result, leaves, output_gradient(result)) if leaves else ())
