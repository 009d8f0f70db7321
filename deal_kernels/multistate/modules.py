"""The neurons with several states as layers."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor, nn

from deal_kernels.multistate.functional import Result, alif, clif, cuba, lsnn


class _Layer(nn.Module):
    """A function of this package as a layer. Its settings are attributes, tensors among them buffers or parameters."""

    function: ClassVar[Callable[..., Any]]
    settings: ClassVar[dict[str, inspect.Parameter]]  # the keywords of the function that a layer has
    states: tuple[Tensor, ...] | None

    def __init_subclass__(cls) -> None:
        given = inspect.signature(cls.function).parameters.values()
        own = [each for each in inspect.signature(cls.__init__).parameters.values() if each.kind is each.KEYWORD_ONLY]
        known = {each.name for each in own}
        cls.settings = {each.name: each for each in given if each.kind is each.KEYWORD_ONLY and each.name not in known}
        cls.__signature__ = inspect.Signature([*own, *cls.settings.values()])  # type: ignore[attr-defined]

    def __init__(
        self, *, stateful: bool = False, detach_state: bool = False, return_state: bool = False, **settings: Any
    ) -> None:
        super().__init__()
        for name, value in settings.items():
            if name not in self.settings:
                raise TypeError(f"{type(self).__name__}() got an unexpected keyword argument {name!r}")
            if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)
        self.names = tuple(settings)
        self.stateful, self.detach_state, self.return_state = stateful, detach_state, return_state
        self.states = None

    def forward(self, x: Tensor, *states: Tensor | None) -> Result:
        """Spikes of x [T, B, C, ...], from initial states if given; with the final ones if ``return_state``."""
        if not states and self.stateful and self.states is not None:
            states = tuple(state.detach() for state in self.states) if self.detach_state else self.states
        wanted = self.return_state or self.stateful
        settings = {name: getattr(self, name) for name in self.names}
        result = type(self).function(x, *states, **settings, return_state=wanted)
        if self.stateful:
            self.states = result[1]
        return result[0] if wanted and not self.return_state else result  # type: ignore[no-any-return]

    def reset(self) -> None:
        """Forgets the states: the next call starts as the first one."""
        self.states = None

    def detach_(self) -> None:
        """Keeps the states but cuts their gradient."""
        self.states = None if self.states is None else tuple(state.detach() for state in self.states)

    def extra_repr(self) -> str:
        shown = {name: getattr(self, name) for name in self.names}
        return ", ".join(f"{name}={value}" for name, value in shown.items() if not isinstance(value, Tensor))

    def _apply(self, fn, recurse=True):  # type: ignore[no-untyped-def]
        super()._apply(fn, recurse)
        if self.states is not None:
            self.states = tuple(fn(state) for state in self.states)
        return self

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"states": None}


class CUBA(_Layer):
    """`cuba` as a layer.

    Args:
        stateful: starts each call from the states that the last call left, until `reset`. They are not part of the
            state_dict, and a copy of the module starts anew.
        detach_state: cuts the gradient between calls.
        return_state: returns (spikes, (v, i)).
        settings: as in `cuba`. A tensor is a buffer of the layer, and a Parameter is learnt.

    >>> layer = CUBA(alpha=torch.nn.Parameter(torch.full((8,), 0.5)), v_reset=None, stateful=True)
    >>> spikes = layer(torch.randn(4, 2, 8))  # [T, B, C]
    >>> [tuple(state.shape) for state in layer.states], [name for name, _ in layer.named_parameters()]
    ([(2, 8), (2, 8)], ['alpha'])
    """

    function = staticmethod(cuba)


class ALIF(_Layer):
    """`alif` as a layer, with the arguments of `CUBA`, the settings of `alif` and the states (v, a).

    >>> layer = ALIF(beta=0.9, adaptation=torch.nn.Parameter(torch.full((8,), 0.9)))
    >>> layer(torch.randn(4, 2, 8)).shape
    torch.Size([4, 2, 8])
    """

    function = staticmethod(alif)


class LSNN(_Layer):
    """`lsnn` as a layer, with the arguments of `CUBA`, the settings of `lsnn` and the states (v, i, b).

    >>> LSNN(strength=1.8)(torch.randn(4, 2, 8)).shape
    torch.Size([4, 2, 8])
    """

    function = staticmethod(lsnn)


class CLIF(_Layer):
    """`clif` as a layer, with the arguments of `CUBA`, the settings of `clif` and the states (v, m).

    >>> CLIF(tau=2.0)(torch.randn(4, 2, 8)).shape
    torch.Size([4, 2, 8])
    """

    function = staticmethod(clif)
