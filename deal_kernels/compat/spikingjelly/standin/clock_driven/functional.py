"""Functions with the names and arguments of `spikingjelly.clock_driven.functional`, version 0.0.0.0.12."""

from deal_kernels.compat.spikingjelly.standin.functional import (
    multi_step_forward,
    reset_net,
    seq_to_ann_forward,
)
from deal_kernels.compat.spikingjelly.standin.missing import missing

__all__ = ["multi_step_forward", "reset_net", "seq_to_ann_forward"]

__getattr__ = missing(
    "clock_driven.functional",
    "first_spike_index fuse_convbn2d fused_conv2d_bias_of_convbn2d fused_conv2d_weight_of_convbn2d "
    "kaiming_normal_conv_linear_weight kernel_dot_product redundant_one_hot scale_fused_conv2d_bias_of_convbn2d "
    "scale_fused_conv2d_weight_of_convbn2d set_threshold_margin spike_cluster spike_similar_loss "
    "temporal_efficient_training_cross_entropy",
)
