"""The spectra of weights, kept while a weight lives and does not change."""

from __future__ import annotations

from typing import NamedTuple

import numpy
import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from deal_kernels import backend as backends
from deal_kernels._common.dispatch import run_compiled


class Kept(NamedTuple):
    """The spectra of one weight. Bits are compared, as a version counter misses changes through `.data` or a view."""

    bits: numpy.ndarray
    spectra: dict[tuple[int, bool], Tensor]  # by tile, and whether for the gradient of the input


_kept: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def of(weight: Tensor, tile: int, transposed: bool, keep: bool) -> Tensor:
    """The spectrum of a weight [O, C, kH, kW] for tiles of a size, with `keep` taken from and put into the cache."""
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
    """The bits, as a view. NumPy compares them in one thread: torch's threads do not exist in a forked process."""
    return weight.detach().view(torch.int16 if weight.itemsize == 2 else torch.int32).numpy()


def computed(weight: Tensor, tile: int, transposed: bool) -> Tensor:
    compiled = backends.extension()
    out_channels, in_channels, kernel_h, kernel_w = weight.shape
    ends = (out_channels, in_channels) if transposed else (in_channels, out_channels)
    spectrum = torch.empty(compiled.conv_spectrum_floats(*ends, tile), dtype=torch.float32)
    values = weight.detach().float().contiguous()
    call = compiled.ConvSpectrum(
        in_channels=in_channels, out_channels=out_channels, kernel_h=kernel_h, kernel_w=kernel_w, tile=tile,
        transposed=transposed, weight=values.data_ptr(), spectrum=spectrum.data_ptr(),
    )  # fmt: skip
    run_compiled("conv_spectrum", call, values, "cpp")
    return spectrum
