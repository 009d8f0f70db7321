"""The fusing network: its outline, files, training without a reference, and its place in the evaluation of pairs."""

import re

import numpy
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch.nn import functional

from deal import cli
from deal.evaluate import report
from deal.evaluate.method_registry import find_pair_methods
from deal.fusion import training
from deal.fusion.benchmark import METRICS, run_pair_benchmark
from deal.fusion.metrics import fusion_metrics
from deal.fusion.network import Fuser, contrast, fusion_loss
from deal.fusion.training import train_fuser
from deal.io.images import to_uint8
from deal.io.synthetic import thermal_scene
from deal.model import weight_files
from deal.model.network import DEAL


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three pairs, each of one scene: as it is, and in negative, darker, with a haze and without what is warm. The
    current folder."""
    monkeypatch.chdir(tmp_path)
    for k, (height, width) in enumerate(((48, 51), (45, 64), (60, 47))):
        scene = thermal_scene(height, width, seed=k)
        save(tmp_path / "pairs" / "ir" / f"{k}.png", to_uint8(scene))
        save(tmp_path / "pairs" / "vis" / f"{k}.png", to_uint8(0.8 - 0.6 * scene.clamp(max=0.5)))
    return tmp_path


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def pair(height=37, width=52, count=2, seed=0):
    """Infrared and visible, each [count, 1, height, width]."""
    return torch.rand(2, count, 1, height, width, generator=torch.Generator().manual_seed(seed))


def small(seed=0, **options):
    """A fuser with statistics of its own, in evaluation."""
    torch.manual_seed(seed)
    fuser = Fuser(**{"width": 4, **options})
    fuser(*pair(16, 16))
    return fuser.eval()


def convolved(x, state, name, dilation=1):
    wide = functional.pad(x, 4 * [dilation], mode="reflect")
    return functional.conv2d(wide, state[f"{name}.weight"], state[f"{name}.bias"], dilation=dilation)


def normed(x, state, name):
    statistics = (state[f"{name}.{each}"] for each in ("running_mean", "running_var", "weight", "bias"))
    return functional.batch_norm(x, *statistics, eps=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("loops", [1, 3])
def test_it_is_its_outline(loops):
    """Written down with torch's own functions, in float64."""
    fuser = small(loops=loops)
    a, b = (each.double() for each in pair())
    state = {name: tensor.double() for name, tensor in fuser.state_dict().items()}
    fused = torch.maximum(a, b)
    for _ in range(loops):
        of_a = torch.sigmoid(convolved(torch.cat([a, fused], 1), state, "infrared_attention"))
        of_b = torch.sigmoid(convolved(torch.cat([b, fused], 1), state, "visible_attention"))
        seen = torch.cat([a * of_a, b * of_b, fused], 1)
        parts = [normed(convolved(seen, state, f"convs.{k}", k + 1), state, f"norms.{k}").relu() for k in range(3)]
        last = normed(convolved(torch.cat(parts, 1), state, "output_conv"), state, "output_norm")
        fused = 0.5 + 0.5 * torch.tanh(last)
    assert (fuser(*pair()) - fused).abs().max() < 1e-5 < fused.std()


def test_it_has_about_as_many_values_as_recos():
    """7.9 thousand in its file, statistics included."""
    state = Fuser().state_dict()
    assert round(sum(tensor.numel() for tensor in state.values()), -2) == 7900


@torch.no_grad()
@pytest.mark.parametrize("size", [(4, 4), (5, 41), (37, 52)])
def test_shapes_and_range(size):
    fuser = small()
    y = fuser(*pair(*size))
    assert y.shape == (2, 1, *size)
    with torch.no_grad():
        fuser.output_norm.weight.fill_(50)
    y = fuser(*pair(*size))
    assert y.min() >= 0 and y.max() <= 1 and (y.max() - y.min()) > 0.9


def test_gradients_reach_every_weight():
    fuser = small()
    sources = pair()
    fusion_loss(fuser(*sources), *sources).backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in fuser.parameters())


