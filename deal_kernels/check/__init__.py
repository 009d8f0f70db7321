"""Whether the library works on a machine, and how fast: `python -m deal_kernels --check`."""
