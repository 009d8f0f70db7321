"""The kernels of a stage of the Triton mixture.

The first one, look, leaves in scratch memory what the pixels of a block are too few for: sums of gray values, the
vertical half of blurs, and the small images of resizes. The second one, mix, adds the results of all operations up in
registers. An operation without weight is left out of both.
"""

import triton
import triton.language as tl

from deal_kernels.degradation.triton_stage import (
    ARGUMENTS,
    AVERAGE_POOL,
    BLUR,
    CONTRAST,
    FIELDS,
    KIND,
    MAX_POOL,
    POSTERIZE,
    SCRATCH,
    SMALL,
    TALL,
    WHOLE,
    between,
    blurred,
    clamped,
    cubic_weight,
    flatter,
    of_pixel,
    pixel,
    pixels_of,
    ratio,
    scratch_of,
    source,
    sum_of_gray,
    values_of,
    whole,
    within,
)


@triton.jit
def largest(image, n, width, factor, there):
    """The maximum of the windows that begin at pixels n; NaN if any value is NaN."""
    best = pixel(image, n, there)
    for y in range(factor):
        for x in range(factor):
            v = pixel(image, n + (y * width + x), there)
            best = tl.where(v > best, v, tl.where(v == v, best, v))
    return best


@triton.jit
def average(image, n, width, factor, there):
    total = tl.zeros_like(n).to(tl.float32)
    for x in range(factor):
        column = tl.zeros_like(total)
        for y in range(factor):
            column += pixel(image, n + (y * width + x), there)
        total += column
    return tl.div_rn(total, tl.zeros_like(total) + tl.cast(factor * factor, tl.float32))


@triton.jit
def bicubic(image, row, column, tall, small, height, width, there):
    down, across = source(row, ratio(height, tall)), source(column, ratio(width, small))
    top, left = down.to(tl.int32), across.to(tl.int32)
    down, across = down - top.to(tl.float32), across - left.to(tl.float32)
    first, second = tl.zeros_like(down), tl.zeros_like(down)
    for k in tl.static_range(4):
        x = within(left + (k - 1), width)
        total = tl.zeros_like(down)
        for i in tl.static_range(4):
            total += pixel(image, within(top + (i - 1), height) * width + x, there) * cubic_weight(down, i)
        part = total * cubic_weight(across, k)
        if k < 2:
            first += part
        else:
            second += part
    return first + second


@triton.jit(do_not_specialize=ARGUMENTS)
def look_kernel(
    image, weights, table, values, scratch, stage, stages, operations, channels, height, width, programs,
    BLOCK: tl.constexpr,
):  # fmt: skip
    sample, program = tl.program_id(0) // programs, tl.program_id(0) % programs
    sample = sample.to(tl.int64)
    number, pixels = sample * stages + stage, tl.cast(height, tl.int64) * width
    for j in range(operations):
        kind = whole(table, j, KIND)
        if (kind >= CONTRAST) & (tl.load(weights + (number * operations + j)) != 0.0):
            factor, tall, small = whole(table, j, WHOLE), whole(table, j, TALL), whole(table, j, SMALL)
            if kind == CONTRAST:
                first = image + sample * channels * pixels
                total = sum_of_gray(first, program, programs, channels, height, width, BLOCK)
                tl.store(scratch + (tl.load(table + (j * FIELDS + SCRATCH)) + tl.program_id(0)), total)
            else:
                for block in range(program, channels * tl.cdiv(tall * small, BLOCK), programs):
                    channel, n, row, column, there = pixels_of(block, tall, small, BLOCK)
                    plane = sample * channels + channel
                    read = image + plane * pixels
                    if kind == BLUR:
                        taps = values_of(values, table, j, number)
                        result = blurred(read, n, row, height, width, taps, factor, there, False)
                    elif kind == MAX_POOL:
                        result = largest(read, (row * width + column) * factor, width, factor, there)
                    elif kind == AVERAGE_POOL:
                        result = average(read, (row * width + column) * factor, width, factor, there)
                    else:
                        result = bicubic(read, row, column, tall, small, height, width, there)
                    tl.store(scratch_of(scratch, table, j, plane) + n, result, mask=there)


@triton.jit
def enlarged(image, y, x, tall, small, height, width, there):
    low, high, share = between(x, small, width)
    top, bottom, down = between(y, tall, height)
    over = pixel(image, top * small + low, there) * (1.0 - share) + pixel(image, top * small + high, there) * share
    under = pixel(image, bottom * small + low, there) * (1.0 - share)
    under = under + pixel(image, bottom * small + high, there) * share
    return over * (1.0 - down) + under * down


@triton.jit(do_not_specialize=ARGUMENTS)
def mix_kernel(
    image, weights, table, numbers, values, scratch, out, stage, stages, operations, channels, height, width, programs,
    BLOCK: tl.constexpr,
):  # fmt: skip
    sample, program = tl.program_id(0) // programs, tl.program_id(0) % programs
    sample = sample.to(tl.int64)
    number, pixels = sample * stages + stage, tl.cast(height, tl.int64) * width
    image_of_sample = image + sample * channels * pixels
    for block in range(program, channels * tl.cdiv(height * width, BLOCK), programs):
        channel, n, y, x, there = pixels_of(block, height, width, BLOCK)
        plane = sample * channels + channel
        v = pixel(image + plane * pixels, n, there)
        total = tl.zeros_like(v)
        for j in range(operations):
            weight = tl.load(weights + (number * operations + j))
            if weight != 0.0:
                kind, tall, small, result = whole(table, j, KIND), whole(table, j, TALL), whole(table, j, SMALL), v
                first, second = tl.load(numbers + 2 * j), tl.load(numbers + (2 * j + 1))
                if kind <= POSTERIZE:
                    result, _ = of_pixel(kind, v, first, second, values, table, j, number, channel, y, x, there)
                elif kind <= CONTRAST:
                    sums = scratch + (tl.load(table + (j * FIELDS + SCRATCH)) + sample * programs)
                    flat = flatter(
                        kind, image_of_sample, channel, v, sums, n, y, x, channels, tall, small, programs, there, BLOCK
                    )  # fmt: skip
                    result = clamped(v * first + flat * second)
                elif kind == BLUR:
                    held, taps = scratch_of(scratch, table, j, plane), values_of(values, table, j, number)
                    result = blurred(held, n, x, small, 1, taps, whole(table, j, WHOLE), there, False)
                else:
                    held = scratch_of(scratch, table, j, plane)
                    result = enlarged(held, y, x, tall, small, height, width, there)
                total = total + result * weight
        tl.store(out + plane * pixels + n, total.to(out.dtype.element_ty), mask=there)
