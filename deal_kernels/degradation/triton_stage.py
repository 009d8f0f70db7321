"""What both passes of the Triton mixture do with the pixels of a block.

The order of operations is that of csrc/math/degradation.h, so that float32 bits agree. Operations are read from a table
while a kernel runs: one compiled kernel serves every list of them.
"""

import triton
import triton.language as tl

# Kinds. Patterns, stripes and noise are ADD, gains MULTIPLY, dead pixels REPLACE. Those up to POSTERIZE need a pixel
# alone. Those from CONTRAST on have something in scratch memory, in the backward pass those from SHARPNESS on.
SAME, TONE, ADD, MULTIPLY, REPLACE = (tl.constexpr(k) for k in range(5))
CLIP, QUANTISE, POSTERIZE, SATURATION, SHARPNESS = (tl.constexpr(k) for k in range(5, 10))
CONTRAST, BLUR, MAX_POOL, AVERAGE_POOL, BICUBIC = (tl.constexpr(k) for k in range(10, 15))

# Whole numbers of an operation. WHOLE is the reach of a blur, the factor of a resize, or whether posterize passes its
# gradient. TALL and SMALL are the height and width of the image at SCRATCH in scratch memory, or of the images where
# there is none. The values of all samples and stages begin at VALUES. Each has COUNT of them, and OF_CHANNEL, OF_ROW
# and OF_COLUMN are the strides in them.
KIND, WHOLE, TALL, SMALL, SCRATCH, VALUES, COUNT, OF_CHANNEL, OF_ROW, OF_COLUMN = (tl.constexpr(k) for k in range(10))
FIELDS = tl.constexpr(10)  # of an operation
TAPS = tl.constexpr(10)  # of the widest blur, from its centre

# The compiler is told nothing of any argument, so that it compiles a kernel once for a dtype.
ARGUMENTS = (
    "image", "images", "grad", "weights", "table", "numbers", "values", "sums", "scratch", "out", "dots", "stage",
    "stages", "operations", "channels", "height", "width", "programs", "weighed",
)  # fmt: skip


@triton.jit
def whole(table, j, FIELD: tl.constexpr):
    return tl.load(table + (j * FIELDS + FIELD)).to(tl.int32)


@triton.jit
def scratch_of(scratch, table, j, plane):
    """The image that an operation has in scratch memory, of a channel of a sample."""
    pixels = tl.load(table + (j * FIELDS + TALL)) * tl.load(table + (j * FIELDS + SMALL))
    return scratch + (tl.load(table + (j * FIELDS + SCRATCH)) + plane * pixels)


@triton.jit
def values_of(values, table, j, number):
    """The values that an operation has for a sample and stage."""
    return values + (tl.load(table + (j * FIELDS + VALUES)) + number * tl.load(table + (j * FIELDS + COUNT)))


@triton.jit
def pixels_of(block, height, width, BLOCK: tl.constexpr):
    """The channel of a block, the indices of its pixels, their rows and columns, and which of them exist."""
    of_plane = tl.cdiv(height * width, BLOCK)
    channel = block // of_plane
    n = (block - channel * of_plane) * BLOCK + tl.arange(0, BLOCK)
    y = n // width
    return channel, n, y, n - y * width, n < height * width


@triton.jit
def pixel(image, n, there):
    return tl.load(image + n, mask=there, other=0.0).to(tl.float32)


@triton.jit
def total_of(parts, programs, BLOCK: tl.constexpr):
    """The sum of what the programs of a sample have left."""
    total = tl.zeros([BLOCK], tl.float32)
    for first in range(0, programs, BLOCK):
        lane = first + tl.arange(0, BLOCK)
        total += tl.load(parts + lane, mask=lane < programs, other=0.0)
    return tl.sum(total, axis=0)


@triton.jit
def clamped(v):
    """NaN stays NaN."""
    return tl.where(v < 0.0, 0.0, tl.where(v > 1.0, 1.0, v))


@triton.jit
def passed(v, grad):
    """The gradient of clamped(v), given the gradient of its result."""
    return tl.where((v >= 0.0) & (v <= 1.0), grad, 0.0)


@triton.jit
def nearest(v):
    """The nearest integer of a value below 2^23, of two equally near ones the even one."""
    return (v + 8388608.0) - 8388608.0


@triton.jit
def quantised(v, levels):
    return tl.div_rn(nearest(clamped(v) * levels), tl.zeros_like(v) + levels)


@triton.jit
def posterized(v, step, inverse):
    level = clamped(v) * 255.0 * inverse
    down = nearest(level) - tl.where(nearest(level) > level, 1.0, 0.0)
    return tl.div_rn(down * step, tl.zeros_like(v) + 255.0)


@triton.jit
def gray_share(channel, channels):
    """The weight of a channel in the gray value."""
    of_three = tl.where(channel == 0, 0.2989, tl.where(channel == 1, 0.587, 0.114))
    return tl.where(channels == 1, 1.0, of_three).to(tl.float32)


@triton.jit
def gray(sample, pixels, n, channels, there):
    total = tl.zeros_like(n).to(tl.float32)
    for channel in range(channels):
        total += pixel(sample + channel * pixels, n, there) * gray_share(channel, channels)
    return total


@triton.jit
def sum_of_gray(sample, program, programs, channels, height, width, BLOCK: tl.constexpr):
    """Of the pixels that a program has."""
    pixels = tl.cast(height, tl.int64) * width
    total = tl.zeros([BLOCK], tl.float32)
    for block in range(program, tl.cdiv(height * width, BLOCK), programs):
        _, n, _, _, there = pixels_of(block, height, width, BLOCK)
        total += gray(sample, pixels, n, channels, there)
    return tl.sum(total, axis=0)


