"""Names of SpikingJelly that have no stand-in."""

from collections.abc import Callable
from typing import Any


def missing(module: str, names: str) -> Callable[[str], Any]:
    """The __getattr__ of a module that lacks these names of SpikingJelly's module.

    The error is an ImportError, because ``from module import name`` hides the sentence of an AttributeError.
    """

    def __getattr__(name: str) -> Any:
        if name in names.split():
            raise ImportError(
                f"deal_kernels has no stand-in for spikingjelly.{module}.{name}: install spikingjelly for it",
                name=f"spikingjelly.{module}",
            )
        raise AttributeError(f"module 'spikingjelly.{module}', a stand-in by deal_kernels, has no attribute {name!r}")

    return __getattr__
