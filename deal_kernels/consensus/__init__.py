"""The value that most rows agree on, for every column: a robust mean, which outliers do not move.

The search starts from the mean and from both quartiles, with tolerances that become smaller, and the value with the
largest support is kept. Rows that disagree at the neighbouring columns are then given a low weight. On a CPU all rounds
of a column run while its rows are in the cache.

>>> import torch
>>> from deal_kernels.consensus import consensus
>>> rows = torch.tensor([0.1, 0.1, 0.1, 0.9])[None, :, None].expand(1, 4, 12)  # [B, R, W]
>>> consensus(rows, torch.ones(1, 4, 12), torch.tensor([0.01]))[0, 0]
tensor(0.1000)
"""

from deal_kernels.consensus.functional import consensus
from deal_kernels.consensus.reference import nearness

__all__ = ["consensus", "nearness"]
