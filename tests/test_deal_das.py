"""The two players: what each of them follows, and what becomes of that over a run."""

import csv
import dataclasses
import math

import pytest
import torch

from deal.das import Settings, train
from deal.model import DEAL
from deal.players import Players
from deal.processes import Crew
from deal.progress import Collapsed, Watch
from deal.scenes import Scenes

ALONE = Crew(torch.device("cpu"))
TINY = {
    "blocks": [["scale", 5, 3], ["spike", 5, 3, 2]], "width": 4, "batch": 2, "crop": 32, "progress": False,
    "device": "cpu",
}  # fmt: skip
UPDATES = ("alternating", "simultaneous")
STEP = 1e-8  # of finite differences


@pytest.fixture(autouse=True)
def one_thread():
    """Images this small gain nothing from more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def settings(**changes):
    return Settings(**{**TINY, **changes})


def scenes(count=4):
    return Scenes(count, 48, 48)


def batch(dtype=torch.float32):
    source = scenes()
    return torch.stack([source[k] for k in range(2)]).to(dtype)


def weights_of(module):
    return torch.cat([parameter.detach().reshape(-1) for parameter in module.parameters()])


def busy(chosen):
    """Players whose network changes images, as new ones do not."""
    players = Players(chosen, ALONE)
    torch.nn.init.normal_(players.network.output_conv.weight, std=0.1, generator=torch.Generator().manual_seed(0))
    return players


def tiny_run(folder, *, source=None, **changes):
    return train(settings(output=str(folder), **changes), scenes() if source is None else source)


def pushed(player, way, step):
    """Moves the parameters along a way."""
    with torch.no_grad():
        for parameter, each in zip(player.parameters(), way, strict=True):
            parameter += step * each


@pytest.mark.parametrize("context", [False, True])
def test_new_networks_change_nothing_but_by_their_context(context):
    network = Players(settings(context=context), ALONE).network.eval()
    x = batch()
    with torch.no_grad():
        assert torch.equal(network(x), network.context(x) if context else x)


@pytest.mark.parametrize("learns", ["all", "context", "convolutions"])
def test_parts_of_the_network_learn_alone(learns):
    players = Players(settings(context=True, learns=learns), ALONE)
    network = players.network
    convolutions = [parameter for name, parameter in network.named_parameters() if not name.startswith("context.")]
    contexts = list(network.context.parameters())

    def moved(parameters, before):
        return not all(torch.equal(*pair) for pair in zip(parameters, before, strict=True))

    for number, adversary in enumerate((False, True, False)):
        before = [[parameter.clone() for parameter in part] for part in (convolutions, contexts)]
        players.step(batch(), number, adversary)
        assert moved(convolutions, before[0]) == (learns != "context")
        assert moved(contexts, before[1]) == (learns != "convolutions")


@pytest.mark.parametrize("update", UPDATES)
def test_generator_learns(update):
    players = busy(settings(update=update, weight_decay=0.0))
    before = {name: each.detach().clone() for name, each in players.generator.named_parameters()}
    players.step(batch(), 0, adversary=True)
    for name, parameter in players.generator.named_parameters():
        assert not torch.equal(parameter, before[name]), name
    assert all(parameter.requires_grad for parameter in players.network.parameters())


def test_warm_start_keeps_generator():
    players = Players(settings(), ALONE)
    generator, network = weights_of(players.generator), weights_of(players.network)
    players.step(batch(), 0, adversary=False)
    assert torch.equal(weights_of(players.generator), generator)
    assert not torch.equal(weights_of(players.network), network)


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("closeness", [0.0, 1.0])
def test_gradients_are_finite_differences(update, closeness):
    """Of what either player descends; without spiking neurons, whose gradient is none of a function.

    The steps are small: norms of nearly flat images make the loss a function of many edges.
    """
    chosen = settings(
        update=update, closeness=closeness, learning_rate=0.0, generator_rate=0.0, blocks=[["scale", 5, 3]]
    )  # fmt: skip
    players = busy(chosen)
    players.network.double(), players.generator.double()
    x = batch(torch.float64)[..., :32, :32]

    def objectives():
        figures = players.step(x, 3, adversary=True)
        return {
            players.network: figures["loss"], players.generator: closeness * figures["closeness"] - figures["loss"],
        }  # fmt: skip

    objectives()
    gradients = {
        player: [parameter.grad.clone() for parameter in player.parameters()]
        for player in (players.network, players.generator)
    }
    for player, gradient in gradients.items():
        expected = torch.cat([each.reshape(-1) for each in gradient]).norm()
        way = [each / expected for each in gradient]
        pushed(player, way, STEP)
        ahead = objectives()[player]
        pushed(player, way, -2 * STEP)
        difference = (ahead - objectives()[player]) / (2 * STEP)
        pushed(player, way, STEP)
        assert abs(difference - expected) < 1e-5 * expected


def test_simultaneous_gradients_are_those_of_two_passes():
    """Where the network stands still, both ways follow the same gradients."""
    found = []
    for update in UPDATES:
        players = busy(settings(update=update, learning_rate=0.0))
        players.step(batch(), 0, adversary=True)
        found.append([parameter.grad for parameter in players.generator.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * other.abs().max().item())


def test_alternating_keeps_statistics():
    """The generator's pass through the network leaves no trace in it."""
    chosen = settings()
    warm, learning = Players(chosen, ALONE), Players(chosen, ALONE)
    warm.step(batch(), 0, adversary=False)
    learning.step(batch(), 0, adversary=True)
    state = warm.network.state_dict()
    for name, tensor in learning.network.state_dict().items():
        assert name.endswith("num_batches_tracked") or torch.equal(tensor, state[name]), name


