"""`install`: networks written for SpikingJelly can be imported and built, whatever of it is installed."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

STANDINS = "deal_kernels.compat.spikingjelly.standin"
PARTS = ("activation_based", "clock_driven", "cext")


def install() -> None:
    """Lets networks that were written for SpikingJelly be imported and built. Call it before their import.

    Of ``spikingjelly.activation_based``, ``clock_driven`` and ``cext``, a part that is installed and works stays.
    Another one is supplied by this package: the neurons, layers and functions that public networks use, already fused.

    In all of them ``backend="cupy"`` means: the fastest backend there is. Without CuPy, SpikingJelly's own neurons run
    on torch, until `deal_kernels.compat.swap` replaces them. The versions that know no ``backend`` accept it.

    >>> import torch
    >>> install()
    >>> from spikingjelly.clock_driven.neuron import MultiStepLIFNode
    >>> neuron = MultiStepLIFNode(tau=2.0, detach_reset=True, backend="cupy")
    >>> neuron(torch.randn(4, 2, 8)).shape  # [T, B, C]
    torch.Size([4, 2, 8])
    """
    for part in PARTS:
        _prepare(part)


@functools.cache
def _prepare(part: str) -> None:
    if not _works(f"spikingjelly.{part}.neuron"):
        _supply(part)
    elif importlib.util.find_spec("cupy") is None:
        _accept_cupy(f"spikingjelly.{part}")


def _works(module: str) -> bool:
    try:
        importlib.import_module(module)
    except Exception:  # a broken installation raises errors of any kind
        return False
    return True


def _supply(part: str) -> None:
    """Puts a stand-in and its modules where `import` looks first."""
    package = importlib.import_module(f"{STANDINS}.{part}")
    parent = sys.modules.setdefault("spikingjelly", _empty_package("spikingjelly"))
    setattr(parent, part, package)
    sys.modules[f"spikingjelly.{part}"] = package
    for found in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{found.name}")
        sys.modules[f"spikingjelly.{part}.{found.name}"] = module


def _empty_package(name: str) -> ModuleType:
    package = ModuleType(name, "The parts of SpikingJelly that deal_kernels supplies.")
    package.__path__ = []
    return package


def _accept_cupy(part: str) -> None:
    """Makes backend="cupy" mean "torch" for the neurons of an installed part."""
    base = importlib.import_module(f"{part}.base")
    functions = importlib.import_module(f"{part}.functional")
    setting = getattr(base.MemoryModule, "backend", None)
    if isinstance(setting, property):
        base.MemoryModule.backend = _BackendSetting(setting)
        return
    for kind in vars(importlib.import_module(f"{part}.neuron")).values():
        if isinstance(kind, type) and issubclass(kind, base.MemoryModule) and "__init__" in vars(kind):
            kind.__init__ = _accepting(kind.__init__)  # type: ignore[misc]
    if not hasattr(functions, "set_backend"):
        functions.set_backend = lambda net, backend, instance=None: None  # type: ignore[attr-defined]


class _BackendSetting(property):
    """A property of MemoryModule whose setter takes every backend for an available one."""

    def __init__(self, setting: property) -> None:
        super().__init__(setting.fget)
        self.setting = setting

    def __set__(self, node: Any, backend: str) -> None:
        self.setting.__set__(node, _available(backend))


def _available(backend: str) -> str:
    return "torch" if backend == "cupy" else backend


def _accepting(constructor: Callable[..., None]) -> Callable[..., None]:
    """A constructor that takes `backend`, whether it knows that argument or not."""
    known = "backend" in inspect.signature(constructor).parameters

    @functools.wraps(constructor)
    def accepting(self: Any, *arguments: Any, **named: Any) -> None:
        if not known:
            named.pop("backend", None)
        bound = inspect.signature(constructor).bind(self, *arguments, **named)
        if "backend" in bound.arguments:
            bound.arguments["backend"] = _available(bound.arguments["backend"])
        constructor(*bound.args, **bound.kwargs)

    return accepting
