"""Enhancement methods by name: classical methods, cascades of them, and networks.

Methods joined with "+" are applied from left to right. "rows:" before the name of a method applies it to the transposed
image, so that methods against stripes of columns remove stripes of rows. "gaussian-blur" has a deviation of 2 pixels;
any other follows its name, as in "gaussian-blur-1.5". "destripe" and "nl-means" need the extra "evaluate".

>>> import torch
>>> cascade = classical_method("midway+rows:midway+gaussian-blur-1.5+stretch")
>>> cascade(torch.rand(2, 1, 48, 64)).shape
torch.Size([2, 1, 48, 64])
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from deal.evaluate.baselines import packaged
from deal.evaluate.baselines.columns import median_difference, midway, moment_matching
from deal.evaluate.baselines.contrast import clahe, stretch
from deal.evaluate.baselines.denoising import gaussian_blur, median_filter
from deal.evaluate.baselines.guided import guided_filter
from deal.evaluate.baselines.variation import utv
from deal.evaluate.baselines.wavelets import wavelet_fourier
from deal.evaluate.labels import short_names
from deal.evaluate.results import INPUT
from deal.inference.enhancer import Enhancer
from deal.model.network import DEAL
from deal.model.pretrained import Network, is_bundled, load

Method = Callable[[Tensor], Tensor]

BASELINES: dict[str, Method] = {
    INPUT: lambda x: x,  # images whose resolution was reduced are enlarged again by bicubic interpolation
    "median-difference": median_difference,
    "moment-matching": moment_matching,
    "guided-filter": guided_filter,
    "midway": midway,
    "utv": utv,
    "wavelet-fourier": wavelet_fourier,
    "clahe": clahe,
    "stretch": stretch,
    "gaussian-blur": gaussian_blur,
    "median-filter": median_filter,
}
PACKAGED: dict[str, Method] = {"destripe": packaged.destripe, "nl-means": packaged.nl_means}
ROWS = "rows:"
BLUR = re.compile(r"gaussian-blur-(\d+(?:\.\d+)?)")
BUNDLED = "deal"
BEST = "best-classical"
WEIGHT_ENDINGS = (".safetensors", ".pt")
# The candidates for "best-classical".
CLASSICAL = (
    "none", "median-difference", "moment-matching", "guided-filter", "midway", "utv", "wavelet-fourier", "clahe",
    "stretch", "median-difference+stretch", "median-difference+clahe", "moment-matching+stretch",
    "guided-filter+stretch", "midway+stretch", "utv+stretch", "wavelet-fourier+stretch",
    "gaussian-blur-1", "gaussian-blur-1.5", "gaussian-blur", "median-filter", "rows:median-difference",
    "rows:guided-filter", "median-difference+rows:median-difference",
    "median-difference+rows:median-difference+stretch", "guided-filter+rows:guided-filter", "midway+rows:midway",
    "midway+rows:midway+gaussian-blur-1", "midway+rows:midway+gaussian-blur-1.5",
    "midway+rows:midway+gaussian-blur+stretch",
)  # fmt: skip
# Those that are added if their package is installed. destripe takes longer than all others together.
CLASSICAL_PACKAGED = ("nl-means", "midway+rows:midway+nl-means", "midway+rows:midway+nl-means+stretch")
PAIR_REFERENCES = ("none", "stretch")  # always included in a benchmark of pairs


def check_methods(names: Sequence[str]) -> None:
    """Raises unless the names are a list with at least one name."""
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise TypeError(f"methods must be a list of names; got {names!r}")
    if not names:
        raise ValueError("methods must have at least one name; got none")


def find_method(name: str, *, tile: int | Literal["auto"] = 0, device: str | torch.device = "auto") -> Method:
    """A function of images [B, C, H, W] in [0, 1]; values of its result may leave that range.

    Args:
        name: a classical method or a cascade, see `classical_method`; "deal" for the default weights; the name of
            bundled weights, such as "deal-u-small"; a weights file, .safetensors; or a checkpoint of the authors'
            released code, .pt, which is converted to one channel.
        tile, device: for networks, see `Enhancer`.
    """
    if name == BUNDLED or is_bundled(name) or Path(name).suffix in WEIGHT_ENDINGS:
        return Enhancer(_network(name), tile=tile, device=device, precision="fp32").enhance_tensor
    try:
        return classical_method(name)
    except ValueError as error:
        raise ValueError(f"{error}; or {BEST!r}, {BUNDLED!r}, a .safetensors or a .pt file") from error


def find_methods(names: Sequence[str], *, device: str | torch.device = "auto") -> dict[str, Method]:
    """The methods for a benchmark of detection or fusion, by label.

    Args:
        names: see `find_method`. "best-classical" is refused, because it is chosen by PSNR.
        device: for networks.
    """
    check_methods(names)
    if BEST in names:
        raise ValueError(f"methods must not include {BEST!r}, which is chosen by PSNR; name a classical method")
    shown = labels(list(dict.fromkeys(names)))
    return {label: find_method(name, tile="auto", device=device) for name, label in shown.items()}


def find_pair_methods(names: Sequence[str], *, device: str | torch.device = "auto") -> dict[str, Method]:
    """The methods for a benchmark of pairs, `PAIR_REFERENCES` first; arguments as of `find_methods`."""
    check_methods(names)
    return find_methods((*PAIR_REFERENCES, *names), device=device)


def candidates() -> tuple[str, ...]:
    """The methods of which "best-classical" is the best."""
    return CLASSICAL + (CLASSICAL_PACKAGED if packaged.installed("nl-means") else ())


def classical_method(name: str) -> Method:
    """A classical method, or a cascade of several, joined with "+" and applied from left to right.

    Returns:
        A function of float32 or float64 images [B, C, H, W], which checks its argument.

    Raises:
        ValueError: if a name is unknown; the message lists the known names.
        ModuleNotFoundError: if the package of a method is not installed.
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a string; got {type(name).__name__}")
    steps = [_step(part, name) for part in name.split("+")]

    def run(x: Tensor) -> Tensor:
        _check_images(x)
        for step in steps:
            x = step(x)
        return x

    return run


