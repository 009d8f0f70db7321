"""Options that several commands share, and their values."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser, Namespace

if TYPE_CHECKING:
    from jsonargparse._core import ArgumentGroup

    from deal.io.batch import Batch
    from deal.io.images import ImageFile
    from deal.io.paths import Job


FILES = ("input", "output", "recursive", "skip_existing", "keep_going", "suffix", "window")  # of the short help
MACHINE = ("device", "threads", "quiet")


def add_files(
    parser: ArgumentParser, *, inputs: str = "images, folders, patterns, .txt lists", windows: str = ""
) -> None:
    """Which files are read and written. A command may take more inputs and windows."""
    group = parser.add_argument_group("files")
    group.add_argument(
        "-i",
        "--input",
        nargs="+",
        required=True,
        metavar="PATH",
        help=f"{inputs}, - for stdin",
    )
    group.add_argument(
        "-o", "--output", type=str, required=True, metavar="PATH",
        help="a folder, a file for a single input, or - for stdout",
    )  # fmt: skip
    group.add_argument("--recursive", action="store_true", help="include subfolders")
    group.add_argument("--skip-existing", action="store_true", help="skip images whose output exists")
    group.add_argument(
        "--keep-going", action="store_true",
        help="go on after images that fail; the manifest says why they do, and the exit code is then 1",
    )  # fmt: skip
    group.add_argument("--suffix", type=str, default="", metavar="TEXT", help="added to file names, before the ending")
    group.add_argument(
        "--ext", type=Literal["auto", "png", "tif", "jpg", "bmp"], default="auto",
        help="file format of the images that are written; auto keeps that of each input",
    )  # fmt: skip
    group.add_argument(
        "--window", nargs="+", type=str, default=["auto"], metavar="VALUE",
        help="values that mean black and white: two numbers; full, which is 0 and 255, or 0 and 65535; or auto, which "
        "is full for 8 bits and else the range of the scene, without telemetry, dead pixels and very hot spots"
        + windows,
    )  # fmt: skip
    group.add_argument(
        "--workers", type=int, default=0, metavar="N",
        help="threads that read the next images, and as many that write the last ones, while one is computed",
    )  # fmt: skip
    group.add_argument(
        "--manifest", type=str | None, default=None, metavar="FILE",
        help="a CSV file that records the status of every image; the default for a folder is manifest.csv in it",
    )  # fmt: skip


def add_machine(parser: ArgumentParser, *, quiet: bool = True) -> ArgumentGroup:
    """Where to compute. The group may get more options."""
    group = parser.add_argument_group("machine")
    group.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or cuda:1")
    group.add_argument("--threads", type=int | None, default=None, metavar="N", help="number of CPU threads")
    if quiet:
        group.add_argument("--quiet", action="store_true", help="show no progress")
    return group


def add_precision(group: ArgumentGroup) -> None:
    group.add_argument(
        "--precision", type=Literal["auto", "fp32", "bf16"], default="auto",
        help="of the network; auto uses bf16 for 8-bit images on a GPU, and with deal-u on a CPU with a matrix unit",
    )  # fmt: skip


def add_graph(group: ArgumentGroup) -> None:
    group.add_argument(
        "--graph", type=Literal["auto", "off"], default="auto",
        help="auto repeats images of one size from a CUDA graph on a GPU; off does not",
    )  # fmt: skip


def add_short_training(parser: ArgumentParser) -> None:
    """The options that the trainings of the fuser and of the detector have in common."""
    parser.add_argument(
        "--learning-rate", type=float, default=1e-3, metavar="NUMBER", help="initial learning rate; it decays to zero"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="random seed")
    add_machine(parser)


def set_threads(threads: int | None) -> None:
    if threads is None:
        return
    if threads < 1:
        raise ValueError(f"threads must be at least 1; got {threads}")
    import torch

    torch.set_num_threads(threads)


def parse_window(values: list[str]) -> Any:
    """The window for `deal.io.images.read_frame`."""
    if values in (["auto"], ["full"]):
        return values[0]
    try:
        low, high = map(float, values)
    except ValueError as error:
        raise ValueError(f"window must be auto, full or two numbers; got {' '.join(values)}") from error
    return low, high


def parse_crop(values: list[str]) -> Any:
    """The size for `deal.io.images.height_and_width`: one number, two numbers or None.

    >>> parse_crop(["192x256"]), parse_crop(["192", "256"]), parse_crop(["64"]), parse_crop(["none"])
    ((192, 256), (192, 256), 64, None)
    """
    if values == ["none"]:
        return None
    try:
        numbers = tuple(int(number) for value in values for number in value.split("x"))
    except ValueError as error:
        raise ValueError(f"crop must be HEIGHTxWIDTH, one number or none; got {' '.join(values)}") from error
    return numbers[0] if len(numbers) == 1 else numbers


def plan(parsed: Namespace, *, clips: bool = False) -> list[Job]:
    """The jobs of a command with `add_files`, which may take clips, too."""
    from deal.io.manifest import written_by
    from deal.io.paths import plan_jobs

    ending = None if parsed.ext == "auto" else f".{parsed.ext}"
    return plan_jobs(
        parsed.input, parsed.output, recursive=parsed.recursive, suffix=parsed.suffix, ending=ending,
        keep_going=parsed.keep_going, earlier=written_by(_manifest(parsed)), clips=clips,
    )  # fmt: skip


def _manifest(parsed: Namespace) -> Path:
    return Path(parsed.manifest or Path(parsed.output) / "manifest.csv")


def open_batch(parsed: Namespace, jobs: list[Job]) -> Batch:
    """The batch of a command with `add_files`."""
    from deal.io.batch import Batch

    if parsed.workers < 0:
        raise ValueError(f"workers must be at least 0; got {parsed.workers}")
    into_folder = jobs[0].target != Path(parsed.output)
    return Batch(
        jobs, skip_existing=parsed.skip_existing, keep_going=parsed.keep_going,
        manifest=_manifest(parsed) if parsed.manifest or into_folder else None,
        progress=not parsed.quiet, workers=parsed.workers,
    )  # fmt: skip


def pages_ahead(
    parsed: Namespace, jobs: list[Job], read: Callable[[Path], Iterator[ImageFile]]
) -> AbstractContextManager[Callable[[Path], Iterator[ImageFile]]]:
    """`read`, which gives the pages of a file, with the first page of the next files read by --workers threads."""
    from deal.io.ahead import read_ahead
    from deal.io.video import is_clip

    def opened(path: Path) -> Iterator[ImageFile]:
        pages = read(path)
        return itertools.chain([next(pages)], pages)

    wanted = [
        job.source for job in jobs
        if not (job.problem or is_clip(job.source) or (parsed.skip_existing and os.path.exists(job.target)))
    ]  # fmt: skip
    return read_ahead(opened, wanted, parsed.workers)


def report(batch: Batch, quiet: bool) -> int:
    """Prints the summary of a batch, and returns the exit code."""
    if not quiet:
        manifest = f"; {printable(batch.manifest)}" if batch.manifest else ""
        print(f"{batch.tally} in {batch.seconds:.1f} s{manifest}")
    return 1 if batch.tally.failed else 0


def printable(text: object) -> str:
    """A text of a file or of an error for the terminal, in one line and without control characters.

    >>> printable("two\\nlines, \\x1b[31mred")
    'two lines, \\\\x1b[31mred'
    """
    line = " ".join(str(text).split())
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in line)


def loss_summary(losses: list[float]) -> str:
    """The number of training steps, and the losses at their start and end."""
    tenth = max(1, len(losses) // 10)
    first, last = (sum(part) / tenth for part in (losses[:tenth], losses[-tenth:]))
    return f"{len(losses)} steps, mean loss {first:.4f} in the first tenth, {last:.4f} in the last"
