"""Patterns of columns: systems of neighbours, what is found, and what is left alone."""

import numpy
import pytest
import torch
from torch.nn import functional

from deal.io.synthetic import SyntheticScenes
from deal.model.pretrained import load
from deal.model.strips import TOLERANCE, Columns, noise_of, solved
from deal_kernels.degradation import apply


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def scenes(count, height=96, width=128):
    return torch.stack([image[:, :height, :width] for image in SyntheticScenes(count, seed=5)])


def values(x, deviation, seed=0):
    random = torch.Generator().manual_seed(seed)
    return deviation * torch.randn(len(x), x.shape[-1], generator=random)


def error(y, x):
    return (y - x).square().mean().sqrt().item()


@pytest.mark.parametrize("width", [1, 2, 3, 7, 8, 33, 320])
def test_systems_of_neighbours(width):
    torch.manual_seed(width)
    links = -torch.rand(3, width - 1, dtype=torch.float64).mul(8).exp()
    own = torch.rand(3, width, dtype=torch.float64) * 1e-3 + 1e-4
    diagonal = own + functional.pad(-links, (1, 0)) + functional.pad(-links, (0, 1))
    right = torch.randn(3, width, dtype=torch.float64)
    system = diagonal.diag_embed() + links.diag_embed(1) + links.diag_embed(-1)
    # Not torch.linalg.solve: some releases of oneMKL return nonsense for batches of this size on some processors.
    expected = torch.from_numpy(numpy.linalg.solve(system.numpy(), right.numpy()[..., None])[..., 0])
    torch.testing.assert_close(solved(diagonal, links, right), expected, rtol=1e-7, atol=1e-9)


def test_gradients_of_systems():
    links, diagonal, right = (torch.rand(2, width, dtype=torch.float64) for width in (8, 9, 9))
    leaves = [(diagonal + 2).requires_grad_(), (-links).requires_grad_(), right.requires_grad_()]
    assert torch.autograd.gradcheck(solved, leaves)


@pytest.fixture(scope="module")
def trained():
    """On scenes of its own, against an offset or a factor of every column."""
    torch.manual_seed(0)
    module = Columns()
    optimiser = torch.optim.Adam(module.parameters(), 5e-3)
    for step in range(400):
        x = SyntheticScenes(1, seed=100 + step)[0][None, :, :96, :128]
        kind = ("stripe", "gain")[step % 2]
        y = apply(kind, x, values(x, 0.02 * (1 + step % 5), seed=step) + (kind == "gain"))
        loss = (y - module(y) - x).square().mean().add(1e-7).log()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return module.requires_grad_(False)


@pytest.mark.parametrize(("kind", "deviation"), [("stripe", 0.05), ("stripe", 0.1), ("gain", 0.1)])
def test_stripes_are_found(trained, kind, deviation):
    x = scenes(4)
    y = apply(kind, x, values(x, deviation) + (kind == "gain"))
    assert error(y - trained(y), x) < error(y, x) / 2


def test_stripes_are_found_in_noise(trained):
    """That is stronger than the least tolerance for agreement between rows."""
    x = scenes(4)
    noisy = x + 5 * TOLERANCE * torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    y = apply("stripe", noisy, values(x, 0.1))
    assert error(y - trained(y), noisy) < error(y, noisy) / 2


def test_clean_images_have_no_pattern(trained):
    x = scenes(4)
    assert error(trained(x), torch.zeros_like(x)) < 0.004


def test_tall_images_are_reduced(trained):
    """Their columns are compared in fewer rows, and the pattern stays that of the columns."""
    x = scenes(2, 192)
    y = apply("stripe", x, values(x, 0.05))
    small = Columns(rows=64)
    small.load_state_dict(trained.state_dict())
    pattern = small.requires_grad_(False)(y)
    assert pattern.shape == y.shape and error(y - pattern, x) < error(y, x) / 2


@pytest.mark.parametrize("deviation", [0.0, 0.01, 0.1])
def test_noise(deviation):
    """Is that of differences between pixels, whatever the columns have in common."""
    random = torch.Generator().manual_seed(0)
    x = torch.linspace(0, 1, 200)[:, None] + deviation * torch.randn(2, 200, 240, generator=random)
    x = x + torch.randn(240, generator=random)
    found = noise_of(x)
    assert ((found - deviation * 2**0.5).abs() < 0.05 * deviation + 1e-3).all()


@pytest.mark.parametrize("shape", [(1, 1, 16, 16), (2, 1, 16, 40), (1, 1, 40, 16)])
def test_small_images_and_constants(shape):
    made = Columns()
    x = torch.full(shape, 0.4, requires_grad=True)
    pattern = made(x)
    assert pattern.abs().max() < 1e-6
    pattern.sum().backward()
    assert x.grad.isfinite().all() and all(p.grad.isfinite().all() for p in made.parameters() if p.grad is not None)


@pytest.mark.parametrize("value", [0.0, 1.0, 40.0, -3.0])
def test_gradients_are_finite(value):
    made = Columns()
    x = scenes(1, 40, 48)
    x[..., 7] = value
    made(x).square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in made.parameters())


def test_each_image_for_itself():
    made = Columns()
    x = scenes(3) + values(scenes(3), 0.05)[:, None, None]
    torch.testing.assert_close(made(x), torch.cat([made(image) for image in x.split(1)]), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_an_edge_over_the_full_height_stays_and_the_offset_of_a_single_column_goes():
    """With the bundled weights, beside a pattern of columns."""
    columns = load("deal-u").columns
    x = 0.5 * scenes(1) + 0.1
    x = x + values(x, 0.02)[:, None, None]
    edge, single = x.clone(), x.clone()
    edge[..., 64:] += 0.3
    single[..., 40] += 0.1
    pattern = columns(x)[0, 0].mean(0)
    with_edge, with_single = (columns(each)[0, 0].mean(0) - pattern for each in (edge, single))
    assert abs(with_edge[64:].mean() - with_edge[:64].mean()) < 0.03
    assert with_single[40] > 0.05
