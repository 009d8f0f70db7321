"""A stand-in for CUDA graphs on a CPU: a tape of torch operations that is played again without Python.

Like a graph it reads and writes the memory that the call was recorded with, and sees nothing else: no number or flag of
Python that has changed since.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ALLOCATIONS = {"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided"}


class Tape(TorchDispatchMode):
    """Records the operations of a call while it runs."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        name = operation.overloadpacket.__name__
        if name == "_local_scalar_dense":
            raise RuntimeError("operation not permitted when stream is capturing: a value is read")
        results = operation(*arguments, **(options or {}))
        if name not in ALLOCATIONS:
            self.operations.append((operation, arguments, options or {}, results))
        return results

    @torch.no_grad()
    def play(self):
        for operation, arguments, options, results in self.operations:
            again = operation(*arguments, **options)
            for mine, new in zip(tree_leaves(results), tree_leaves(again), strict=True):
                if isinstance(mine, torch.Tensor) and mine.data_ptr() != new.data_ptr():
                    mine.detach().copy_(new)


class TapeRecorder:
    """Takes the place of `deal.model.cuda_graph.CudaRecorder`.

    Args:
        kept: the tensors that a call changes; they are as before after a capture.
    """

    def __init__(self, kept):
        self.kept, self.captures, self.replays = kept, 0, 0

    def warm_up(self, call):
        return call()

    def capture(self, call):
        before = [(tensor, tensor.detach().clone()) for tensor in self.kept()]
        with Tape() as tape:
            results = call()
        with torch.no_grad():
            for tensor, value in before:
                tensor.copy_(value)
        self.captures += 1

        def replay():
            self.replays += 1
            tape.play()
            return results

        return replay


class BrokenRecorder(TapeRecorder):
    """Fails, as a call does that a graph cannot hold."""

    def capture(self, call):
        raise RuntimeError("operation not permitted when stream is capturing\nmore lines")
