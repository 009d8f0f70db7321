"""Neurons of every kind, by the part that differs, for the tests of the neuron."""

import pytest

from deal_kernels import surrogate

CHARGES = {
    "decay_input": {"tau": 3.0},
    "decay": {"tau": 4 / 3, "decay_input": False},
    "power_of_two": {"tau": 4.0},
    "beta": {"beta": 0.7},
    "integrate": {"tau": None},
    "rate": {"rate": 0.3},
    "rested": {"tau": 3.0, "v_rest": 0.2},
}
RESETS = {
    "hard": {"v_reset": -0.3},
    "zero": {"v_reset": 0.0},
    "soft": {"v_reset": None},
    "none": {"reset": "none"},
    "next_hard": {"reset": "next_hard", "v_reset": -0.3},
    "next_soft": {"reset": "next_soft"},
    "twice_soft": {"reset": "twice_soft", "reset_by": 0.6},
}
FIRES = {
    "sigmoid": {"surrogate": surrogate.Sigmoid(6.0, height=1.7)},
    "atan": {"surrogate": "atan", "fire": "gt"},
    "triangle": {"surrogate": surrogate.Triangle(0.7)},
    "rectangle": {"surrogate": "rectangle"},
    "fast_sigmoid": {"surrogate": surrogate.FastSigmoid(slope=10.0, height=0.5), "fire": "gt"},
    "erf": {"surrogate": "erf"},
    "exponential": {"surrogate": surrogate.Exponential(slope=2.0, height=0.8), "scale": 0.25},
    "plateau": {"surrogate": surrogate.PiecewiseLeakyReLU(0.8, 0.05)},
    "sides": {"surrogate": surrogate.LeakyReLU(0.9, 0.1)},
    "levels": {"levels": 4},
    "window": {"levels": 4, "surrogate": surrogate.Window(-0.5, 4.5), "scale": 0.25},
}


def each(options):
    return [pytest.param(value, id=key) for key, value in options.items()]
