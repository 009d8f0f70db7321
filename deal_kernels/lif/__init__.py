"""The leaky integrate-and-fire neuron, forward and backward each in one pass over memory.

>>> import torch
>>> from deal_kernels.lif import lif
>>> x = torch.tensor([[0.5], [2.0], [2.0]])  # [T, N]
>>> lif(x, tau=2.0, v_threshold=1.0)[:, 0].tolist()
[0.0, 1.0, 1.0]
"""

from deal_kernels.lif.functional import lif, unpack
from deal_kernels.lif.modules import LIF, Learned

__all__ = ["LIF", "Learned", "lif", "unpack"]