def test_fuse_is_the_network_on_8_bits():
    fuser = small()
    infrared, visible = (to_uint8(each[0]) for each in pair())
    fused = fuser.fuse(infrared, visible)
    assert fused.dtype == numpy.uint8 and fused.shape == infrared.shape
    with torch.no_grad():
        y = fuser(*(torch.from_numpy(each).float()[None, None] / 255 for each in (infrared, visible)))
    assert numpy.array_equal(fused, to_uint8(y))
    with torch.no_grad():
        fuser.output_norm.bias.fill_(torch.nan)
    with pytest.raises(ValueError, match="the fuser gives values that are not finite"):
        fuser.fuse(infrared, visible)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (
            ((1, 3, 8, 8), (1, 1, 8, 8)),
            r"infrared must be \[B, 1, H, W\] of 4 x 4 pixels or more; got the shape \(1,",
        ),
        (((1, 1, 8, 8), (1, 8, 8)), r"visible must be \[B, 1, H, W\] .* got the shape \(1, 8, 8\)"),
        (((1, 1, 3, 8), (1, 1, 3, 8)), r"infrared must be .* got the shape \(1, 1, 3, 8\)"),
        (((1, 1, 8, 8), (1, 1, 8, 9)), r"visible must have the shape of infrared, \(1, 1, 8, 8\); got \(1, 1, 8, 9\)"),
    ],
)
def test_images_that_do_not_fit(shapes, message):
    with pytest.raises(ValueError, match=message):
        small()(*map(torch.rand, shapes))


@pytest.mark.parametrize("options", [{"width": 0}, {"width": 2.5}, {"loops": 0}, {"loops": True}], ids=str)
def test_options_that_are_none(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"{name} must be an integer of at least 1; got {options[name]}"):
        Fuser(**options)


def test_files(tmp_path):
    path = tmp_path / "fuser.safetensors"
    fuser = small(width=5, loops=2)
    fuser.save_pretrained(path, learned="nothing")
    again = Fuser.from_pretrained(path)
    assert again.config == {"width": 5, "loops": 2} and not again.training
    with torch.no_grad():
        assert torch.equal(again(*pair()), fuser(*pair()))
    with safe_open(path, "pt") as file:
        assert file.metadata()["learned"] == "nothing"


def test_files_that_are_no_fusers(tmp_path):
    path = tmp_path / "other.safetensors"
    with pytest.raises(FileNotFoundError, match=r"other.safetensors does not exist"):
        Fuser.from_pretrained(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"other.safetensors is not a safetensors file"):
        Fuser.from_pretrained(path)
    DEAL([("scale", 3, 3)], width=4).save_pretrained(path)
    with pytest.raises(ValueError, match=r"other.safetensors has no 'deal.fuser' in its metadata"):
        Fuser.from_pretrained(path)
    for config, message in (
        ('{"width": 4}', "output_conv.weight"), ('{"depth": 4}', "depth"), ('{"width": 0}', "got 0"),
        ("4", "config must be a mapping; got 4"), ("{", "config is not JSON"),
    ):  # fmt: skip
        weight_files.save_tensors(path, small(width=5).state_dict(), {"deal.fuser": config})
        with pytest.raises(ValueError, match=rf"(?s)other.safetensors does not fit the fuser: .*{message}"):
            Fuser.from_pretrained(path)


def test_contrast_is_the_variance_under_a_window():
    x = pair(20, 23, 1)[0]
    found = contrast(x)[0, 0]
    for row, column in ((0, 0), (3, 22), (10, 11), (19, 4)):
        window = x[0, 0, max(0, row - 5) : row + 6, max(0, column - 5) : column + 6]
        assert found[row, column] == pytest.approx(window.var(correction=0).item(), abs=1e-6)


