"""Threshold-dependent batch norm under SpikingJelly's name."""

from typing import Any

from deal_kernels.tdbn import TDBatchNorm2d


class ThresholdDependentBatchNorm2d(TDBatchNorm2d):
    """The weight starts at alpha * v_th. The other arguments are those of `torch.nn.BatchNorm2d`."""

    def __init__(self, alpha: float, v_th: float, *batch_norm: Any, **named: Any) -> None:
        super().__init__(*batch_norm, **named, alpha=alpha, v_threshold=v_th, initialise_only=True)
