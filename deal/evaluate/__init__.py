"""Benchmarks of enhancement methods on images with known degradations."""
