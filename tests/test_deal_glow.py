"""Glows: their strength is found, whatever the scene, and none is found where there is none."""

import pytest
import torch
from torch.nn import functional

from deal.io.synthetic import SyntheticScenes
from deal.model.glow import BLOCKS, POINTS, Glow, spots
from deal_kernels.degradation import apply


def normal(images):
    """Small images [B, H, W] with the mean 0 and the deviation 1, and the deviations before."""
    small = functional.adaptive_avg_pool2d(images, BLOCKS)[:, 0]
    deviation = small.std((1, 2), keepdim=True)
    return (small - small.mean((1, 2), keepdim=True)) / deviation, deviation[:, 0, 0]


def glow(row, column, strength):
    return torch.tensor([[(row + 0.5) / POINTS[0], (column + 0.5) / POINTS[1], strength, 0.0]])


def scene(seed=0):
    return SyntheticScenes(1, seed=seed)[0][None, :, :192, :240]


@pytest.mark.parametrize("lag", [1, 2])
@pytest.mark.parametrize(("row", "column", "strength"), [(2, 3, 0.4), (6, 8, -0.3), (0, 0, 0.2)])
def test_a_glow_on_a_flat_scene(lag, row, column, strength):
    """Its point and strength are found under noise, and under a few edges that are ten times as high."""
    x = apply("glow", torch.full((1, 1, 192, 240), 0.5), glow(row, column, strength))
    x = x + 0.02 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    x[..., 50:70, 90:100] += 4 * strength
    image, deviation = normal(x)
    found = Glow(lag)(image)
    point = POINTS[1] * row + column
    assert found.strength[0, point] * deviation == pytest.approx(strength, rel=0.1)
    assert found.support.argmax() == point
    assert (image - found.strength[0, point] * spots()[point]).std() < image.std()


@pytest.mark.parametrize("seed", range(4))
def test_the_support_says_whether_there_is_one(seed):
    clean = scene(seed)
    glows = [apply("glow", clean, glow(3, 4, strength)) for strength in (0.0, 0.3)]
    without, with_it = (Glow(1)(normal(x)[0]).support.amax() for x in glows)
    assert with_it > without


def test_each_image_has_its_own():
    images = normal(torch.cat([scene(seed) for seed in range(3)]))[0]
    search = Glow(2)
    together, alone = search(images), [search(image[None]) for image in images]
    for name in together._fields:
        assert torch.equal(getattr(together, name), torch.cat([getattr(each, name) for each in alone]))


def test_flat_images_have_none():
    found = Glow(1)(torch.zeros(1, *BLOCKS))
    assert not found.strength.any() and not found.support.any()
