"""How many operations a training step launches. On a GPU, launches are what limits the step of a small network."""

import collections

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from deal.training.adversarial import AdversarialTraining
from deal.training.distributed import ProcessGroup
from deal.training.settings import Settings
from deal_kernels.conv import Conv2d

FREE = {"detach", "empty", "empty_like", "new_empty", "new_empty_strided", "empty_strided", "_unsafe_view"}
PAPER = {"blocks": "cascade2", "strategy": "das", "loss": "l1_ssim", "ops": "released", "precision": "bf16"}


class Launches(TorchDispatchMode):
    """Counts the operations that compute. Views and allocations launch nothing."""

    def __init__(self):
        super().__init__()
        self.counts = collections.Counter()

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        name = operation.overloadpacket.__name__
        if not operation.is_view and name not in FREE and not name.startswith("_record_function"):
            self.counts[name] += 1
        return operation(*arguments, **(options or {}))


@pytest.mark.parametrize(("update", "most"), (("simultaneous", 354), ("alternating", 611)))
def test_launches_of_the_papers_step(update, most):
    """With the convolutions and their padding in torch, as on a GPU."""
    training = AdversarialTraining(Settings(**PAPER, update=update), ProcessGroup(torch.device("cpu")))
    for module in training.network.modules():
        if isinstance(module, Conv2d):
            module.backend = "torch"
    x = torch.rand(4, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    training.step(x, 0, adversary=True)
    with Launches() as launches:
        training.step(x, 1, adversary=True)
    assert launches.counts.total() <= most, launches.counts
