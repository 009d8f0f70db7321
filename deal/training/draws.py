"""The random numbers of a training step, drawn on the CPU before it, so that a GPU neither draws nor waits for them.

Every process draws the numbers of the whole batch and keeps those of its own samples. So the results depend neither on
the number of processes nor on the device.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy
import torch
from torch import Tensor

from deal.model.generator import Generator
from deal.model.policy import Policy
from deal.training.distributed import ProcessGroup

THUMBNAIL_NOISE = 0.02  # the largest deviation of the noise that a thumbnail keeps


class Draws(NamedTuple):
    """Those of some images."""

    chances: tuple[Tensor, ...]  # of the choices of a policy, see `Policy.chances`
    dropout: Tensor | None  # uniform numbers for the input of the generator's dropout, if the generator classifies
    params: dict[str, Tensor]  # of the random operations
    noise: Tensor | None = None  # that is added to thumbnails

    def to(self, device: torch.device) -> Draws:
        """On a device, without waiting for it."""
        chances = tuple(sent(each, device) for each in self.chances)
        dropout, noise = (None if each is None else sent(each, device) for each in (self.dropout, self.noise))
        return Draws(chances, dropout, {name: sent(each, device) for name, each in self.params.items()}, noise)


def seeded_random(*key: int) -> torch.Generator:
    """A random generator that depends on the key alone, so that no random state is kept between steps.

    It is on the CPU, so that a GPU gets the same numbers.
    """
    seed = numpy.random.SeedSequence(key).generate_state(1, numpy.uint64)[0]
    return torch.Generator().manual_seed(int(seed))


def draw(generator: Generator, x: Tensor, random: torch.Generator, group: ProcessGroup, *, classifies: bool) -> Draws:
    """The numbers for images like x [B, C, H, W], those of this process, on the CPU.

    Args:
        generator: of degradations.
        classifies: whether the generator looks at the images.
    """
    whole = x[:1].expand(len(x) * group.size, -1, -1, -1)  # the shape of the batch of all processes
    chances = generator.chances(len(whole), random) if isinstance(generator, Policy) else ()
    dropout = torch.rand(len(whole), *generator.dropout_shape, generator=random) if classifies else None
    params = generator.sample(whole, random)
    return Draws(
        tuple(group.shard(each).to(x.dtype) for each in chances),
        None if dropout is None else group.shard(dropout),
        {name: group.shard(each) for name, each in params.items()},
    )


def draw_noise(x: Tensor, random: torch.Generator, group: ProcessGroup) -> Tensor:
    """Normal noise for x [B, C, H, W], of another deviation in each image."""
    count = len(x) * group.size
    deviation = THUMBNAIL_NOISE * torch.rand(count, 1, 1, 1, generator=random)
    return group.shard(deviation * torch.randn(count, *x.shape[1:], generator=random)).to(x.dtype)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device. A GPU reads it from pinned memory while the CPU goes on."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
