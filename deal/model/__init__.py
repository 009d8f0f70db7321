"""The enhancement network and its parts, the degradation generator, and files of weights."""
