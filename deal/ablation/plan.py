"""A plan: variants of training settings, seeds, and what every trained network is measured on.

>>> import tempfile
>>> file = Path(tempfile.mkdtemp()) / "plan.yaml"
>>> _ = file.write_text('''
... settings: {images: frames, steps: 1500}
... seeds: [0, 1]
... variants:
...   random: {strategy: random}
...   policy: {strategy: policy, price: 2.0}
... evaluations:
...   thermal: {data: others, suite: thermal}
... ''')
>>> [(run.variant, run.seed, run.settings.price) for run in read_plan(file).runs("ablation")]
[('random', 0, 1.0), ('random', 1, 1.0), ('policy', 0, 2.0), ('policy', 1, 2.0)]
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from jsonargparse import ArgumentError, ArgumentParser

from deal.evaluate.degradation_suites import rows_of
from deal.io.images import Location, Size, height_and_width
from deal.training.settings import Settings
from deal_kernels._common.checks import check_integer

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # of variants and evaluations, which are names of files
OWN = ("output", "resume", "seed", "progress", "minutes")  # settings of a run that a plan decides


@dataclass(frozen=True)
class Evaluation:
    """What networks are measured on.

    Args:
        data: clean images, see `deal.io.paths.find_images`.
        suite: the name of a suite, see `deal.evaluate.degradation_suites`.
        crop: height and width of the central crop; None uses whole images.
        seed: of random degradations.
    """

    data: str | list[str]
    suite: str = "thermal"
    crop: Size = (256, 320)
    seed: int = 0

    def __post_init__(self) -> None:
        rows_of(self.suite)
        height_and_width("crop", self.crop)
        check_integer("seed", self.seed, 0)


class Run(NamedTuple):
    """One training of a plan."""

    variant: str
    seed: int
    settings: Settings


@dataclass(frozen=True)
class Plan:
    """Every variant is trained once with each seed, and every network is measured by all evaluations.

    Args:
        variants: by name, the settings of `deal.Settings` that differ from the shared ones.
        evaluations: by name.
        config: a file of shared settings, as for `deal train --config`.
        settings: shared settings, which override those of the file.
        seeds: of the trainings.
    """

    variants: dict[str, dict[str, Any]]
    evaluations: dict[str, Evaluation]
    config: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])

    def __post_init__(self) -> None:
        for name, values in (("variants", self.variants), ("evaluations", self.evaluations), ("seeds", self.seeds)):
            if not values:
                raise ValueError(f"{name} must have at least one entry; got none")
        for name in (*self.variants, *self.evaluations):
            if not NAME.fullmatch(name):
                raise ValueError(f"names must have letters, digits, '.', '_' and '-' only; got {name!r}")
        for seed in self.seeds:
            check_integer("seeds", seed, 0)
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must differ; got {self.seeds}")
        for values in (self.settings, *self.variants.values()):
            if found := sorted(set(OWN) & values.keys()):
                raise ValueError(f"the settings of a plan must not have {', '.join(found)}; the plan decides them")

    def runs(self, output: Location, *, progress: bool = False) -> list[Run]:
        """The trainings in order, each with a folder in `output` of its own."""
        shared = {**_settings_of(self.config), **self.settings}
        return [
            Run(name, seed, _settings(name, {**shared, **values, **_own(Path(output, name), seed, progress)}))
            for name, values in self.variants.items()
            for seed in self.seeds
        ]


def read_plan(path: Location) -> Plan:
    """The plan of a YAML file with the arguments of `Plan`."""
    try:
        values = _parser(Plan).parse_path(str(path)).as_dict()
    except ArgumentError as error:
        raise ValueError(f"{path} is not a plan: {error}") from error
    evaluations = {name: Evaluation(**each) for name, each in values.pop("evaluations").items()}
    return Plan(**values, evaluations=evaluations)


def _settings_of(config: str | None) -> dict[str, Any]:
    """The settings of a file that a plan does not decide."""
    if config is None:
        return {}
    try:
        found = _parser(Settings).parse_path(config, defaults=False).as_dict()
    except ArgumentError as error:
        raise ValueError(f"{config} does not have the settings of a training: {error}") from error
    return {name: value for name, value in found.items() if name not in OWN}


def _own(folder: Path, seed: int, progress: bool) -> dict[str, Any]:
    return {"output": str(folder / f"seed-{seed}"), "seed": seed, "resume": True, "progress": progress}


def _settings(variant: str, values: Mapping[str, Any]) -> Settings:
    """The settings with these values, converted to the types that they must have."""
    try:
        return Settings(**_parser(Settings).parse_object(dict(values)).as_dict())
    except (ArgumentError, TypeError, ValueError) as error:
        raise ValueError(f"the settings of {variant} are not valid: {error}") from error


def _parser(kind: type) -> ArgumentParser:
    """A parser of the arguments of a class, which raises `ArgumentError`."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind)
    return parser
