"""The fused forms of snnTorch's neurons: Leaky, Lapicque and Synaptic."""
