"""Infrared image enhancement built on `deal_kernels`."""
