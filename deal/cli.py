"""The command `deal`. What a subcommand needs is imported when it runs: `deal --help` is there at once."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser, Namespace

from deal import options

DESCRIPTION = "DEAL: enhances thermal images, and trains the network that does it from a few clean ones."
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line; the exit code: 0, 1 after a failure, 2 for a command line that is none, 130 after Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parsed = _parser(arguments).parse_args(arguments)
    command = COMMANDS[parsed.subcommand]
    try:
        with _short_warnings():
            return command.run(parsed[parsed.subcommand])
    except KeyboardInterrupt:
        told = "deal: interrupted: what is written is whole, and --skip-existing or --resume true goes on"
        print(told, file=sys.stderr)
        return INTERRUPTED
    except (OSError, ValueError, FloatingPointError, RuntimeError) as error:
        if os.environ.get("DEAL_TRACEBACK"):
            raise
        print(f"deal: error: {_told(error)}", file=sys.stderr)
        return 1


def _told(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}"
    return str(error) or type(error).__name__


@contextlib.contextmanager
def _short_warnings() -> Iterator[None]:
    """Without the line of source that a warning comes from."""

    def show(message: Warning | str, category: type[Warning], *_: Any) -> None:
        if issubclass(category, UserWarning):
            print(f"deal: warning: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show  # type: ignore[assignment]
        yield


def _parser(arguments: Sequence[str]) -> ArgumentParser:
    """Only the subcommand that is named gets its arguments, as they may need torch."""
    parser = ArgumentParser(prog="deal", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=_version())
    subcommands = parser.add_subcommands(metavar="COMMAND")
    named = next((each for each in arguments if not each.startswith("-")), None)
    for name, command in COMMANDS.items():
        subparser = ArgumentParser(description=command.__doc__)
        if name == named:
            command.add_arguments(subparser)
        subcommands.add_subcommand(name, subparser, help=str(command.__doc__).splitlines()[0])
    return parser


def _version() -> str:
    from importlib import metadata

    try:
        return f"deal {metadata.version('deal-kernels')}"
    except metadata.PackageNotFoundError:
        return "deal, from a folder of its source"


class Train:
    """Train the network on clean images.

    Without --images it makes synthetic thermal scenes. Several GPUs: torchrun --nproc-per-node N -m deal train ...
    """

    @staticmethod
    def add_arguments(parser: ArgumentParser) -> None:
        from deal.settings import Settings

        parser.add_argument("-c", "--config", action="config", help="a YAML file of settings; flags behind it win")
        parser.add_class_arguments(Settings)

    @staticmethod
    def run(parsed: Namespace) -> int:
        from deal import das

        values = {name: value for name, value in parsed.as_dict().items() if name != "config"}
        result = das.train(das.Settings(**values))
        if int(os.environ.get("RANK", 0)) == 0:
            print(
                f"{result.steps} steps, validation {result.psnr:.2f} dB, loss {result.loss:.4f} (best "
                f"{result.best:.4f}): {result.output / 'best.safetensors'}"
            )
        return 0


class Enhance:
    """Enhance images: a file, a folder, a pattern, or a .txt that lists them.

    8 bits in are 8 bits out, 16 are 16, and metadata is kept. Frames of 16 bits are mapped to what the network knows by
    --window; what it changes is mapped back and added to their own values, once per frame.
    """

    @staticmethod
    def add_arguments(parser: ArgumentParser) -> None:
        options.add_files(parser)
        parser.add_argument(
            "-m", "--model", type=str | None, default=None, metavar="FILE",
            help="weights, from deal train or deal convert, or the name of bundled ones",
        )  # fmt: skip
        parser.add_argument("--scale", type=Literal[1, 2, 4], default=1, help="make images larger first, bicubically")
        parser.add_argument(
            "-t", "--tile", type=int | Literal["auto"], default="auto",
            help="size of the parts a frame is computed in; 0 takes it whole, auto as large as memory allows",
        )  # fmt: skip
        parser.add_argument(
            "--tile-overlap", "--tile_overlap", "--tile-pad", "--tile_pad", dest="tile_overlap", type=int | None,
            default=None, help="pixels that parts see around them, at least the network's reach; seams are blended",
        )  # fmt: skip
        options.add_device(parser)

    @staticmethod
    def run(parsed: Namespace) -> int:
        # One map of a megapixel at the network's width is 128 MiB, and several of them are alive at once.
        os.environ.setdefault("DEAL_KERNELS_KEEP_MB", "1024")
        from deal import enhance

        options.set_threads(parsed.threads)
        jobs, window = _jobs(parsed), options.window_of(parsed.window)
        enhancer = enhance.Enhancer(
            enhance.load(parsed.model), scale=parsed.scale, tile=parsed.tile, overlap=parsed.tile_overlap,
            device=parsed.device, precision=parsed.precision,
        )  # fmt: skip
        return _run(parsed, jobs, lambda source: enhance.enhance_file(enhancer, source, window))


class Degrade:
    """Degrade images, to see what the network is to undo, or to measure it.

    The operations are applied in their order; the same seed gives a file of the same place in the row the same stripes.
    """

    @staticmethod
    def add_arguments(parser: ArgumentParser) -> None:
        options.add_files(parser)
        parser.add_argument(
            "--ops", nargs="+", type=str, metavar="OP", default=["average_pool_resize_2", "contrast_0.5", "stripe"],
            help="such as stripe, gain, noise, gaussian_blur_1.5, average_pool_resize_4, contrast_0.5, posterize_5",
        )  # fmt: skip
        parser.add_argument(
            "--deviation", type=float | None, default=None,
            help="of stripe, row_stripe, gain, noise and gaussian_blur, of an image from 0 to 1; else drawn at random",
        )  # fmt: skip
        parser.add_argument("--seed", type=int, default=0, help="of what is random")
        parser.add_argument("--threads", type=int | None, default=None, help="processor threads to use")

    @staticmethod
    def run(parsed: Namespace) -> int:
        from deal import degrade

        options.set_threads(parsed.threads)
        jobs, window = _jobs(parsed), options.window_of(parsed.window)
        degrader = degrade.Degrader(parsed.ops, deviation=parsed.deviation)
        seeds = {job.source: parsed.seed + place for place, job in enumerate(jobs)}
        return _run(parsed, jobs, lambda source: degrade.degrade_file(degrader, source, seeds[source], window))


class Info:
    """Show the version, what runs on this machine, and what is in a file of weights."""

    @staticmethod
    def add_arguments(parser: ArgumentParser) -> None:
        parser.add_argument("model", type=str | None, nargs="?", default=None, help="a file of weights")

    @staticmethod
    def run(parsed: Namespace) -> int:
        from deal import enhance
        from deal.checkpoint import load_tensors
        from deal_kernels.__main__ import print_info

        print(_version())
        print_info()
        path = parsed.model or enhance.bundled()
        if path is None:
            print("\nno weights come with this package")
            return 0
        network = enhance.load(path)
        print(f"\n{path}")
        print(f"  parameters  {sum(parameter.numel() for parameter in network.parameters()):,}")
        print(f"  operations  {network.macs:,} multiply-accumulates for a pixel")
        print(f"  reach       {network.reach} pixels to each side")
        for name, value in network.config.items():
            print(f"  {name:10}  {value}")
        for name, note in load_tensors(path)[1].items():
            if name not in ("format", "deal.config"):
                print(f"  {name:10}  {note}")
        return 0


class Convert:
    """Convert a checkpoint of the authors' released code to a file of weights."""

    @staticmethod
    def add_arguments(parser: ArgumentParser) -> None:
        parser.add_argument("checkpoint", type=str, help="the checkpoint, a .pt file")
        parser.add_argument("output", type=str, help="the file of weights to write, a .safetensors file")
        parser.add_argument("--channels", type=Literal[1, 3], default=3, help="of the images that it is to take")

    @staticmethod
    def run(parsed: Namespace) -> int:
        from deal.model import DEAL

        network = DEAL.from_released(parsed.checkpoint).with_channels(parsed.channels)
        checksum = hashlib.sha256(Path(parsed.checkpoint).read_bytes()).hexdigest()
        network.save_pretrained(parsed.output, converted_from=Path(parsed.checkpoint).name, sha256=checksum)
        print(f"{parsed.output}: {sum(parameter.numel() for parameter in network.parameters()):,} parameters")
        return 0


