"""Threshold-dependent batch norm, and its fusion with the spiking neuron behind it.

The norm is y = weight * alpha * v_threshold * (x - mean) / sqrt(variance + eps) + bias, with statistics per channel
over time, batch and space. `tdbn_lif` normalises while the neuron reads its input, so the normalised tensor is never
written: the forward pass reads x twice and writes spikes, and keeps only x and the statistics for the backward pass.

>>> import torch
>>> from deal_kernels.tdbn import TDBNLIF
>>> layer = TDBNLIF(8, v_threshold=0.5)
>>> layer(torch.randn(4, 2, 8, 5, 5)).shape  # [T, B, C, H, W]
torch.Size([4, 2, 8, 5, 5])
"""

from deal_kernels.tdbn.functional import tdbn, tdbn_lif
from deal_kernels.tdbn.modules import TDBNLIF, SpikingConv, TDBatchNorm2d

__all__ = ["TDBNLIF", "SpikingConv", "TDBatchNorm2d", "tdbn", "tdbn_lif"]
