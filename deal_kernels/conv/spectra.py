"""The spectra of weights, kept where a weight is used again as it was."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from deal_kernels import backend as backends


class Kept(NamedTuple):
    """Of one weight. Its values are compared, as a version does not tell of changes through `.data` or another view."""

    values: Tensor
    spectra: dict[tuple[int, bool], Tensor]  # by tile, and whether they are the input gradient's


_kept: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def of(weight: Tensor, tile: int, transposed: bool, keep: bool) -> Tensor:
    """The spectrum of a weight [O, C, kH, kW] for tiles of a size; with `keep` for as long as the weight lives."""
    if not keep:
        return computed(weight, tile, transposed)
    kept = _kept.get(weight)
    if kept is None or not torch.equal(kept.values, weight):
        kept = _kept[weight] = Kept(weight.detach().clone(), {})
    spectrum = kept.spectra.get((tile, transposed))
    if spectrum is None:
        spectrum = kept.spectra[tile, transposed] = computed(weight, tile, transposed)
    return spectrum


def computed(weight: Tensor, tile: int, transposed: bool) -> Tensor:
    kernels = backends.extension()
    outputs, inputs, *kernel = weight.shape
    ends = (outputs, inputs) if transposed else (inputs, outputs)
    spectrum = torch.empty(kernels.conv_spectrum_floats(*ends, tile), dtype=torch.float32)
    values = weight.detach().float().contiguous()
    place = values.data_ptr(), spectrum.data_ptr(), torch.get_num_threads()
    kernels.conv_spectrum(inputs, outputs, *kernel, tile, transposed, *place)
    return spectrum
