"""Runs of the trainer in processes of their own. A spawned one imports it by name."""

import sys

import torch

from deal import das, resume
from deal.players import Players
from deal.processes import Crew
from deal.scenes import Scenes
from deal.settings import Settings

TINY = {
    "blocks": [["scale", 5, 3], ["spike", 5, 3, 2]], "width": 4, "batch": 2, "crop": 32, "progress": False,
    "device": "cpu", "warm_start": 2, "log_every": 2, "save_every": 2, "ema": 0.9,
}  # fmt: skip
# One step of both players: in a second one, Adam would follow gradients that are nothing but rounding. So would the
# generator under the default closeness of 1: an untrained network returns its input, and the two terms of the
# generator's loss cancel. Weight decay would hide the gradient.
SHARED = {"steps": 1, "warm_start": 0, "closeness": 3.0, "weight_decay": 0.0}


def scenes():
    return Scenes(4, 48, 48)


def alone():
    return Crew(torch.device("cpu"))


def run(folder, **changes):
    torch.set_num_threads(1)
    return das.train(Settings(**{**TINY, "output": str(folder), **changes}), scenes())


def distributed(rank, file, count, folder, updates):
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=count)
    try:
        for update in updates:
            run(folder / update, **SHARED, update=update)
    finally:
        torch.distributed.destroy_process_group()


def save_for_ever(folder):
    """Writes checkpoints, one after the other, whose weights all equal the number of its step."""
    settings = Settings(**{**TINY, "output": folder})
    players = Players(settings, alone())
    step = 0
    while True:
        step += 1
        with torch.no_grad():
            for parameter in [*players.network.parameters(), *players.averaged.parameters()]:
                parameter.fill_(step)
        resume.save(settings, {"players": players.state(), "step": step}, players.kept, best=True)
        print(step, flush=True)


if __name__ == "__main__":
    save_for_ever(sys.argv[1])
