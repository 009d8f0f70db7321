"""What the tests of the monitor share."""

import torch
from torch import nn

from deal_kernels.monitor import monitor


def report_of(model, *inputs, **arguments):
    with monitor(model, **arguments) as report:
        model(*inputs)
    return report


def spikes(*shape, largest=1, seed=0):
    """Whole numbers from 0 to the largest."""
    return torch.randint(0, largest + 1, shape, generator=torch.Generator().manual_seed(seed)).float()


def by_ones(conv, x):
    """The accumulations by a convolution in which each weight is 1."""
    ones = type(conv)(
        conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, groups=conv.groups,
        dilation=conv.dilation, bias=False, padding_mode=conv.padding_mode,
    )  # fmt: skip
    nn.init.ones_(ones.weight)
    return ones(x.abs()).sum().item()