@pytest.mark.parametrize("strategy", ["average", "random"])
def test_strategies(strategy):
    players = Players(settings(strategy=strategy), ALONE)
    seen = []
    players.generator.register_forward_hook(lambda module, inputs, output: seen.append(inputs[1]))
    players.step(batch(), 0, adversary=False)
    players.step(batch(), 1, adversary=False)
    ops = len(players.generator.ops)
    if strategy == "average":
        assert all(torch.equal(weights, torch.full((2, 5, ops), 1 / ops)) for weights in seen)
    else:
        assert all(((weights == 0) | (weights == 1)).all() and (weights.sum(-1) == 1).all() for weights in seen)
        assert not torch.equal(*seen)


def test_loss_goes_down():
    """Of a batch that never changes, over a run in which the generator learns, too."""
    chosen = settings(steps=80, warm_start=20, learning_rate=1e-2, update="simultaneous")
    x = batch()[..., :32, :32].contiguous()
    players = Players(chosen, ALONE)
    with torch.no_grad():
        fixed = players.degraded(x, torch.Generator().manual_seed(5))
        before = players.loss(players.enhanced(fixed), x)
        for number in range(chosen.steps):
            with torch.enable_grad():
                players.step(x, number, adversary=number >= chosen.warm_start)
        after = players.loss(players.enhanced(fixed), x)
    assert after < 0.8 * before


