"""Fusion of infrared with visible images: data, metrics, benchmark, and a fusion network."""
