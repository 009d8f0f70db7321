"""Modules that torch.fx records as they are."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from torch.fx import Proxy

Forward = TypeVar("Forward", bound=Callable[..., Any])


def leaf(forward: Forward) -> Forward:
    """A decorator of a module's forward: `torch.fx.symbolic_trace` keeps a call of the module as one node."""

    @functools.wraps(forward)
    def recorded(self: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(x, Proxy):
            return x.tracer.create_proxy("call_module", x.tracer.path_of_module(self), (x, *args), kwargs)  # type: ignore[attr-defined]
        return forward(self, x, *args, **kwargs)

    return cast(Forward, recorded)