def _step(part: str, name: str) -> Method:
    """The method of one part of a name."""
    if part.startswith(ROWS):
        return functools.partial(_transposed, _known(part.removeprefix(ROWS), name))
    return _known(part, name)


def _transposed(method: Method, x: Tensor) -> Tensor:
    return method(x.mT).mT.contiguous()


def _known(part: str, name: str) -> Method:
    if (match := BLUR.fullmatch(part)) and float(match[1]) > 0:
        return functools.partial(gaussian_blur, deviation=float(match[1]))
    if part in PACKAGED:
        packaged.check(part)
    elif part not in BASELINES:
        known = ", ".join((*BASELINES, *PACKAGED))
        raise ValueError(
            f"unknown method {part!r} in {name!r}; known are {known}, gaussian-blur with a deviation above 0 such as "
            f"gaussian-blur-1.5, each also for rows such as {ROWS}midway, and cascades with '+'"
        )
    return (BASELINES | PACKAGED)[part]


def labels(names: Sequence[str]) -> dict[str, str]:
    """The names of methods in tables: files are shortened to their name and the folders that tell them apart.

    >>> labels(["none", "runs/a/best.safetensors", "runs/b/best.safetensors"])["runs/b/best.safetensors"]
    'b/best.safetensors'
    """
    files = [name for name in names if Path(name).suffix in WEIGHT_ENDINGS]
    others = [name for name in names if name not in files]
    shown = dict(zip(files, short_names(files, others), strict=True))
    return {name: shown.get(name, name) for name in names}


def _network(name: str) -> Network:
    if Path(name).suffix == ".pt":
        return DEAL.from_released(name).with_channels(1)
    return load(None if name == BUNDLED else name)


def _check_images(x: Tensor) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a tensor; got {type(x).__name__}")
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"x must be float32 or float64, in [0, 1]; got {x.dtype}")
    if x.dim() != 4 or not x.numel():
        raise ValueError(f"x must be [B, C, H, W] with at least one pixel; got the shape {tuple(x.shape)}")
