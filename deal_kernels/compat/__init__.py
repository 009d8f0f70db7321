"""Layers with the names and arguments of other libraries."""
