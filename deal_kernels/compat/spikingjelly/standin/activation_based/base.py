"""Classes with the names of `spikingjelly.activation_based.base`, version 0.0.0.0.14."""

from deal_kernels.compat.spikingjelly.standin.memory import MemoryModule, MultiStepModule, SingleModule, StepModule
from deal_kernels.compat.spikingjelly.standin.missing import missing

__all__ = ["MemoryModule", "MultiStepModule", "SingleModule", "StepModule"]

__getattr__ = missing("activation_based.base", "check_backend_library extract_memories load_memories named_memories")
