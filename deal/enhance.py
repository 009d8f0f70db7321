"""Images and files through the network: of any size and depth, in tiles where they are large.

A frame is mapped to [0, 1] once: `low`, what is black, to 0, and `high` to 1. The network sees what is between. What it
changes is mapped back and added to the frame's own values, so that a value beyond low or high stays as far beyond, and
where the network changes nothing nothing changes. Whole numbers are rounded and stay within their 8 or 16 bits.

>>> import torch
>>> enhancer = Enhancer(DEAL([("scale", 5, 3)], width=8))
>>> counts = numpy.random.default_rng(0).integers(7000, 9000, (60, 80), numpy.uint16)
>>> enhanced = enhancer(Frame(counts, low=7000, high=9000))
>>> enhanced.shape, enhanced.dtype
((60, 80), dtype('uint16'))
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Literal

import numpy
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from deal import tiles
from deal.data import Frame, Location, UnusableImage, Window, read_frame
from deal.files import Made
from deal.model import DEAL
from deal_kernels.lif.arguments import one_of

Precision = Literal["auto", "fp32", "bf16"]
WEIGHTS = Path(__file__).with_name("weights")


class Enhancer:
    """A network made ready for many frames: its norms folded in, its weights prepared once.

    Args:
        network: stays as it is; the enhancer has one of its own. It takes grey frames and colours, whichever it was
            made for, see `DEAL.with_channels`.
        scale: 1, 2 or 4. Frames are first made larger, bicubically.
        tile: height and width of the parts that a frame is computed in; 0 takes frames whole; "auto" as large as memory
            allows, and smaller where it turns out not to suffice.
        overlap: what the parts see more to each side, in pixels: at least the network's reach. None adds some for
            blending. Parts and whole differ by rounding.
        device: "cpu", "cuda", "cuda:1", ...; "auto" takes CUDA where it is there.
        precision: "bf16" computes in bfloat16, and in float32 anew where that gives a value that is not finite;
            "auto" takes it on CUDA, for frames of 8 bits.
    """

    def __init__(
        self, network: DEAL, *, scale: int = 1, tile: int | Literal["auto"] = "auto", overlap: int | None = None,
        device: str | torch.device = "auto", precision: Precision = "auto",
    ) -> None:  # fmt: skip
        one_of("scale", scale, (1, 2, 4))
        one_of("precision", precision, ("auto", "fp32", "bf16"))
        if tile != "auto" and (isinstance(tile, bool) or not isinstance(tile, int) or tile < 0):
            raise ValueError(f"tile must be 'auto', or a whole number of at least 0; got {tile!r}")
        self.overlap = network.reach + tiles.BLEND if overlap is None else overlap
        if self.overlap < network.reach:
            raise ValueError(f"overlap must be at least {network.reach}, the network's reach; got {overlap}")
        self.device, self.scale, self.precision = chosen_device(device), scale, precision
        self.tile = tiles.automatic(network, self.device, self.overlap) if tile == "auto" else tile
        self._least_tile = tiles.LEAST_TILE if tile == "auto" else tile
        self._network = network.with_channels(network.channels).eval()
        self._ready: dict[int, DEAL] = {}

    def __call__(self, frame: Frame) -> numpy.ndarray:
        """The enhanced pixels, in the frame's type, [H, W] or [H, W, 3]."""
        values = torch.from_numpy(frame.pixels.astype(numpy.float32))
        values = (values.permute(2, 0, 1) if values.dim() == 3 else values[None])[None]
        if self.scale > 1:
            size = [self.scale * side for side in values.shape[2:]]
            values = functional.interpolate(values, size, mode="bicubic")
        span = frame.high - frame.low
        seen = ((values - frame.low) / span).clamp_(0, 1)
        half = self.precision == "bf16" or (
            self.precision == "auto" and self.device.type == "cuda" and frame.pixels.dtype == numpy.uint8
        )
        changed = values + span * (self.tensor(seen, half=half) - seen)
        pixels = (changed[0].permute(1, 2, 0) if values.shape[1] == 3 else changed[0, 0]).numpy()
        if frame.pixels.dtype == numpy.float32:
            return numpy.ascontiguousarray(pixels)
        most = numpy.iinfo(frame.pixels.dtype).max
        return numpy.ascontiguousarray(pixels.round().clip(0, most).astype(frame.pixels.dtype))

    def tensor(self, x: Tensor, *, half: bool = False) -> Tensor:
        """Images [B, C, H, W] in [0, 1] enhanced, on the CPU, in float32; values may go beyond that range."""
        result = self._computed(x, half)
        if half and not result.isfinite().all():
            warnings.warn("bfloat16 gave values that are not finite: computed in float32 instead", stacklevel=2)
            result = self._computed(x, False)
        if not result.isfinite().all():
            raise UnusableImage("the network gives values that are not finite")
        return result

    def _computed(self, x: Tensor, half: bool) -> Tensor:
        network = self._prepared(x.shape[1])
        least = network.least_size
        height, width = x.shape[2:]
        padded = functional.pad(x, (0, max(0, least - width), 0, max(0, least - height)), mode="replicate")

        def part(each: Tensor) -> Tensor:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
                return network.restored(each.to(self.device)).float().cpu()

        with torch.inference_mode():
            if network.context is not None:
                padded = network.context(padded.to(self.device)).cpu()
            while True:
                try:
                    tile = self.tile or max(padded.shape[2:])
                    result = tiles.tiled(part, padded, tile, self.overlap, network.reach)
                    return result[..., :height, :width]
                except (torch.OutOfMemoryError, MemoryError):
                    if self.tile // 2 < self._least_tile:
                        raise
                    self.tile //= 2

    def _prepared(self, channels: int) -> DEAL:
        if channels not in self._ready:
            network = self._network.with_channels(channels).fuse().to(self.device).requires_grad_(False)
            self._ready[channels] = network
        return self._ready[channels]


def enhance_file(enhancer: Enhancer, source: Location, window: Window = "auto") -> Made:
    """What becomes of an image file."""
    frame = read_frame(source, window)
    if not numpy.isfinite(frame.pixels).all():
        raise UnusableImage(f"{source} has pixels that are not finite")
    pages = page_count(source)
    message = f"only the first of {pages} pages is taken" if pages > 1 else ""
    if message:
        warnings.warn(f"{source}: {message}", stacklevel=2)
    try:
        pixels = enhancer(frame)
    except UnusableImage as error:
        raise UnusableImage(f"{source}: {error}") from error
    notes = {
        "height": pixels.shape[0], "width": pixels.shape[1], "type": str(pixels.dtype), "black": f"{frame.low:g}",
        "white": f"{frame.high:g}", "message": message,
    }  # fmt: skip
    return Made(pixels, notes)


def page_count(path: Location) -> int:
    with Image.open(path) as image:
        return getattr(image, "n_frames", 1)


def chosen_device(device: str | torch.device) -> torch.device:
    """The device of a name, which is there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device must be one that this machine has; got {str(device)!r}: {reason}") from error
    return chosen


def bundled() -> Path | None:
    """The weights that come with the package; of several the last one by name."""
    found = sorted(WEIGHTS.glob("*.safetensors"))
    return found[-1] if found else None


def load(model: Location | None = None) -> DEAL:
    """The network of a file of weights, of one bundled by that name, or for None of the bundled ones."""
    if model is None:
        path = bundled()
        if path is None:
            raise FileNotFoundError(
                "no weights come with this package: name a file of weights, as deal train writes it"
            )
        return DEAL.from_pretrained(path)
    named = WEIGHTS / f"{model}.safetensors"
    return DEAL.from_pretrained(named if named.is_file() else model)
