"""`monitor`: hooks say which layer is running, a dispatch mode sees what it computes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from deal_kernels._common.checks import positive
from deal_kernels.conv import op as conv_op
from deal_kernels.lif import LIF
from deal_kernels.lif import op as lif_op
from deal_kernels.monitor.products import Product, Spikes, convolution, matrix_product
from deal_kernels.monitor.report import Layer, Report
from deal_kernels.tdbn import op as tdbn_op

Arguments = dict[str, Any]


@contextlib.contextmanager
def monitor(model: nn.Module, *, neurons: Iterable[type[nn.Module]] = (), unit: float = 1.0) -> Iterator[Report]:
    """Counts what the spikes of a network cause in the forward passes that run inside the context.

    All convolutions and matrix products inside the model are counted, those of layers and those of functions: the
    products ``q @ k`` and ``attention @ v`` of an attention, too. An operand is a spike train if all of its values are
    whole numbers and it is not a parameter.

    ============================  =================================================================================
    operands                      counted
    ============================  =================================================================================
    spikes in a convolution       accumulations: for each spike the weights that it reaches, which stride, dilation,
                                  groups and borders decide
    spikes and a matrix           accumulations: for each spike the length of the row or column that is added
    two spike trains, ``q @ k``   accumulations: the pairs of spikes that meet
    no spikes                     MACs, as in a dense network, with the zeros of a padding
    ============================  =================================================================================

    A spike of size k is k accumulations, also a negative one. Where two spike trains meet, this holds for the one whose
    largest spike is smaller. Not counted are bias, norm, pooling, the neurons themselves, element-wise products, and
    the backward pass.

    The counts are sums over steps, batch and passes, in whatever axes these are: [T, B, ...], T * B in one, or a call
    for each step. The first layer usually reads an image: MACs, at each step for which it runs. An image of whole
    numbers, such as 0 to 255, counts as spikes, as the frames of an event camera should.

    Operations that torch.compile has fused cannot be seen: give the model that was not compiled.

    Args:
        model: network of any layers.
        neurons: classes of neurons, for their firing rates, that are not recognised. Recognised are `LIF` and its
            subclasses, the functions `lif` and `tdbn_lif`, and layers with an attribute ``v_threshold`` or
            ``threshold``, as those of SpikingJelly and snnTorch have.
        unit: size of one spike in a network that scales its spikes: 0.25 for whole numbers divided by 4. That of `LIF`
            and its functions is known.

    >>> from deal_kernels.tdbn import SpikingConv
    >>> block = SpikingConv(8, 16, 3, padding=1, reduce="mean").eval()
    >>> with monitor(block) as report:  # each of 200 neurons fires at 2 of 4 steps; a channel has 169 connections
    ...     rates = block(torch.full((1, 8, 5, 5), 1.5), steps=4)
    >>> report.layers[0].rate, report.accumulations == 2 * 8 * 169 * 16
    (0.5, True)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module; got {type(model).__name__}")
    classes = tuple(neurons)
    if not all(isinstance(each, type) and issubclass(each, nn.Module) for each in classes):
        raise TypeError(f"neurons must be classes of torch.nn.Module; got {classes!r}")
    watch = _Watch(model, positive("unit", unit))
    with contextlib.ExitStack() as stack:
        for handle in _follow(model, (LIF, *classes), watch):
            stack.callback(handle.remove)
        # torch's multi-head attention would otherwise be one operation in evaluation.
        stack.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)
        stack.enter_context(watch)
        yield watch.report


class _Call(NamedTuple):
    """A call of a module that is running."""

    name: str
    type: str
    neuron: bool


