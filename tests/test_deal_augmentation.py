"""Crops for training, and synthetic scenes."""

import pytest
import torch

from deal.io.synthetic import SyntheticScenes, thermal_scene
from deal.training.augmentation import Crops


class Numbers:
    """Images whose pixels all differ: a value says the image and the place."""

    def __init__(self, count, height=12, width=15):
        values = torch.arange(count * height * width, dtype=torch.float32)
        self.images = values.reshape(count, 1, height, width)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


def test_every_image_comes_once_a_turn():
    crops = Crops(Numbers(7), 5, seed=3)
    which = [int(crops[k].min()) // 180 for k in range(21)]
    turns = [which[k : k + 7] for k in (0, 7, 14)]
    assert all(sorted(turn) == list(range(7)) for turn in turns) and turns[0] != turns[1]


def test_crops_are_cut_and_mirrored():
    source = Numbers(3)
    crops = Crops(source, 5)
    seen, corners = set(), set()
    for k in range(300):
        crop = crops[k][0]
        right, down = (crop[0, 1] - crop[0, 0]).item(), (crop[1, 0] - crop[0, 0]).item()
        assert abs(right) == 1 and abs(down) == 15
        seen.add((right > 0, down > 0))
        corners.add(divmod(int(crop.min()) % 180, 15))
    assert len(seen) == 4
    assert {row for row, _ in corners} == set(range(8)) and {column for _, column in corners} == set(range(11))
    plain = Crops(source, None, flip=False)
    assert all(any(torch.equal(plain[k], image) for image in source.images) for k in range(6))


def test_crops_of_two_sides():
    assert Crops(Numbers(3), (4, 7)).batch(0, 2).shape == (2, 1, 4, 7)


def test_zoom():
    crops = Crops(SyntheticScenes(1, 64, 96), (32, 32), flip=False, zoom=4.0)
    whole = SyntheticScenes(1, 64, 96)[0]
    found = [crops[k] for k in range(20)]
    assert all(image.shape == (1, 32, 32) for image in found)
    # A crop of a reduced image shows more of the scene: its neighbouring pixels differ more than those of the image.
    assert sum(image.diff().abs().mean() > whole.diff().abs().mean() for image in found) > 5
    assert len({image.mean().item() for image in found}) == 20
    assert sum(image.diff().abs().mean() < whole.diff().abs().mean() for image in found) > 2  # others are enlarged


def test_tones():
    """Half of the crops are inverted. In half of them, the middle of a ramp becomes brighter or darker, and black or
    white are used."""
    ramp = torch.linspace(0.2, 0.8, 120).expand(1, 90, 120)
    shown = [Crops([ramp], None, flip=False, tones=True, seed=1)[k][0, 0] for k in range(40)]
    assert 10 < sum(bool(s[0] > s[-1]) for s in shown) < 30
    middle = [s[60].item() for s in shown]
    assert min(middle) < 0.42 and max(middle) > 0.55
    black = {k for k, s in enumerate(shown) if s.min() < 0.01}
    white = {k for k, s in enumerate(shown) if s.max() > 0.99}
    assert 10 < len(black | white) < 30 and black - white and white - black and len(black & white) > 4
    assert all(abs(s.max() - s.min() - 0.6) < 1e-5 for k, s in enumerate(shown) if k not in black | white)


def test_a_dull_crop_is_not_stretched_to_noise():
    dull = torch.linspace(0.5, 0.52, 120).expand(1, 90, 120)
    shown = [Crops([dull], None, tones=True, seed=2)[k] for k in range(20)]
    assert all(s.max() - s.min() < 0.02 * 3 * 2 for s in shown)  # the steepest gamma has the slope 2


def test_panels():
    """A quarter of the cuts has some, upright or level; none is shorter than nearly a third of the cut."""
    image = torch.linspace(0, 1, 120).expand(1, 90, 120)
    shown = [Crops([image], None, flip=False, panels=True, seed=2)[k] for k in range(160)]
    changed = [(s != image)[0] for s in shown if not torch.equal(s, image)]
    assert 20 < len(changed) < 60
    sizes = [(where.any(1).sum() / 90, where.any(0).sum() / 120) for where in changed]
    assert all(max(size) >= 0.28 for size in sizes)
    upright, level = ([a > 0.8 and b < 0.5 for a, b in pairs] for pairs in (sizes, [size[::-1] for size in sizes]))
    assert any(upright) and any(level)
    assert all(s.min() >= 0 and s.max() <= 1 for s in shown)


def test_noise():
    source = SyntheticScenes(2, seed=0)
    plain, noisy = (Crops(source, 64, noise=noise, seed=3).batch(0, 6) for noise in (0.0, 0.1))
    deviations = (noisy - plain).std((1, 2, 3))
    assert noisy.min() >= 0 and noisy.max() <= 1
    assert deviations.max() < 0.11 and deviations.max() > 0.03 and deviations.std() > 0.01
    assert torch.equal(noisy, Crops(source, 64, noise=0.1, seed=3).batch(0, 6))


def test_neighbouring_values_of_noise_are_related():
    """By a correlation that differs between crops and between the directions."""
    grey = [torch.full((1, 90, 120), 0.5)]
    noise = Crops(grey, None, flip=False, noise=0.05, seed=4).batch(0, 12) - 0.5
    across = (noise[..., 1:] * noise[..., :-1]).mean((1, 2, 3)) / noise.var((1, 2, 3))
    down = (noise[..., 1:, :] * noise[..., :-1, :]).mean((1, 2, 3)) / noise.var((1, 2, 3))
    for correlation in (across, down):
        assert correlation.min() > -0.05 and correlation.max() < 0.75 and correlation.std() > 0.1
    assert (across - down).abs().max() > 0.2


def test_crops_depend_on_seed_and_place_alone():
    one, same, other = (Crops(Numbers(4), 6, seed=seed) for seed in (0, 0, 1))
    expected = [one[k] for k in range(10)]
    assert all(torch.equal(same[k], expected[k]) for k in reversed(range(10)))
    assert torch.equal(same.batch(4, 3), torch.stack(expected[4:7]))
    assert not all(torch.equal(other[k], expected[k]) for k in range(10))


def test_crops_of_small_images():
    with pytest.raises(ValueError, match="an image of 12 x 15 pixels is too small for crops of 13 x 13"):
        Crops(Numbers(2), 13)[0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Crops(Numbers(2), 0), "size must be an integer of at least 1, a pair of them, or None; got 0"),
        (lambda: Crops(SyntheticScenes(0)), "source must have at least one image; got none"),
        (lambda: thermal_scene(0), "height must be an integer of at least 1; got 0"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_scenes():
    one = thermal_scene(96, 128, seed=5)
    assert one.shape == (1, 96, 128) and one.dtype == torch.float32 and one.min() >= 0 and one.max() <= 1
    assert torch.equal(one, thermal_scene(96, 128, seed=5))
    assert not torch.equal(one, thermal_scene(96, 128, seed=6))
    assert thermal_scene(1, 1).shape == (1, 1, 1)


def test_scenes_look_thermal():
    """A cold sky above, warm things below, and as much noise as is asked for."""
    for seed in range(5):
        scene = thermal_scene(192, 256, seed=seed)[0]
        assert scene[:20].median() < 0.35 < scene.max() and scene[:20].median() < scene[-60:].quantile(0.99)
        assert scene.std() > 0.05
        noise = thermal_scene(192, 256, seed=seed, noise=0.02)[0] - thermal_scene(192, 256, seed=seed, noise=0)[0]
        assert abs(noise.std() - 0.02) < 0.002
        assert (noise[1:] - noise[:-1]).std() > 0.02  # from pixel to pixel


def test_scenes_as_a_source():
    scenes = SyntheticScenes(3, 40, 50, channels=3, seed=7)
    assert len(scenes) == 3 and scenes[2].shape == (3, 40, 50)
    assert torch.equal(scenes[2][0], thermal_scene(40, 50, seed=9)[0])
    assert Crops(scenes, 16).batch(0, 2).shape == (2, 3, 16, 16)
    with pytest.raises(IndexError, match="index must be from 0 to 2; got 3"):
        scenes[3]
