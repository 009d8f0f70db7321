"""The adversarial step: the gradients of network and generator, and their effect over a run."""

import csv
import dataclasses
import itertools
import math

import pytest
import torch

from deal.io.synthetic import SyntheticScenes
from deal.model.device import choose_device
from deal.model.network import DEAL
from deal.training.adversarial import AdversarialTraining
from deal.training.distributed import ProcessGroup
from deal.training.divergence import Collapsed, CollapseDetector
from deal.training.loop import train
from deal.training.run_dir import LOG
from deal.training.settings import Settings

pytestmark = pytest.mark.usefixtures("each_device")
TINY = {
    "blocks": [["scale", 5, 3], ["spike", 5, 3, 2]], "width": 4, "batch": 2, "crop": 32, "progress": False,
    "precision": "fp32", "strategy": "das", "ops": "thermal", "loss": "l1_ssim",
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


def training_of(chosen):
    return AdversarialTraining(chosen, ProcessGroup(choose_device("auto")))


def scenes(count=4):
    return SyntheticScenes(count, 48, 48)


def batch(source=None, dtype=torch.float32):
    source = scenes() if source is None else source
    return torch.stack([source[k] for k in range(2)]).to(choose_device("auto"), dtype)


def weights_of(module):
    return torch.cat([parameter.detach().reshape(-1) for parameter in module.parameters()])


def busy(chosen):
    """A training whose network changes images, as new ones do not."""
    training = training_of(chosen)
    weight = training.network.output_conv.weight
    with torch.no_grad():
        weight.copy_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    return training


def tiny_run(folder, *, source=None, **changes):
    return train(settings(output=str(folder), **changes), scenes() if source is None else source)


def pushed(player, way, step):
    """Moves the parameters along a way."""
    with torch.no_grad():
        for parameter, each in zip(player.parameters(), way, strict=True):
            parameter += step * each


@pytest.mark.parametrize("blocks", [TINY["blocks"], "deal-u-small"], ids=str)
def test_a_new_network_changes_nothing(blocks):
    """Except for patterns of columns and rows, which are found by statistics."""
    network = training_of(settings(blocks=blocks)).network.eval()
    x = batch()
    with torch.no_grad():
        assert torch.equal(network.separate(x).restored(x, {"shading": 1.0, "detail": 1.0, "tone": 1.0}), x)


@pytest.mark.parametrize("update", UPDATES)
def test_generator_trainable(update):
    training = busy(settings(update=update, weight_decay=0.0))
    before = {name: each.detach().clone() for name, each in training.generator.named_parameters()}
    training.step(batch(), 0, adversary=True)
    for name, parameter in training.generator.named_parameters():
        assert not torch.equal(parameter, before[name]), name
    assert all(parameter.requires_grad for parameter in training.network.parameters())


def test_the_generator_waits_for_its_start():
    training = training_of(settings())
    generator, network = weights_of(training.generator), weights_of(training.network)
    training.step(batch(), 0, adversary=False)
    assert torch.equal(weights_of(training.generator), generator)
    assert not torch.equal(weights_of(training.network), network)


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("fidelity", [0.0, 1.0])
def test_gradients_are_finite_differences(update, fidelity):
    """Of what either player descends; without spiking neurons, whose gradient is none of a function.

    The steps are small: norms of nearly flat images make the loss a function of many edges.
    """
    chosen = settings(
        update=update, fidelity_weight=fidelity, learning_rate=0.0, generator_rate=0.0, blocks=[["scale", 5, 3]]
    )  # fmt: skip
    training = busy(chosen)
    training.network.double(), training.generator.double()
    x = batch(dtype=torch.float64)[..., :32, :32]

    def objectives():
        figures = training.step(x, 3, adversary=True)
        return {
            training.network: figures["loss"], training.generator: fidelity * figures["fidelity"] - figures["loss"],
        }  # fmt: skip

    objectives()
    gradients = {
        player: [parameter.grad.clone() for parameter in player.parameters()]
        for player in (training.network, training.generator)
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
        training = busy(settings(update=update, learning_rate=0.0))
        training.step(batch(), 0, adversary=True)
        found.append([parameter.grad for parameter in training.generator.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * other.abs().max().item())


def test_alternating_keeps_statistics(each_device):
    """The generator's pass through the network leaves no trace in it."""
    chosen = settings()
    warm, learning = training_of(chosen), training_of(chosen)
    warm.step(batch(), 0, adversary=False)
    learning.step(batch(), 0, adversary=True)
    state = warm.network.state_dict()
    for name, tensor in learning.network.state_dict().items():
        # A GPU adds gradients in any order. There, the same bits are those of the forward pass.
        if "running" in name or (each_device == "cpu" and not name.endswith("num_batches_tracked")):
            assert torch.equal(tensor, state[name]), name


@pytest.mark.parametrize("strategy", ["average", "random"])
def test_strategies(strategy):
    training = training_of(settings(strategy=strategy))
    seen = []
    training.generator.register_forward_hook(lambda module, inputs, output: seen.append(inputs[1].cpu()))
    training.step(batch(), 0, adversary=False)
    training.step(batch(), 1, adversary=False)
    ops = len(training.generator.ops)
    if strategy == "average":
        assert all(torch.equal(weights, torch.full((2, 5, ops), 1 / ops)) for weights in seen)
    else:
        assert all(torch.allclose(weights.sum(-1), torch.ones(2, 5)) for weights in seen)
        assert all(((weights > 0).sum(-1) <= 2).all() and weights[..., 0].lt(1).any() for weights in seen)
        assert not torch.equal(*seen)


def test_loss_goes_down():
    """Of a batch that never changes, over a run in which the generator is trained, too."""
    chosen = settings(steps=80, adversary_start=20, learning_rate=1e-2, update="simultaneous")
    x = batch()[..., :32, :32].contiguous()
    training = training_of(chosen)
    with torch.no_grad():
        fixed, toned, _ = training.degrade(x, training.draws(5, x, True)[0])
        before = training.loss(fixed, training.separate(fixed), x, toned)
        for number in range(chosen.steps):
            with torch.enable_grad():
                training.step(x, number, adversary=number >= chosen.adversary_start)
        after = training.loss(fixed, training.separate(fixed), x, toned)
    assert after < 0.8 * before


def test_run(tmp_path):
    result = tiny_run(
        tmp_path,
        steps=6,
        adversary_start=2,
        log_every=2,
        save_every=4,
        ema_decay=0.9,
        gradient_clip=1.0,
        schedule="cosine",
    )
    assert result.steps == 6 and result.best <= result.loss and math.isfinite(result.psnr)
    for name in ("last", "best"):
        assert DEAL.from_pretrained(tmp_path / f"{name}.safetensors").config == result.network.config
    last = DEAL.from_pretrained(tmp_path / "last.safetensors").state_dict()
    assert all(torch.equal(last[name], tensor.cpu()) for name, tensor in result.network.state_dict().items())
    with open(tmp_path / LOG, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["2", "4", "6"]
    assert [bool(row["validation_psnr"]) for row in rows] == [False, True, True]
    assert float(rows[0]["learning_rate"]) > float(rows[1]["learning_rate"]) > float(rows[2]["learning_rate"])
    assert not list(tmp_path.glob(".*.part"))


def test_ema_is_the_moving_average():
    training = training_of(settings(ema_decay=0.75))
    expected = weights_of(training.network).double()
    for number in range(3):
        training.step(batch(), number, adversary=False)
        expected = 0.75 * expected + 0.25 * weights_of(training.network)
    torch.testing.assert_close(weights_of(training.averaged).double(), expected, rtol=1e-5, atol=1e-7)


def test_thumbnails_train_shading_and_tone_and_nothing_else_does(each_device):
    tolerance = {"rtol": 0, "atol": 0} if each_device == "cpu" else {"rtol": 1e-4, "atol": 1e-6}
    chosen = settings(blocks="deal-u-small", loss="separation", strategy="random", ops="camera")
    found = []
    for thumbnails in (None, batch(SyntheticScenes(2, 64, 80))):
        training = training_of(chosen)
        torch.nn.init.constant_(training.network.shading.amount.bias, 0.5)
        training.step(batch(), 0, False, thumbnails)
        found.append({name: parameter.grad for name, parameter in training.network.named_parameters()})
    without, with_them = found
    for name, grad in without.items():
        if name.startswith(("shading.", "tone.")):
            assert grad is None and with_them[name] is not None
        else:
            torch.testing.assert_close(grad, with_them[name], **tolerance)
    with pytest.raises(ValueError, match="thumbnails can only train deal-u; got DEAL"):
        training_of(settings()).step(batch(), 0, False, batch())


def test_parts_with_few_weights_settle():
    chosen = settings(
        blocks="deal-u-small", loss="separation", strategy="random", ops="camera", settle_steps=5, learning_rate=1e-3
    )
    training, states = training_of(chosen), []
    for step in range(7):
        training.step(batch(), step, False, batch(SyntheticScenes(2, 64, 80)))
        states.append({name: parameter.detach().clone() for name, parameter in training.network.named_parameters()})
    learning = [
        {name.split(".")[0] for name, after in late.items() if not torch.equal(early[name], after)}
        for early, late in itertools.pairwise(states)
    ]
    later = {"shading", "detail", "tone"}  # columns and rows settle after 2 of the 5 steps
    assert learning == [{"columns", "rows", *later}, later, later, later, {"detail"}, {"detail"}]
    assert [chosen.has_settled(step) for step in (4, 5)] == [False, True]


@pytest.mark.parametrize("strategy", ["policy", "random"])
def test_a_run_with_thumbnails(tmp_path, strategy):
    result = tiny_run(
        tmp_path, blocks="deal-u-small", loss="separation", ops="camera", strategy=strategy, steps=2, adversary_start=1,
        thumbnails=2, zoom_augmentation=2.0, update="simultaneous", batch=1, crop=(64, 48),
        source=SyntheticScenes(2, 80, 96),
    )  # fmt: skip
    assert result.steps == 2 and math.isfinite(result.loss)
    with open(tmp_path / "loss.csv", newline="") as file:
        assert all(row["divergence"] for row in csv.DictReader(file))


def test_gradient_clip_bounds_the_gradient():
    training = training_of(settings(gradient_clip=1e-3, update="simultaneous"))
    training.step(batch(), 0, adversary=True)
    for player in (training.network, training.generator):
        norm = torch.cat([parameter.grad.reshape(-1) for parameter in player.parameters()]).norm()
        assert norm <= 1.001e-3


def test_bfloat16(tmp_path):
    result = tiny_run(tmp_path, steps=2, adversary_start=1, precision="bf16")
    assert math.isfinite(result.loss)
    assert all(parameter.dtype == torch.float32 for parameter in result.network.parameters())


def test_minutes(tmp_path):
    assert tiny_run(tmp_path, steps=100_000, minutes=1e-4).steps < 100


def test_starts_from_weights(tmp_path):
    first = tiny_run(tmp_path / "first", steps=1)
    start = str(tmp_path / "first" / "last.safetensors")
    training = training_of(settings(weights=start))
    assert torch.equal(weights_of(training.network), weights_of(first.network))
    with pytest.raises(ValueError, match="weights .* are of a network"):
        training_of(settings(weights=start, width=5))


class Spoiled(SyntheticScenes):
    def __getitem__(self, index):
        return super().__getitem__(index).where(torch.tensor(index != 1), torch.nan)


def test_nan_is_seen_and_nothing_bad_saved(tmp_path):
    tiny_run(tmp_path, steps=1)
    with pytest.raises(FloatingPointError, match="the loss is nan at or shortly before step"):
        train(
            settings(output=str(tmp_path), steps=20, log_every=5, resume=True), Spoiled(4, 48, 48), validation=scenes()
        )
    assert all(tensor.isfinite().all() for tensor in DEAL.from_pretrained(tmp_path / "last.safetensors").parameters())


def test_spoiled_weights_are_not_saved(tmp_path, monkeypatch):
    step = AdversarialTraining.step

    def spoiling(self, *arguments, **others):
        figures = step(self, *arguments, **others)
        next(self.network.parameters()).data.fill_(math.nan)
        return figures

    monkeypatch.setattr(AdversarialTraining, "step", spoiling)
    with pytest.raises(FloatingPointError, match="the validation loss is nan at step 1"):
        tiny_run(tmp_path, steps=1)
    assert not (tmp_path / "last.pt").exists()


@pytest.mark.parametrize(
    ("contrast", "loss", "message"), [(0.001, 0.4, "were flat"), (1.0, 2.0, "far worse than the degraded")]
)
def test_collapse(contrast, loss, message):
    detector = CollapseDetector(20)
    good = {"loss": 0.4, "fidelity": 0.3, "contrast": 1.0, "degraded_contrast": 1.0}
    bad = good | {"contrast": contrast, "loss": loss}
    detector.check(10, good, 0)
    detector.check(20, bad, 10)
    detector.check(30, good, 20)
    detector.check(40, bad, 30)
    with pytest.raises(Collapsed, match=message):
        detector.check(50, bad, 40)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strategy": "best"}, "strategy must be"),
        ({"steps": 0}, "steps must be an integer of at least 1; got 0"),
        ({"batch": 1.5}, "batch must be an integer"),
        ({"crop": 0}, "crop must be an integer"),
        ({"crop": (32, 0)}, "crop must be an integer of at least 1, a pair of them"),
        ({"noise_augmentation": -0.1}, "noise_augmentation must be a number of at least 0; got -0.1"),
        ({"price": -1.0}, "price must be a number of at least 0; got -1.0"),
        ({"loss": "l2"}, "loss must be one of 'separation', 'l1_ssim'; got 'l2'"),
        ({"warmup_steps": -1}, "warmup_steps must be an integer of at least 0; got -1"),
        ({"learning_rate": -1.0}, "learning_rate must be a number of at least 0; got -1.0"),
        ({"learning_rate": math.nan}, "learning_rate must be"),
        ({"ema_decay": 1.0}, "ema_decay must be None or above 0 and below 1; got 1.0"),
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
