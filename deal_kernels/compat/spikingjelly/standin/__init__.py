"""Modules with the names of SpikingJelly's, computed by `deal_kernels.lif`, for models that import them.

`clock_driven` follows SpikingJelly 0.0.0.0.12, `activation_based` 0.0.0.0.14, and `cext` its state of 2021. They have
what public models use. Neurons have the bits of SpikingJelly's in float32, on a CPU and with its backend "torch".
"""
