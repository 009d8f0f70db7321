"""What a training step asks of the processor that drives a GPU: launches, which limit small networks, and copies."""

import collections

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from deal.inference.enhancer import Enhancer
from deal.model.network import DEAL
from deal.model.separation import DealU
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


@pytest.mark.parametrize(("update", "most"), (("simultaneous", 352), ("alternating", 609)))
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


class HostTensors(TorchDispatchMode):
    """Collects the operations on tensors of the CPU."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        tensors = [leaf for leaf in tree_leaves((arguments, options or {})) if isinstance(leaf, torch.Tensor)]
        if any(tensor.is_cpu for tensor in tensors):
            self.found.append(operation)
        return operation(*arguments, **(options or {}))


def moved(module, device):
    """The module with its parameters and buffers on a device."""
    for each in module.modules():
        each._parameters = {
            name: None if p is None else nn.Parameter(p.to(device), p.requires_grad)
            for name, p in each._parameters.items()
        }
        each._buffers = {name: None if b is None else b.to(device) for name, b in each._buffers.items()}


@pytest.mark.parametrize("blocks", ("cascade2", "deal-u-small"))
@pytest.mark.parametrize("strategy", ("policy", "das"))
def test_a_step_takes_nothing_from_the_cpu(blocks, strategy, monkeypatch):
    """On tensors without data in place of a GPU's: a copy from the CPU, or a value that is read there, makes a GPU wait
    and cannot be part of a CUDA graph."""
    chosen = Settings(blocks=blocks, strategy=strategy, update="simultaneous", precision="fp32", ema_decay=0.99)
    training = AdversarialTraining(chosen, ProcessGroup(torch.device("cpu")))
    x = torch.rand(2, 1, 64, 64)
    thumbnails = torch.rand(2, 1, 96, 120) if blocks == "deal-u-small" else None
    draws = training.draws(0, x, True, thumbnails)
    for module in (training.network, training.generator, training.averaged):
        moved(module, "meta")
    training.group = ProcessGroup(torch.device("meta"))
    monkeypatch.setattr(training, "_apply_gradients", lambda module, optimiser: None)  # fused ones refuse such tensors
    given = tree_map_only(torch.Tensor, lambda tensor: tensor.to("meta"), (x, thumbnails, draws))
    with HostTensors() as host:
        training.step(given[0], 0, True, given[1], given[2])
    assert not host.found


@pytest.mark.parametrize("network", (DealU("deal-u-small"), DEAL("cascade2")), ids=("deal-u-small", "cascade2"))
def test_an_image_takes_nothing_from_the_cpu(network):
    enhancer = Enhancer(network, tile=64, device="meta")
    with torch.inference_mode():
        prepared = enhancer._network_for(1)
        with HostTensors() as host:
            prepared.separate(torch.empty(1, 1, 48, 60, device="meta"), enhancer._run_tiled)
    assert not host.found
