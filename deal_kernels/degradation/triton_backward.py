"""The kernels of a stage of the Triton mixture's backward pass.

The first one, look_back, leaves in scratch memory what gathers over the gradients of other pixels: the adjoints of the
vertical half of blurs and of the enlargement of resizes, and the gradients of the flatter images that contrast and
sharpness blend with. The second one, mix_back, adds the adjoints of all operations up in registers. Every pixel gathers
its gradient, so that sums have a fixed order.
"""

import triton
import triton.language as tl

from deal_kernels.degradation.triton_stage import (
    ARGUMENTS,
    BICUBIC,
    BLUR,
    CLIP,
    CONTRAST,
    FIELDS,
    KIND,
    MAX_POOL,
    MULTIPLY,
    POSTERIZE,
    REPLACE,
    SATURATION,
    SCRATCH,
    SHARPNESS,
    SMALL,
    TALL,
    TONE,
    WHOLE,
    blur_adjoint,
    clamped,
    cubic_weight,
    flatter,
    gray_share,
    of_pixel,
    on_border,
    passed,
    pixel,
    pixels_of,
    ratio,
    scratch_of,
    smoothed,
    source,
    sum_of_gray,
    total_of,
    values_of,
    whole,
    within,
)


@triton.jit(do_not_specialize=ARGUMENTS)
def gray_kernel(images, sums, channels, height, width, programs, BLOCK: tl.constexpr):
    sample = (tl.program_id(0) // programs).to(tl.int64) * channels * height * width
    total = sum_of_gray(images + sample, tl.program_id(0) % programs, programs, channels, height, width, BLOCK)
    tl.store(sums + tl.program_id(0), total)


@triton.jit
def share_in(at, small_at, small, scale):
    """The weight of a small pixel in a pixel of the enlarged axis."""
    place = tl.minimum(tl.maximum(source(at, scale), 0.0), tl.cast(small - 1, tl.float32))
    return tl.maximum(1.0 - tl.abs(place - small_at), 0.0)


@triton.jit
def small_gradient(grad, row, column, tall, small, height, width, there):
    """The gradient of small pixels, from all pixels that are interpolated from them."""
    spacing_down, spacing, scale_down, scale = (
        ratio(height, tall), ratio(width, small), ratio(tall, height), ratio(small, width),
    )  # fmt: skip
    top, left = source(row - 1, spacing_down).to(tl.int32), source(column - 1, spacing).to(tl.int32)
    total = tl.zeros_like(row).to(tl.float32)
    for k in range((2.0 * spacing).to(tl.int32) + 2):
        x = left + k
        across = share_in(x, column, small, scale)
        inside = there & (x >= 0) & (x < width) & (across != 0.0)
        part = tl.zeros_like(total)
        for i in range((2.0 * spacing_down).to(tl.int32) + 2):
            y = top + i
            down = share_in(y, row, tall, scale_down)
            part += pixel(grad, y * width + x, inside & (y >= 0) & (y < height) & (down != 0.0)) * down
        total += part * across
    return total


@triton.jit
def place_of_largest(image, n, width, factor, there):
    """The position of the maximum in the windows that begin at pixels n: of equal values the first, or the last NaN."""
    best, place = pixel(image, n, there), tl.zeros_like(n)
    for y in range(factor):
        for x in range(factor):
            v = pixel(image, n + (y * width + x), there)
            better = (v > best) | (v != v)
            best, place = tl.where(better, v, best), tl.where(better, y * factor + x, place)
    return place


@triton.jit
def sum_passed(image, grad, first, flat, program, programs, channels, height, width, BLOCK: tl.constexpr):
    """The gradient of a flatter image that is the same at all pixels, from those that a program has."""
    pixels, total = tl.cast(height, tl.int64) * width, tl.zeros([BLOCK], tl.float32)
    for block in range(program, channels * tl.cdiv(height * width, BLOCK), programs):
        channel, n, _, _, there = pixels_of(block, height, width, BLOCK)
        v, g = pixel(image + channel * pixels, n, there), pixel(grad + channel * pixels, n, there)
        total += passed(v * first + flat, g)
    return tl.sum(total, axis=0)


@triton.jit(do_not_specialize=ARGUMENTS)
def look_back_kernel(
    image, grad, weights, table, numbers, values, sums, scratch, stage, stages, operations, channels, height, width,
    programs, weighed, BLOCK: tl.constexpr,
):  # fmt: skip
    samples = tl.num_programs(0) // programs
    sample, program = tl.program_id(0) // programs, tl.program_id(0) % programs
    sample = sample.to(tl.int64)
    number, pixels = sample * stages + stage, tl.cast(height, tl.int64) * width
    image += sample * channels * pixels
    grad += sample * channels * pixels
    for j in range(operations):
        kind = whole(table, j, KIND)
        needed = (weighed != 0) | (tl.load(weights + (number * operations + j)) != 0.0)
        if (kind >= SHARPNESS) & needed:
            factor, tall, small = whole(table, j, WHOLE), whole(table, j, TALL), whole(table, j, SMALL)
            first, second = tl.load(numbers + 2 * j), tl.load(numbers + (2 * j + 1))
            if kind == CONTRAST:
                parts = sums + (stage * samples + sample) * programs
                flat = ratio(total_of(parts, programs, BLOCK), height * width) * second
                total = sum_passed(image, grad, first, flat, program, programs, channels, height, width, BLOCK)
                tl.store(scratch + (tl.load(table + (j * FIELDS + SCRATCH)) + tl.program_id(0)), total)
            else:
                for block in range(program, channels * tl.cdiv(tall * small, BLOCK), programs):
                    channel, n, row, column, there = pixels_of(block, tall, small, BLOCK)
                    plane = sample * channels + channel
                    read, given = image + channel * pixels, grad + channel * pixels
                    if kind == SHARPNESS:
                        inside = there & ~on_border(row, column, height, width)
                        blend = pixel(read, n, there) * first
                        blend = blend + smoothed(read, n, row, column, height, width, inside) * second
                        result = tl.where(inside, passed(blend, pixel(given, n, there)), 0.0)
                    elif kind == BLUR:
                        taps = values_of(values, table, j, number)
                        result = blur_adjoint(given, n, row, height, width, taps, factor, there)
                    else:
                        result = small_gradient(given, row, column, tall, small, height, width, there)
                        if kind == MAX_POOL:
                            place = place_of_largest(read, (row * width + column) * factor, width, factor, there)
                            places = scratch_of(scratch, table, j, plane + samples * channels)
                            tl.store(places + n, place.to(tl.float32, bitcast=True), mask=there)
                    tl.store(scratch_of(scratch, table, j, plane) + n, result, mask=there)


@triton.jit
def weight_in(small_at, at, small, size):
    """The weight of a pixel in a small pixel of a bicubic resize."""
    place = source(small_at, ratio(size, small))
    low = place.to(tl.int32)
    t, total = place - low.to(tl.float32), tl.zeros_like(place)
    for k in tl.static_range(4):
        total += tl.where(within(low + (k - 1), size) == at, cubic_weight(t, k), 0.0)
    return tl.where((small_at >= 0) & (small_at < small), total, 0.0)


@triton.jit
def first_reader(at, small, size):
    """The first of four neighbouring small pixels that include all that depend on a pixel."""
    place = (at.to(tl.float32) - 2.5) * ratio(small, size) - 0.5
    return tl.where(place.to(tl.int32) > place, place.to(tl.int32) - 1, place.to(tl.int32))


@triton.jit
def bicubic_adjoint(held, y, x, tall, small, height, width, there):
    top, left = first_reader(y, tall, height), first_reader(x, small, width)
    one, two = weight_in(top, y, tall, height), weight_in(top + 1, y, tall, height)
    three, four = weight_in(top + 2, y, tall, height), weight_in(top + 3, y, tall, height)
    total = tl.zeros_like(one)
    for k in range(4):
        across, at = weight_in(left + k, x, small, width), top * small + left + k
        reads = there & (across != 0.0)
        part = pixel(held, at, reads & (one != 0.0)) * one
        part += pixel(held, at + small, reads & (two != 0.0)) * two
        part += pixel(held, at + 2 * small, reads & (three != 0.0)) * three
        part += pixel(held, at + 3 * small, reads & (four != 0.0)) * four
        total += part * across
    return total


@triton.jit
def resize_adjoint(kind, held, places, y, x, factor, tall, small, height, width, there):
    result = tl.zeros_like(y).to(tl.float32)
    if kind == BICUBIC:
        result = bicubic_adjoint(held, y, x, tall, small, height, width, there)
    else:
        row, column = y // factor, x // factor
        at, within_windows = row * small + column, there & (row < tall) & (column < small)
        result = pixel(held, at, within_windows)
        if kind == MAX_POOL:
            place = tl.load(places + at, mask=within_windows, other=0.0).to(tl.int32, bitcast=True)
            result = tl.where(place == (y - row * factor) * factor + x - column * factor, result, 0.0)
        else:
            result = result * ratio(1, factor * factor)
    return result


@triton.jit
def pixel_adjoint(kind, v, g, given, straight_through):
    """The gradient through an operation up to POSTERIZE, with the value that it has for the pixel."""
    part = g
    if (kind == TONE) | (kind == MULTIPLY):
        part = g * given
    elif kind == REPLACE:
        part = tl.where(given == given, 0.0, g)
    elif kind >= CLIP:
        part = tl.where((kind == POSTERIZE) & (straight_through == 0), 0.0, passed(v, g))
    return part


@triton.jit
def flat_adjoint(
    kind, image, grad, held, sums, flat, through, first, second, n, y, x, channel, channels, tall, small, programs,
    there, BLOCK: tl.constexpr,
):  # fmt: skip
    """The gradient through what a blend mixes the image with, where `through` is that of the blend. held is the image
    of look_back, and sums what its programs have left."""
    part = through
    if kind == SATURATION:
        part, pixels = tl.zeros_like(through), tl.cast(tall, tl.int64) * small
        for c in range(channels):
            blend = pixel(image + c * pixels, n, there) * first + flat * second
            part += passed(blend, pixel(grad + c * pixels, n, there))
        part = part * gray_share(channel, channels)
    elif kind == SHARPNESS:
        part = tl.where(on_border(y, x, tall, small), through, 0.0) + smoothed(held, n, y, x, tall, small, there)
    else:
        mean = ratio(total_of(sums, programs, BLOCK), tall * small)
        part = tl.zeros_like(through) + mean * gray_share(channel, channels)
    return part * second


@triton.jit(do_not_specialize=ARGUMENTS)
def mix_back_kernel(
    image, grad, weights, table, numbers, values, sums, scratch, out, dots, stage, stages, operations, channels, height,
    width, programs, weighed, BLOCK: tl.constexpr,
):  # fmt: skip
    samples = tl.num_programs(0) // programs
    sample, program = tl.program_id(0) // programs, tl.program_id(0) % programs
    sample = sample.to(tl.int64)
    number, pixels = sample * stages + stage, tl.cast(height, tl.int64) * width
    image += sample * channels * pixels
    grad += sample * channels * pixels
    blocks = channels * tl.cdiv(height * width, BLOCK)
    for block in range(program, blocks, programs):
        channel, n, y, x, there = pixels_of(block, height, width, BLOCK)
        plane = sample * channels + channel
        v, g = pixel(image + channel * pixels, n, there), pixel(grad + channel * pixels, n, there)
        total = tl.zeros_like(v)
        for j in range(operations):
            weight = tl.load(weights + (number * operations + j))
            if (weighed != 0) | (weight != 0.0):
                kind, tall, small = whole(table, j, KIND), whole(table, j, TALL), whole(table, j, SMALL)
                part, product = g, g
                first, second = tl.load(numbers + 2 * j), tl.load(numbers + (2 * j + 1))
                if kind <= POSTERIZE:
                    result, given = of_pixel(kind, v, first, second, values, table, j, number, channel, y, x, there)
                    product, part = g * result, pixel_adjoint(kind, v, g, given, whole(table, j, WHOLE))
                elif kind <= CONTRAST:
                    parts = sums + (stage * samples + sample) * programs
                    flat = flatter(
                        kind, image, channel, v, parts, n, y, x, channels, tall, small, programs, there, BLOCK
                    )  # fmt: skip
                    blend = v * first + flat * second
                    through, held = passed(blend, g), scratch_of(scratch, table, j, plane)
                    parts = scratch + (tl.load(table + (j * FIELDS + SCRATCH)) + sample * programs)
                    product, part = g * clamped(blend), through * first
                    part += flat_adjoint(
                        kind, image, grad, held, parts, flat, through, first, second, n, y, x, channel, channels, tall,
                        small, programs, there, BLOCK,
                    )  # fmt: skip
                else:
                    held, factor = scratch_of(scratch, table, j, plane), whole(table, j, WHOLE)
                    if kind == BLUR:
                        taps = values_of(values, table, j, number)
                        part = blur_adjoint(held, n, x, small, 1, taps, factor, there)
                    else:
                        places = scratch_of(scratch, table, j, plane + samples * channels)
                        part = resize_adjoint(kind, held, places, y, x, factor, tall, small, height, width, there)
                    # Linear: the gradient times the result is the adjoint times the image. Pixels without weight, which
                    # may be infinite, are left out.
                    product = tl.where(part != 0.0, v * part, 0.0)
                total = total + part * weight
                if weighed != 0:
                    dot = tl.sum(tl.where(there, product, 0.0), axis=0)
                    tl.store(dots + ((number * blocks + block) * operations + j), dot)
        tl.store(out + plane * pixels + n, total, mask=there)
