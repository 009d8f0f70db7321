"""How a call reaches its kernel: the operations torch knows, the backend, and where a compiled kernel runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._decomp import register_decomposition
from torch.autograd import forward_ad, profiler

from deal_kernels import backend as backends
from deal_kernels._common.forked import one_thread_if_forked

library = torch.library.Library("deal_kernels", "FRAGMENT")
# The private counter of dispatch modes. A torch without it takes the dispatcher at every call: slower, and as correct.
_modes = getattr(torch._C, "_len_torch_dispatch_stack", lambda: 1)
_transforms = torch._C._are_functorch_transforms_active  # those of torch.func
_tracing = torch._C._is_tracing  # of torch.jit.trace, and of the ONNX exporter that is based on it
# Without the attributes of torch.compiler, as `unobserved` is a part of the smallest calls.
_compiling = torch.compiler.is_dynamo_compiling

Results = Tensor | Sequence[Tensor | None]


def unobserved(x: Tensor) -> bool:
    """Whether nothing traces, transforms, records or intercepts calls on x, so that the dispatcher may be skipped."""
    return untraced(x) and not profiler._is_profiler_enabled


def untraced(x: Tensor) -> bool:
    """Whether nothing traces, transforms or intercepts calls on x."""
    return (
        type(x) is Tensor
        and not _compiling()  # what else compiles is a mode
        and not (_modes() or _transforms() or _tracing())
        and forward_ad._current_level < 0
    )


def transformed() -> bool:
    """Whether torch.func or forward-mode differentiation is at work, which differentiate torch operations only."""
    return forward_ad._current_level >= 0 or _has_transforms()


def _has_transforms() -> bool:
    return _transforms()


# torch.compile is to ask while it traces. This is what torch.compiler.assume_constant_result sets, without the second
# that its import takes.
_has_transforms._dynamo_marked_constant = True  # type: ignore[attr-defined]


def exports() -> bool:
    """Whether torch.export records operations. Dynamo of torch 2.9 takes every call for one that is exported."""
    return torch.compiler.is_exporting() and not torch.compiler.is_dynamo_compiling()


def needs_gradient(*tensors: Tensor | None) -> bool:
    """Whether autograd has to go through a call on these tensors. Raises where torch.func would have to."""
    given = [tensor for tensor in tensors if tensor is not None]
    needed = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given)
    if transformed() and (needed or any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in given)):
        raise NotImplementedError(
            "this operation has no derivatives for torch.func and forward mode: call backward() or torch.autograd.grad"
        )
    return needed


class Op:
    """An operation `deal_kernels::<name>`, called directly where nothing observes the call, else through torch.

    Args:
        schema: its name, arguments and results as torch.library takes them.
        launch: computes the results from structured arguments. A result that is not wanted may be None; through torch
            it is an empty tensor.
        fake: empty results of the right shape, dtype and layout, from the same arguments.
        flat: the schema's arguments from the structured ones.
        structured: the structured arguments from the schema's.
        plain: the results in plain torch operations, of which none writes into a tensor. With it the operation can be
            exported to ONNX.
    """

    def __init__(
        self, schema: str, *, launch: Callable[..., Results], fake: Callable[..., Results],
        flat: Callable[..., Sequence[Any]], structured: Callable[..., Sequence[Any]],
        plain: Callable[..., Results] | None = None,
    ) -> None:  # fmt: skip
        name = schema[: schema.index("(")]
        self.launch, self.flat = launch, flat

        def of_schema(function: Callable[..., Results]) -> Callable[..., Any]:
            return lambda *args: _tensors(function(*structured(*args)), args)

        library.define(schema)
        library.impl(name, of_schema(launch), "CompositeExplicitAutograd")
        torch.library.register_fake(f"deal_kernels::{name}", of_schema(fake), lib=library)
        self.overload = getattr(torch.ops.deal_kernels, name).default
        self.plain = None if plain is None else of_schema(plain)
        if self.plain is not None:
            register_decomposition(self.overload)(self.plain)
            # Fake tensors of symbolic sizes would take the decomposition in place of an operation without this entry.
            register_decomposition(self.overload, type="meta")(of_schema(fake))

    def __call__(self, x: Tensor, *arguments: Any) -> Any:
        """The results; x is the tensor by which the call is observed."""
        one_thread_if_forked()  # for torch's copies, and where torch computes
        if unobserved(x):
            return self.launch(*arguments)
        flat = self.flat(*arguments)
        if self.plain is not None and not _compiling() and _tracing() and torch.onnx.is_in_onnx_export():
            return self.plain(*flat)
        return self.overload(*flat)


def as_they_are(*arguments: Any) -> tuple[Any, ...]:
    """`flat` and `structured` of an operation whose schema has its arguments as they are."""
    return arguments


def _tensors(results: Results, arguments: Sequence[Any]) -> Any:
    if isinstance(results, Tensor):
        return results
    first = next(argument for argument in arguments if isinstance(argument, Tensor))
    return tuple(first.new_empty(0) if result is None else result for result in results)


def wanted_only(results: Sequence[Tensor | None], wanted: Sequence[bool]) -> list[Tensor | None]:
    """The results that are wanted, None in place of the others."""
    return [result if each else None for result, each in zip(results, wanted, strict=True)]


def chosen_backend(named: str | None, x: Tensor) -> str:
    return backends.choose(named, "cpu" if x.is_cpu else str(x.device), x.dtype)


def address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def run_compiled(kernel: str, call: Any, x: Tensor, backend: str) -> None:
    """Runs a kernel of the extension on the threads, or on the device and stream, of x."""
    compiled = backends.extension()
    if backend == "cpp":
        getattr(compiled.cpu, kernel)(call, torch.get_num_threads())
        return
    size = compiled.cuda.workspace(call)
    workspace = x.new_empty(size, dtype=torch.uint8) if size else None
    with torch.cuda.device_of(x):
        stream = torch.cuda.current_stream().cuda_stream
        getattr(compiled.cuda, kernel)(call, address(workspace), stream)
