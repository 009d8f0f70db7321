"""Recognises errors that say that memory is exhausted, which torch raises as RuntimeError on a CPU."""

from __future__ import annotations

WORDS = ("out of memory", "can't allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is exhausted.

    >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"))
    True
    """
    return isinstance(error, MemoryError) or any(words in str(error) for words in WORDS)
