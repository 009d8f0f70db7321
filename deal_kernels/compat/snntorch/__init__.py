"""The fused forms of snnTorch's neurons: Leaky and Lapicque."""
