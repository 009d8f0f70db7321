"""Enhancement of images of any size and bit depth.

An image is mapped to [0, 1] once, black to 0 and white to 1, and the network enhances that. The change that the network
makes is mapped back and added to the original values. Values beyond black or white therefore keep their distance, and
pixels that the network does not change stay exactly as they are. Integers are rounded and stay in the range of their
type.

>>> from deal.model.separation import DealU
>>> enhancer = Enhancer(DealU("deal-u-small"))
>>> counts = numpy.random.default_rng(0).integers(7000, 9000, (60, 80), numpy.uint16)
>>> enhanced = enhancer(counts)
>>> enhanced.shape, enhanced.dtype
((60, 80), dtype('uint16'))

What was taken out is known, too, in the units of the image:

>>> parts = enhancer.parts(counts)
>>> int(abs(counts - parts.columns - parts.rows - enhanced).max())
0
"""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, overload

import numpy
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from deal.inference import tiling
from deal.inference.fixed_pattern import FixedPattern
from deal.inference.kinds import AnyImage, unpack
from deal.io.images import Frame, Location, UnusableImage, Window, read_frame
from deal.io.out_of_memory import is_out_of_memory
from deal.io.reference import Reference
from deal.io.scene import scene_rows, without_dead_pixels
from deal.model import cuda_graph
from deal.model.device import choose_device
from deal.model.parts import SUBTRACTED, Parts, check_strengths
from deal.model.pretrained import Network, load
from deal.model.separation import DealU
from deal_kernels._common.checks import one_of
from deal_kernels.conv.choice import MATRIX_UNIT

Precision = Literal["auto", "fp32", "bf16"]


class ImageParts(NamedTuple):
    """The parts of an image, in its units. Each is an array or tensor in the shape of the image.

    With all parts taken out, the enhanced image is gain * (image - columns - rows - shading - detail) + offset, except
    for rounding and for values beyond black and white. If temperatures are kept, gain is 1 and offset is 0.
    """

    columns: Any  # a pattern of columns
    rows: Any  # a pattern of rows
    shading: Any  # slow changes as wide as the frame
    detail: Any  # noise, and what blur took away, with a negative sign
    gain: Any  # the tone: a number; for a stack one for each image, [N, 1, 1], [N, 1, 1, 1] or [B, 1, 1, 1]
    offset: Any


class _Seen(NamedTuple):
    """A frame as the network sees it."""

    values: Tensor  # [1, C, H, W] in the units of the pixels
    rows: slice  # those of the scene
    x: Tensor  # of these rows, from 0 to 1
    bf16: bool
    radiometric: bool