def test_loss_wants_the_salient_source():
    """On the left the infrared image has structure, on the right the visible one has, and the other one is flat."""
    texture, left = pair(40, 60, 1)[0], torch.arange(60) < 30
    infrared, visible = torch.where(left, texture, 0.5), torch.where(left, 0.5, texture)
    of_texture = fusion_loss(texture, infrared, visible)
    for other in (infrared, visible, (infrared + visible) / 2, torch.maximum(infrared, visible)):
        assert of_texture < 0.8 * fusion_loss(other, infrared, visible)
    assert fusion_loss(texture, texture, texture).abs() < 1e-6


def test_loss_wants_what_is_bright():
    """Where neither image has structure."""
    bright, dark = torch.full((1, 1, 20, 20), 0.9), torch.full((1, 1, 20, 20), 0.1)
    for sources in ((bright, dark), (dark, bright)):
        assert fusion_loss(bright, *sources) < 0.5 * fusion_loss(dark, *sources)


def test_training_lowers_the_loss(folder):
    """In evaluation, on cuts that are the same before and after."""
    cuts = training._random_batch(training._read_pairs(folder / "pairs", 24), 16, 24, numpy.random.default_rng(99))
    found = []
    for steps in (1, 60):
        trained = train_fuser("pairs", "fuser.safetensors", steps=steps, batch=2, crop=24, learning_rate=3e-3)
        assert len(trained.losses) == steps and not trained.fuser.training
        with torch.no_grad():
            fused = Fuser.from_pretrained("fuser.safetensors")(*cuts)
            assert torch.equal(fused, trained.fuser(*cuts))
        found.append(fusion_loss(fused, *cuts).item())
    assert found[1] < 0.9 * min(found[0], fusion_loss(torch.maximum(*cuts), *cuts).item())
    assert sorted(path.name for path in folder.iterdir()) == ["fuser.safetensors", "pairs"]


def test_a_seed_gives_the_same_fuser(folder):
    """Whatever was drawn before, and a training draws from no one else's generator."""
    found = []
    for seed in (5, 5, 6):
        before = torch.random.get_rng_state()
        found.append(train_fuser("pairs", "fuser.safetensors", steps=3, batch=1, crop=16, seed=seed).losses)
        assert torch.equal(torch.random.get_rng_state(), before)
        torch.rand(1)
    assert found[0] == found[1] and not set(found[0]) & set(found[2])


def test_cuts_are_of_the_same_place_in_both(folder):
    pairs = [
        torch.from_numpy(numpy.stack([image, 255 - image])) for image in (to_uint8(thermal_scene(30, 40, seed=3)),)
    ]
    infrared, visible = training._random_batch(pairs, 8, 16, numpy.random.default_rng(0))
    assert infrared.shape == (8, 1, 16, 16) and torch.allclose(infrared, 1 - visible, atol=1e-6)
    assert all(not torch.equal(infrared[0], each) for each in infrared[1:])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be an integer of at least 1; got 0"),
        ({"batch": 1.5}, "batch must be an integer of at least 1; got 1.5"),
        ({"crop": 3}, "crop must be an integer of at least 4; got 3"),
        ({"crop": 46}, r"1.png has 45 x 64 pixels; the crop of 46 x 46 is too large"),
        ({"seed": -1}, "seed must be an integer of at least 0; got -1"),
        ({"learning_rate": 0}, "learning_rate must be a number above 0; got 0"),
        ({"learning_rate": float("inf")}, "learning_rate must be finite; got inf"),
        ({"device": "abacus"}, "device must be 'auto' or a device of this machine"),
    ],
    ids=str,
)
def test_trainings_that_are_none(folder, options, message):
    with pytest.raises(ValueError, match=message):
        train_fuser("pairs", "fuser.safetensors", **options)
    assert not (folder / "fuser.safetensors").exists()


def test_a_folder_is_no_file_to_write(folder):
    with pytest.raises(IsADirectoryError, match="output must be a file; pairs is a folder"):
        train_fuser("pairs", "pairs")


