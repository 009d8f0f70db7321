"""Degradations of suites: what they are by other means, and what their random values depend on."""

import numpy
import pytest
import torch
from PIL import Image

from deal.evaluate.degradation_suites import SUITES, Row, degrade, rows_of
from deal.io.synthetic import thermal_scene
from deal_kernels.degradation import apply

STANDARD = {row.name: row for row in SUITES["standard"]}
X = thermal_scene(61, 83, seed=1)[None]  # [1, 1, H, W]


def test_the_standard_suite():
    assert list(STANDARD) == [
        "clean", "stripes 0.02", "stripes 0.05", "stripes 0.1", "stripes 0.15", "gain 0.05", "gain 0.1", "rows 0.05",
        "x2", "x4", "contrast 0.7", "contrast 0.5", "composed",
    ]  # fmt: skip
    assert [name for name, row in STANDARD.items() if row.best_by == "affine_psnr"] == [
        "contrast 0.7", "contrast 0.5", "composed",
    ]  # fmt: skip
    assert torch.equal(degrade(STANDARD["clean"], X, 0), X)


@pytest.mark.parametrize(
    ("name", "level", "axis"),
    [("stripes 0.05", 0.05, 2), ("stripes 0.15", 0.15, 2), ("gain 0.1", 0.1, 2), ("rows 0.05", 0.05, 3)],
)
def test_stripes(name, level, axis):
    """One value along a line, the same for all its pixels, as strong as the name says, and not clamped."""
    wide = torch.rand(1, 1, 4000, 4000, dtype=torch.float64).narrow(axis, 0, 3) + 0.1
    y = degrade(STANDARD[name], wide, 2)
    values = y / wide - 1 if name.startswith("gain") else y - wide
    assert (values - values.mean(axis, keepdim=True)).abs().max() < 1e-9
    line = values.mean(axis).flatten()
    assert abs(line.std() / level - 1) < 0.05 and abs(line.mean()) < 4 * level / 4000**0.5
    assert y.max() > 1.1


def test_random_values_depend_on_seed_place_and_name_alone():
    row = STANDARD["stripes 0.1"]
    first = degrade(row, X, 3, seed=5)
    assert torch.equal(first, degrade(row, X, 3, seed=5))
    renamed = row._replace(name="other")
    others = [degrade(row, X, 4, seed=5), degrade(row, X, 3, seed=6), degrade(renamed, X, 3, seed=5)]
    assert all((each - first).abs().max() > 0.05 for each in others)
    torch.rand(7)  # torch's own generator has no part in it
    assert torch.equal(first, degrade(row, X, 3, seed=5))
    doubled = degrade(row._replace(steps=(("stripes", 0.2),)), X, 3, seed=5)
    assert torch.allclose(doubled - X, 2 * (first - X), atol=1e-6)


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("shape", [(64, 80), (61, 83)])
def test_low_resolution_is_pillows(factor, shape):
    x = thermal_scene(*shape, seed=2, noise=0.05)
    image = Image.fromarray(x[0].numpy())
    small = image.resize([-(-side // factor) for side in image.size], Image.Resampling.BICUBIC)
    expected = torch.from_numpy(numpy.array(small.resize(image.size, Image.Resampling.BICUBIC)))
    y = apply(f"coarse_{factor}", x[None])
    assert (y - expected).abs().max() < 1e-5
    assert torch.equal(degrade(STANDARD[f"x{factor}"], x[None], 0), y)


def test_contrast():
    for level in (0.7, 0.5):
        y = degrade(STANDARD[f"contrast {level}"], X, 0)
        assert (y - (level * X + (1 - level) * X.mean())).abs().max() < 1e-6


def test_composed():
    """Low contrast first, then low resolution, then stripes a pixel wide on the full grid."""
    y = degrade(STANDARD["composed"], X, 1)
    stripes = y - apply("coarse_2", 0.5 * X + 0.5 * X.mean())
    assert (stripes - stripes.mean(2, keepdim=True)).abs().max() < 1e-6
    assert 0.035 < stripes.mean(2).std() < 0.065


def test_errors():
    with pytest.raises(ValueError, match="suite must be one of 'standard', 'short', 'thermal', 'camera'; got 'hard'"):
        rows_of("hard")
    with pytest.raises(ValueError, match="suite must have at least one row; got none"):
        rows_of([])
    with pytest.raises(ValueError, match="the kind of a step must be one of 'stripes', .*; got 'fog'"):
        rows_of([Row("fog", (("fog", 0.5),))])
    own = (Row("both", (("stripes", 0.1), ("rows", 0.1))),)
    assert rows_of(own) == own