@triton.jit
def on_border(y, x, height, width):
    return (y == 0) | (x == 0) | (y == height - 1) | (x == width - 1)


@triton.jit
def three(image, n, y, height, width, there):
    total = pixel(image, n - width, there & (y > 0)) + pixel(image, n, there)
    return total + pixel(image, n + width, there & (y < height - 1))


@triton.jit
def smoothed(image, n, y, x, height, width, there):
    """The smooth image that sharpness blends with, at pixels that are not on the border. It is its own adjoint, at all
    pixels, if the gradients of border pixels are zero."""
    sides = three(image, n - 1, y, height, width, there & (x > 0))
    sides = sides + three(image, n + 1, y, height, width, there & (x < width - 1))
    return ((sides + three(image, n, y, height, width, there)) + pixel(image, n, there) * 4.0) * (1.0 / 13)


@triton.jit
def of_pixel(kind, v, first, second, values, table, j, number, channel, y, x, there):
    """The result of an operation up to POSTERIZE, and the value that it has for the pixel: a factor, if it has one."""
    result, given = v, tl.zeros_like(v)
    if kind == TONE:
        tone = values_of(values, table, j, number)
        given += tl.load(tone)
        result = v * given + tl.load(tone + 1)
    elif (kind >= ADD) & (kind <= REPLACE):
        at = values_of(values, table, j, number) + channel * tl.load(table + (j * FIELDS + OF_CHANNEL))
        at += y * whole(table, j, OF_ROW) + x * whole(table, j, OF_COLUMN)
        given = tl.load(at, mask=there, other=0.0)
        result = tl.where(kind == ADD, v + given, v * given)
        result = tl.where(kind == REPLACE, tl.where(given == given, given, v), result)
    elif kind == QUANTISE:
        result = quantised(v, first)
    elif kind == POSTERIZE:
        result = posterized(v, first, second)
    elif kind == CLIP:
        result = clamped(v)
    return result, given


@triton.jit
def flatter(kind, sample, channel, v, sums, n, y, x, channels, tall, small, programs, there, BLOCK: tl.constexpr):
    """What a blend mixes the image with. Of the sample is its image, and sums of its gray values."""
    flat, pixels = v, tl.cast(tall, tl.int64) * small
    if kind == SATURATION:
        flat = gray(sample, pixels, n, channels, there)
    elif kind == SHARPNESS:
        border = on_border(y, x, tall, small)
        flat = tl.where(border, v, smoothed(sample + channel * pixels, n, y, x, tall, small, there & ~border))
    else:
        flat = tl.zeros_like(v) + ratio(total_of(sums, programs, BLOCK), tall * small)
    return flat


@triton.jit
def two_away(image, n, place, count, stride, k, taps, there, ADJOINT: tl.constexpr):
    """The part of the two pixels at a distance k in a blurred one."""
    before, after = place - k, place + k
    if ADJOINT:
        one = pixel(image, n - k * stride, there & (before >= 0))
        other = pixel(image, n + k * stride, there & (after < count))
    else:
        after = tl.where(after >= count, 2 * (count - 1) - after, after)
        one = pixel(image, n + (tl.abs(before) - place) * stride, there)
        other = pixel(image, n + (after - place) * stride, there)
    return (one + other) * tl.load(taps + k)


@triton.jit
def blurred(image, n, place, count, stride, taps, reach, there, ADJOINT: tl.constexpr):
    """The blur along the axis on which pixel n has a place, or its adjoint without the reflections."""
    total = tl.zeros_like(n).to(tl.float32)
    odd = reach % 2
    if odd == 1:
        total = two_away(image, n, place, count, stride, reach, taps, there, ADJOINT)
    for i in range(reach // 2):
        k = reach - odd - 2 * i
        farther = two_away(image, n, place, count, stride, k, taps, there, ADJOINT)
        total += farther + two_away(image, n, place, count, stride, k - 1, taps, there, ADJOINT)
    return total + pixel(image, n, there) * tl.load(taps)


@triton.jit
def blur_adjoint(image, n, place, count, stride, taps, reach, there):
    total = blurred(image, n, place, count, stride, taps, reach, there, True)
    last = count - 1 - place
    for k in range(1, reach + 1):
        tap = tl.load(taps + k)
        total += pixel(image, n + (k - 2 * place) * stride, there & (place > 0) & (place <= k)) * tap
        total += pixel(image, n + (2 * last - k) * stride, there & (last > 0) & (last <= k)) * tap
    return total


@triton.jit
def ratio(one, other):
    return tl.div_rn(tl.cast(one, tl.float32), tl.cast(other, tl.float32))


@triton.jit
def source(at, scale):
    """The position in the source axis of pixel `at` of the resized axis."""
    return scale * (at.to(tl.float32) + 0.5) - 0.5


@triton.jit
def between(at, small, size):
    """The two small pixels that a pixel is interpolated from, and the share of the second."""
    place = tl.maximum(source(at, ratio(small, size)), 0.0)
    low = tl.minimum(place.to(tl.int32), small - 1)
    return low, tl.minimum(low + 1, small - 1), place - low.to(tl.float32)


@triton.jit
def cubic_weight(t, K: tl.constexpr):
    """The weight of the K-th of four pixels, where t is the distance to the second."""
    if K == 1 or K == 2:
        d = t if K == 1 else 1.0 - t
        return (1.25 * d - 2.25) * d * d + 1.0
    else:
        d = t + 1.0 if K == 0 else (1.0 - t) + 1.0
        return ((-0.75 * d + 3.75) * d - 6.0) * d + 3.0


@triton.jit
def within(at, count):
    return tl.minimum(tl.maximum(at, 0), count - 1)
