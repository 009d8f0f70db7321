"""The enhancement network and a step of its training against what a user would run instead.

"ours" is the user's call, whose large results take pages that earlier ones gave back; "fresh" is the same call when
all its memory is new. Rivals are always the user's call.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from deal_rivals import Plain, PlainGame
from figures import milliseconds
from lif_rivals import DEVICE
from memory import fresh, peak_bytes
from torch import Tensor, nn

from deal.io.synthetic import thermal_scene
from deal.model.generator import Generator
from deal.model.network import DEAL
from deal.training.adversarial import AdversarialTraining
from deal.training.distributed import ProcessGroup
from deal.training.draws import seeded_random
from deal.training.settings import Settings

SIZES = ((256, 256), (480, 640), (768, 1024))
SMOKE = (40, 48)
CROP = 128
STRATEGIES = {"warm start": False, "adversary": True}
Call = Callable[[], object]


def scenes(count: int, height: int, width: int) -> Tensor:
    return torch.stack([thermal_scene(height, width, seed=k) for k in range(count)]).to(DEVICE)


def rivals(network: DEAL, compiled: bool) -> dict[str, nn.Module]:
    made: dict[str, nn.Module] = {"eager": Plain(network)}
    if compiled:
        torch._dynamo.reset()
        made["compile"] = torch.compile(Plain(network), dynamic=False)
    return made


def width_of(timed: bool) -> int:
    return 32 if timed else 4


def trained(width: int) -> DEAL:
    """Its norms have statistics of their own."""
    torch.manual_seed(0)
    network = DEAL(width=width).to(DEVICE).train()
    with torch.no_grad():
        for _ in range(3):
            network(scenes(2, 64, 64))
    return network


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[1]}x{size[0]}")
def bench_inference(size, race, timed, report):
    network = trained(width_of(timed)).eval()
    x = scenes(1, *(size if timed else SMOKE))
    runs = {"ours": network} | rivals(network, compiled=timed)
    calls = {name: torch.no_grad()(lambda run=run: run(x)) for name, run in runs.items()}
    expected = calls["eager"]()
    for name, call in calls.items():
        # A neuron whose charge is within rounding of a threshold fires otherwise, and moves the pixels around it.
        assert (call() - expected).abs().mean() < 1e-4, name
    result = race({**calls, "fresh": fresh(calls["ours"])}, 40.0)
    if result is not None:
        peaks = {f"peak_MB_{name}": f"{(peak_bytes(calls[name]) or 0) / 1e6:.0f}" for name in ("ours", "eager")}
        add(report, "An image through the network (ms; in brackets / ours, / ours fresh)", result, list(runs)[1:],
            case=f"{size[1]}x{size[0]}", **peaks)  # fmt: skip


def add(report, title: str, result, others: list[str], **row: str) -> None:
    """Ours, and every rival with its time as a multiple of ours and of ours fresh."""
    figures = {name: milliseconds(result.seconds(name)) for name in ("ours", "fresh")}
    for name in others:
        ratios = f"{result.ratio(name, 'ours'):.1f}x, {result.ratio(name, 'fresh'):.1f}x"
        figures[name] = f"{milliseconds(result.seconds(name))} ({ratios})"
    case = row.pop("case")
    report.add(title, case=case, **figures, **row)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("batch", [2, 8])
def bench_training_step(batch, strategy, race, timed, report):
    """The released operations, and the same losses; ours with an adversary also in its simultaneous form."""
    adversary = STRATEGIES[strategy]
    x = scenes(batch, CROP, CROP) if timed else scenes(2, *SMOKE)
    calls, games = {}, {}
    for update in ("alternating", "simultaneous") if adversary else ("alternating",):
        name = "ours" if update == "alternating" else "simultaneous"
        # Without dropout all see the same images.
        chosen = Settings(
            blocks="cascade2", width=width_of(timed), strategy="das", loss="l1_ssim", ops="released", dropout=0.0,
            update=update,
        )  # fmt: skip
        games[name] = training = AdversarialTraining(chosen, ProcessGroup(x.device))
        calls[name] = lambda training=training: training.step(x, 0, adversary)["loss"]
    params = training.generator.sample(x, seeded_random(chosen.seed, 2, 0))
    for name, network in rivals(games["ours"].network, compiled=timed).items():
        generator = Generator(**games["ours"].generator.config).to(x.device)
        generator.load_state_dict(games["ours"].generator.state_dict())
        game = PlainGame(network, generator, chosen, x)
        calls[name] = lambda game=game: game.step(x, params, adversary)
    assert_agree({name: call() for name, call in calls.items()})
    result = race({**calls, "fresh": fresh(calls["ours"])}, 60.0)
    if result is not None:
        peaks = {f"peak_MB_{name}": f"{(peak_bytes(calls[name]) or 0) / 1e6:.0f}" for name in ("ours", "eager")}
        add(report, f"A step of training, crop {CROP} (ms; in brackets / ours, / ours fresh)", result,
            [name for name in calls if name != "ours"], case=f"{strategy}, batch {batch}", **peaks)  # fmt: skip


def assert_agree(losses: dict[str, Tensor]) -> None:
    """No numbers for a wrong result: the first step of all has the same loss."""
    for name, loss in losses.items():
        assert abs(loss - losses["eager"]) < 1e-3 * losses["eager"], f"{name} has {loss}, eager {losses['eager']}"
