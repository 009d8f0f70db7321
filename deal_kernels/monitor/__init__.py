"""Firing rates, synaptic operations and energy of a spiking network, from forward passes that run anyway.

>>> from torch import nn
>>> from deal_kernels.lif import LIF
>>> from deal_kernels.monitor import monitor
>>> network = nn.Sequential(nn.Linear(8, 8), LIF(), nn.Linear(8, 3))
>>> _ = network[0].weight.data.fill_(0.0), network[0].bias.data.fill_(1.5)
>>> with monitor(network) as report:
...     spikes = network(torch.rand(4, 2, 8))  # [T, B, C]
>>> print(report)
layer  type    firing rate  input rate  accumulations  MACs  dense MACs
0      Linear            -           -              0   512         512
1      LIF           0.500           -              0     0           0
2      Linear            -       0.500             96     0         192
total                                              96   512         704
energy: 2441.6 pJ
>>> report["2"].accumulations
96
"""

from deal_kernels.monitor.report import Layer, Report
from deal_kernels.monitor.watch import monitor

__all__ = ["Layer", "Report", "monitor"]
