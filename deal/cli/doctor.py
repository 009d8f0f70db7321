"""Check the installation, and test it on a frame."""

from __future__ import annotations

import hashlib
import json
import re
from importlib import metadata
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from deal.cli import info, options

COMMON = ("device", "threads", "json")
PACKAGES = ("numpy", "pillow", "safetensors", "jsonargparse")
OF_DEVELOPERS = ("bench", "bench-peers", "dev", "test")  # extras that users do not need
REQUIREMENT = re.compile(r"(?P<package>[\w.-]+).*extra == ['\"](?P<extra>[\w-]+)['\"]")
FINE = "ok"
SUMS = "SHA256SUMS"  # beside the weights, as sha256sum writes it


def add_arguments(parser: ArgumentParser) -> None:
    options.add_machine(parser, quiet=False)
    parser.add_argument("--json", action="store_true", help="print everything as JSON, for a bug report")


def run(parsed: Namespace) -> int:
    options.set_threads(parsed.threads)
    found = diagnosis(parsed.device)
    print(json.dumps(found, indent=2) if parsed.json else _as_text(found))
    return 0 if found["healthy"] else 1


def diagnosis(device: str = "auto") -> dict[str, Any]:
    """What is installed, and whether the bundled weights load and restore a frame."""
    from deal.evaluate.self_test import self_test
    from deal.model.pretrained import WEIGHTS
    from deal_kernels.check.machine import description

    machine = description()
    sums = (line.split() for line in (WEIGHTS / SUMS).read_text().splitlines())
    weights = {name: _state_of(WEIGHTS / name, checksum) for checksum, name in sums}
    try:
        tested = {name: test._asdict() for name, test in self_test(device).items()}
    except (RuntimeError, ValueError, OSError, MemoryError) as error:
        tested = {"error": {"passed": False, "reason": options.printable(error)}}
    return {
        "deal": info.version(),
        "machine": machine,
        "packages": {name: _version(name) for name in PACKAGES},
        "weights": weights,
        "extras": _extras(),
        "self_test": tested,
        "healthy": bool(weights)
        and all(each["state"] == FINE for each in weights.values())
        and all(each["passed"] for each in tested.values()),
    }


def _state_of(path: Path, expected: str) -> dict[str, str]:
    """Whether a weights file is as it was released and loads, and its checksum."""
    from deal.fusion.network import Fuser
    from deal.model.pretrained import from_file

    try:
        checksum = hashlib.sha256(path.read_bytes()).hexdigest()
        Fuser.from_pretrained(path) if path.stem == "fuser" else from_file(path)
    except (OSError, ValueError) as error:
        return {"state": options.printable(error), "sha256": ""}
    state = FINE if checksum == expected else f"is not the released file, whose sha256 is {expected[:12]}"
    return {"state": state, "sha256": checksum}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _extras() -> dict[str, str]:
    """For every extra "ok", or how to install what it lacks."""
    try:
        required = metadata.requires("deal-kernels") or []
    except metadata.PackageNotFoundError:  # a source folder that was not installed
        return {}
    lacking: dict[str, list[str]] = {}
    for found in filter(None, map(REQUIREMENT.match, required)):
        if found["extra"] not in OF_DEVELOPERS:
            missing = [found["package"]] if _version(found["package"]) is None else []
            lacking.setdefault(found["extra"], []).extend(missing)
    return {
        extra: f"lacks {', '.join(missing)}: pip install 'deal-kernels[{extra}]'" if missing else FINE
        for extra, missing in lacking.items()
    }


def _as_text(found: dict[str, Any]) -> str:
    """The diagnosis as a table."""
    machine = dict(found["machine"])
    backends = machine.pop("backends")
    sections = {
        found["deal"]: {**machine, **found["packages"]},
        "backends": backends,
        "weights": {name: f"{each['state']}, sha256 {each['sha256'][:12]}" for name, each in found["weights"].items()},
        "extras": found["extras"],
        "self-test": {name: each["reason"] for name, each in found["self_test"].items()},
    }
    width = max(len(name) for rows in sections.values() for name in rows)
    lines: list[str] = []
    for title, rows in sections.items():
        lines += [title, *(f"  {name.replace('_', ' '):{width}}  {_shown(value)}" for name, value in rows.items()), ""]
    verdict = "everything works" if found["healthy"] else "something does not work, see above"
    return "\n".join([*lines, f"{verdict}; python -m deal_kernels --check tests every operation"])


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return "-" if value is None else str(value)
