"""The losses of training: what they measure, and which part each of their gradients reaches."""

import math

import pytest
import torch

from deal.io.synthetic import SyntheticScenes
from deal.model.parts import SUBTRACTED, Parts
from deal.training.losses import separation_loss, structure_loss, whole_frame_loss


def scenes(count=2):
    return torch.stack(list(SyntheticScenes(count, 64, 80)))


def nothing(x):
    zero = torch.zeros_like(x)
    return Parts(zero, zero, zero, zero, gain=torch.ones(1, 1, 1, 1), offset=torch.zeros(1, 1, 1, 1))


def noise(x, deviation):
    return deviation * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))


def test_an_error_of_the_structure_counts_by_its_logarithm():
    x = scenes()
    losses = [structure_loss(x + noise(x, deviation), x) for deviation in (0.02, 0.08)]
    assert (losses[1] - losses[0] - math.log(4)).abs().max() < 0.15


@pytest.mark.parametrize("name", SUBTRACTED)
def test_taking_out_what_was_added_is_rewarded(name):
    x = scenes()
    random = torch.Generator().manual_seed(1)
    lines = {"columns": (2, 1, 1, 80), "rows": (2, 1, 64, 1)}
    if name == "shading":
        added = 0.3 * torch.linspace(-1, 1, 80).square().expand_as(x)
    else:
        added = 0.08 * torch.randn(lines.get(name, x.shape), generator=random).expand_as(x)
    before = separation_loss(x + added, nothing(x), x, x)
    after = separation_loss(x + added, nothing(x)._replace(**{name: added}), x, x)
    assert (after < before - 0.4).all()


def test_errors_count_as_in_images_of_full_contrast():
    x, error = scenes(), noise(scenes(), 0.05)
    toned = 0.4 * x + 0.3
    right = nothing(x)._replace(gain=torch.full((1, 1, 1, 1), 2.5), offset=torch.full((1, 1, 1, 1), -0.75))
    losses = separation_loss(toned + 0.4 * error, right, x, toned), separation_loss(x + error, nothing(x), x, x)
    torch.testing.assert_close(*losses, atol=0.02, rtol=0)


def test_contrast_is_not_a_part():
    """A detail that enlarges the image is an error, though a gain could undo it."""
    x = scenes()
    x_hat = x + noise(x, 0.02)
    enlarging = nothing(x)._replace(detail=-0.5 * x_hat)
    assert (separation_loss(x_hat, enlarging, x, x) > separation_loss(x_hat, nothing(x), x, x) + 0.2).all()


def test_each_image_has_its_loss():
    x = scenes(3)
    x_hat = x + noise(x, 0.05)
    alone = torch.cat([separation_loss(x_hat[[k]], nothing(x[[k]]), x[[k]], x[[k]]) for k in range(3)])
    torch.testing.assert_close(separation_loss(x_hat, nothing(x), x, x), alone)


def gradients(x_hat, x, toned, **changes):
    parts = nothing(x)._replace(**changes)
    leaves = Parts(*(part.clone().requires_grad_() for part in parts))
    separation_loss(x_hat, leaves, x, toned).sum().backward()
    return Parts(*(torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves))


def test_cuts_teach_neither_shading_nor_tone():
    x = scenes()
    grads = gradients(0.5 * x + 0.3 * torch.linspace(-1, 1, 80).expand_as(x), x, 0.5 * x)
    assert not grads.shading.any() and not grads.gain.any() and not grads.offset.any()
    assert grads.columns.any() and grads.rows.any() and grads.detail.any()


def whole_frames(share=1.0, gain=2.0):
    """The loss of thumbnails with a shading and half of the contrast, for a share of the shading and a gain."""
    x = scenes()
    toned, shading = 0.5 * x + 0.2, 0.15 * torch.linspace(-1, 1, 80).expand_as(x)
    tone = torch.tensor(gain), torch.tensor(-0.4)
    return whole_frame_loss(toned + shading, share * shading, tone, x, toned)


def test_shading_and_tone_of_whole_frames():
    right = whole_frames()
    assert (whole_frames(share=0.0) > whole_frames(share=0.5) + 0.3).all()
    assert (whole_frames(share=0.5) > right + 1).all() and (whole_frames(gain=1.5) > right + 1).all()


def test_the_tone_does_not_teach_the_shading():
    x = scenes()
    found = []
    for gain in (1.0, 3.0):
        shading = torch.zeros_like(x).requires_grad_()
        tone = torch.tensor(gain), torch.tensor(0.0)
        found += torch.autograd.grad(whole_frame_loss(x, shading, tone, x, x + noise(x, 0.1)).sum(), shading)
    assert torch.equal(*found)


def test_gradients_are_finite_where_an_image_is_flat():
    x = torch.full((1, 1, 32, 32), 0.5)
    for part in gradients(x, x, x):
        assert part.isfinite().all()
