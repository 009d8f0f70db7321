"""What is the same in all frames of a camera, and how it is told from the scene and from the noise of single frames."""

import pytest
import torch

from deal.inference.fixed_pattern import EVERY, HORIZON, SETTLED, FixedPattern
from deal.io.synthetic import SyntheticScenes
from deal.model.parts import only_detail
from deal.model.pretrained import load

HEIGHT, WIDTH = 96, 128


def clip(count, *, columns=0.05, pixels=0.0, noise=0.0, seed=0):
    """Clean frames of a camera that pans over a scene, and the same with a fixed pattern and noise, [N, 1, H, W]."""
    random = torch.Generator().manual_seed(seed)
    scene = 0.2 + 0.6 * SyntheticScenes(1, HEIGHT + count, WIDTH + 2 * count, seed=seed)[0]
    clean = torch.stack([scene[:, k : k + HEIGHT, 2 * k : 2 * k + WIDTH] for k in range(count)])
    pattern = columns * torch.randn(1, 1, 1, WIDTH, generator=random)
    pattern = pattern + pixels * torch.randn(1, 1, HEIGHT, WIDTH, generator=random)
    return clean, clean + pattern + noise * torch.randn(clean.shape, generator=random)


def psnr(one, other):
    return -10 * (one - other).square().mean().log10().item()


@pytest.fixture(scope="module")
def network():
    return load("deal-u")


STRENGTHS = {"columns": 1.0, "rows": 1.0, "detail": 1.0}


@torch.inference_mode()
def restored(network, frames, pattern=None):
    """Frame by frame, or with a pattern."""
    results = []
    for frame in frames:
        parts = network.separate(frame[None], lines=None if pattern is None else pattern.lines(frame[None]))
        if pattern is not None:
            parts = pattern.update(frame[None], parts)
        results.append(parts.restored(frame[None], STRENGTHS))
    return torch.cat(results)


@pytest.mark.parametrize(("kind", "gain"), [({}, 3.0), ({"pixels": 0.02}, 1.0), ({"noise": 0.01}, 0.0)], ids=str)
def test_a_sequence_is_better_than_its_frames(kind, gain, network):
    clean, degraded = clip(24, **kind)
    single = restored(network, degraded)
    steady = restored(network, degraded, FixedPattern())
    assert psnr(steady[10:], clean[10:]) > psnr(single[10:], clean[10:]) + gain


def test_nothing_is_kept_of_another_pattern(network):
    pattern = FixedPattern()
    restored(network, clip(12)[1], pattern)
    assert pattern.count == 12
    scene, degraded = clip(8, seed=1)
    steady = restored(network, degraded, pattern)
    assert pattern.count <= 8
    single = restored(network, degraded)
    assert psnr(steady[EVERY:], scene[EVERY:]) > psnr(single[EVERY:], scene[EVERY:])


def test_another_size_begins_again(network):
    pattern = FixedPattern()
    restored(network, clip(SETTLED + 1)[1], pattern)  # the next frame would be given its lines
    restored(network, clip(2)[1][..., :64], pattern)
    assert pattern.count == 2


def test_lines_are_found_in_every_fourth_frame_once_they_are_known(network, monkeypatch):
    found = []
    monkeypatch.setattr(type(network.columns), "forward", lambda self, x: found.append(x) or torch.zeros_like(x))
    pattern = FixedPattern()
    restored(network, clip(SETTLED + 2 * EVERY)[1], pattern)
    assert len(found) == 2 * (SETTLED + 2)  # for columns and for rows


def test_noise_of_single_frames_is_taken_out_of_each_and_the_rest_is_not():
    """The detail that differs from the mean is noise as far as two frames differ by as much."""
    random = torch.Generator().manual_seed(0)
    for noise, wanted in ((0.02, 1.0), (0.0, 0.0)):
        pattern = FixedPattern()
        for _ in range(HORIZON):
            frame_noise = noise * torch.randn(1, 1, 64, 64, generator=random)
            texture = 0.001 * torch.randn(1, 1, 64, 64, generator=random)
            parts = pattern.update(0.5 + frame_noise, only_detail(frame_noise + texture))
        taken = parts.detail - pattern._mean.detail
        there = frame_noise + texture - pattern._mean.detail
        assert ((taken * there).sum() / there.square().sum()).item() == pytest.approx(wanted, abs=0.1)


def test_the_unit_of_the_frames_may_change():
    random = torch.Generator().manual_seed(0)
    plain, scaled = FixedPattern(), FixedPattern()
    for k in range(6):
        unit = (1.0, 50.0, 20.0)[k % 3]
        x, detail = (0.1 * torch.randn(1, 1, 32, 48, generator=random) for _ in range(2))
        scaled.measure_in(unit)
        found = scaled.update(x / unit, only_detail(detail / unit))
        torch.testing.assert_close(unit * found.detail, plain.update(x, only_detail(detail)).detail)
