"""Training of the enhancement network, alone or against the degradation generator (DAS)."""
