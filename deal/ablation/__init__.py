"""Comparison of training settings: variants and seeds from a plan, their evaluation, and tables with deviations."""
