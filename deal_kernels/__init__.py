"""Fused kernels for spiking networks and image restoration, as torch operations.

Every operation is a room of its own: `lif` is the spiking neuron, `tdbn` the batch norm in front of it, `degradation`
the mixture of image degradations, `ssim` the loss of images, `conv` convolution with large kernels.
"""

from deal_kernels.backend import info

__version__ = "0.1.0"
__all__ = ["__version__", "info"]
