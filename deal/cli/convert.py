"""Convert a checkpoint of the authors' released code."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser, Namespace

COMMON = ("checkpoint", "output", "channels")


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=str, help="the checkpoint, a .pt file")
    parser.add_argument("output", type=str, help="the weights file to write, a .safetensors file")
    parser.add_argument("--channels", type=Literal[1, 3], default=3, help="number of image channels")


def run(parsed: Namespace) -> int:
    from deal.model.network import DEAL

    network = DEAL.from_released(parsed.checkpoint).with_channels(parsed.channels)
    checksum = hashlib.sha256(Path(parsed.checkpoint).read_bytes()).hexdigest()
    network.save_pretrained(parsed.output, converted_from=Path(parsed.checkpoint).name, sha256=checksum)
    print(f"{parsed.output}: {sum(parameter.numel() for parameter in network.parameters()):,} parameters")
    return 0
