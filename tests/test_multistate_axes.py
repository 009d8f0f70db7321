"""Neurons with several states whose x has its axes in another order than [T, B, C, ...]: the same bits, and no copy."""

import itertools

import pytest
import torch
from axes import copies, inverse, orders, results, without_first
from axes import drawn as noise
from multistate_oracle import MODELS, count, drawn, draws, ours

from deal_kernels.multistate import ALIF, alif, cuba


def leaves(order, name, dtype, device):
    """x, the initial states, and the parameters of channels."""
    shape, _, _, usual = order
    row = [size for axis, size in enumerate(shape) if axis != usual[0]]
    channels = shape[usual[2]] if len(usual) > 2 else shape[usual[1]]
    (x,) = draws(shape, dtype=dtype, device=device, scale=1.5)
    states = draws(*[row] * count(name), dtype=torch.float32, device=device, seed=1)
    return x, states, drawn(name, (channels,), device=device, seed=2)


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16))
@pytest.mark.parametrize("output", ("spikes", "v"))
@pytest.mark.parametrize("name", ["cuba", "alif, tau", "lsnn", "clif"])
@orders
def test_the_bits_are_those_of_a_transposed_copy(order, name, output, dtype, backend, device):
    _, time_axis, channel_axis, usual = order
    x, states, parameters = leaves(order, name, dtype, device)
    step = without_first(usual)
    # But for the sigmoid of a state on a CPU: torch computes the last elements of a tensor by another exponential.
    exact = name != "clif" or backend in ("cpp", "cuda")
    options = {"output": output, "return_state": True, "backend": backend, "surrogate": "triangle"}

    def run(x, *given, **axes):
        named = dict(zip(parameters, given[len(states) :], strict=True))
        result, last = ours(name)(x, *given[: len(states)], **named, **axes, **options)
        return result, *last

    def plain(x, *given):
        moved = [state.permute(step).contiguous() for state in given[: len(states)]]
        return run(x.permute(usual).contiguous(), *moved, *given[len(states) :])

    def moving(x, *given):
        return run(x, *given, time_axis=time_axis, channel_axis=channel_axis)

    companions = [*states, *parameters.values()]
    found, gradients = results(moving, x, companions)
    backs = [usual, *[step] * len(states)]
    grads = [
        noise(*each.shape, device=device, dtype=each.dtype, seed=9).permute(back)
        for each, back in zip(found, backs, strict=True)
    ]
    expected, others = results(plain, x, companions, grads)
    same = torch.equal if exact else lambda a, b: torch.allclose(a.float(), b.float(), rtol=1e-5, atol=1e-5)
    for one, other, back in zip(found, expected, backs, strict=True):
        assert same(one, other.permute(inverse(back)))
    sums = len(parameters)
    assert all(same(*pair) for pair in zip(gradients[:-sums], others[:-sums], strict=True))
    for one, other in zip(gradients[-sums:], others[-sums:], strict=True):  # sums, whose order differs
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@orders
def test_parameters_with_values_per_neuron_have_the_order_of_x(order, backend, device):
    shape, time_axis, channel_axis, usual = order
    x, _, _ = leaves(order, "cuba", torch.float32, device)
    step = without_first(usual)
    row = [size for axis, size in enumerate(shape) if axis != usual[0]]
    sample = [size for axis, size in enumerate(row) if axis != step[0]] if len(row) > 1 else row
    for shapes in (row, sample):
        parameters = drawn("cuba", shapes, device=device, seed=2)
        found = cuba(x, **parameters, time_axis=time_axis, channel_axis=channel_axis, backend=backend)
        to = step if len(shapes) == len(row) else without_first(step)
        moved = {key: p.permute(to).contiguous() for key, p in parameters.items()}
        expected = cuba(x.permute(usual).contiguous(), **moved, backend=backend)
        assert torch.equal(found, expected.permute(inverse(usual)))


