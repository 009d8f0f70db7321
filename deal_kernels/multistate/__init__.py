"""Spiking neurons with several state variables, forward and backward each in one pass over memory.

`cuba` has a synaptic current beside the membrane, `alif` an adaptive threshold, `lsnn` both, and `clif` a memory of the
membrane. In training they keep x alone.

>>> import torch
>>> from deal_kernels.multistate import cuba
>>> x = torch.tensor([[0.5], [1.0], [0.0]])  # [T, N]
>>> spikes, (v, i) = cuba(x, alpha=0.5, beta=0.75, return_state=True)
>>> spikes[:, 0].tolist(), i.tolist()
([0.0, 1.0, 0.0], [0.625])
"""

from deal_kernels.multistate.functional import alif, clif, cuba, lsnn
from deal_kernels.multistate.modules import ALIF, CLIF, CUBA, LSNN

__all__ = ["ALIF", "CLIF", "CUBA", "LSNN", "alif", "clif", "cuba", "lsnn"]
