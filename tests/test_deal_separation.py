"""The network deal-u: its start, its parts, its files, and what must not matter: size, tone, tiles and threads."""

import pytest
import torch
from oracle import same_image

from deal.inference.enhancer import Enhancer
from deal.io.synthetic import SyntheticScenes
from deal.model.detail import Separation
from deal.model.parts import NAMES, SUBTRACTED, Parts, check_strengths
from deal.model.pretrained import from_file
from deal.model.separation import SIZES, DealU

LIMITS = {"deal-u": 960_000, "deal-u-small": 250_000}


def scenes(count=1, height=72, width=96):
    return torch.stack([image[:, :height, :width] for image in SyntheticScenes(count, seed=3)])


def busy(size="deal-u-small", seed=0):
    """A network whose parts are not empty."""
    torch.manual_seed(seed)
    network = DealU(size).eval().requires_grad_(False)
    for layer in (network.detail.output, network.shading.slow, network.shading.amount, network.tone.net[4]):
        torch.nn.init.normal_(layer.weight, std=0.02)
    return network


@pytest.mark.parametrize("size", SIZES)
def test_sizes(size):
    network = DealU(size)
    assert sum(parameter.numel() for parameter in network.parameters()) <= LIMITS[size]
    assert any(isinstance(module, Separation) for module in network.modules())


def test_a_new_network_takes_out_patterns_alone():
    torch.manual_seed(0)
    x = scenes()
    with torch.no_grad():
        parts = DealU("deal-u-small").eval().separate(x)
    assert not parts.shading.any() and not parts.detail.any()
    assert parts.gain == 1 and parts.offset.abs() < 1e-6


def test_it_returns_the_image_without_its_parts():
    network, x = busy(), scenes(2)
    parts = network.separate(x)
    assert all(getattr(parts, name).shape == x.shape and getattr(parts, name).any() for name in SUBTRACTED)
    without = x - parts.columns - parts.rows - parts.shading - parts.detail
    torch.testing.assert_close(network(x), parts.gain * without + parts.offset)
    torch.testing.assert_close(parts.shading.mean((2, 3)), torch.zeros(2, 1), atol=1e-6, rtol=0)
    assert torch.equal(parts.columns[:, :, :1].expand_as(x) * 0, parts.columns * 0)


@pytest.mark.parametrize("size", [(16, 16), (17, 31), (40, 16), (61, 83)])
def test_any_size(size):
    network = busy()
    x = scenes(1, *size)
    assert network(x).shape == x.shape and network(x).isfinite().all()


def test_too_small_images():
    with pytest.raises(ValueError, match=r"16 x 16 pixels or more; got the shape \(1, 1, 15, 40\)"):
        busy()(torch.zeros(1, 1, 15, 40))


def test_channels_are_separated_alone_and_share_the_tone():
    network, x = busy(), scenes(3).transpose(0, 1)  # three channels
    together = network.separate(x)
    for channel in range(3):
        alone = network.separate(x[:, [channel]])
        for name in SUBTRACTED:
            torch.testing.assert_close(
                getattr(together, name)[:, [channel]], getattr(alone, name), atol=1e-5, rtol=1e-4
            )
    assert together.gain.shape == (1, 1, 1, 1)


def test_tiles_agree_with_the_whole(each_device):
    network = busy()
    x = scenes(1, 250, 256)
    whole, tiled = (Enhancer(network, tile=tile) for tile in (0, 64))
    assert same_image(tiled.enhance_tensor(x), whole.enhance_tensor(x), 2e-5, each_device)
    assert tiled.overlap >= network.reach


def test_reach():
    """A pixel changes the detail no further away than it says."""
    network = busy().double()
    x = scenes(1, 256, 256).double()
    condition = torch.zeros(1, 8, dtype=torch.float64)
    changed = x.clone()
    changed[..., 128, 128] += 0.5
    moved = (network.detail(changed, condition) - network.detail(x, condition)).abs()[0, 0] > 0
    rows, columns = moved.nonzero(as_tuple=True)
    assert 16 < max((rows - 128).abs().max(), (columns - 128).abs().max()) <= network.reach


