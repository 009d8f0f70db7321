"""Reading in other threads, before what is read is used.

>>> with read_ahead(str.upper, ["a", "b", "c"], workers=2) as read:
...     read("a"), read("c")
('A', 'C')
"""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

S = TypeVar("S")
T = TypeVar("T")


@contextlib.contextmanager
def read_ahead(read: Callable[[S], T], sources: Iterable[S], workers: int) -> Iterator[Callable[[S], T]]:
    """`read` as a function that has the results of the next sources before it is called with them.

    Args:
        read: reads a source.
        sources: in the order in which they are going to be read. Some may be left out.
        workers: the number of threads; with 0 every source is read when it is asked for.
    """
    if not workers:
        yield read
        return
    left = iter(sources)
    coming: deque[tuple[S, Future[T]]] = deque()
    with ThreadPoolExecutor(workers, "deal-read") as pool:

        def result(wanted: S) -> T:
            while True:
                for source in itertools.islice(left, 1 + workers - len(coming)):
                    coming.append((source, pool.submit(read, source)))
                if not coming:
                    return read(wanted)
                source, future = coming.popleft()
                if source == wanted:
                    return future.result()

        try:
            yield result
        finally:
            pool.shutdown(cancel_futures=True)


def one_ahead(items: Iterator[T]) -> Iterator[T]:
    """The items, each of which is made in another thread while the one before it is used."""
    end = object()
    with ThreadPoolExecutor(1) as pool:
        coming: Future[Any] = pool.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, items, end)
            yield item
