"""Functions of tensors that a GPU repeats from a CUDA graph, by one launch in place of hundreds.

A small network keeps a GPU waiting for Python. A graph keeps the kernels of a call and the addresses they work on, and
runs them again without Python.
"""

from __future__ import annotations

import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Literal, NamedTuple, Protocol

import torch
import torch.utils._pytree as pytree
from torch import Tensor

WARM_UP = 2  # calls before a capture, in which kernels are compiled and chosen and optimisers make their state
KEPT = 4  # graphs, each of which keeps its memory

GRAPHS = ("auto", "off")

Call = Callable[[], Any]


class Recorder(Protocol):
    """Makes graphs."""

    def warm_up(self, call: Call) -> Any:
        """The result of a call, which runs as a capture will run it."""

    def capture(self, call: Call) -> Call:
        """A function that repeats the call and gives its result, in the same memory each time. The call itself has no
        effect."""


class Graph(NamedTuple):
    """A captured call."""

    given: list[Tensor]  # the memory that it reads its arguments from
    replay: Call


class Graphed:
    """A function on a GPU that is captured for each kind of arguments after two calls, and replayed from then on.

    Arguments are of one kind if they have the same structure, their tensors the same shapes and types, and all else the
    same values. The graphs of the four kinds that were last used are kept. If a capture fails, the function is called
    as it is, after a warning.

    Args:
        function: of tensors, numbers and collections of them. It may change tensors that it holds, such as weights. It
            must neither read values from the GPU nor depend on anything else that changes.
        recorder: makes the graphs.
    """

    def __init__(self, function: Callable[..., Any], recorder: Recorder) -> None:
        self.function, self.recorder = function, recorder
        self.calls: Counter[Hashable] = Counter()
        self.graphs: OrderedDict[Hashable, Graph] = OrderedDict()
        self.works = True

    def __call__(self, *arguments: Any) -> Any:
        if not self.works:
            return self.function(*arguments)
        leaves, structure = pytree.tree_flatten(arguments)
        kind = structure, tuple(map(_kind, leaves))
        if kind not in self.graphs:
            self.calls[kind] += 1
            if self.calls[kind] <= WARM_UP:
                return self.recorder.warm_up(lambda: self.function(*arguments))
            if not self._capture(kind, leaves, structure):
                return self.function(*arguments)
        self.graphs.move_to_end(kind)
        graph = self.graphs[kind]
        torch._foreach_copy_(graph.given, [leaf for leaf in leaves if isinstance(leaf, Tensor)])
        return pytree.tree_map_only(Tensor, torch.clone, graph.replay())

    def _capture(self, kind: Hashable, leaves: list[Any], structure: pytree.TreeSpec) -> bool:
        own = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        if len(self.graphs) == KEPT:
            oldest, _ = self.graphs.popitem(last=False)
            del self.calls[oldest]
        try:
            replay = self.recorder.capture(lambda: self.function(*pytree.tree_unflatten(own, structure)))
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            warnings.warn(f"computing without a CUDA graph, which could not be captured: {reason}", stacklevel=3)
            self.works = False
            self.graphs.clear()
            return False
        self.graphs[kind] = Graph([leaf for leaf in own if isinstance(leaf, Tensor)], replay)
        return True


class CudaRecorder:
    """Makes CUDA graphs."""

    def warm_up(self, call: Call) -> Any:
        side, current = torch.cuda.Stream(), torch.cuda.current_stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            result = call()
        current.wait_stream(side)
        return result

    def capture(self, call: Call) -> Call:
        graph = torch.cuda.CUDAGraph()
        # Other threads go on meanwhile: one of them reads the next batch.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            result = call()

        def replay() -> Any:
            graph.replay()
            return result

        return replay


def recorder_for(graph: Literal["auto", "off"], device: torch.device) -> Recorder | None:
    """What makes the graphs of a device, if they are wanted and the device has any."""
    return CudaRecorder() if graph == "auto" and device.type == "cuda" else None


def _kind(leaf: Any) -> Hashable:
    return (leaf.shape, leaf.stride(), leaf.dtype) if isinstance(leaf, Tensor) else leaf
