"""The command line."""

from deal.cli.entry_point import main

__all__ = ["main"]
