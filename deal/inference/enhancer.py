"""Enhancement of images of any size and bit depth.

An image is mapped to [0, 1] once, black to 0 and white to 1, and the network enhances that. The change that the network
makes is mapped back and added to the original values. Values beyond black or white therefore keep their distance, and
pixels that the network does not change stay exactly as they are. Integers are rounded and stay within 8 or 16 bits.

>>> from deal.model.separation import DealU
>>> enhancer = Enhancer(DealU("deal-u-small"))
>>> counts = numpy.random.default_rng(0).integers(7000, 9000, (60, 80), numpy.uint16)
>>> enhanced = enhancer(counts)
>>> enhanced.shape, enhanced.dtype
((60, 80), dtype('uint16'))
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from deal.inference import tiling
from deal.io.images import Frame, Location, UnusableImage, Window, to_frame
from deal.io.out_of_memory import is_out_of_memory
from deal.io.scene import scene_rows, without_dead_pixels
from deal.model import cuda_graph
from deal.model.device import choose_device
from deal.model.parts import Parts, check_strengths
from deal.model.pretrained import Network, load
from deal.model.separation import DealU
from deal_kernels._common.checks import one_of
from deal_kernels.conv.choice import MATRIX_UNIT

Precision = Literal["auto", "fp32", "bf16"]


class Enhancer:
    """A network prepared for inference on many images: its norms are folded and its weights are prepared once.

    Args:
        network: the network, which is copied; None loads the bundled weights. It accepts grey and colour images, see
            `DEAL.with_channels`.
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
    """

    def __init__(
        self, network: Network | None = None, *, scale: int = 1, tile: int | Literal["auto"] = "auto",
        overlap: int | None = None, device: str | torch.device = "auto", precision: Precision = "auto",
        radiometric: bool | None = None, parts: Sequence[str] | Mapping[str, float] | None = None,
        strength: float = 1.0, graph: Literal["auto", "off"] = "auto",
    ) -> None:  # fmt: skip
        one_of("graph", graph, cuda_graph.GRAPHS)
        one_of("radiometric", radiometric, (None, False, True))
        network = load() if network is None else network
        self.strengths = check_strengths(parts, strength)
        self.radiometric_strengths = check_strengths(
            network.radiometric_parts if parts is None else parts, strength
        )  # fmt: skip
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
        self.radiometric = radiometric
        self.tile = tiling.automatic_tile(network, self.device, self.overlap) if tile == "auto" else tile
        self._min_tile = tiling.MIN_TILE if tile == "auto" else tile
        self._network = copy.deepcopy(network)
        self._prepared: dict[int, Network] = {}
        recorder = cuda_graph.recorder_for(graph, self.device)
        self._graphed = None if recorder is None else cuda_graph.Graphed(self._compute, recorder)

    def __call__(
        self, image: Frame | Location | numpy.ndarray | Image.Image, window: Window = "auto"
    ) -> numpy.ndarray:  # fmt: skip
        """Enhances an image.

        Args:
            image: a path, an array [H, W] or [H, W, 3] of uint8, uint16 or float32, a PIL image, or a `Frame`.
            window: which values mean black and white, see `deal.io.images.read_frame`; not used for a `Frame`.

        Returns:
            The enhanced pixels, of the dtype of the image, [H, W] or [H, W, 3].
        """
        frame = image if isinstance(image, Frame) else to_frame(image, window)
        if not numpy.isfinite(frame.pixels).all():
            raise UnusableImage(f"{frame.name} has pixels that are not finite")
        eight_bits = frame.pixels.dtype == numpy.uint8
        radiometric = not eight_bits if self.radiometric is None else self.radiometric
        values = frame.values()[None]
        rows = scene_rows(values) if radiometric else slice(None)
        scene = without_dead_pixels(values[:, :, rows]) if radiometric else values
        x = frame.normalise(self._enlarged(scene))
        bf16 = self.precision == "bf16" or (self._bf16_of_8_bits and eight_bits)
        change = self.enhance_tensor(x, bf16=bf16, radiometric=radiometric) - x
        if not change.isfinite().all():
            raise UnusableImage(f"{frame.name}: the network gives values that are not finite")
        values = self._enlarged(values)
        values[:, :, self._enlarged_rows(rows)] += (frame.high - frame.low) * change
        return frame.to_pixels(values[0])

    def _enlarged(self, values: Tensor) -> Tensor:
        if self.scale == 1:
            return values
        return functional.interpolate(values, [self.scale * side for side in values.shape[2:]], mode="bicubic")

    def _enlarged_rows(self, rows: slice) -> slice:
        return slice(*(None if end is None else self.scale * end for end in (rows.start, rows.stop)))

    def enhance_tensor(self, x: Tensor, *, bf16: bool = False, radiometric: bool = False) -> Tensor:
        """Enhances images [B, C, H, W] in [0, 1]. The result is float32 on the CPU, and values may leave [0, 1].

        If radiometric, the tone and the mean of each channel stay.
        """
        result = self._enhanced(x, bf16, radiometric)
        if bf16 and not result.isfinite().all():
            warnings.warn("the result in bfloat16 is not finite: computed again in float32", stacklevel=2)
            result = self._enhanced(x, False, radiometric)
        return result

    def _enhanced(self, x: Tensor, bf16: bool, radiometric: bool) -> Tensor:
        parts = self.separate(x, bf16=bf16)
        if radiometric:
            return parts.without_mean().restored(x, self.radiometric_strengths)
        return parts.restored(x, self.strengths)

    @torch.inference_mode()
    def separate(self, x: Tensor, *, bf16: bool = False) -> Parts:
        """The parts of images [B, C, H, W] in [0, 1], float32 on the CPU."""
        height, width = x.shape[2:]
        least = self._network.min_size
        padded = functional.pad(x, (0, max(0, least - width), 0, max(0, least - height)), mode="replicate")
        in_one_tile = not self.tile or max(padded.shape[2:]) <= self.tile
        compute = self._graphed if self._graphed is not None and in_one_tile else self._compute
        return Parts(*(part.cpu()[..., :height, :width] for part in compute(padded.to(self.device), bf16)))

    def _compute(self, x: Tensor, bf16: bool) -> Parts:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            found = self._network_for(x.shape[1]).separate(x, self._run_tiled)
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


def enhance(
    image: Location | numpy.ndarray | Image.Image, *, model: Location | None = None, window: Window = "auto",
    scale: int = 1, device: str | torch.device = "auto",
) -> numpy.ndarray:  # fmt: skip
    """Enhances one image. For several images, make an `Enhancer` once, which prepares the network once.

    Args:
        image: a path, an array [H, W] or [H, W, 3] of uint8, uint16 or float32, or a PIL image.
        model: a weights file, or the name of bundled weights; None uses the bundled default.
        window: which values mean black and white, see `deal.io.images.read_frame`.
        scale: 1, 2 or 4. The image is first enlarged by bicubic interpolation.
        device: "cpu", "cuda", "cuda:1", ...; "auto" uses CUDA if it is available.

    Returns:
        The enhanced pixels, of the dtype of the image, [H, W] or [H, W, 3].
    """
    return Enhancer(load(model), scale=scale, device=device)(image, window)
