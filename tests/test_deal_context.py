"""Statistics of columns and of images: systems of neighbours, what is taken out, and what is left alone."""

import math

import pytest
import torch

from deal.inference.enhancer import Enhancer
from deal.io.synthetic import SyntheticScenes
from deal.model.context import MIN_SIZE, Columns, Context, Contrast, Sharpness, _agreed
from deal.model.network import DEAL
from deal_kernels.degradation import apply


def scenes(count, height=96, width=128):
    return torch.stack([image[:, :height, :width] for image in SyntheticScenes(count, seed=5)])


def columns(x, deviation, seed=0):
    random = torch.Generator().manual_seed(seed)
    return deviation * torch.randn(len(x), x.shape[-1], generator=random)


def error(y, x):
    return (y - x).square().mean().sqrt().item()


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def trained():
    """On scenes of its own, against an offset or a factor of every column."""
    torch.manual_seed(0)
    module = Columns()
    optimiser = torch.optim.Adam(module.parameters(), 5e-3)
    for step in range(240):
        x = SyntheticScenes(1, seed=100 + step)[0][None, :, :96, :128]
        values = columns(x, 0.02 * (1 + step % 5), seed=step)
        kind = ("stripe", "gain")[step % 2]
        y = apply(kind, x, values + (kind == "gain"))
        loss = (module(y) - x).square().mean().add(1e-7).log()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return module.requires_grad_(False)


@pytest.mark.parametrize(("kind", "deviation"), [("stripe", 0.05), ("stripe", 0.1), ("gain", 0.1)])
def test_stripes_are_taken_out(trained, kind, deviation):
    x = scenes(4)
    y = apply(kind, x, columns(x, deviation) + (kind == "gain"))
    assert error(trained(y), x) < error(y, x) / 2


@pytest.mark.parametrize("share", [0.2, 0.45])
def test_an_edge_is_no_stripe(share):
    """Though it stands upright over nearly half of the rows, and those are the smoother ones."""
    random = torch.Generator().manual_seed(0)
    steps = 0.05 * torch.randn(40, generator=random)
    differences = steps + 0.002 * torch.randn(1, 100, 40, generator=random)
    weights = torch.ones_like(differences)
    high = round(share * 100)
    differences[:, :high, 15:19] += torch.tensor([0.05, 0.1, 0.1, 0.05])
    weights[:, high:] = 0.7
    assert (_agreed(differences, weights)[0, 0] - steps).abs().max() < 0.005


def test_clean_images_stay(trained):
    x = scenes(4)
    assert error(trained(x), x) < 0.004


def test_stripes_come_out_of_every_channel(trained):
    x = scenes(2)
    values = columns(x, 0.05)
    colour = torch.cat([apply("stripe", part, values) for part in (x, x, x)], 1)
    one = trained(colour[:, :1])
    torch.testing.assert_close(trained(colour), one.expand_as(colour), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 13, 13), (2, 3, 14, 40), (1, 1, 40, 13)])
def test_small_images_and_constants(shape):
    made = Context()
    x = torch.full(shape, 0.4, requires_grad=True)
    y = made(x)
    torch.testing.assert_close(y, x)
    y.sum().backward()
    assert x.grad.isfinite().all() and all(p.grad.isfinite().all() for p in made.parameters() if p.grad is not None)


@pytest.mark.parametrize("value", [0.0, 1.0, 40.0, -3.0])
def test_gradients_are_finite(value):
    made = Context()
    x = scenes(1, 40, 48)
    x[..., 7] = value
    made(x).square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in made.parameters())


def test_each_image_for_itself():
    made = Context()
    x = scenes(3) + columns(scenes(3), 0.05)[:, None, None]
    torch.testing.assert_close(made(x), torch.cat([made(image) for image in x.split(1)]), rtol=1e-4, atol=1e-4)


def learn(made, x, ops, steps):
    """To undo each of the operations in turn."""
    optimiser = torch.optim.Adam(made.parameters(), 1e-2)
    for step in range(steps):
        y = apply(ops[step % len(ops)], x)
        loss = (made(y) - x).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def test_contrast_learns():
    made = Contrast()
    x = scenes(8)
    assert torch.allclose(made(x).mean((1, 2, 3)), x.mean((1, 2, 3)), atol=1e-5)
    learn(made, x, ("identity", "contrast_0.7", "contrast_0.5"), steps=200)
    x = torch.stack([image[:, :96, :128] for image in SyntheticScenes(4, seed=77)])
    y = apply("contrast_0.5", x)
    assert error(made(y), x) < error(y, x) / 2


def test_autocast_does_not_reach_it():
    x = scenes(1)
    with torch.autocast("cpu", torch.bfloat16):
        y = Context()(x)
    assert y.dtype == torch.float32


def test_bands_are_bernsteins_polynomials():
    """Of what a blur takes out."""
    u = torch.linspace(0, 1, 11, dtype=torch.float64)
    blurred = torch.stack([(1 - u) ** k for k in range(6)])
    expected = torch.stack([math.comb(5, i) * u**i * (1 - u) ** (5 - i) for i in range(1, 6)])
    torch.testing.assert_close(Sharpness().bands.double() @ blurred, expected, rtol=0, atol=1e-12)


def test_sharpness_learns():
    """To bring detail back where it is lost, and nowhere else."""
    made = Sharpness()
    x = scenes(8)
    learn(made, x, ("identity", "coarse_2"), steps=120)
    x = torch.stack([image[:, :96, :128] for image in SyntheticScenes(4, seed=77)])
    y = apply("coarse_2", x)
    assert error(made(y), x) < 0.9 * error(y, x)
    assert error(made(x), x) < 0.1 * error(y, x)


def test_convolutions_that_add_nothing_are_left_out():
    network = DEAL([("scale", 5, 3)], width=4, context=True).eval().requires_grad_(False)
    x = scenes(1)
    assert network.fuse().restored(x) is not x
    torch.nn.init.zeros_(network.output_conv.weight)
    expected = network(x)
    assert network.fuse().restored(x) is x
    assert torch.equal(network(x), expected)


def test_network_with_context_is_saved(tmp_path):
    network = DEAL([("scale", 5, 3)], width=4, context=True).eval()
    torch.nn.init.normal_(network.output_conv.weight, std=0.1)
    network.save_pretrained(tmp_path / "weights.safetensors")
    loaded = DEAL.from_pretrained(tmp_path / "weights.safetensors")
    x = scenes(1)
    with torch.no_grad():
        assert torch.equal(loaded(x), network(x))
        coloured = network.with_channels(3)(x.expand(-1, 3, -1, -1))
    torch.testing.assert_close(coloured[:, :1], network(x).detach(), rtol=1e-4, atol=1e-5)


def test_tiles_see_the_context_of_the_whole():
    network = DEAL([("scale", 5, 3)], width=4, context=True).eval()
    torch.nn.init.normal_(network.output_conv.weight, std=0.1)
    x = scenes(1, 150, 170) + columns(scenes(1, 150, 170), 0.05)[:, None, None]
    whole, parts = (Enhancer(network, tile=tile).enhance_tensor(x) for tile in (0, 64))
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)


def test_small_images_are_refused():
    network = DEAL([("scale", 5, 3)], width=4, context=True).eval()
    assert network.min_size == MIN_SIZE
    with pytest.raises(ValueError, match=f"of {MIN_SIZE} x {MIN_SIZE} pixels or more"):
        network(torch.zeros(1, 1, MIN_SIZE - 1, 40))


def test_context_may_be_compiled():
    made = Context().requires_grad_(False)
    x = scenes(1, 40, 48)
    compiled = torch.compile(made, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), made(x))
