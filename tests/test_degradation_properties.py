"""What holds for any mixture."""

import torch
from degradation_oracle import EVERY, RANDOM, case, result_and_gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import close

from deal_kernels import backend
from deal_kernels.degradation import mixture

COMPILED = "cpp" if backend.unavailable("cpp", "cpu") is None else "torch"

sizes = st.one_of(st.integers(5, 40), st.sampled_from([63, 64, 65, 130]))


def built(channels, height, width, ops, stages, seed):
    if min(height, width) < 10:
        ops = ["gaussian_blur" if name == "wide_blur" else name for name in ops]
    return *case(2, channels, height, width, ops=ops, stages=stages, seed=seed, dtype=torch.float64), ops


mixtures = st.builds(
    built,
    st.sampled_from([1, 3]), sizes, sizes, st.lists(st.sampled_from(EVERY), min_size=1, max_size=9), st.integers(1, 4),
    st.integers(0, 2**31),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(mixtures, st.booleans())
def test_backends_agree(found, straight_through):
    """In double, and with some of x in every stage, where no rounding decides on a level or a largest value."""
    x, weights, params, ops = found
    ops, weights = [*ops, "identity"], torch.cat([weights, weights[..., :1]], -1)
    options = {"straight_through": straight_through}
    ours, plain = (
        result_and_gradients(mixture, x, weights, ops, params, backend=b, **options) for b in (COMPILED, "torch")
    )
    for one, other in zip(ours, plain, strict=True):
        assert close(one, other, 1e-11)


@settings(max_examples=30, deadline=None)
@given(mixtures, st.floats(-2, 2))
def test_a_stage_is_linear_in_its_weights(found, factor):
    x, weights, params, ops = found
    first, params = weights[:, :1], {name: value[:, :1] for name, value in params.items()}
    one, scaled = (mixture(x, share, ops, params, backend=COMPILED) for share in (first, factor * first))
    assert close(scaled, factor * one, 1e-12) or factor == 0
    apart = sum(
        mixture(x, first[..., j : j + 1], [name], {name: params[name]} if name in RANDOM else None, backend=COMPILED)
        for j, name in enumerate(ops)
    )
    assert close(one, apart, 1e-12)


@settings(max_examples=30, deadline=None)
@given(mixtures)
def test_stages_follow_each_other(found):
    x, weights, params, ops = found
    y = x
    for i in range(weights.shape[1]):
        stage = {name: value[:, i : i + 1] for name, value in params.items()}
        y = mixture(y, weights[:, i : i + 1], ops, stage, backend=COMPILED)
    assert torch.equal(mixture(x, weights, ops, params, backend=COMPILED), y)


@settings(max_examples=30, deadline=None)
@given(mixtures)
def test_samples_do_not_see_each_other(found):
    x, weights, params, ops = found
    x = x.float()
    weights, params = weights.float(), {name: value.float() for name, value in params.items()}
    together = result_and_gradients(mixture, x, weights, ops, params, backend=COMPILED)
    other = torch.cat([x[:1] + 0.3, x[1:]])
    changed = result_and_gradients(mixture, other, weights, ops, params, backend=COMPILED)
    assert all(torch.equal(one[1], two[1]) for one, two in zip(together, changed, strict=True))