def _follow(model: nn.Module, neurons: tuple[type[nn.Module], ...], watch: _Watch) -> Iterator[Any]:
    """Hooks that tell where the forward pass is. What is inside a neuron counts as the neuron."""
    inside: set[nn.Module] = set()
    for name, module in model.named_modules():
        if module in inside:
            continue
        call = _Call(name, type(module).__name__, _is_neuron(module, neurons))
        if call.neuron:
            inside.update(module.modules())
        yield module.register_forward_pre_hook(lambda *_, call=call: watch.enter(call))
        # After an error, too, so that the next pass starts at the right place.
        yield module.register_forward_hook(lambda _, args, result: watch.leave(result), always_call=True)


def _is_neuron(module: nn.Module, neurons: tuple[type[nn.Module], ...]) -> bool:
    """Whether a layer is one of these, or has a threshold and is neither a norm nor a block of layers."""
    if isinstance(module, neurons):
        return True
    block = any(hasattr(each, "weight") for each in module.modules() if each is not module)
    threshold = hasattr(module, "v_threshold") or hasattr(module, "threshold")
    return threshold and not block and not hasattr(module, "running_mean")


def _in_backward() -> bool:
    """Whether autograd is running, where checkpoints repeat the forward pass."""
    return torch._C._current_graph_task_id() != -1


class _Watch(TorchDispatchMode):
    """Adds to the report what the operations inside the model do."""

    def __init__(self, model: nn.Module, unit: float) -> None:
        super().__init__()
        self.report = Report()
        self.unit = unit
        self.parameters = {StorageWeakRef(each.untyped_storage()) for each in model.parameters()}
        self.units: dict[StorageWeakRef, float] = {}  # of what the neurons of this package return, where it is not 1
        self.running: list[_Call] = []
        self.fired = False  # whether an operation has reported the spikes of the neuron that is running

    def enter(self, call: _Call) -> None:
        if not _in_backward():
            self.running.append(call)
            self.fired = False

    def leave(self, result: Any) -> None:
        if _in_backward() or not self.running:
            return
        spikes = result[0] if isinstance(result, (tuple, list)) and result else result
        if self.running[-1].neuron and not self.fired and isinstance(spikes, Tensor):
            found = self.spikes_in(spikes)
            if found is not None:
                self._add_fired(found, spikes.numel())
        self.running.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        count = _COUNTED.get(func.overloadpacket)
        if count is None and torch.is_inference_mode_enabled():
            # Elsewhere autograd has already taken layers apart into the operations that are counted.
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        if count is not None and self.running and not _in_backward():
            defaults = {each.name: each.default_value for each in func._schema.arguments}
            positional = {each.name: value for each, value in zip(func._schema.arguments, args, strict=False)}
            with torch.no_grad():
                count(self, {**defaults, **positional, **kwargs}, result)
        return result

    def spikes_in(self, x: Tensor) -> Spikes | None:
        """The spikes of a spike train; None if x is none."""
        storage = StorageWeakRef(x.untyped_storage())
        if storage in self.parameters or x.is_complex():
            return None
        if not x.is_floating_point() or x.numel() == 0:
            return _spikes(x.double())
        likely = self.units.get(storage, self.unit)
        for unit in dict.fromkeys((likely, self.unit, *self.units.values())):
            counts = x if unit == 1 else (x / unit).round()
            if _whole(x) if unit == 1 else _equal(counts * unit, x):
                return _spikes(counts)
        return None

    def _layer(self) -> Layer:
        call = self.running[-1]
        return self.report.layer(call.name, call.type)

    def _add_fired(self, spikes: Spikes, neuron_steps: int) -> None:
        layer = self._layer()
        layer.spikes += spikes.total()
        layer.neuron_steps += neuron_steps
        self.fired = True

    def _add(self, product: Product) -> None:
        layer = self._layer()
        layer.dense += product.dense
        if product.accumulations is None:
            layer.macs += product.dense
            return
        layer.accumulations += product.accumulations
        layer.input_spikes += product.spikes
        layer.inputs += product.elements

    def product(self, a: Tensor, b: Tensor) -> None:
        self._add(matrix_product(a, b, self.spikes_in(a), self.spikes_in(b)))

    def convolution(self, x: Tensor, *others: Any) -> None:
        self._add(convolution(x, self.spikes_in(x), *others))

    def neuron(self, given: Arguments, result: tuple[Tensor, Tensor]) -> None:
        """`lif` or `tdbn_lif`."""
        x, steps, output, unit = (given[name] for name in ("x", "steps", "output", "output_scale"))
        self.fired = True
        if output not in ("spikes", "mean"):
            return
        steps = 1 if output == "spikes" else x.shape[0] if steps is None else steps  # in one element of the result
        unit, spikes = unit / steps, result[0]
        if unit != 1:
            self.units[StorageWeakRef(spikes.untyped_storage())] = unit
        counts = spikes if unit == 1 else (spikes / unit).round()
        self._add_fired(_spikes(counts), spikes.numel() * steps)