class Demo:
    """Show what it does, without any data: a thermal frame, degraded, enhanced, side by side."""

    @staticmethod
    def add_arguments(parser: ArgumentParser) -> None:
        parser.add_argument("-o", "--output", type=str, default="deal_demo.png", help="the picture to write")
        parser.add_argument(
            "-m", "--model", type=str | None, default=None, metavar="FILE",
            help="weights; else the bundled ones, else those beside the picture, else a training of --minutes",
        )  # fmt: skip
        parser.add_argument("--minutes", type=float, default=2.0, help="of training, where there are no weights")
        parser.add_argument("--seed", type=int, default=7, help="of the stripes")
        options.add_device(parser)

    @staticmethod
    def run(parsed: Namespace) -> int:
        from deal import demo

        options.set_threads(parsed.threads)
        print(
            demo.run(
                parsed.output, model=parsed.model, minutes=parsed.minutes, seed=parsed.seed, device=parsed.device,
                precision=parsed.precision,
            )
        )  # fmt: skip
        return 0


class Evaluate:
    """Measure methods on clean images that it degrades, or on what fusing infrared with visible images gives.

    It prints the tables, and writes results.csv, results.md and sheet.png.
    """

    @staticmethod
    def add_arguments(parser: ArgumentParser) -> None:
        parser.add_argument("--data", nargs="+", type=str, default=[], metavar="PATH", help="clean images or folders")
        parser.add_argument(
            "--pairs", type=str | None, default=None, metavar="FOLDER",
            help="in place of --data: whole images in ir/ and vis/ with the same names, fused by maximum and by mean",
        )  # fmt: skip
        parser.add_argument(
            "--fuser", type=str | None, default=None, metavar="FILE",
            help="for --pairs: weights from deal train-fuser, whose network fuses them as well",
        )  # fmt: skip
        parser.add_argument("--suite", type=str, default="standard", help="of degradations: standard or short")
        parser.add_argument(
            "--methods", type=str, default="none,best-classical,deal", metavar="NAME,...",
            help="classical methods, or several with + between them, one after the other; best-classical; deal, the "
            "weights that come with it; files of weights; checkpoints of the authors' released code, .pt",
        )  # fmt: skip
        parser.add_argument("--crop", type=str, default="256x320", help="of each image's middle; none takes all of it")
        parser.add_argument("--seed", type=int, default=0, help="of what is random")
        parser.add_argument("-o", "--output", type=str, default="evaluation", metavar="FOLDER", help="for files")
        parser.add_argument("--device", type=str, default="auto", help="of networks: auto, cpu, cuda or cuda:1")
        parser.add_argument("--threads", type=int | None, default=None, help="processor threads to use")
        parser.add_argument("--quiet", action="store_true", help="show no progress")

    @staticmethod
    def run(parsed: Namespace) -> int:
        if bool(parsed.data) == bool(parsed.pairs):
            raise ValueError("one of --data and --pairs must be given")
        if parsed.fuser and not parsed.pairs:
            raise ValueError("--fuser needs --pairs, which it is to fuse")
        from deal import evaluate, pairs, report

        options.set_threads(parsed.threads)
        start = time.perf_counter()
        report.check_folder(parsed.output)
        methods = [name.strip() for name in parsed.methods.split(",") if name.strip()]
        where = {"device": parsed.device, "progress": not parsed.quiet}
        results: Any
        if parsed.pairs:
            results = pairs.evaluate_pairs(parsed.pairs, methods, fuser=parsed.fuser, **where)
        else:
            crop = options.crop_of(parsed.crop)
            results = evaluate.evaluate(parsed.data, parsed.suite, methods, crop=crop, seed=parsed.seed, **where)
        print(report.as_markdown(results))
        written = ", ".join(map(str, report.write(results, parsed.output)))
        print(f"{written} in {time.perf_counter() - start:.1f} s")
        return 0


