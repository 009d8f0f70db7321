"""Surrogates with the names and arguments of `spikingjelly.clock_driven.surrogate`, version 0.0.0.0.12.

>>> from deal_kernels.compat.spikingjelly.standin.clock_driven import surrogate
>>> surrogate.ATan(alpha=2.0)(torch.tensor([-0.5, 0.0, 0.5]))
tensor([0., 1., 1.])
"""

from deal_kernels.compat.spikingjelly.standin.missing import missing
from deal_kernels.compat.spikingjelly.standin.surrogates import (
    S2NN,
    ATan,
    Erf,
    MultiArgsSurrogateFunctionBase,
    NonzeroSignLogAbs,
    PiecewiseExp,
    PiecewiseLeakyReLU,
    PiecewiseQuadratic,
    QPseudoSpike,
    Sigmoid,
    SoftSign,
    SquarewaveFourierSeries,
    SurrogateFunctionBase,
    heaviside,
)

__all__ = [
    "S2NN", "ATan", "Erf", "MultiArgsSurrogateFunctionBase", "NonzeroSignLogAbs", "PiecewiseExp",
    "PiecewiseLeakyReLU", "PiecewiseQuadratic", "QPseudoSpike", "Sigmoid", "SoftSign", "SquarewaveFourierSeries",
    "SurrogateFunctionBase", "heaviside",
]  # fmt: skip

__getattr__ = missing(
    "clock_driven.surrogate",
    "atan check_cuda_grad check_manual_grad erf nonzero_sign_log_abs piecewise_exp piecewise_leaky_relu "
    "piecewise_quadratic q_pseudo_spike s2nn sigmoid soft_sign squarewave_fourier_series",
)
