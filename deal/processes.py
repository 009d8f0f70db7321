"""One process or several that share each batch, and signals that ask a run to stop."""

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


@dataclasses.dataclass(frozen=True)
class Crew:
    """The processes that train together, seen from one of them."""

    device: torch.device
    rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes and reports."""
        return self.rank == 0

    def share(self, whole: Tensor) -> Tensor:
        """This process's samples of a whole batch."""
        size = len(whole) // self.count
        return whole[self.rank * size : (self.rank + 1) * size]

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Sets tensors to their means over the processes, with one message."""
        tensors = list(tensors)
        if self.count == 1 or not tensors:
            return
        together = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(together)
        parts = (together / self.count).split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def average_gradients(self, players: nn.Module) -> None:
        self.average(parameter.grad for parameter in players.parameters() if parameter.grad is not None)

    def any(self, flag: bool) -> bool:
        """Whether it is so in any process."""
        if self.count == 1:
            return flag
        flags = torch.tensor([float(flag)], device=self.device)
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        return bool(flags.item())

    def from_leader(self, value: Any) -> Any:
        """What the process that leads has here."""
        if self.count == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, 0)
        return values[0]


@contextlib.contextmanager
def crew(device: str) -> Iterator[Crew]:
    """That of torchrun, of a process group that is there already, or this process alone.

    Args:
        device: "auto" takes a GPU where there is one.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    place = torch.device(device)
    if place.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device is {device!r}, but torch finds no GPU here")
    if place.type == "cuda" and place.index is None:
        place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if place.type == "cuda":
        torch.cuda.set_device(place)
    joins = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not _joined()
    if joins:
        dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        yield Crew(place, dist.get_rank(), dist.get_world_size()) if _joined() else Crew(place)
    finally:
        if joins:
            dist.destroy_process_group()


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()


class Stop:
    """Holds Ctrl-C and SIGTERM back until the step in hand is done; a second Ctrl-C is not held back."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            self._before = {each: signal.signal(each, self._note) for each in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def _note(self, received: int, frame: FrameType | None) -> None:
        if self.received is not None and received == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = received

    def end(self) -> None:
        """Ends the process as the signal would have done."""
        if self.received == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt
