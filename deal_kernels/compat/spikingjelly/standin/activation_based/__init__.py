"""The modules of `spikingjelly.activation_based` that have a stand-in."""

from deal_kernels.compat.spikingjelly.standin.activation_based import base, functional, layer, neuron, surrogate
from deal_kernels.compat.spikingjelly.standin.missing import missing

__all__ = ["base", "functional", "layer", "neuron", "surrogate"]

__getattr__ = missing(
    "activation_based",
    "ann2snn auto_cuda encoding lava_exchange learning model monitor neuron_kernel quantize rnn spike_op",
)