def test_files(tmp_path):
    network = busy()
    network.save_pretrained(tmp_path / "network.safetensors", trained_on="scenes")
    loaded = from_file(tmp_path / "network.safetensors").requires_grad_(False)
    assert isinstance(loaded, DealU) and not loaded.training and loaded.config == network.config
    assert torch.equal(loaded(scenes()), network(scenes()))
    with pytest.raises(ValueError, match=r"has no 'deal.config' in its metadata"):
        from deal.model.network import DEAL

        DEAL.from_pretrained(tmp_path / "network.safetensors")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "deal-x"}, "size must be one of 'deal-u', 'deal-u-small'; got 'deal-x'"),
        ({"neuron": "analog"}, "neuron must be one of"),
        ({"norm": "layer"}, "norm must be one of"),
    ],
    ids=str,
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        DealU(**options)


def some_parts():
    torch.manual_seed(0)
    shape = 1, 1, 4, 5
    return Parts(*(torch.rand(shape) for _ in SUBTRACTED), gain=torch.tensor(2.0), offset=torch.tensor(0.1))


def test_strengths():
    parts, x = some_parts(), torch.rand(1, 1, 4, 5)
    assert torch.equal(parts.restored(x, {}), x)
    assert torch.equal(parts.restored(x), parts.restored(x, dict.fromkeys(NAMES, 1.0)))
    torch.testing.assert_close(parts.restored(x, {"rows": 0.25}), x - 0.25 * parts.rows)
    torch.testing.assert_close(parts.restored(x, {"tone": 1.0}), 2 * x + 0.1)
    torch.testing.assert_close(parts.restored(x, {"tone": 0.5}), 1.5 * x + 0.05)


def test_parts_without_mean():
    x = torch.rand(1, 1, 4, 5)
    restored = some_parts().without_mean().restored(x)
    torch.testing.assert_close(restored.mean(), x.mean())


@pytest.mark.parametrize(
    ("parts", "strength", "message"),
    [
        (["stripes"], 1.0, "a part must be one of 'columns', 'rows', 'shading', 'detail', 'tone'; got 'stripes'"),
        (["rows"], -1.0, "strength must be from 0 to 2; got -1.0"),
        ({"rows": 3.0}, 1.0, "the strength of rows must be from 0 to 2; got 3.0"),
    ],
    ids=str,
)
def test_strengths_are_checked(parts, strength, message):
    with pytest.raises(ValueError, match=message):
        check_strengths(parts, strength)


def test_a_name_alone_is_no_list():
    with pytest.raises(TypeError, match="parts must be a list of names"):
        check_strengths("rows")


def test_the_enhancer_takes_out_what_is_asked_for(each_device):
    network, x = busy(), scenes()
    parts = network.separate(x)
    one = Enhancer(network, parts=["rows", "tone"], strength=0.5)
    assert same_image(one.enhance_tensor(x), parts.restored(x, {"rows": 0.5, "tone": 0.5}), 1e-5, each_device)
    radiometric = Enhancer(network).enhance_tensor(x, radiometric=True)
    chosen = parts.without_mean().restored(x, {"columns": 1.0, "rows": 1.0})
    assert same_image(radiometric, chosen, 1e-5, each_device)
    torch.testing.assert_close(radiometric.mean(), x.mean())


@pytest.mark.parametrize(("part", "module"), [*zip(SUBTRACTED, SUBTRACTED, strict=True), ("gain", "tone")])
def test_the_errors_of_a_part_teach_its_module_alone(part, module):
    network = busy().requires_grad_(True)
    getattr(network.separate(scenes()), part).square().sum().backward()
    taught = {name.split(".")[0] for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert taught == {module}
