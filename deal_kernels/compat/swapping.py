"""`swap`: the neurons of a network, replaced by fused ones.

A neuron is an object of a class that this package knows, or of a subclass that changes nothing but the arguments. It
stays the same object and gets another class, derived from its own: names, parameters, hooks, state, and everything that
its library does with it stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from deal_kernels.compat import handwritten, norse, spikingedn
from deal_kernels.compat.deferred import Uses
from deal_kernels.compat.fused import Fused, fused_class
from deal_kernels.compat.norms import defer, is_norm, kind_of
from deal_kernels.compat.report import Layer, Norm, Report
from deal_kernels.compat.snntorch import swap as snntorch
from deal_kernels.compat.spikingjelly import multistate, psn
from deal_kernels.compat.spikingjelly import swap as spikingjelly

LIBRARIES = (spikingjelly, multistate, psn, snntorch, norse)
ADAPTERS: dict[str, type[Fused]] = {name: fused for library in LIBRARIES for name, fused in library.ADAPTERS.items()}
NEURONS = tuple(name for library in LIBRARIES for name in library.NEURONS)
# What a subclass may have of its own, and still be the same neuron.
HARMLESS = {
    "__init__", "__doc__", "__module__", "__dict__", "__weakref__", "__annotations__", "__firstlineno__",
    "__static_attributes__", "__parameters__", "__orig_bases__", "__abstractmethods__", "_abc_impl", "extra_repr",
}  # fmt: skip

Factory = Callable[[Any], nn.Module]


def swap(
    model: nn.Module, custom: Mapping[type[nn.Module], Factory] | None = None, dry_run: bool = False,
    norms: bool = False,
) -> Report:  # fmt: skip
    """Replaces the neurons of a network by fused ones, in place. float32 and float64 results keep their bits.

    It knows the neurons of SpikingJelly (LIF, IF, ParametricLIF, ILIF, HalfThresholdIF, SLTT, OTTT, CUBALIF,
    ComplementaryLIF, PSN, MaskedPSN and SlidingPSN of 2.0; IF, LIF and ParametricLIF of `activation_based` 0.0.0.0.14
    and `clock_driven` 0.0.0.0.12), of snnTorch 1.0.0 (Leaky, Lapicque, Synaptic) and of Norse 1.1.0 (LIF, LSNN, IAF,
    their cells, and LIFBoxCell), their subclasses that override nothing but ``__init__``, and the neurons that
    MS-ResNet, EMS-YOLO, SpikeYOLO, TET and SpikingEDN wrote themselves, by their source. Parameters, state_dict, hooks
    and state stay, and so do the library's functions, such as ``reset_net``. A neuron whose settings no kernel has is
    left, and the report says why; for inputs that no kernel takes, such as half precision in some neurons, a neuron
    runs the library's own step.

    A neuron that its network calls in a loop over time gains little: see `over_time`.

    Args:
        model: a network, or a single neuron.
        custom: for neuron classes of your own, exactly these and no subclasses, a function that makes the module that
            takes the place of a neuron.
        dry_run: only reports.
        norms: also fuses batch norms (torch's, SpikingJelly's, and `TDBatchNorm2d`) into the neurons of SpikingJelly or
            of public networks that read their results, directly or through views such as flatten, transpose and
            reshape. Training keeps less memory. It is an option of its own, because results do not keep their bits:
            statistics and normalised inputs are rounded otherwise than in torch, so that a spike may differ.

    Returns:
        A report that prints as a table: what was replaced, and what was left and why. With ``norms`` it counts from
        then on in how many calls a fused neuron read the result of a norm, and in how many it was computed for another
        reader. Norms with small inputs, with hooks, under `torch.inference_mode` or a compiler, and those whose first
        result no fused neuron read (until the next swap), are computed by their library, with its bits.

    >>> from deal_kernels.lif import LIF
    >>> class Mine(nn.Module): ...
    >>> report = swap(nn.Sequential(nn.Linear(8, 8), Mine()), custom={Mine: lambda neuron: LIF(tau=2.0)})
    >>> print(report)
    1 of 1 neurons replaced
    replaced  1  Mine

    A norm and a neuron of SpikingJelly; this one is fused from the start, as it comes from `install`:

    >>> from deal_kernels.compat.spikingjelly.standin.activation_based.neuron import LIFNode
    >>> network = nn.Sequential(nn.BatchNorm2d(64), nn.Unflatten(0, (4, 8)), LIFNode(step_mode="m"))
    >>> report = swap(network, norms=True)
    >>> spikes = network(torch.randn(32, 64, 16, 16))
    >>> print(report)
    0 of 0 neurons replaced, 1 of 1 norms fused so far
    norm  0  BatchNorm2d  fused in 1 calls
    """
    found = [(name, module) for name, module in model.named_modules() if norms and is_norm(module)]
    fused_norms = tuple(Norm(name, kind_of(norm), Uses() if dry_run else defer(norm)) for name, norm in found)
    report = Report([], [], fused_norms)
    made: dict[nn.Module, nn.Module] = {}
    for name, module in list(model.named_modules()):
        kind = type(module)
        if custom and kind in custom:
            report.replaced.append(Layer(name, kind.__name__, ""))
            if not dry_run:
                made[module] = custom[kind](module)
        elif not isinstance(module, Fused):
            _swap_known(name, module, report, dry_run)
    _put(made, model)
    return report


def _swap_known(name: str, module: nn.Module, report: Report, dry_run: bool) -> None:
    kind = type(module)
    fused, reason = adapter(kind)
    if fused is not None:
        reason = fused.refusal(module)
    if fused is not None and reason is None:
        report.replaced.append(Layer(name, kind.__name__, fused.note(module)))
        if not dry_run:
            module.__class__ = fused_class(fused, kind)
            module.prepare()  # type: ignore[operator]
    elif reason is not None:
        report.left.append(Layer(name, kind.__name__, reason))


def adapter(kind: type[nn.Module]) -> tuple[type[Fused] | None, str | None]:
    """The fused form of a class of neurons. If there is none, why; None and None if it is no neuron."""
    known: type[nn.Module] = next(
        (base for base in kind.__mro__ if _name(base) in ADAPTERS or base.__module__.startswith(NEURONS)), nn.Module
    )
    if known is nn.Module:
        fused, reason, allowed = handwritten.form(kind) or spikingedn.form(kind), None, HARMLESS | {"forward"}
    else:
        fused, reason, allowed = ADAPTERS.get(_name(known)), f"{known.__name__} has no fused form", HARMLESS
    if fused is None:
        return None, reason
    own = {name: base for base in kind.__mro__[: kind.__mro__.index(known)] for name in vars(base)}
    overridden = sorted(name for name in own.keys() - allowed if hasattr(known, name))
    if overridden:
        return None, f"{own[overridden[0]].__name__} overrides {', '.join(overridden)}"
    return fused, None


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _put(made: Mapping[nn.Module, nn.Module], model: nn.Module) -> None:
    """Puts modules in the place of others, wherever the network has them."""
    if model in made:
        raise ValueError("custom names the class of the model itself; put the neuron into a module, and swap that")
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is not None and child in made:
                parent._modules[name] = made[child]