def test_run(tmp_path):
    result = tiny_run(tmp_path, steps=6, warm_start=2, log_every=2, save_every=4, ema=0.9, clip=1.0, schedule="cosine")
    assert result.steps == 6 and result.best <= result.loss and math.isfinite(result.psnr)
    for name in ("last", "best"):
        assert DEAL.from_pretrained(tmp_path / f"{name}.safetensors").config == result.network.config
    last = DEAL.from_pretrained(tmp_path / "last.safetensors").state_dict()
    assert all(torch.equal(last[name], tensor) for name, tensor in result.network.state_dict().items())
    with open(tmp_path / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["2", "4", "6"]
    assert [bool(row["validation_psnr"]) for row in rows] == [False, True, True]
    assert float(rows[0]["learning_rate"]) > float(rows[1]["learning_rate"]) > float(rows[2]["learning_rate"])
    assert not list(tmp_path.glob(".*.part"))


def test_ema_is_the_moving_average():
    players = Players(settings(ema=0.75), ALONE)
    expected = weights_of(players.network).double()
    for number in range(3):
        players.step(batch(), number, adversary=False)
        expected = 0.75 * expected + 0.25 * weights_of(players.network)
    torch.testing.assert_close(weights_of(players.averaged).double(), expected, rtol=1e-5, atol=1e-7)


def test_clip_bounds_the_gradient():
    players = Players(settings(clip=1e-3, update="simultaneous"), ALONE)
    players.step(batch(), 0, adversary=True)
    for player in (players.network, players.generator):
        norm = torch.cat([parameter.grad.reshape(-1) for parameter in player.parameters()]).norm()
        assert norm <= 1.001e-3


def test_bfloat16(tmp_path):
    result = tiny_run(tmp_path, steps=2, warm_start=1, precision="bf16")
    assert math.isfinite(result.loss)
    assert all(parameter.dtype == torch.float32 for parameter in result.network.parameters())


def test_minutes(tmp_path):
    assert tiny_run(tmp_path, steps=100_000, minutes=1e-4).steps < 100


def test_starts_from_parts(tmp_path):
    """Of a context that is taken from one file, and convolutions from a later one without."""
    for name, chosen in (("context", {"context": True, "learns": "context"}), ("convolutions", {})):
        tiny_run(tmp_path / name, steps=1, seed=len(name), **chosen)
    files = [str(tmp_path / name / "last.safetensors") for name in ("context", "convolutions")]
    network = Players(settings(context=True, weights=files), ALONE).network
    context, convolutions = (DEAL.from_pretrained(file) for file in files)
    assert torch.equal(weights_of(network.context), weights_of(context.context))
    assert torch.equal(weights_of(network)[-len(weights_of(convolutions)) :], weights_of(convolutions))
    with pytest.raises(ValueError, match="weights of .*context.* are of a network"):
        Players(settings(weights=files), ALONE)


def test_starts_from_weights(tmp_path):
    first = tiny_run(tmp_path / "first", steps=1)
    start = str(tmp_path / "first" / "last.safetensors")
    players = Players(settings(weights=start), ALONE)
    assert torch.equal(weights_of(players.network), weights_of(first.network))
    with pytest.raises(ValueError, match="weights of .* are of a network"):
        Players(settings(weights=start, width=5), ALONE)


class Spoiled(Scenes):
    def __getitem__(self, index):
        return super().__getitem__(index).where(torch.tensor(index != 1), torch.nan)


def test_nan_is_seen_and_nothing_bad_saved(tmp_path):
    tiny_run(tmp_path, steps=1)
    with pytest.raises(FloatingPointError, match="the loss is nan at step"):
        train(
            settings(output=str(tmp_path), steps=20, log_every=5, resume=True), Spoiled(4, 48, 48), validation=scenes()
        )
    assert all(tensor.isfinite().all() for tensor in DEAL.from_pretrained(tmp_path / "last.safetensors").parameters())


def test_spoiled_weights_are_not_saved(tmp_path, monkeypatch):
    step = Players.step

    def spoiling(self, *arguments, **others):
        figures = step(self, *arguments, **others)
        next(self.network.parameters()).data.fill_(math.nan)
        return figures

    monkeypatch.setattr(Players, "step", spoiling)
    with pytest.raises(FloatingPointError, match="validation images is nan at step 1"):
        tiny_run(tmp_path, steps=1)
    assert not (tmp_path / "last.pt").exists()


@pytest.mark.parametrize(
    ("contrast", "loss", "message"), [(0.001, 0.4, "have been flat"), (1.0, 2.0, "far worse than the degraded")]
)
def test_collapse(contrast, loss, message):
    watch = Watch(20)
    good = {"loss": 0.4, "closeness": 0.3, "contrast": 1.0, "degraded_contrast": 1.0}
    bad = good | {"contrast": contrast, "loss": loss}
    watch.look(10, good, 0)
    watch.look(20, bad, 10)
    watch.look(30, good, 20)
    watch.look(40, bad, 30)
    with pytest.raises(Collapsed, match=message):
        watch.look(50, bad, 40)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strategy": "best"}, "strategy must be"),
        ({"steps": 0}, "steps must be a whole number of at least 1; got 0"),
        ({"batch": 1.5}, "batch must be a whole number"),
        ({"crop": 0}, "crop must be a whole number"),
        ({"crop": (32, 0)}, "crop must be a whole number of at least 1, two of them"),
        ({"grain": -0.1}, "grain must be a number of at least 0; got -0.1"),
        ({"learns": "context"}, "learns='context' needs context=True; got False"),
        ({"rise": -1}, "rise must be a whole number of at least 0; got -1"),
        ({"learning_rate": -1.0}, "learning_rate must be a number of at least 0; got -1.0"),
        ({"learning_rate": math.nan}, "learning_rate must be"),
        ({"ema": 1.0}, "ema must be None or above 0 and below 1; got 1.0"),
        ({"minutes": 0}, "minutes must be None or above 0"),
    ],
    ids=str,
)
def test_settings_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        settings(**change)


def test_settings_survive_a_copy():
    chosen = settings(window=(0.0, 9.0))
    assert not chosen.differences(dataclasses.asdict(chosen) | {"steps": 1})
    assert chosen.differences(dataclasses.asdict(chosen) | {"batch": 3}) == ["batch was 3 and is 2"]