class Enhancer:
    """A network prepared for inference on many images: its norms are folded and its weights are prepared once.

    Args:
        network: the network, which is copied, or a weights file, or the name of bundled weights; None loads the bundled
            default. It accepts grey and colour images, see `DEAL.with_channels`.
        scale: 1, 2 or 4. Images are first enlarged by bicubic interpolation.
        tile: height and width of the tiles that an image is computed in. 0 computes the whole image at once; "auto"
            uses the largest tile that memory allows, and halves it when memory runs out.
        overlap: pixels that tiles extend to each side, at least the network's receptive radius. None adds some for
            blending. Tiled and untiled results are equal up to rounding.
        device: "cpu", "cuda", "cuda:1", ...; "auto" uses CUDA if it is available.
        radiometric: keeps temperatures. The tone stays, each part that is taken out has the mean 0, and `DealU` takes
            out only patterns of columns and rows unless `parts` names more; rows of telemetry stay as they are, and
            dead pixels do not disturb their neighbours. None does so for 16-bit and float32 images.
        parts: what is taken out of the image, of "columns", "rows", "shading", "detail" and "tone", or a number for
            each of them: 0.5 takes out half. None takes out all parts.
        strength: a factor for all parts.
        graph: "auto" repeats images of one size that fit into one tile from a CUDA graph on a GPU; "off" does not.
        precision: "bf16" computes in bfloat16, and repeats an image in float32 if the result is not finite; "auto" uses
            it for 8-bit images, on CUDA, and with `DealU` on CPUs that have a matrix unit (AMX).
        reference: frames of a target that has one temperature, such as the camera's shutter, as paths or arrays. Their
            pattern is subtracted from each image first; the mean of the image stays.
    """

    def __init__(
        self, network: Network | Location | None = None, *, scale: int = 1, tile: int | Literal["auto"] = "auto",
        overlap: int | None = None, device: str | torch.device = "auto", precision: Precision = "auto",
        radiometric: bool | None = None, parts: Sequence[str] | Mapping[str, float] | None = None,
        strength: float = 1.0, graph: Literal["auto", "off"] = "auto",
        reference: Sequence[Location | numpy.ndarray] | Reference | None = None,
    ) -> None:  # fmt: skip
        one_of("graph", graph, cuda_graph.GRAPHS)
        network = network if isinstance(network, Network) else load(network)
        one_of("scale", scale, (1, 2, 4))
        one_of("precision", precision, ("auto", "fp32", "bf16"))
        if tile != "auto" and (isinstance(tile, bool) or not isinstance(tile, int) or tile < 0):
            raise ValueError(f"tile must be 'auto' or an integer of at least 0; got {tile!r}")
        self.overlap = network.reach + tiling.BLEND if overlap is None else overlap
        if self.overlap < network.reach:
            raise ValueError(f"overlap must be at least {network.reach}, the receptive radius; got {overlap}")
        self.device, self.scale, self.precision = choose_device(device), scale, precision
        fast_bf16 = self.device.type == "cuda" or (MATRIX_UNIT and isinstance(network, DealU))
        self._bf16_of_8_bits = precision == "auto" and fast_bf16
        self.tile = tiling.automatic_tile(network, self.device, self.overlap) if tile == "auto" else tile
        self._min_tile = tiling.MIN_TILE if tile == "auto" else tile
        self._network = copy.deepcopy(network).float()  # weights may be stored in another precision
        self._adjust(parts, strength, radiometric)
        self.reference = _reference(reference)
        self._prepared: dict[int, Network] = {}
        recorder = cuda_graph.recorder_for(graph, self.device)
        self._graphed = None if recorder is None else cuda_graph.Graphed(self._compute, recorder)

    def _adjust(
        self, parts: Sequence[str] | Mapping[str, float] | None, strength: float, radiometric: bool | None
    ) -> None:  # fmt: skip
        one_of("radiometric", radiometric, (None, False, True))
        self.radiometric = radiometric
        self.strengths = check_strengths(parts, strength)
        named = self._network.radiometric_parts if parts is None else parts
        self.radiometric_strengths = check_strengths(named, strength)

    def adjusted(
        self, *, parts: Sequence[str] | Mapping[str, float] | None = None, strength: float = 1.0,
        radiometric: bool | None = None,
    ) -> Enhancer:  # fmt: skip
        """An enhancer with other settings, which shares the prepared network with this one."""
        other = copy.copy(self)
        other._adjust(parts, strength, radiometric)
        return other

    @overload
    def __call__(self, image: Location | numpy.ndarray | Frame, window: Window = "auto") -> numpy.ndarray: ...

    @overload
    def __call__(self, image: Image.Image, window: Window = "auto") -> Image.Image: ...

    @overload
    def __call__(self, image: Tensor, window: Window = "auto") -> Tensor: ...

    def __call__(self, image: AnyImage, window: Window = "auto") -> Any:
        """Enhances an image, or each image of a stack.

        Args:
            image: a path; an array [H, W] or [H, W, 3], or a stack [N, H, W] or [N, H, W, 3]; a PIL image; a `Frame`;
                or a tensor [H, W], [C, H, W] or [B, C, H, W] with 1 or 3 channels. Arrays and tensors are integers or
                floating-point numbers. A tensor of floating-point numbers is a picture with values from 0 to 1, unless
                the window is two numbers.
            window: which values mean black and white, see `deal.io.images.read_image`; not used for a `Frame`.

        Returns:
            The enhanced image, of the kind, shape, dtype and range of the input, and on its device; an array for a path
            or `Frame`, and a stack for a file with several pages. There is no gradient.
        """
        unpacked = unpack(image, window, self.reference)
        return unpacked.image([self.enhance_frame(frame) for frame in unpacked.frames])

    def parts(self, image: AnyImage, window: Window = "auto") -> ImageParts:
        """The parts of an image, in its units, whether or not they are taken out. Arguments as of a call.

        Returns:
            float32 arrays in the shape of the image; float64 for integers of 32 bits and more; tensors for a tensor.
        """
        unpacked = unpack(image, window, self.reference)
        separated = [self._parts_of_frame(frame) for frame in unpacked.frames]
        *parts, gains, offsets = zip(*separated, strict=True)
        columns, rows, shading, detail = (unpacked.arrays(each) for each in parts)
        return ImageParts(columns, rows, shading, detail, unpacked.numbers(gains), unpacked.numbers(offsets))

    def enhance_frame(self, frame: Frame, pattern: FixedPattern | None = None) -> numpy.ndarray:
        """The enhanced pixels of a frame.

        Args:
            pattern: that of the sequence to which the frame belongs, see `Sequence`.
        """
        seen = self._see(frame)
        if pattern is not None:
            pattern.measure_in(frame.high - frame.low)
        change = self.enhance_tensor(seen.x, bf16=seen.bf16, radiometric=seen.radiometric, pattern=pattern) - seen.x
        _check_finite(frame, change)
        seen.values[:, :, seen.rows] += (frame.high - frame.low) * change
        return frame.to_pixels(seen.values[0])

    def _parts_of_frame(self, frame: Frame) -> list[Any]:
        """The fields of `ImageParts`."""
        seen, unit = self._see(frame), frame.high - frame.low
        parts = self.separate(seen.x, bf16=seen.bf16)
        parts = parts.without_mean() if seen.radiometric else parts
        _check_finite(frame, *parts)
        found = []
        for part in parts[: len(SUBTRACTED)]:
            values = torch.zeros_like(seen.values)
            values[:, :, seen.rows] = unit * part
            found.append((values[0].permute(1, 2, 0) if values.shape[1] == 3 else values[0, 0]).numpy())
        gain = parts.gain.item()
        return [*found, gain, unit * parts.offset.item() + frame.low * (1 - gain)]

    def _see(self, frame: Frame) -> _Seen:
        if not numpy.isfinite(frame.pixels).all():
            raise UnusableImage(f"{frame.name} has pixels that are not finite")
        eight_bits = frame.pixels.dtype == numpy.uint8
        radiometric = frame.measured if self.radiometric is None else self.radiometric
        values = frame.values()[None]
        rows = scene_rows(values) if radiometric else slice(None)
        scene = without_dead_pixels(values[:, :, rows]) if radiometric else values
        x = frame.normalise(self._enlarged(scene))
        bf16 = self.precision == "bf16" or (self._bf16_of_8_bits and eight_bits)
        return _Seen(self._enlarged(values), self._enlarged_rows(rows), x, bf16, radiometric)

    def _enlarged(self, values: Tensor) -> Tensor:
        if self.scale == 1:
            return values
        return functional.interpolate(values, [self.scale * side for side in values.shape[2:]], mode="bicubic")

    def _enlarged_rows(self, rows: slice) -> slice:
        return slice(*(None if end is None else self.scale * end for end in (rows.start, rows.stop)))

    def enhance_tensor(
        self, x: Tensor, *, bf16: bool = False, radiometric: bool = False, pattern: FixedPattern | None = None
    ) -> Tensor:  # fmt: skip
        """Enhances images [B, C, H, W] in [0, 1]. The result is float32 on the CPU, and values may leave [0, 1].

        If radiometric, the tone and the mean of each channel stay. With a pattern, x is the next frame of its sequence.
        """
        lines = None if pattern is None else pattern.lines(x)
        parts = self.separate(x, bf16=bf16, lines=lines)
        if bf16 and not _are_finite(parts):
            warnings.warn("the result in bfloat16 is not finite: computed again in float32", stacklevel=2)
            parts = self.separate(x, lines=lines)
        if pattern is not None and _are_finite(parts):  # others would spoil the means
            parts = pattern.update(x, parts)
        if radiometric:
            return parts.without_mean().restored(x, self.radiometric_strengths)
        return parts.restored(x, self.strengths)

    @torch.inference_mode()
    def separate(self, x: Tensor, *, bf16: bool = False, lines: tuple[Tensor, ...] | None = None) -> Parts:
        """The parts of images [B, C, H, W] in [0, 1], float32 on the CPU.

        Args:
            lines: see `DealU.separate`; other networks find no lines.
        """
        height, width = x.shape[2:]
        least = self._network.min_size

        def given(image: Tensor) -> Tensor:
            padding = 0, max(0, least - width), 0, max(0, least - height)
            return functional.pad(image, padding, mode="replicate").to(self.device)

        known = tuple(map(given, lines)) if lines is not None and isinstance(self._network, DealU) else None
        in_one_tile = not self.tile or max(height, width, least) <= self.tile
        compute = self._graphed if self._graphed is not None and in_one_tile else self._compute
        return Parts(*(part.cpu()[..., :height, :width] for part in compute(given(x), bf16, known)))

    def _compute(self, x: Tensor, bf16: bool, lines: tuple[Tensor, ...] | None) -> Parts:
        known = {} if lines is None else {"lines": lines}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            found = self._network_for(x.shape[1]).separate(x, self._run_tiled, **known)
        return Parts(*(part.float() for part in found))

    def _run_tiled(self, network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """The result of a network, tile by tile. Tiles become smaller when memory runs out."""
        while True:
            try:
                tile = self.tile or max(x.shape[2:])
                return tiling.run_tiled(network, x, tile, self.overlap, self._network.reach, self._network.stride)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or not self.tile or self.tile // 2 < self._min_tile:
                    raise
                self.tile //= 2

    def _network_for(self, channels: int) -> Network:
        """The network for images with this number of channels, prepared on first use."""
        if channels not in self._prepared:
            self._prepared[channels] = self._network.prepared(channels).to(self.device).requires_grad_(False)
        return self._prepared[channels]


def _are_finite(results: Sequence[Tensor]) -> bool:
    return all(bool(each.isfinite().all()) for each in results)


def _check_finite(frame: Frame, *results: Tensor) -> None:
    if not _are_finite(results):
        raise UnusableImage(f"{frame.name}: the network gives values that are not finite")


def _reference(given: Sequence[Location | numpy.ndarray] | Reference | None) -> Reference | None:
    if given is None or isinstance(given, Reference):
        return given
    if isinstance(given, (str, os.PathLike)):
        raise TypeError(f"reference must be a list of paths or arrays; got {given!r}")
    return Reference.of([each if isinstance(each, numpy.ndarray) else read_frame(each).pixels for each in given])


def enhance(
    image: AnyImage, *, model: Location | None = None, window: Window = "auto",
    scale: int = 1, device: str | torch.device = "auto",
) -> Any:  # fmt: skip
    """Enhances one image. For several images, make an `Enhancer` once, which prepares the network once.

    Args:
        image: a path, an array, a PIL image or a tensor, see `Enhancer.__call__`.
        model: a weights file, or the name of bundled weights; None uses the bundled default.
        window: which values mean black and white, see `deal.io.images.read_image`.
        scale: 1, 2 or 4. The image is first enlarged by bicubic interpolation.
        device: "cpu", "cuda", "cuda:1", ...; "auto" uses CUDA if it is available.

    Returns:
        The enhanced image, of the kind and dtype of the image; an array for a path.
    """
    return Enhancer(load(model), scale=scale, device=device)(image, window)
