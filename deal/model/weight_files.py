"""Weights in safetensors files, and the import of the checkpoint that the authors of the paper released."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from deal.io.atomic import atomic_write

# Layer names of the released checkpoint and of the latest released code, and the names here.
_OUTER_CONVS = ("input_conv", "feature_conv", "refine_conv", "output_conv")
_LAYERS = {
    **{name: name for name in _OUTER_CONVS}, **{f"conv{k}": name for k, name in enumerate(_OUTER_CONVS, 1)},
    "block2": "blocks.0", "block3": "blocks.1", "block4": "blocks.2", "block5": "blocks.3",
    "scale_block1": "blocks.0", "spike_block1": "blocks.1", "spike_block2": "blocks.2", "scale_block2": "blocks.3",
}  # fmt: skip
_IN_BLOCKS = {
    "conv1": "first_conv", "conv2": "second_conv", "up_conv": "large_conv", "down_conv": "small_conv",
    "norm1": "first_norm", "norm2": "second_norm", "up_norm": "large_norm", "down_norm": "small_norm",
    "first_norm": "first_norm", "second_norm": "second_norm", "upscale_norm": "large_norm",
    "downscale_norm": "small_norm", "snn.conv": "spiking.conv", "snn.bn": "spiking.norm",
    "spiking_conv.conv": "spiking.conv", "spiking_conv.bn": "spiking.norm",
}  # fmt: skip
_UNUSED = re.compile(r"block[16]\.")  # layers that the released network creates but never runs


def save_tensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes a safetensors file atomically."""
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_write(path) as file:
        file.write(safetensors.torch.save(content, {"format": "pt", **metadata}))


def load_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file."""
    _check_is_file(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:  # type: ignore[no-untyped-call]
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        hint = ": it is a checkpoint of PyTorch, see `deal convert`" if _is_pickled(path) else f": {error}"
        raise ValueError(f"{path} is not a safetensors file{hint}") from error


def load_released(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """A checkpoint of the released code as the state_dict of a three-channel cascade2."""
    _check_is_file(path)
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except pickle.UnpicklingError as error:  # whose message recommends to run what the file says
        raise ValueError(
            f"{path} is not a checkpoint of tensors; nothing else is loaded from it, as that could run any code"
        ) from error
    except Exception as error:  # pickle raises anything
        raise ValueError(f"{path} is not a checkpoint of tensors: {error}") from error
    if not isinstance(saved, Mapping) or not all(isinstance(each, Tensor) for each in saved.values()):
        raise ValueError(f"{path} must hold a state_dict, names to tensors; got {type(saved).__name__}")
    names = {name: released_name(name) for name in saved}
    unknown = [name for name, ours in names.items() if ours is None and not _UNUSED.match(_bare(name))]
    if unknown:
        raise ValueError(
            f"{path} is not a checkpoint of the released network: unknown are {', '.join(unknown[:4])} ..."
        )
    return {ours: saved[name] for name, ours in names.items() if ours is not None}


def released_name(name: str) -> str | None:
    """The name here of a parameter or buffer of the released code; None if it is unknown or never used.

    >>> released_name("module.block3.snn.bn.weight")
    'blocks.1.spiking.norm.weight'
    """
    path, _, leaf = _bare(name).rpartition(".")
    layer, _, inside = path.removesuffix(".conv2d").removesuffix(".norm").partition(".")
    if layer not in _LAYERS or (inside and inside not in _IN_BLOCKS):
        return None
    return ".".join(filter(None, (_LAYERS[layer], _IN_BLOCKS.get(inside), leaf)))


def _bare(name: str) -> str:
    return name.removeprefix("module.")


def _check_is_file(path: str | os.PathLike[str]) -> None:
    """Some readers raise errors that do not name the file."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist" if not Path(path).exists() else f"{path} is not a file")


def _is_pickled(path: str | os.PathLike[str]) -> bool:
    """Whether a file starts like those of `torch.save`: an archive, or a pickle of version 2 or later."""
    with open(path, "rb") as file:
        return file.read(2) in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
