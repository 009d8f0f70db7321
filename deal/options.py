"""Options that several commands take, and what is made of their values."""

from __future__ import annotations

from typing import Any, Literal

from jsonargparse import ArgumentParser


def add_files(parser: ArgumentParser) -> None:
    parser.add_argument("-i", "--input", nargs="+", required=True, metavar="PATH", help="images, folders or patterns")
    parser.add_argument("-o", "--output", type=str, required=True, metavar="PATH", help="a folder, or a file for one")
    parser.add_argument("--recursive", action="store_true", help="go into the folders of folders")
    parser.add_argument("--skip-existing", action="store_true", help="leave out what is there already")
    parser.add_argument("--keep-going", action="store_true", help="go on behind unusable images; the exit code is 1")
    parser.add_argument("--suffix", type=str, default="", help="put behind each name, before its ending")
    parser.add_argument("--ext", type=Literal["auto", "png", "tif", "jpg", "bmp"], default="auto", help="the ending")
    parser.add_argument(
        "--window", nargs="+", type=str, default=["auto"], metavar="VALUE",
        help="which values are black and white: two numbers; full, 0 and 255 or 65535; or auto, the same for 8 bits, "
        "and for 16 those that a thousandth of the pixels lies below and above",
    )  # fmt: skip
    parser.add_argument(
        "--manifest", type=str | None, default=None, metavar="FILE",
        help="a CSV file with a line for every image; for a folder manifest.csv in it by default",
    )  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def add_device(parser: ArgumentParser) -> None:
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or cuda:1")
    parser.add_argument("--precision", type=Literal["auto", "fp32", "bf16"], default="auto", help="of computation")
    parser.add_argument("--threads", type=int | None, default=None, help="processor threads to use")


def set_threads(threads: int | None) -> None:
    if threads is None:
        return
    if threads < 1:
        raise ValueError(f"threads must be at least 1; got {threads}")
    import torch

    torch.set_num_threads(threads)


def window_of(values: list[str]) -> Any:
    """What `deal.data.read_frame` takes."""
    if values in (["auto"], ["full"]):
        return values[0]
    try:
        low, high = map(float, values)
    except ValueError as error:
        raise ValueError(f"window must be auto, full or two numbers; got {' '.join(values)}") from error
    return low, high


def crop_of(value: str) -> tuple[int, int] | None:
    """Height and width; None takes all of an image."""
    if value == "none":
        return None
    try:
        height, width = map(int, value.split("x"))
    except ValueError as error:
        raise ValueError(f"crop must be such as 256x320, or none; got {value}") from error
    return height, width
