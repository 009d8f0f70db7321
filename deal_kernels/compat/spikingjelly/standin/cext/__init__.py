"""The modules of `spikingjelly.cext` that have a stand-in."""

from deal_kernels.compat.spikingjelly.standin.cext import neuron
from deal_kernels.compat.spikingjelly.standin.missing import missing

__all__ = ["neuron"]

__getattr__ = missing("cext", "functional layer")
