"""One thread that computes, and a limited number of requests that wait for it."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
Job = Callable[[threading.Event], T]  # the event asks a long job to stop
LONGEST = 60  # seconds that a client is told to wait


class Full(Exception):
    """There is no place for another request."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"the queue is full: try again in {seconds} s")
        self.seconds = seconds


class Gone(Exception):
    """The client has gone away."""


class Queue:
    """The places of requests, from their first byte to their last. All methods are called in one event loop.

    Args:
        waiting: how many requests may wait for the one that is computed.
    """

    def __init__(self, waiting: int) -> None:
        self.places, self.taken = waiting + 1, 0
        self._worker = ThreadPoolExecutor(1, "deal-serve")
        self._seconds = 1.0  # that the last job took

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Takes a place for the block. Raises `Full` if there is none."""
        if self.taken >= self.places:
            raise Full(min(LONGEST, max(1, math.ceil(self.taken * self._seconds))))
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1

    async def run(self, job: Job[T], gone: Awaitable[object]) -> T:
        """The result of a job. Raises `Gone` if the client goes away: a job that has not begun is then left out."""
        stop = threading.Event()
        submitted = self._worker.submit(self._timed, job, stop)
        done, left = asyncio.wrap_future(submitted), asyncio.ensure_future(gone)
        both: set[asyncio.Future[Any]] = {done, left}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if done.done():
                return done.result()
            if not submitted.cancel():  # it is being computed, and keeps its place
                stop.set()
                await asyncio.wait({done})
                done.exception()
            raise Gone
        finally:
            left.cancel()
            stop.set()

    def _timed(self, job: Job[T], stop: threading.Event) -> T:
        begin = time.perf_counter()
        try:
            return job(stop)
        finally:
            self._seconds = time.perf_counter() - begin

    def close(self) -> None:
        """Ends the thread after the job that it computes."""
        self._worker.shutdown(wait=False, cancel_futures=True)
