"""Runs of the trainer in processes of their own. A spawned one imports it by name."""

import sys

import torch

from deal.io.synthetic import SyntheticScenes
from deal.training import run_dir
from deal.training.adversarial import AdversarialTraining
from deal.training.distributed import ProcessGroup
from deal.training.loop import train
from deal.training.settings import Settings

TINY = {
    "blocks": [["scale", 5, 3], ["spike", 5, 3, 2]], "width": 4, "batch": 2, "crop": 32, "progress": False,
    "device": "cpu", "adversary_start": 2, "log_every": 2, "save_every": 2, "ema_decay": 0.9,
    "strategy": "das", "ops": "thermal", "loss": "l1_ssim",
}  # fmt: skip
# One step of the network and of the generator. In a second step Adam would follow gradients that are nothing but
# rounding. So would the generator under the default fidelity weight of 1: an untrained network returns its input, and
# the two terms of the generator's loss cancel. Weight decay would hide the gradient.
SHARED = {"steps": 1, "adversary_start": 0, "fidelity_weight": 3.0, "weight_decay": 0.0}


def scenes():
    return SyntheticScenes(4, 48, 48)


def run(folder, **changes):
    torch.set_num_threads(1)
    return train(Settings(**{**TINY, "output": str(folder), **changes}), scenes())


def distributed(rank, file, count, folder, updates):
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=count)
    try:
        for update in updates:
            run(folder / update, **SHARED, update=update)
    finally:
        torch.distributed.destroy_process_group()


def save_for_ever(folder, device):
    """Writes checkpoints, one after the other, whose weights all equal the number of its step."""
    settings = Settings(**{**TINY, "output": folder, "device": device})
    training = AdversarialTraining(settings, ProcessGroup(torch.device(device)))
    step = 0
    while True:
        step += 1
        with torch.no_grad():
            for parameter in [*training.network.parameters(), *training.averaged.parameters()]:
                parameter.fill_(step)
        run_dir.save_run(settings, {"training": training.state(), "step": step}, training.result, is_best=True)
        print(step, flush=True)


if __name__ == "__main__":
    save_for_ever(*sys.argv[1:])
