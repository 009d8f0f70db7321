"""The ticks of an axis, and the numbers beside them."""

import math

import numpy

INTERVALS = 6  # at most, between the ticks of an axis


def ticks(low: float, high: float) -> numpy.ndarray:
    """Round numbers, a few, the first at or below `low` and the last at or above `high`.

    >>> ticks(0.13, 0.48)
    array([0.1, 0.2, 0.3, 0.4, 0.5])
    """
    power = 10.0 ** math.floor(math.log10((high - low) / INTERVALS))
    step = next(each for factor in (1, 2, 5, 10) if (each := factor * power) * INTERVALS >= high - low)
    return numpy.round(numpy.arange(math.floor(low / step), math.ceil(high / step) + 1) * (step / power)) * power


def texts(values: numpy.ndarray) -> list[str]:
    """The numbers at the ticks of an axis, with as many decimals as they need."""
    step = values[1] - values[0] if len(values) > 1 else max(1.0, abs(values[0]))
    if abs(values).max() >= 1e9 or step < 1e-6:
        return [f"{value:.3g}" for value in values]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [f"{value:.{decimals}f}" for value in values]
