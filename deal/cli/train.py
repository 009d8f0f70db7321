"""Train the network on clean images.

Without --images, it is trained on synthetic thermal scenes. For several GPUs, run
torchrun --nproc-per-node N -m deal train ...

The output folder gets the weights, the settings (config.yaml), the loss by step (loss.csv, loss.png) and validation
images before and after (samples.png).
"""

from __future__ import annotations

import json
import os
import re
from argparse import BooleanOptionalAction
from collections.abc import Sequence
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from deal.cli.parser import choices_in

GROUPS = {
    "data": "images limit validation crop window channels keep_going",
    "network": "blocks width neuron norm strips weights",
    "adversary": "price ops ranges stages dropout update adversary_start fidelity_weight generator_rate "
    "momentum weight_decay",
    "loss": "loss l1_weight ssim_weight",
    "training": "steps batch strategy thumbnails settle_steps learning_rate warmup_steps schedule gradient_clip "
    "ema_decay precision",
    "augmentation": "flip_augmentation zoom_augmentation panel_augmentation tone_augmentation noise_augmentation",
    "run": "output resume minutes save_every log_every collapse_window seed progress",
    "machine": "device threads graph",
}
COMMON = (
    "images", "validation", "crop", "blocks", "steps", "strategy", "config", "output", "resume", "minutes",
    "device", "threads",
)  # fmt: skip
NUMBER = re.compile(r"-?\d+(\.\d*)?")
SIZE = re.compile(r"(\d+)x(\d+)")
VALUES = {"images": "PATH", "validation": "PATH", "output": "FOLDER", "weights": "FILE"}  # what options are given
LISTS = ("images", "validation", "ops", "crop", "window")  # options that take one or several values


def add_arguments(parser: ArgumentParser) -> None:
    import dataclasses
    import typing

    from docstring_parser import parse

    from deal.training.settings import Settings

    helps = {param.arg_name: str(param.description) for param in parse(str(Settings.__doc__)).params}
    parser.add_argument(
        "-c", "--config", action="config", metavar="FILE", help="a YAML file of settings; options override it"
    )
    parser.add_argument("--quiet", dest="progress", action="store_false", help="the same as --no-progress")
    hints = typing.get_type_hints(Settings)
    fields = {field.name: field for field in dataclasses.fields(Settings)}
    for title, names in GROUPS.items():
        group = parser.add_argument_group(title)
        for name in names.split():
            keywords: dict[str, Any] = (
                {"action": BooleanOptionalAction} if hints[name] is bool else {"type": hints[name]}
            )
            if hints[name] is not bool and not choices_in(hints[name]):
                value = VALUES.get(name, "SIZE" if name == "crop" else "VALUE")
                keywords["metavar"] = f"{value} ..." if name in LISTS and name != "crop" else value
            flags = [f"--{name.replace('_', '-')}", *(["-o"] if name == "output" else [])]
            group.add_argument(*reversed(flags), default=fields[name].default, help=helps[name].rstrip("."), **keywords)


def join_lists(arguments: Sequence[str]) -> list[str]:
    """`--images a b` becomes `--images=["a", "b"]`, because an option with nargs would refuse one value in a YAML
    file."""
    joined: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        values: list[str] = []
        while argument in {f"--{name}" for name in LISTS} and rest and not _is_option(rest[0]):
            values.append(rest.pop(0))
        joined.append(f"{argument}={_as_yaml(values)}" if values else argument)
    return joined


def _is_option(argument: str) -> bool:
    return argument.startswith("-") and not NUMBER.fullmatch(argument)


def _as_yaml(values: list[str]) -> str:
    if len(values) == 1:
        size = SIZE.fullmatch(values[0])
        return "null" if values == ["none"] else f"[{size[1]}, {size[2]}]" if size else values[0]
    return f"[{', '.join(each if NUMBER.fullmatch(each) else json.dumps(each) for each in values)}]"


def run(parsed: Namespace) -> int:
    from deal.training.loop import train
    from deal.training.run_dir import BEST
    from deal.training.settings import Settings

    values = {name: value for name, value in parsed.as_dict().items() if name != "config"}
    result = train(Settings(**values))
    if int(os.environ.get("RANK", 0)) == 0:
        print(
            f"{result.steps} steps, validation {result.psnr:.2f} dB, loss {result.loss:.4f} (best {result.best:.4f}): "
            f"{result.output / BEST}"
        )
    return 0
