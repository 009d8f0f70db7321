"""Batch norm in two parts: the statistics of its input at once, and the normalised input when it is needed."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from deal_kernels._common.neuron import NeuronSettings, neuron_and_tensors
from deal_kernels.lif.arguments import output_of, state_and_parameters
from deal_kernels.tdbn import op
from deal_kernels.tdbn.functional import normalisation


class Normalisation(NamedTuple):
    """How x is normalised. Weight and bias have gradients, and x has one through the statistics."""

    weight: Tensor
    bias: Tensor | None
    statistics: op.Statistics
    settings: op.Settings

    @classmethod
    def of(cls, x: Tensor, axis: int, *norm: Any) -> Normalisation:
        """That of x with its channels on `axis`. In training this updates the running statistics.

        Args:
            norm: the arguments of `tdbn` behind x, in their order.
        """
        return cls(*normalisation(x, axis, *norm))

    def without_gradient(self) -> Normalisation:
        return self._replace(weight=self.weight.detach(), bias=None if self.bias is None else self.bias.detach())

    def norm(self, x: Tensor) -> Tensor:
        """What `tdbn` returns."""
        return op.norm(x, *self)

    def lif(
        self, x: Tensor, axis: int, v0: Tensor | None, settings: NeuronSettings, output: Any, return_state: bool
    ) -> Any:
        """What `lif` returns for the normalised x.

        Args:
            x: the elements of the input, each once, as [T, ...] in any order.
            axis: of the channels in x; not that of the time.
            v0: the state in the shape of a step of x.
            settings: of the neuron. Its tensors have one value each.
        """
        x, v0 = _channels_third(x, axis), None if v0 is None else _channels_third(v0.unsqueeze(0), axis)[0]
        neuron, decay, threshold = neuron_and_tensors(settings)
        kept = output_of(output, None, False, neuron)
        v0, decay, threshold = state_and_parameters(x, None, v0, decay, threshold)
        tensors = x, self.weight, self.bias, None, v0, decay, threshold
        norm = self.settings._replace(axis=2)
        spikes, v = op.lif(tensors, self.statistics, norm, neuron, kept, None, return_state)
        spikes = _channels_back(spikes, axis)
        return (spikes, _channels_back(v.unsqueeze(0), axis)[0]) if v is not None and return_state else spikes


def _channels_third(x: Tensor, axis: int) -> Tensor:
    """x [T, ..., C, ...] as a view [T, B, C, ...]."""
    if axis == 1:
        return x.unsqueeze(1)
    return x if axis == 2 else x.movedim(axis, 2)


def _channels_back(x: Tensor, axis: int) -> Tensor:
    if axis == 1:
        return x.squeeze(1)
    return x if axis == 2 else x.movedim(2, axis)
