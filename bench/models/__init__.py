"""Small networks after published designs, on SpikingJelly's neurons.

Each module has a function ``build(library, **size)``. The library is the part of SpikingJelly that has the neurons:
"clock_driven", as in 0.0.0.0.12, or "activation_based", as in 0.0.0.0.14 and later. It is imported when a network is
built, so that `deal_kernels.compat.install` can be called before.
"""
