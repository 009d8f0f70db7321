"""Write a network as an ONNX file or a program of torch.export.

Neither needs this package. The file takes images of any height and width in [0, 1], black 0 and white 1. Before it is
written, its results are compared with those of the network.
"""

from __future__ import annotations

import os
from typing import Literal

from jsonargparse import ArgumentParser, Namespace

COMMON = ("model", "output", "format", "channels")


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "-m", "--model", type=str | None, default=None, metavar="FILE",
        help="weights from deal train or deal convert, or the name of bundled weights",
    )  # fmt: skip
    parser.add_argument("-o", "--output", type=str, required=True, metavar="FILE", help="the file to write")
    parser.add_argument(
        "--format", type=Literal["onnx", "torch"], default="onnx",
        help="onnx needs the packages of the extra onnx; torch is a .pt2 file for torch.export.load",
    )  # fmt: skip
    parser.add_argument("--channels", type=Literal[1, 3], default=1, help="number of image channels")


def run(parsed: Namespace) -> int:
    from deal.inference.export import export
    from deal.model.pretrained import bundled_weights, load

    network = load(parsed.model)
    name = os.path.basename(parsed.model or str(bundled_weights())).removesuffix(".safetensors")
    written = export(network, parsed.output, parsed.format, channels=parsed.channels, name=name)
    print(f"{parsed.output}: {os.path.getsize(parsed.output) / 1e6:.1f} MB")
    if written.operators:
        print(f"operators: {' '.join(written.operators)}")
    for size, difference in written.differences.items():
        print(f"largest difference from the network, {size}: {difference:.1e}")
    return 0
