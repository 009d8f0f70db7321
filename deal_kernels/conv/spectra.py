"""The spectra of weights, kept where a weight is used again as it was."""

from __future__ import annotations

from typing import NamedTuple

import numpy
import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from deal_kernels import backend as backends


class Kept(NamedTuple):
    """Of one weight. Its bits are compared, as a version does not tell of changes through `.data` or another view."""

    bits: numpy.ndarray
    spectra: dict[tuple[int, bool], Tensor]  # by tile, and whether they are the input gradient's


_kept: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def of(weight: Tensor, tile: int, transposed: bool, keep: bool) -> Tensor:
    """The spectrum of a weight [O, C, kH, kW] for tiles of a size; with `keep` for as long as the weight lives."""
    if not keep:
        return computed(weight, tile, transposed)
    kept, bits = _kept.get(weight), bits_of(weight)
    if kept is None or not numpy.array_equal(kept.bits, bits):
        kept = _kept[weight] = Kept(bits.copy(), {})
    spectrum = kept.spectra.get((tile, transposed))
    if spectrum is None:
        spectrum = kept.spectra[tile, transposed] = computed(weight, tile, transposed)
    return spectrum


def bits_of(weight: Tensor) -> numpy.ndarray:
    """A view. NumPy compares in one thread: those of torch do not exist in a process that forked."""
    return weight.detach().view(torch.int16 if weight.itemsize == 2 else torch.int32).numpy()


def computed(weight: Tensor, tile: int, transposed: bool) -> Tensor:
    kernels = backends.extension()
    outputs, inputs, *kernel = weight.shape
    ends = (outputs, inputs) if transposed else (inputs, outputs)
    spectrum = torch.empty(kernels.conv_spectrum_floats(*ends, tile), dtype=torch.float32)
    values = weight.detach().float().contiguous()
    place = values.data_ptr(), spectrum.data_ptr(), torch.get_num_threads()
    kernels.conv_spectrum(inputs, outputs, *kernel, tile, transposed, *place)
    return spectrum
