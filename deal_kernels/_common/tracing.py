"""Modules as single nodes of what torch.fx traces. Their forward begins with ``if isinstance(x, Proxy)``."""

from __future__ import annotations

from typing import Any

from torch import nn


def as_node(module: nn.Module, *arguments: Any) -> Any:
    """A call of the module as torch.fx records it. The first argument is a Proxy."""
    tracer = arguments[0].tracer
    return tracer.create_proxy("call_module", tracer.path_of_module(module), arguments, {})
