"""What holds for any two images."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import close
from ssim_oracle import images

from deal_kernels import backend
from deal_kernels.ssim import l1_ssim, ssim, ssim_map

COMPILED = "cpp" if backend.unavailable("cpp", "cpu") is None else "torch"

sizes = st.one_of(st.integers(1, 40), st.sampled_from([255, 256, 257, 300]))
pairs = st.builds(
    lambda planes, height, width, scale, seed: tuple(i * scale for i in images(1, planes, height, width, seed=seed)),
    st.integers(1, 3), sizes, sizes, st.sampled_from([0.01, 1.0, 10.0]), st.integers(0, 2**31),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(pairs)
def test_it_is_a_similarity(pair):
    a, b = pair
    assert torch.equal(ssim(a, b), ssim(b, a)) and torch.equal(ssim_map(a, b), ssim_map(b, a))
    assert ssim(a, a).item() == 1 and (ssim_map(b, b) == 1).all()
    # The float32 noise of a variance may be as large as c2 where pixels are much larger than the range.
    slack = 1e-4 * max(1.0, a.max().item() ** 2)
    assert -1 - slack <= ssim_map(a, b).min() and ssim_map(a, b).max() <= 1 + slack
    assert close(ssim(a, b), ssim_map(a, b).mean(), 1e-5)
    together, apart = l1_ssim(a, b, 2.0, 3.0), 2 * (a - b).abs().mean() + 3 * (1 - ssim(a, b))
    assert abs(together.item() - apart.item()) <= 1e-5 * apart.abs().item() + 1e-6


@settings(max_examples=60, deadline=None)
@given(pairs, st.booleans())
def test_backends_agree(pair, valid):
    valid = valid and min(pair[0].shape[-2:]) >= 11
    found = []
    for name in (COMPILED, "torch"):
        # In double, where the noise of variances hides nothing.
        a, b = (image.double().requires_grad_() for image in pair)
        values = ssim_map(a, b, padding="valid" if valid else "zeros", backend=name)
        cotangent = torch.linspace(-1, 1, values.numel(), dtype=torch.float64).reshape(values.shape)
        grads = torch.autograd.grad(values, (a, b), cotangent)
        found.append((values.detach(), *grads))
    for one, other in zip(*found, strict=True):
        assert close(one, other, 1e-9)


@settings(max_examples=30, deadline=None)
@given(pairs, st.data())
def test_planes_do_not_see_each_other(pair, data):
    a, b = (image.expand(3, *image.shape[1:]).clone() for image in pair)
    place = data.draw(st.integers(0, 2))
    a[place] += 0.5
    others = [k for k in range(3) if k != place]
    assert torch.equal(ssim_map(a, b)[others], ssim_map(*pair).expand_as(a)[others])
