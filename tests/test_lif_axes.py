"""x with its axes in another order than [T, B, C, ...]: the same bits, and no copy."""

import itertools

import pytest
import torch
from axes import copies, drawn, inverse, orders, results, without_first
from torch import nn

from deal_kernels.lif import LIF, lif, unpack
from deal_kernels.tdbn import TDBNLIF, TDBatchNorm2d, tdbn, tdbn_lif

OUTPUTS = {
    "spikes": {}, "v": {"output": "v"}, "h": {"output": "h"}, "mean": {"reduce": "mean"}, "packed": {"pack": True},
}  # fmt: skip


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16))
@pytest.mark.parametrize("output", OUTPUTS)
@orders
def test_the_bits_are_those_of_a_transposed_copy(order, output, dtype, backend, device):
    shape, time_axis, channel_axis, usual = order
    options = {**OUTPUTS[output], "surrogate": "triangle", "return_state": True, "backend": backend}
    x = drawn(*shape, device=device, dtype=dtype)
    step = without_first(usual)
    channels = shape[usual[2]] if len(usual) > 2 else shape[usual[1]]
    v0 = drawn(*(size for axis, size in enumerate(shape) if axis != usual[0]), device=device, seed=1)
    tau, threshold = (drawn(channels, device=device, seed=seed, low=1.0) for seed in (2, 3))

    def ours(x, v0, tau, threshold):
        return lif(
            x, v0, tau=tau, v_threshold=threshold, time_axis=time_axis, channel_axis=channel_axis, **options
        )  # fmt: skip

    def plain(x, v0, tau, threshold):
        x = x.permute(usual).contiguous()
        return lif(x, v0.permute(step).contiguous(), tau=tau, v_threshold=threshold, **options)

    moved = {"mean": step, "packed": None}.get(output, usual)
    if output == "packed":
        found, expected = ours(x, v0, tau, threshold), plain(x, v0, tau, threshold)
        row = x.select(time_axis, 0)
        like = expected[1].to(dtype)
        same_bits = torch.equal(unpack(found[0], row.permute(step)), unpack(expected[0], like))
        assert same_bits and torch.equal(found[1], expected[1].permute(inverse(step)))
        return
    found, gradients = results(ours, x, (v0, tau, threshold))
    grads = [
        drawn(*each.shape, device=device, dtype=each.dtype, seed=9).permute(back)
        for each, back in zip(found, (moved, step), strict=True)
    ]
    expected, expected_gradients = results(plain, x, (v0, tau, threshold), grads)
    assert torch.equal(found[0], expected[0].permute(inverse(moved)))
    assert torch.equal(found[1], expected[1].permute(inverse(step)))
    assert all(torch.equal(*pair) for pair in zip(gradients[:2], expected_gradients[:2], strict=True))
    for one, other in zip(gradients[2:], expected_gradients[2:], strict=True):  # sums, whose order differs
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@orders
def test_parameters_with_values_per_neuron_have_the_order_of_x(order, backend, device):
    shape, time_axis, channel_axis, usual = order
    x, step = drawn(*shape, device=device), without_first(usual)
    row = [size for axis, size in enumerate(shape) if axis != usual[0]]
    sample = [size for axis, size in enumerate(row) if axis != step[0]] if len(row) > 1 else row
    for shapes in (row, sample):
        tau = drawn(*shapes, device=device, seed=2, low=1.0)
        found = lif(x, tau=tau, time_axis=time_axis, channel_axis=channel_axis, backend=backend)
        moved = tau.permute(step if len(shapes) == len(row) else without_first(step))
        expected = lif(x.permute(usual).contiguous(), tau=moved.contiguous(), backend=backend)
        assert torch.equal(found, expected.permute(inverse(usual)))


