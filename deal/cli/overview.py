"""What `deal` says without a command: the list of commands, the version, and completion for shells."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from types import ModuleType

from deal.cli import info, parser

DESCRIPTION = "Enhance thermal images, and train the network for it from a few clean ones."
GROUPS = {
    "images": ("enhance", "serve", "degrade", "demo"),
    "training": ("train", "ablate", "train-fuser", "train-detector"),
    "networks": ("evaluate", "info", "convert", "export"),
}
OTHERS = "this machine"
SHELLS = ("bash", "zsh", "tcsh")
COMPLETION = "--completion"
FOOT = (
    "The options of a command: deal COMMAND --help, and deal COMMAND --help-all.",
    f"The version: deal --version. Completion: deal {COMPLETION} {'|'.join(SHELLS)}.",
    "With DEAL_TRACEBACK=1 in the environment, an error shows where it comes from.",
)


def overview(commands: Mapping[str, ModuleType]) -> str:
    """The commands by group, in one screen."""
    grouped = {name for names in GROUPS.values() for name in names}
    groups = {**GROUPS, OTHERS: tuple(name for name in commands if name not in grouped)}
    lines = ["usage: deal COMMAND [options]", DESCRIPTION, ""]
    for title, names in groups.items():
        lines += [f"{title}:"] if names else []
        for name in names:
            lines += parser.row(name, str(commands[name].__doc__).splitlines()[0].rstrip("."), indent=20)
    return "\n".join([*lines, "", *FOOT]) + "\n"


def without_command(arguments: list[str], commands: Mapping[str, ModuleType]) -> int:
    """Runs a command line whose first argument is no command, and returns the exit code."""
    first, *rest = arguments or [""]
    if first in ("-h", "--help", parser.ALL):
        print(overview(commands), end="")
    elif first == "--version":
        print(info.version())
    elif first.partition("=")[0] == COMPLETION:
        shell = first.partition("=")[2] or " ".join(rest)
        if shell not in SHELLS:
            parser.fail("deal", f"{COMPLETION} must be one of {', '.join(SHELLS)}; got {shell or 'nothing'}")
        print(completion(shell, commands))
    elif not first:
        parser.fail("deal", "a command must be given")
    elif first.startswith("-"):
        known = ("--help", parser.ALL, "--version", COMPLETION)
        parser.fail("deal", f"there is no option {first} before a command{parser.suggestion(first, known)}")
    else:
        parser.fail("deal", f"there is no command {first}{parser.suggestion(first, commands)}")
    return 0


def completion(shell: str, commands: Mapping[str, ModuleType]) -> str:
    """The script that completes command lines in a shell."""
    try:
        import shtab
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("completion needs shtab: pip install 'deal-kernels[completion]'") from error
    whole = argparse.ArgumentParser(prog="deal", description=DESCRIPTION)
    found = whole.add_subparsers()
    for name, module in commands.items():
        command = parser.CommandParser(name, str(module.__doc__))
        module.add_arguments(command)
        for action in command._actions:
            _complete(action, shtab)
        summary = str(module.__doc__).splitlines()[0]
        found.add_parser(name, parents=[command], add_help=False, help=summary, description=summary)
    return str(shtab.complete(whole, shell))


def _complete(action: argparse.Action, shtab: ModuleType) -> None:
    """Tells shtab what may follow an option."""
    if action.help:
        action.help = action.help.replace("%", "%%")
    names = f"{action.metavar} {action.dest}".upper()
    if choices := parser.choices_of(action):
        action.choices = choices
    elif "FOLDER" in names:
        action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    elif any(name in names for name in ("FILE", "PATH", "CHECKPOINT", "OUTPUT", "IMAGES", "VALIDATION")):
        action.complete = shtab.FILE  # type: ignore[attr-defined]