class TrainFuser:
    """Train a network that fuses infrared with visible images, for deal evaluate --pairs.

    It learns from pairs alone: to be like both images, at every pixel in structure more like the one with more contrast
    there, and in value more like the brighter one.
    """

    @staticmethod
    def add_arguments(parser: ArgumentParser) -> None:
        parser.add_argument(
            "--pairs", type=str, required=True, metavar="FOLDER", help="images in ir/ and vis/ with the same names"
        )
        parser.add_argument(
            "-o", "--output", type=str, required=True, metavar="FILE",
            help="the file of weights to write, a .safetensors file",
        )  # fmt: skip
        parser.add_argument("--steps", type=int, default=2000, help="how many batches to train on")
        parser.add_argument("--batch", type=int, default=4, help="pairs in a step")
        parser.add_argument("--crop", type=int, default=64, help="height and width of random cuts of them")
        parser.add_argument("--learning_rate", type=float, default=1e-3, help="of Adam; it falls to zero")
        parser.add_argument("--seed", type=int, default=0, help="of what is random")
        parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or cuda:1")
        parser.add_argument("--threads", type=int | None, default=None, help="processor threads to use")
        parser.add_argument("--quiet", action="store_true", help="show no progress")

    @staticmethod
    def run(parsed: Namespace) -> int:
        from deal import reco, report

        options.set_threads(parsed.threads)
        report.check_folder(Path(parsed.output).parent)
        start = time.perf_counter()
        losses = reco.train(
            parsed.pairs, parsed.output, steps=parsed.steps, batch=parsed.batch, crop=parsed.crop,
            learning_rate=parsed.learning_rate, seed=parsed.seed, device=parsed.device, progress=not parsed.quiet,
        ).losses  # fmt: skip
        tenth = max(1, len(losses) // 10)
        first, last = (sum(part) / tenth for part in (losses[:tenth], losses[-tenth:]))
        told = f"{len(losses)} steps, mean loss of the first tenth {first:.4f}, of the last {last:.4f}"
        print(f"{told}: {parsed.output} in {time.perf_counter() - start:.1f} s")
        return 0


COMMANDS: dict[str, Any] = {
    "train": Train, "enhance": Enhance, "degrade": Degrade, "evaluate": Evaluate, "train-fuser": TrainFuser,
    "info": Info, "convert": Convert, "demo": Demo,
}  # fmt: skip


def _jobs(parsed: Namespace) -> Any:
    from deal import files

    ending = None if parsed.ext == "auto" else f".{parsed.ext}"
    return files.planned(parsed.input, parsed.output, recursive=parsed.recursive, suffix=parsed.suffix, ending=ending)


def _run(parsed: Namespace, jobs: Any, work: Callable[[Path], Any]) -> int:
    from deal import files

    into_folder = jobs[0].target != Path(parsed.output)
    manifest = parsed.manifest or (Path(parsed.output) / "manifest.csv" if into_folder else None)
    start = time.perf_counter()
    tally = files.run(
        jobs, work, skip_existing=parsed.skip_existing, keep_going=parsed.keep_going, manifest=manifest,
        progress=not parsed.quiet and len(jobs) > 1,
    )  # fmt: skip
    if not parsed.quiet:
        where = f"; {manifest}" if manifest else ""
        print(f"{tally} in {time.perf_counter() - start:.1f} s{where}")
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
