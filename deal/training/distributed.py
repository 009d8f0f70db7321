"""One process, or several that share each batch, and signals that stop a run."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from deal.model.device import choose_device


@dataclasses.dataclass(frozen=True)
class ProcessGroup:
    """The processes of a training run, as one of them sees the group."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def is_leader(self) -> bool:
        """Whether this is the process that writes files and reports."""
        return self.rank == 0

    def shard(self, batch: Tensor) -> Tensor:
        """This process's samples of a whole batch."""
        count = len(batch) // self.size
        return batch[self.rank * count : (self.rank + 1) * count]

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replaces tensors by their means over the processes, with one message."""
        tensors = list(tensors)
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        parts = (flat / self.size).split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def average_gradients(self, module: nn.Module) -> None:
        """Replaces the module's gradients by their means over the processes."""
        self.average(parameter.grad for parameter in module.parameters() if parameter.grad is not None)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        if self.size == 1:
            return flag
        flags = torch.tensor([float(flag)], device=self.device)
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        return bool(flags.item())

    def broadcast(self, value: Any) -> Any:
        """The value that the leader passes."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, 0)
        return values[0]


@contextlib.contextmanager
def process_group(device: str) -> Iterator[ProcessGroup]:
    """The processes of torchrun or of an existing process group; otherwise this process alone.

    Args:
        device: see `choose_device`; "cuda" is the GPU of this process's local rank.
    """
    chosen = choose_device(device, cuda_index=int(os.environ.get("LOCAL_RANK", "0")))
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    starts = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not _initialised()
    if starts:
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        if _initialised():
            yield ProcessGroup(chosen, dist.get_rank(), dist.get_world_size())
        else:
            yield ProcessGroup(chosen)
    finally:
        if starts:
            dist.destroy_process_group()


def _initialised() -> bool:
    return dist.is_available() and dist.is_initialized()


class StopSignal:
    """Delays Ctrl-C and SIGTERM until the current step is done. A second Ctrl-C acts at once."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            self._before = {each: signal.signal(each, self._receive) for each in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def _receive(self, received: int, frame: FrameType | None) -> None:
        if self.received is not None and received == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = received

    def exit(self) -> None:
        """Ends the process as the signal would have ended it."""
        if self.received == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt
