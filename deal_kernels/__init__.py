"""Fused kernels for spiking networks and image restoration, as torch operations.

Every operation is a room of its own: `deal_kernels.lif` is the spiking neuron.
"""

from deal_kernels.backend import info

__version__ = "0.1.0"
__all__ = ["__version__", "info"]
