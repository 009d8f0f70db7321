"""Show what it does on a bundled frame; no data is needed.

The picture has the frame degraded and enhanced, and the parts that were taken out.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from deal.cli import options

if TYPE_CHECKING:
    from deal.model.pretrained import Network


COMMON = ("output", "model", "minutes", "seed", "device", "threads")


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "-o", "--output", type=str, default="deal_demo.png", metavar="FILE", help="the picture to write"
    )
    parser.add_argument(
        "-m", "--model", type=str | None, default=None, metavar="FILE",
        help="weights, or the name of bundled ones; the default is the bundled weights, else a .safetensors file with "
        "the name of the picture, which is trained for --minutes if it does not exist",
    )  # fmt: skip
    parser.add_argument(
        "--minutes", type=float, default=2.0, metavar="NUMBER", help="training time where there are no weights"
    )
    parser.add_argument("--seed", type=int, default=7, metavar="N", help="random seed of the degradation")
    options.add_precision(options.add_machine(parser, quiet=False))


def run(parsed: Namespace) -> int:
    from deal.evaluate.demonstration import demonstrate
    from deal.inference.enhancer import Enhancer
    from deal.io.formats import PICTURES

    options.set_threads(parsed.threads)
    picture = Path(parsed.output)
    if picture.suffix.lower() not in PICTURES:
        raise ValueError(f"output must be an image file, {', '.join(PICTURES)}; got {picture}")
    picture.parent.mkdir(parents=True, exist_ok=True)
    network, weights = _network(parsed.model, picture.with_suffix(".safetensors"), parsed.minutes, parsed.device)
    shown = demonstrate(picture, Enhancer(network, device=parsed.device, precision=parsed.precision), parsed.seed)
    print(f"weights: {weights}\n{shown}")
    return 0


def _network(model: str | None, trained: Path, minutes: float, device: str) -> tuple[Network, str]:
    """The network and the name of its weights: those of `model`, the bundled ones, or those of the file `trained`."""
    from deal.model.pretrained import bundled_weights, from_file, load

    if model is not None or bundled_weights() is not None:
        return load(model), str(model or bundled_weights())
    if not trained.exists():
        print(f"this package has no bundled weights: training for {minutes:g} minutes on synthetic scenes", flush=True)
        note = f"synthetic scenes, {minutes:g} minutes, deal demo"
        _train(minutes, device).save_pretrained(trained, trained_on=note)
    return from_file(trained), str(trained)


def _train(minutes: float, device: str) -> Network:
    """A small network, which learns enough in a few minutes."""
    from deal.io.synthetic import SyntheticScenes
    from deal.training.loop import train
    from deal.training.settings import Settings

    with tempfile.TemporaryDirectory(prefix="deal-demo-") as folder:
        settings = Settings(
            output=os.path.join(folder, "run"), minutes=minutes, steps=100_000, device=device,
            blocks="deal-u-small", update="simultaneous", adversary_start=200, crop=96, learning_rate=1e-3,
            save_every=100_000, progress=False,
        )  # fmt: skip
        return train(settings, source=SyntheticScenes(64, seed=1000)).network