@pytest.mark.usefixtures("each_thread_count")
@pytest.mark.parametrize("group", (64, 65, 600, 4096))
def test_every_size_of_a_group(group):
    """Whole tiles, tails, and what several threads share."""
    for steps, dtype in itertools.product((1, 4, 19), (torch.float32, torch.float16, torch.float64)):
        (x,) = draws((1 + 200_000 // (group * steps), steps, group), dtype=dtype, scale=1.5)
        grads = draws(x.shape, dtype=dtype, seed=9)
        found, (gradient,) = results(lambda x: (alif(x, time_axis=1),), x, (), grads)
        expected, (expected_gradient,) = results(
            lambda x: (alif(x.transpose(0, 1).contiguous()).transpose(0, 1),), x, (), grads
        )
        assert torch.equal(found[0], expected[0]) and torch.equal(gradient, expected_gradient)
        assert found[0].is_contiguous() and gradient.is_contiguous()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("output", ("spikes", "v"))
def test_nothing_is_copied(name, output):
    def run(x, time_axis, channel_axis):
        axes = {"time_axis": time_axis, "channel_axis": channel_axis}
        result, last = ours(name)(x, **parameters, **axes, output=output, backend="cpp", return_state=True)
        torch.autograd.backward([result, *last], [torch.ones_like(each) for each in (result, *last)])

    parameters = drawn(name, (8,))
    for shape, time_axis, channel_axis in (((3, 4, 8, 5, 5), 1, None), ((3, 4, 25, 8), 1, -1), ((4, 3, 25, 8), 0, -1)):
        x = torch.randn(shape, requires_grad=True)
        assert copies(lambda x=x, t=time_axis, c=channel_axis: run(x, t, c)) == []
    assert copies(lambda: run(torch.randn(3, 8, 5, 5, 4, requires_grad=True), -1, None))  # time is innermost


def test_one_input_for_all_steps_in_memory(backend, device):
    """An expanded tensor."""
    (x,) = draws((3, 70), dtype=torch.float32, device=device, scale=1.5)
    found = alif(x.expand(5, 3, 70), backend=backend)
    assert torch.equal(found, alif(x.expand(5, 3, 70).contiguous(), backend=backend))


def test_a_layer(backend, device):
    (x,) = draws((3, 5, 20, 8), dtype=torch.float32, device=device, scale=1.5)  # [B, T, N, C]
    layer = ALIF(
        beta=torch.full((8,), 0.9), time_axis=1, channel_axis=-1, stateful=True, return_state=True, backend=backend
    ).to(device)
    parts = [layer(each)[0] for each in (x[:, :2], x[:, 2:])]
    whole, last = alif(x.permute(1, 0, 3, 2), beta=0.9, return_state=True, backend=backend)
    assert torch.equal(torch.cat(parts, 1), whole.permute(1, 0, 3, 2))
    assert torch.equal(layer.states[1], last[1].transpose(1, 2)) and layer.states[0].shape == (3, 20, 8)
    assert "time_axis=1" in repr(layer)


def test_compiled_and_exported():
    layer = ALIF(beta=torch.nn.Parameter(torch.full((8,), 0.9)), time_axis=1, channel_axis=-1)
    x = torch.randn(3, 4, 20, 8, requires_grad=True)
    spikes, expected = torch.compile(layer, fullgraph=True, backend="aot_eager")(x), layer(x)
    assert torch.equal(spikes, expected) and spikes.stride() == expected.stride() == x.stride()
    grads = [torch.autograd.grad(each, x, torch.ones_like(each))[0] for each in (spikes, expected)]
    assert torch.equal(*grads)
    with torch.no_grad():
        program = torch.export.export(layer, (x.detach(),), dynamic_shapes={"x": {0: torch.export.Dim("batch")}})
        larger = torch.randn(5, 4, 20, 8)
        assert torch.equal(program.module()(larger), layer(larger))


def test_errors():
    x = torch.randn(3, 4, 5)
    with pytest.raises(ValueError, match=r"time_axis must be an axis of x, whose shape is \(3, 4, 5\); got 3"):
        cuba(x, time_axis=3)
    with pytest.raises(ValueError, match="channel_axis must differ from time_axis; got -2 and 1"):
        cuba(x, time_axis=1, channel_axis=-2)
    with pytest.raises(ValueError, match="at least one time step"):
        cuba(torch.zeros(3, 0, 5), time_axis=1)
    with pytest.raises(TypeError, match="x must be a tensor; got list"):
        cuba([1.0], time_axis=1)
    with pytest.raises(ValueError, match="i0 must have the shape of one step"):
        cuba(x, i0=torch.zeros(3, 4, 5), time_axis=1)
    with pytest.raises(TypeError, match="i0 must be a tensor; got list"):
        cuba(x, i0=[0.0], time_axis=1)