def _spikes(counts: Tensor) -> Spikes:
    if counts.numel() == 0:
        return Spikes(counts, 0.0)
    low, high = (each.item() for each in counts.aminmax())
    return Spikes(counts.abs() if low < 0 else counts, max(-low, high))


def _whole(x: Tensor) -> bool:
    """Whether all values are whole numbers. NaN and infinities have no fraction that equals 0."""
    low, high = x.frac().aminmax()
    return low.item() == 0 == high.item()


def _equal(a: Tensor, b: Tensor) -> bool:
    """Whether they are equal but for the rounding of a multiplication and a division."""
    return torch.allclose(a, b, rtol=2 * torch.finfo(b.dtype).eps, atol=0.0)


def _torch_convolution(watch: _Watch, given: Arguments, result: Tensor) -> None:
    geometry = (given[name] for name in ("stride", "padding", "dilation", "groups", "transposed"))
    watch.convolution(given["input"], given["weight"], result, *geometry)


def _own_convolution(watch: _Watch, given: Arguments, result: Tensor) -> None:
    x, mode, (above, below, left, right) = given["x"], given["padding_mode"], given["padding"]
    if mode != "zeros":
        x = nn.functional.pad(x, (left, right, above, below), mode=mode)
        above = left = 0
    watch.convolution(x, given["weight"], result, (1, 1), (above, left), given["dilation"])


def _attention(watch: _Watch, given: Arguments, result: Any) -> None:
    """The fused one, in which a softmax stands between the products."""
    query, key, value = given["query"], given["key"], given["value"]
    watch.product(query, key.mT)
    never_spikes = query.new_full((1,), 0.5)
    watch.product(never_spikes.expand(*query.shape[:-1], key.shape[-2]), value)


def _matrices(a: str, b: str) -> Count:
    return lambda watch, given, result: watch.product(given[a], given[b])


def _vector(a: str, b: str) -> Count:
    return lambda watch, given, result: watch.product(torch.atleast_2d(given[a]), given[b][:, None])


Count = Callable[[_Watch, Arguments, Any], None]
_aten = torch.ops.aten
_COUNTED: dict[Any, Count] = {
    _aten.convolution: _torch_convolution,
    _aten.mm: _matrices("self", "mat2"),
    _aten.bmm: _matrices("self", "mat2"),
    _aten.addmm: _matrices("mat1", "mat2"),
    _aten.baddbmm: _matrices("batch1", "batch2"),
    _aten.addbmm: _matrices("batch1", "batch2"),
    _aten.mv: _vector("self", "vec"),
    _aten.addmv: _vector("mat", "vec"),
    _aten.dot: _vector("self", "tensor"),
    _aten._scaled_dot_product_flash_attention: _attention,
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    _aten._scaled_dot_product_efficient_attention: _attention,
    _aten._scaled_dot_product_cudnn_attention: _attention,
    conv_op.FORWARD.overload.overloadpacket: _own_convolution,
    lif_op.FORWARD.overload.overloadpacket: _Watch.neuron,
    tdbn_op.LIF_FORWARD.overload.overloadpacket: _Watch.neuron,
}
