"""Parallel spiking neurons, which mix all steps by weights instead of passing a state on, forward and backward in one
pass over memory.

>>> import torch
>>> from deal_kernels.psn import psn
>>> x = torch.tensor([[0.5], [2.0], [1.0]])  # [T, N]
>>> weight = torch.tensor([[1.0, 0.0, 0.0], [0.5, 1.0, 0.0], [0.0, 0.5, 1.0]])
>>> psn(x, weight, torch.full((3,), -1.0))[:, 0].tolist()
[0.0, 1.0, 1.0]
"""

from deal_kernels.psn.functional import psn, sliding_psn
from deal_kernels.psn.modules import PSN, MaskedPSN, SlidingPSN

__all__ = ["PSN", "MaskedPSN", "SlidingPSN", "psn", "sliding_psn"]
