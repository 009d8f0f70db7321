"""Surrogates with the names and arguments of `spikingjelly.activation_based.surrogate`, version 0.0.0.0.14.

>>> from deal_kernels.compat.spikingjelly.standin.activation_based import surrogate
>>> surrogate.ATan(alpha=2.0)(torch.tensor([-0.5, 0.0, 0.5]))
tensor([0., 1., 1.])
"""

from deal_kernels.compat.spikingjelly.standin.missing import missing
from deal_kernels.compat.spikingjelly.standin.surrogates import (
    S2NN,
    ATan,
    Erf,
    LeakyKReLU,
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
    "S2NN", "ATan", "Erf", "LeakyKReLU", "MultiArgsSurrogateFunctionBase", "NonzeroSignLogAbs", "PiecewiseExp",
    "PiecewiseLeakyReLU", "PiecewiseQuadratic", "QPseudoSpike", "Sigmoid", "SoftSign", "SquarewaveFourierSeries",
    "SurrogateFunctionBase", "heaviside",
]  # fmt: skip

__getattr__ = missing(
    "activation_based.surrogate",
    "DeterministicPass FakeNumericalGradient LogTailedReLU Rect SuperSpike atan check_cuda_grad check_manual_grad "
    "erf nonzero_sign_log_abs piecewise_exp piecewise_leaky_relu piecewise_quadratic q_pseudo_spike s2nn sigmoid "
    "soft_sign squarewave_fourier_series fake_numerical_gradient leaky_k_relu log_tailed_relu",
)
