"""Functions with the names and arguments of `spikingjelly.activation_based.functional`, version 0.0.0.0.14."""

from deal_kernels.compat.spikingjelly.standin.functional import (
    detach_net,
    multi_step_forward,
    reset_net,
    seq_to_ann_forward,
    set_backend,
    set_step_mode,
)
from deal_kernels.compat.spikingjelly.standin.missing import missing

__all__ = ["detach_net", "multi_step_forward", "reset_net", "seq_to_ann_forward", "set_backend", "set_step_mode"]

__getattr__ = missing(
    "activation_based.functional",
    "chunk_multi_step_forward first_spike_index fptt_online_training fptt_online_training_init_w_ra fuse_convbn2d "
    "fused_conv2d_bias_of_convbn2d fused_conv2d_weight_of_convbn2d kaiming_normal_conv_linear_weight "
    "kernel_dot_product redundant_one_hot scale_fused_conv2d_bias_of_convbn2d scale_fused_conv2d_weight_of_convbn2d "
    "set_threshold_margin spike_similar_loss",
)
