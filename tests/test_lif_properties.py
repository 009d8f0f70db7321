"""Any neuron on any input: the backends agree bit for bit, and what must hold holds."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deal_kernels import backend
from deal_kernels.lif import lif, unpack

COMPILED = "cpp" if backend.unavailable("cpp", "cpu") is None else "torch"

charges = st.one_of(
    st.builds(lambda tau, decays: {"tau": tau, "decay_input": decays}, st.floats(1, 50), st.booleans()),
    st.builds(lambda leak: {"beta": leak}, st.floats(-1, 2)),
    st.just({"tau": None}),
)
resets = st.one_of(
    st.builds(lambda v: {"v_reset": v}, st.floats(-2, 2)), st.sampled_from([{"v_reset": None}, {"reset": "none"}])
)
fires = st.one_of(
    st.builds(lambda fire: {"fire": fire}, st.sampled_from(["ge", "gt"])),
    st.builds(lambda levels: {"levels": levels}, st.integers(2, 9)),
)
neurons = st.builds(
    lambda *parts: {key: value for part in parts for key, value in part.items()},
    charges,
    resets,
    fires,
    st.builds(
        lambda threshold, surrogate, detach: {"v_threshold": threshold, "surrogate": surrogate, "detach_reset": detach},
        st.floats(0.05, 4),
        st.sampled_from(["atan", "triangle", "rectangle"]),
        st.booleans(),
    ),
)
inputs = st.builds(
    lambda steps, count, scale, seed: torch.randn(steps, count, generator=torch.Generator().manual_seed(seed)) * scale,
    st.integers(1, 40),
    st.integers(1, 90),
    st.sampled_from([0.1, 1.0, 10.0]),
    st.integers(0, 2**31),
)


@settings(max_examples=150, deadline=None)
@given(neurons, inputs)
def test_backends_agree(neuron, x):
    results = []
    for name in (COMPILED, "torch"):
        leaf = x.clone().requires_grad_()
        spikes, v = lif(leaf, **neuron, return_state=True, backend=name)
        grad = torch.autograd.grad([spikes, v], leaf, [x.flip(0), x[0]])[0]
        results.append((spikes.detach(), v.detach(), grad))
    for compiled, expected in zip(*results, strict=True):
        torch.testing.assert_close(compiled[...], expected, rtol=1e-4, atol=1e-4, equal_nan=True)
    for compiled, expected in zip(results[0][:2], results[1][:2], strict=True):
        assert torch.equal(compiled.nan_to_num(), expected.nan_to_num())


@settings(max_examples=100, deadline=None)
@given(neurons, inputs)
def test_outputs_agree_with_the_spikes(neuron, x):
    spikes, v = lif(x, **neuron, return_state=True)
    most = neuron.get("levels", 1)
    assert spikes.min() >= 0 and spikes.max() <= most and torch.equal(spikes, spikes.round())
    rate, v_of_rate = lif(x, **neuron, reduce="mean", return_state=True)
    assert torch.equal(rate, spikes.sum(0) / torch.full_like(rate, len(x))) and torch.equal(v, v_of_rate)
    if most == 1:
        assert torch.equal(unpack(lif(x, **neuron, pack=True), x[0]), spikes)


@settings(max_examples=60, deadline=None)
@given(neurons, inputs, st.data())
def test_a_neuron_does_not_see_its_neighbours(neuron, x, data):
    order = torch.tensor(data.draw(st.permutations(range(x.shape[1]))))
    assert torch.equal(lif(x[:, order], **neuron), lif(x, **neuron)[:, order])
