"""Networks that are saved with their configuration."""

from __future__ import annotations

import abc
import json
import os
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from deal.model import weight_files

FREE = 1 << 20  # the elements that any constructor may create or fill
TOUCHES = 32  # how often it may create or fill its weights
OF_A_CALL, OF_A_TENSOR = 256, 1 << 14  # elements that a call costs at least, and that a tensor allows at least


class within_size_of(TorchFunctionMode):
    """Ends the construction of a network that is far larger than these tensors: a small file could describe a network
    that fills the memory, or takes hours to construct.

    Raises:
        ValueError: in a torch function inside of the block.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.size = sum(tensor.numel() for tensor in tensors.values())
        self.left = FREE + TOUCHES * self.size + OF_A_TENSOR * len(tensors)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        # The memory of torch.empty is not taken before something is written to it.
        self.left -= max(OF_A_CALL, result.numel() if isinstance(result, Tensor) else 0)
        if self.left < 0:
            raise ValueError(f"its config describes a network much larger than its weights of {self.size:,} numbers")
        return result


class SavedNetwork(nn.Module, abc.ABC):
    """A network whose files hold its weights and the arguments of its constructor."""

    METADATA: ClassVar[str]  # the entry of a file's metadata that has the arguments

    @property
    @abc.abstractmethod
    def config(self) -> dict[str, Any]:
        """The constructor arguments of this network."""

    def save_pretrained(self, path: str | os.PathLike[str], **notes: str) -> None:
        """Writes weights and configuration to a safetensors file, atomically.

        Args:
            path: the file; an existing one is replaced.
            notes: entries for the file's metadata, such as the training data.
        """
        weight_files.save_tensors(path, self.state_dict(), {**notes, self.METADATA: json.dumps(self.config)})

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike[str]) -> Self:
        """Loads a file that `save_pretrained` wrote; the network is on the CPU and in evaluation mode."""
        tensors, metadata = weight_files.load_tensors(path)
        if cls.METADATA not in metadata:
            raise ValueError(
                f"{path} has no {cls.METADATA!r} in its metadata: it was not written by {cls.__name__}.save_pretrained"
            )
        return cls.from_tensors(path, metadata[cls.METADATA], tensors)

    @classmethod
    def from_tensors(cls, path: str | os.PathLike[str], config: str, tensors: Mapping[str, Tensor]) -> Self:
        """A network with these weights, in evaluation mode.

        Args:
            path: the file, for error messages.
            config: the arguments of the constructor, as JSON.
            tensors: the weights by name.
        """
        try:
            arguments = json.loads(config)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} does not fit the network: its config is not JSON: {error}") from error
        if not isinstance(arguments, Mapping):
            raise ValueError(f"{path} does not fit the network: its config must be a mapping; got {arguments!r}")
        try:
            with within_size_of(tensors):
                network = cls(**arguments)
            kinds = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
            if len(kinds) == 1:
                network.to(kinds.pop())
            network.load_state_dict(tensors)
        except (RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"{path} does not fit the network: {error}") from error
        return network.eval()
