"""The parser of a command: help of one screen, all options with --help-all, and errors of one line."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
import textwrap
import typing
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, DefaultHelpFormatter

WIDTH, INDENT = 80, 28  # of the help of one screen
ALL = "--help-all"
WRONG_VALUE = re.compile(r'Parser key "(?P<name>\w+)"(?P<where>[^:]*):\s+(?P<reason>.*)', re.DOTALL)
GOT = re.compile(r"(?:Got|Given) value: (.*)")
KINDS = {
    int: "a whole number", float: "a number", tuple: "two numbers", list: "a list", dict: "a mapping", str: "a text",
    type(None): "none",
}  # fmt: skip


class CommandParser(ArgumentParser):
    """The parser of one command.

    Args:
        command: its name.
        text: says in the first line what the command does, and more in the others.
        common: the names of the options that --help shows.
    """

    def __init__(self, command: str, text: str, common: Collection[str] = ()) -> None:
        super().__init__(
            prog=f"deal {command}", description=text, print_config="--print-config", allow_abbrev=False,
            formatter_class=_Formatter, add_help=False,
        )  # fmt: skip
        self.common = common
        self.add_argument("-h", "--help", action="help", help="show the common options")
        self.add_argument(ALL, action="help", help="show all options")

    def brief_help(self) -> str:
        """The common options, in one screen."""
        groups = {
            str(group.title): [action for action in group._group_actions if action.dest in self.common]
            for group in self._action_groups
        }
        lines = [f"usage: {self._usage()}", "", *wrapped(_first_line(self.description)), ""]
        for title, actions in groups.items():
            lines += [f"{title}:"] if actions else []
            for action in actions:
                lines += row(_signature(action), _first_clause(action.help or ""))
        return "\n".join([*lines, "", f"All options: {self.prog} {ALL}"]) + "\n"

    def _usage(self) -> str:
        """What must be given, and that there are options."""
        named = [action for action in self._actions if action.required and action.option_strings]
        others = [_value(action) for action in self._actions if not action.option_strings]
        return " ".join(
            [self.prog, *(f"{each.option_strings[0]} {_value(each)}" for each in named), *others, "[options]"]
        )

    def corrected(self, arguments: Sequence[str]) -> list[str]:
        """The arguments with options as they are spelt here: hyphens for underscores, abbreviations in full.

        If they ask for help, it is printed, and the program ends.
        """
        found = [self._corrected(each) if each.startswith("--") and each != "--" else each for each in arguments]
        # The actions of argparse would not know which options are required, as jsonargparse hides that from them.
        if {"-h", "--help", ALL}.intersection(found):
            self.usage = self._usage()
            print(self.format_help() if ALL in found else self.brief_help(), end="")
            raise SystemExit(0)
        return found

    def _corrected(self, argument: str) -> str:
        name, equals, value = argument.partition("=")
        known = self._option_string_actions
        option = name.replace("_", "-")
        if option not in known:
            longer = [each for each in known if each.startswith(option) and not each.endswith("+")]
            if len(longer) != 1:
                hint = suggestion(option, longer or known)
                self.error(f"there is no option {name}{hint}")
            [option] = longer
        return option + equals + value

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Ends the program with one line."""
        wrong = WRONG_VALUE.match(message)
        action = next((each for each in self._actions if wrong and each.dest == wrong["name"]), None)
        if message.startswith("the following arguments are required: "):
            names = message.partition(": ")[2].split(", ")
            message = f"{' and '.join(map(self._shown, names))} must be given"
        elif action is not None and wrong is not None:
            message = _wrong_value(self._shown(action.dest), action, wrong["reason"])
        fail(self.prog, message)

    def _shown(self, dest: str) -> str:
        action = next((each for each in self._actions if each.dest == dest), None)
        return action.option_strings[-1] if action is not None and action.option_strings else dest


def fail(program: str, message: str) -> NoReturn:
    """Ends the program as invalid arguments do."""
    more = "" if message.endswith("?") else f"; see {program} --help"
    print(f"{program}: error: {' '.join(message.split())}{more}", file=sys.stderr)
    raise SystemExit(2)


