"""The modules of `spikingjelly.clock_driven` that have a stand-in."""

from deal_kernels.compat.spikingjelly.standin.clock_driven import functional, layer, neuron, surrogate
from deal_kernels.compat.spikingjelly.standin.missing import missing

__all__ = ["functional", "layer", "neuron", "surrogate"]

__getattr__ = missing("clock_driven", "ann2snn base encoding lava_exchange model monitor neuron_kernel rnn spike_op")
