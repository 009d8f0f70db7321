"""A hash of what a function does, taken of its source."""

from __future__ import annotations

import ast
import hashlib
import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any

# Fields of syntax trees that change nothing of what a function computes, or that not every version of Python has.
IGNORED = {"annotation", "returns", "type_comment", "type_params", "ctx", "kind"}


def fingerprint(*functions: Callable[..., Any]) -> str | None:
    """A hash of the sources of functions, or None if one of them has no source.

    It does not depend on comments, documentation, layout, types, the names of the functions and of their variables,
    and the version of Python.

    >>> def half(x): return x / 2  # a comment
    >>> def other(value: float) -> float:
    ...     return value / 2
    >>> fingerprint(half) == fingerprint(other)
    True
    """
    texts = [_canonical(function) for function in functions]
    if None in texts:
        return None
    return hashlib.sha256("\n".join(map(str, texts)).encode()).hexdigest()[:16]


def _canonical(function: Callable[..., Any]) -> str | None:
    if type(function) is not FunctionType or hasattr(function, "__wrapped__"):
        return None  # inspect would find the source of what is wrapped
    try:
        source = inspect.getsource(function)
        # A method is indented, and its comments may be less so: it is parsed as the body of a statement.
        (tree,) = ast.parse("if 1:\n" + source if source[0].isspace() else source).body
    except (OSError, TypeError, SyntaxError, ValueError):
        return None
    if isinstance(tree, ast.If):
        (tree,) = tree.body
    if not isinstance(tree, ast.FunctionDef):
        return None
    names = _variables(tree)
    return " ".join(_text(part, names) for part in (tree.decorator_list, tree.args, tree.body))


def _variables(tree: ast.FunctionDef) -> dict[str, str]:
    """A number for each argument and variable."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            names.setdefault(node.arg, f"${len(names)}")
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.setdefault(node.id, f"${len(names)}")
    return names


def _text(node: Any, names: dict[str, str]) -> str:
    """A syntax tree as text. What is empty is left out, because versions of Python differ in that."""
    if isinstance(node, list):
        return f"[{' '.join(_text(each, names) for each in node if not _is_documentation(each))}]"
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.arg):
        return names[node.arg]
    if isinstance(node, ast.AnnAssign) and node.value is not None:
        node = ast.Assign(targets=[node.target], value=node.value)
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [(name, value) for name, value in ast.iter_fields(node) if name not in IGNORED]
    shown = [f"{name}={_text(value, names)}" for name, value in fields if value is not None and value != []]
    return f"{type(node).__name__}({' '.join(shown)})"


def _is_documentation(node: Any) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
