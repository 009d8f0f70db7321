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

GROUPS = {
    "data": "images limit validation window channels keep_going",
    "network": "blocks width neuron norm strips weights",
    "adversary": "strategy price ops ranges stages dropout update adversary_start fidelity_weight generator_rate "
    "momentum weight_decay",
    "loss": "loss l1_weight ssim_weight",
    "optimisation": "steps batch thumbnails settle_steps learning_rate warmup_steps schedule gradient_clip ema_decay "
    "precision",
    "augmentation": "crop flip_augmentation zoom_augmentation panel_augmentation tone_augmentation noise_augmentation",
    "run": "output resume minutes save_every log_every collapse_window device graph seed progress",
}
NUMBER = re.compile(r"-?\d+(\.\d*)?")
LISTS = ("images", "validation", "ops", "crop", "window")  # options that take one or several values


def add_arguments(parser: ArgumentParser) -> None:
    import dataclasses
    import typing

    from docstring_parser import parse

    from deal.training.settings import Settings

    parser.add_argument("-c", "--config", action="config", help="a YAML file of settings; options override it")
    helps = {param.arg_name: str(param.description) for param in parse(str(Settings.__doc__)).params}
    hints = typing.get_type_hints(Settings)
    fields = {field.name: field for field in dataclasses.fields(Settings)}
    for title, names in GROUPS.items():
        group = parser.add_argument_group(title)
        for name in names.split():
            keywords: dict[str, Any] = (
                {"action": BooleanOptionalAction} if hints[name] is bool else {"type": hints[name]}
            )
            if name in LISTS:
                keywords["metavar"] = "VALUE [VALUE ...]"
            flag = f"--{name.replace('_', '-')}"
            group.add_argument(flag, default=fields[name].default, help=helps[name].rstrip("."), **keywords)


def join_lists(arguments: Sequence[str]) -> list[str]:
    """`--images a b` becomes `--images=["a", "b"]`, because an option with nargs would refuse one value in a YAML
    file."""
    joined: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        values: list[str] = []
        while argument in {f"--{name}" for name in LISTS} and rest and not rest[0].startswith("--"):
            values.append(rest.pop(0))
        joined.append(f"{argument}={_as_yaml(values)}" if values else argument)
    return joined


def _as_yaml(values: list[str]) -> str:
    if len(values) == 1:
        return "null" if values == ["none"] else values[0]
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
