"""What each of several processes runs in tests of distributed statistics. A spawned one imports it by name."""

import torch
import torch.distributed as dist

from deal_kernels.tdbn import TDBNLIF, TDBatchNorm2d

WORLD = 2


def split(shares, rank):
    """Where the samples of a process begin and end."""
    begin = sum(shares[:rank])
    return begin, begin + shares[rank]


def layers(backend):
    torch.manual_seed(0)
    made = TDBatchNorm2d(3, backend=backend), TDBNLIF(3, alpha=None, surrogate="atan", v_threshold=0.6, backend=backend)
    for layer in made:
        norm = getattr(layer, "norm", layer)
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
        torch.nn.init.normal_(norm.bias)
    return made


def batch(samples):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(4, samples, 3, 5, 7, generator=generator) + 2 for _ in range(4)]


def steps(backend, part, total):
    """Results, gradients and statistics of two training steps of each layer on some samples of the batch."""
    found = []
    x, grad, second, second_grad = (t[:, part] for t in batch(total))
    for layer in layers(backend):
        for data, cotangent in ((x, grad), (second, second_grad)):
            leaf = data.clone().requires_grad_()
            y = layer(leaf)
            y.backward(cotangent)
            found += [y.detach(), leaf.grad]
        norm = getattr(layer, "norm", layer)
        found += [norm.weight.grad, norm.bias.grad, norm.running_mean.clone(), norm.running_var.clone()]
    return found


def run(rank, file, backend, shares, results):
    torch.set_num_threads(1)  # several processes are enough for a small machine
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=WORLD)
    try:
        torch.save(steps(backend, slice(*split(shares, rank)), sum(shares)), f"{results}/{rank}.pt")
    finally:
        dist.destroy_process_group()


def run_alone(rank, file, results):
    """Statistics of one process among several: with group=False, and with a group of its own."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=WORLD)
    try:
        groups = [dist.new_group([each]) for each in range(WORLD)]
        x = batch(WORLD)[0][:, rank : rank + 1]
        found = [TDBatchNorm2d(3, group=group)(x) for group in (False, groups[rank], True)]
        torch.save([y.detach() for y in found], f"{results}/{rank}.pt")
    finally:
        dist.destroy_process_group()
