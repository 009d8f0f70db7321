"""Fused kernels for spiking networks and image restoration, as torch operations.

Each operation has a package of its own: `lif` is the spiking neuron, `multistate` those with several state variables,
`psn` the parallel ones, `tdbn` the batch norm in front of a neuron, `degradation` a mixture of image degradations,
`ssim` structural similarity, `conv` convolution with large kernels, `consensus` a robust mean.

`surrogate` has the surrogate derivatives, and `neuron` runs a neuron of your own over time. `compat` gives networks of
other libraries these neurons, and `monitor` counts the spikes of a network.
"""

from deal_kernels.backend import info
from deal_kernels.version import __version__

__all__ = ["__version__", "info"]