def test_a_training_that_diverges_leaves_what_was_there(folder, monkeypatch):
    (folder / "fuser.safetensors").write_bytes(b"old")
    monkeypatch.setattr(training, "fusion_loss", lambda fused, *_: (fused * torch.nan).mean())
    with pytest.raises(FloatingPointError, match="the loss is nan at step 0: train with a lower learning_rate"):
        train_fuser("pairs", "fuser.safetensors", steps=2, batch=1, crop=16)
    assert (folder / "fuser.safetensors").read_bytes() == b"old"


def test_pairs_are_fused_by_it_as_well(folder):
    fuser = small(seed=3)
    fuser.save_pretrained("fuser.safetensors")
    plain, results = (
        run_pair_benchmark("pairs", find_pair_methods(["clahe"]), fuser=each) for each in (None, "fuser.safetensors")
    )
    assert (plain.fusions, results.fusions) == (("max", "mean"), ("max", "mean", "reco"))
    assert [each for each in results.rows if each.fusion != "reco"] == plain.rows
    ours = [each for each in results.rows if each.fusion == "reco"]
    assert [each.method for each in ours] == [name for name in ("none", "stretch", "clahe") for _ in range(2 * 3)]
    for each in ours:
        if each.method == "none":
            sources = [numpy.array(Image.open(f"pairs/{kind}/{each.image}")) for kind in ("ir", "vis")]
            expected = fusion_metrics(fuser.fuse(*sources), *sources, each.variant)
            assert dict(zip(METRICS, each[6:], strict=True)) == expected
    first, second = (results.mean("original", "original", name, "reco", "legacy") for name in ("none", "stretch"))
    assert first != second._replace(method="none")
    assert "or by the network of fuser.safetensors (reco)" in results.protocol and "reco" not in plain.protocol
    said = report.as_markdown(results)
    assert said.count("| stretch ") == 6 and "| reco fusion, legacy " in said and f"{first.Qabf:.3f} ± " in said


def test_the_commands(folder, capsys):
    options = ["--steps", "3", "--batch", "2", "--crop", "16", "--learning-rate", "0.01", "--seed", "4"]
    assert cli.main(["train-fuser", "--pairs", "pairs", "--output", "new/fuser.safetensors", *options]) == 0
    said = capsys.readouterr()
    assert re.search(r"^3 steps, mean loss \d\.\d+ in the first tenth, \d\.\d+ in the last: new/fuser", said.out)
    assert "step/s" in said.err or "s/step" in said.err
    again = train_fuser("pairs", "again.safetensors", steps=3, batch=2, crop=16, learning_rate=0.01, seed=4)
    weights = Fuser.from_pretrained("new/fuser.safetensors").state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in again.fuser.state_dict().items())
    command = ["evaluate", "--pairs", "pairs", "--fuser", "new/fuser.safetensors", "--methods", "none", "--quiet"]
    assert cli.main(command) == 0
    said = capsys.readouterr()
    assert "| reco fusion, standard " in said.out and not said.err
    assert "none,reco,legacy,mean," in (folder / "evaluation" / "results.csv").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "--data", "pairs/ir", "--fuser", "x.safetensors"], "--fuser can only be used with --pairs"),
        (
            ["evaluate", "--pairs", "pairs", "--methods", "none", "--fuser", "x.safetensors"],
            "x.safetensors does not exist",
        ),
        (["train-fuser", "--pairs", "absent", "-o", "x.safetensors"], "absent/ir does not exist"),
        (["train-fuser", "--pairs", "pairs", "-o", "x.safetensors", "--crop", "64"], "0.png has 48 x 51 pixels"),
        (["train-fuser", "--pairs", "pairs", "-o", "pairs"], "output must be a file; pairs is a folder"),
        (["train-fuser", "--pairs", "pairs", "-o", "/proc/deal/x.safetensors"], "/proc/deal"),
    ],
    ids=str,
)
def test_errors_are_one_line(folder, capsys, arguments, message):
    assert cli.main(arguments) == 1
    said = capsys.readouterr().err
    assert said.startswith("deal: error: ") and message in said and said.count("\n") == 1