def suggestion(word: str, known: Iterable[str]) -> str:
    """The end of an error message about a word that is unknown.

    >>> suggestion("enhence", ["enhance", "train"])
    '; did you mean enhance?'
    """
    similar = difflib.get_close_matches(word, list(known), n=3)
    return f"; did you mean {' or '.join(similar)}?" if similar else ""


def choices_of(action: argparse.Action) -> list[str]:
    """The words that an option accepts, if it accepts no others."""
    return choices_in(getattr(action, "_typehint", None))


def choices_in(hint: Any) -> list[str]:
    """The words of a type, if it has no other values."""
    kinds = _kinds(hint)
    return [str(each) for each in kinds if isinstance(each, (str, int))] if not any(map(_is_open, kinds)) else []


def _is_open(kind: Any) -> bool:
    return not isinstance(kind, (str, int)) and kind is not type(None)


def _kinds(hint: Any) -> list[Any]:
    """The types and literal values of a type hint."""
    if hint is None:
        return []
    inner, kind = typing.get_args(hint), typing.get_origin(hint)
    if kind is typing.Literal:
        return list(inner)
    if kind in (list, tuple, dict):
        return [kind]
    return [kind for each in inner for kind in _kinds(each)] if inner else [hint]


def _wrong_value(name: str, action: argparse.Action, reason: str) -> str:
    got = GOT.search(reason)
    kinds = _kinds(getattr(action, "_typehint", None))
    if got is None or not kinds:
        return f"{name}: {reason}"
    value = got[1].strip()
    literal = [str(each) for each in kinds if isinstance(each, (str, int)) and not isinstance(each, bool)]
    words = [KINDS[each] for each in kinds if isinstance(each, type) and each in KINDS]
    accepted = ", ".join([*literal, *dict.fromkeys(words)]) or reason.partition(". Got value")[0]
    return f"{name} must be {'one of ' if ',' in accepted else ''}{accepted}; got {value}{suggestion(value, literal)}"


class _Formatter(DefaultHelpFormatter):
    """Says the default of an option where it is more than its absence, and no types of Python."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        # jsonargparse adds "--images+", which appends to a list.
        names = [each for each in action.option_strings if not each.endswith("+")]
        if not names:
            return super()._format_action_invocation(action)
        return ", ".join(names) + ("" if action.nargs == 0 else f" {_value(action)}")

    def _get_help_string(self, action: argparse.Action) -> str:
        default, help = action.default, action.help or ""
        if action.required:
            return f"{help} (required)"
        if default in (None, False, "", [], argparse.SUPPRESS) or "default" in help:
            return help
        shown = " ".join(map(str, default)) if isinstance(default, (list, tuple)) else default
        return f"{help} (default: {shown})"


def wrapped(text: str, width: int = WIDTH) -> list[str]:
    return textwrap.wrap(text, width)


def row(left: str, right: str, indent: int = INDENT) -> list[str]:
    """The lines of a table of two columns."""
    first, *rest = wrapped(right, WIDTH - indent) or [""]
    lines = [f"  {left:{indent - 4}}  {first}".rstrip(), *(f"{'':{indent}}{each}" for each in rest)]
    return lines if len(left) <= indent - 4 else [f"  {left}", f"{'':{indent}}{first}", *lines[1:]]


def _first_line(text: str | None) -> str:
    return (text or "").splitlines()[0]


def _first_clause(help: str) -> str:
    """
    >>> _first_clause("clean images: files or folders, see `deal.io.paths`; None uses synthetic ones")
    'clean images'
    """
    return re.sub(r", see `[^`]*`", "", re.split(r"[;:] ", help, maxsplit=1)[0])


def _signature(action: argparse.Action) -> str:
    names = ", ".join(each for each in action.option_strings if not each.startswith("--no-") and not each.endswith("+"))
    whole = " ".join(filter(None, [names, _value(action)]))
    return whole if len(whole) <= INDENT - 4 else f"{names} {action.dest.upper()}"


def _value(action: argparse.Action) -> str:
    """What follows the option."""
    if action.nargs == 0:
        return ""
    choices = choices_of(action)
    metavar = action.metavar or ("|".join(choices) if choices else action.dest.upper())
    name = metavar if isinstance(metavar, str) else " ".join(metavar)
    return f"{name} ..." if action.nargs == "+" else f"[{name}]" if action.nargs == "?" else name
