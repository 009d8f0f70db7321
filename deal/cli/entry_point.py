"""The entry point `deal`: parses the command line, runs a command, and reports errors in one line.

Commands import torch when they run, so that `deal --help` is fast.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from jsonargparse import Namespace

import deal
from deal.cli import (
    ablate,
    convert,
    degrade,
    demo,
    doctor,
    enhance,
    evaluate,
    export,
    info,
    options,
    serve,
    train,
    train_detector,
    train_fuser,
)
from deal.cli.overview import without_command
from deal.cli.parser import CommandParser

INTERRUPTED = 130  # the exit code after Ctrl-C
READER_GONE = 141  # that of a program which the system ends because nobody reads what it writes
# Each is a module with a docstring, COMMON, the options of its short help, add_arguments(parser) and run(parsed).
COMMANDS: dict[str, ModuleType] = {
    "train": train, "enhance": enhance, "degrade": degrade, "evaluate": evaluate, "ablate": ablate,
    "train-fuser": train_fuser, "train-detector": train_detector, "info": info, "convert": convert,
    "export": export, "demo": demo, "serve": serve, "doctor": doctor,
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line and returns the exit code.

    It is 0, 1 after an error, 2 for invalid arguments, 130 after Ctrl-C, and 141 when nobody reads the output any more.
    """
    if "Enhancer" not in getattr(deal, "__all__", ()):
        print(f"deal: error: {_foreign_package()}", file=sys.stderr)
        return 1
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        with _short_warnings():
            if not arguments or arguments[0] not in COMMANDS:
                return without_command(arguments, COMMANDS)
            name, *rest = arguments
            code: int = COMMANDS[name].run(_parse(name, rest))
            return code
    except KeyboardInterrupt:
        message = (
            "interrupted; all files are complete. Continue with --skip-existing, with --resume for training, or with "
            "the same command for an ablation"
        )
        print(f"deal: {message}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        return READER_GONE
    except (OSError, ValueError, FloatingPointError, RuntimeError, MemoryError, ModuleNotFoundError) as error:
        if os.environ.get("DEAL_TRACEBACK"):
            raise
        print(f"deal: error: {_message(error)}", file=sys.stderr)
        return 1


def _foreign_package() -> str:
    return (
        f"Python imports another package named deal, from {getattr(deal, '__file__', 'an unknown place')}: another "
        "distribution has overwritten ours. Run `pip uninstall -y deal`, then "
        "`pip install --force-reinstall --no-deps deal-kernels`"
    )


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return options.printable(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
    return options.printable(error) or type(error).__name__


@contextlib.contextmanager
def _short_warnings() -> Iterator[None]:
    """Prints warnings without the source line that raised them."""

    def show(message: Warning | str, category: type[Warning], *_: Any) -> None:
        if issubclass(category, UserWarning):
            print(f"deal: warning: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show  # type: ignore[assignment]
        yield


def _parse(name: str, arguments: list[str]) -> Namespace:
    """The options of a command. Only this command gets its arguments, as they may import torch."""
    module = COMMANDS[name]
    parser = CommandParser(name, str(module.__doc__), module.COMMON)
    module.add_arguments(parser)
    arguments = parser.corrected(arguments)
    return parser.parse_args(train.join_lists(arguments) if module is train else arguments)
