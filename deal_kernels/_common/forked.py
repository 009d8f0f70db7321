"""Torch in forked children: its threads do not survive a fork, and an operation that waits for them never returns."""

from __future__ import annotations

import os

import torch

_forked = False


def _mark() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_mark)


def one_thread_if_forked() -> None:
    """Lets torch compute with one thread in a forked child, as DataLoader does in its workers."""
    if _forked and torch.get_num_threads() > 1:
        torch.set_num_threads(1)