@pytest.mark.usefixtures("each_thread_count")
@pytest.mark.parametrize("group", (64, 65, 96, 600, 4096))
def test_every_size_of_a_group(group):
    """Whole tiles, tails, and what several threads share."""
    for steps, dtype in itertools.product((1, 4, 19), (torch.float32, torch.float16, torch.float64)):
        x = drawn(1 + 300_000 // (group * steps), steps, group, device="cpu", dtype=dtype)
        found, (gradient,) = results(lambda x: lif(x, time_axis=1, return_state=True), x, ())
        grads = [
            drawn(*found[0].shape, device="cpu", dtype=dtype, seed=9).transpose(0, 1),
            drawn(*found[1].shape, device="cpu", dtype=found[1].dtype, seed=9),
        ]
        expected, (expected_gradient,) = results(
            lambda x: lif(x.transpose(0, 1).contiguous(), return_state=True), x, (), grads
        )
        assert torch.equal(found[0], expected[0].transpose(0, 1)) and torch.equal(found[1], expected[1])
        assert torch.equal(gradient, expected_gradient)
        assert found[0].is_contiguous() and gradient.is_contiguous()


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("room", ("lif", "tdbn_lif"))
def test_nothing_is_copied(room, output):
    statistics = torch.zeros(8), torch.ones(8)
    options = {**OUTPUTS[output], "surrogate": "atan", "backend": "cpp", "return_state": True}

    def run(x, time_axis, channel_axis):
        axes = {"time_axis": time_axis, "channel_axis": channel_axis}
        if room == "lif":
            spikes, v = lif(x, tau=tau, **axes, **options)
        else:
            spikes, v = tdbn_lif(x, None, None, *statistics, training=False, shortcut=x.detach(), **axes, **options)
        if output != "packed":
            torch.autograd.backward([spikes, v], [torch.ones_like(spikes), torch.ones_like(v)])

    tau = torch.full((8,), 2.0)
    wanted = output != "packed"
    for shape, time_axis, channel_axis in (((3, 4, 8, 5, 5), 1, None), ((3, 4, 25, 8), 1, -1), ((4, 3, 25, 8), 0, -1)):
        x = torch.randn(shape, requires_grad=wanted)
        assert copies(lambda x=x, t=time_axis, c=channel_axis: run(x, t, c)) == []
    last = torch.randn(12, 8, 5, 5).contiguous(memory_format=torch.channels_last).unflatten(0, (3, 4))
    assert copies(lambda: run(last.requires_grad_(wanted), 1, None)) == []
    assert copies(lambda: run(torch.randn(3, 8, 5, 5, 4, requires_grad=wanted), -1, None))  # time is innermost


def test_bits_of_groups_that_are_no_whole_bytes_come_from_a_copy():
    x = torch.randn(5, 4, 67)
    bits = lif(x, time_axis=1, pack=True)
    assert torch.equal(unpack(bits, x[:, 0].contiguous()), lif(x.transpose(0, 1).contiguous()))


def test_one_current_for_all_steps_has_channels_elsewhere(backend, device):
    x, tau = drawn(3, 20, 8, device=device), drawn(8, device=device, low=1.0)
    options = {"tau": tau, "steps": 4, "backend": backend}
    expected = lif(x.permute(0, 2, 1).contiguous(), **options)
    assert torch.equal(lif(x, channel_axis=2, **options), expected.permute(0, 1, 3, 2))
    mean = lif(x, channel_axis=2, reduce="mean", **options)
    assert torch.equal(mean, lif(x.permute(0, 2, 1).contiguous(), reduce="mean", **options).permute(0, 2, 1))


def test_a_result_has_a_place(backend, device):
    x = drawn(3, 4, 80, device=device)
    out = torch.empty_like(x)
    lif(x, time_axis=1, out=out, backend=backend)
    assert torch.equal(out, lif(x, time_axis=1, backend=backend))
    with pytest.raises(ValueError, match="out must have the strides"):
        lif(x, time_axis=1, out=torch.empty(4, 3, 80, device=device).transpose(0, 1), backend=backend)


@orders
def test_norm(order, backend, device):
    shape, time_axis, channel_axis, usual = order
    if len(shape) < 3:
        return
    x, channels = drawn(*shape, device=device), shape[usual[2]]
    shortcut, weight = drawn(*shape, device=device, seed=1), drawn(channels, device=device, low=0.5)
    bias, mean, variance = weight * 0.1, weight * 0.2, weight + 0.5
    options = {"surrogate": "triangle", "backend": backend}

    def ours(x, weight, bias, shortcut):
        axes = {"time_axis": time_axis, "channel_axis": channel_axis}
        evaluated = {"running_mean": mean, "running_var": variance, "training": False}
        return (tdbn_lif(x, weight, bias, **evaluated, shortcut=shortcut, **axes, **options),)

    def plain(x, weight, bias, shortcut):
        x, shortcut = (each.permute(usual).contiguous() for each in (x, shortcut))
        return (tdbn_lif(x, weight, bias, mean, variance, training=False, shortcut=shortcut, **options),)

    found, gradients = results(ours, x, (weight, bias, shortcut))
    grads = [drawn(*shape, device=device, seed=9).permute(usual)]
    expected, expected_gradients = results(plain, x, (weight, bias, shortcut), grads)
    assert torch.equal(found[0], expected[0].permute(inverse(usual)))
    assert torch.equal(gradients[0], expected_gradients[0]) and torch.equal(gradients[3], expected_gradients[3])
    for one, other in zip(gradients[1:3], expected_gradients[1:3], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_norm_in_training(backend, device):
    x, weight = drawn(3, 4, 8, 5, 5, device=device), drawn(8, device=device, low=0.5)
    layers = [TDBNLIF(8, backend=backend, **axes).to(device) for axes in ({"time_axis": 1}, {})]
    spikes, expected = layers[0](x), layers[1](x.transpose(0, 1).contiguous())
    assert (spikes != expected.transpose(0, 1)).float().mean() < 1e-3
    for one, other in zip(layers[0].norm.buffers(), layers[1].norm.buffers(), strict=True):
        torch.testing.assert_close(one, other)

    def gradient(x):
        x = x.requires_grad_()
        return torch.autograd.grad(tdbn(x, weight, training=True, backend=backend).square().sum(), x)[0]

    torch.testing.assert_close(gradient(x.transpose(0, 1)), gradient(x.transpose(0, 1).contiguous()))


@pytest.mark.parametrize("axis", (-1, 0, 2))
def test_norm_of_channels_elsewhere(axis, backend, device):
    x = drawn(4, 3, 5, 6, device=device)
    norm = TDBatchNorm2d(x.shape[axis], channel_axis=axis, backend=backend).to(device)
    plain = nn.BatchNorm2d(x.shape[axis]).to(device)
    torch.testing.assert_close(norm(x), plain(x.movedim(axis, 1)).movedim(1, axis))
    torch.testing.assert_close(norm.running_var, plain.running_var)


@pytest.mark.parametrize("time_axis", (0, 1))
def test_layer_with_time_and_batch_in_one_axis(time_axis):
    steps = {"flattened_steps": 4, "time_axis": time_axis}
    x = torch.randn(12, 8, 20)
    split = x.unflatten(0, (4, 3) if time_axis == 0 else (3, 4))
    layer = LIF(**steps, stateful=True, step_dims=3)
    expected = LIF(time_axis=time_axis, stateful=True)
    for _ in range(2):
        assert torch.equal(layer(x), expected(split).flatten(0, 1))
    assert torch.equal(layer.v, expected.v) and layer.v.shape == (3, 8, 20)
    assert LIF(**steps, reduce="mean")(x).shape == (3, 8, 20)
    spikes, v = LIF(**steps, return_state=True)(x)
    assert spikes.shape == x.shape and v.shape == (3, 8, 20)
    tau = torch.rand(20) + 1
    by_channel = LIF(**steps, tau=tau, channel_axis=-1)(x)
    assert torch.equal(by_channel, LIF(**steps, tau=tau, channel_axis=2)(x))
    assert torch.equal(by_channel, lif(split, tau=tau, time_axis=time_axis, channel_axis=-1).flatten(0, 1))
    norm = TDBNLIF(8, **steps).eval()
    whole = TDBNLIF(8, time_axis=time_axis).eval()
    assert torch.equal(norm(x, shortcut=x), whole(split, shortcut=split).flatten(0, 1))
    assert "flattened_steps=4" in repr(layer)


def test_state_restarts_on_another_shape_of_a_step():
    layer = LIF(time_axis=1, stateful=True)
    x = torch.randn(3, 8, 70)
    parts = torch.cat([layer(x[:, :3]), layer(x[:, 3:])], dim=1)
    assert torch.equal(parts, lif(x, time_axis=1))
    assert torch.equal(layer(x[:2]), lif(x[:2], time_axis=1))


def test_transforms_and_derivatives():
    x = torch.randn(3, 4, 70, dtype=torch.float64, requires_grad=True)

    def run(x):
        return lif(x, time_axis=1, surrogate="atan")

    batched = torch.func.vmap(run)(torch.stack([x, x + 1]))
    assert torch.equal(batched, torch.stack([run(x), run(x + 1)]))
    (first,) = torch.autograd.grad(run(x).sum(), x, create_graph=True)
    assert torch.autograd.grad(first.sum(), x)[0].shape == x.shape
    torch.testing.assert_close(torch.func.grad(lambda x: run(x).sum())(x.detach()), first.detach())


def test_compiled_and_exported():
    layer = LIF(tau=nn.Parameter(torch.full((8,), 2.0)), time_axis=1, channel_axis=-1)
    x = torch.randn(3, 4, 20, 8, requires_grad=True)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    spikes, expected = compiled(x), layer(x)
    assert torch.equal(spikes, expected) and spikes.stride() == expected.stride() == x.stride()
    grads = [torch.autograd.grad(each, x, torch.ones_like(each))[0] for each in (spikes, expected)]
    assert torch.equal(*grads)
    batch = torch.export.Dim("batch")
    with torch.no_grad():
        program = torch.export.export(layer, (x.detach(),), dynamic_shapes={"x": {0: batch}})
        larger = torch.randn(5, 4, 20, 8)
        assert torch.equal(program.module()(larger), layer(larger))


def test_errors():
    x = torch.randn(3, 4, 5)
    for axis in (3, -4, 1.0, True):
        with pytest.raises(ValueError, match=r"time_axis must be an axis of x, whose shape is \(3, 4, 5\); got"):
            lif(x, time_axis=axis)
    with pytest.raises(ValueError, match="channel_axis must be an axis of x"):
        lif(x, channel_axis=3)
    with pytest.raises(ValueError, match="channel_axis must differ from time_axis; got -2 and 1"):
        lif(x, time_axis=1, channel_axis=-2)
    with pytest.raises(ValueError, match="x has no time axis with steps, so that time_axis must be left out; got 1"):
        lif(x, steps=4, time_axis=1)
    with pytest.raises(ValueError, match="at least one time step"):
        lif(torch.zeros(3, 0, 5), time_axis=1)
    with pytest.raises(TypeError, match="x must be a tensor; got list"):
        lif([1.0], time_axis=1)
    with pytest.raises(ValueError, match="v0 must have the shape of one step"):
        lif(x, torch.zeros(3, 4, 5), time_axis=1)
    with pytest.raises(ValueError, match="the first axis of x must be a multiple of flattened_steps=4; got"):
        LIF(flattened_steps=4)(x)
    with pytest.raises(ValueError, match="flattened_steps excludes steps and takes a time_axis of 0 or 1; got steps=3"):
        LIF(flattened_steps=4, steps=3)
    with pytest.raises(ValueError, match="flattened_steps must be an integer of at least 1"):
        LIF(flattened_steps=0)
    with pytest.raises(ValueError, match="channel_axis must be an axis of x"):
        tdbn(x, training=True, channel_axis=5)
