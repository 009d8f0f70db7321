"""Parallel spiking neurons whose time is on another axis than the first: the same bits, and no copy."""

import itertools

import pytest
import torch
from axes import copies, drawn, inverse, orders, results

from deal_kernels.psn import PSN, MaskedPSN, SlidingPSN, psn, sliding_psn


def time_first(order):
    """The order that brings time to the front, with the other axes as they are."""
    shape, _, _, usual = order
    return [usual[0], *(axis for axis in range(len(shape)) if axis != usual[0])]


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16))
@pytest.mark.parametrize("kind", ("matrix", "band", "sliding"))
@orders
def test_the_bits_are_those_of_a_transposed_copy(order, kind, dtype, backend, device):
    shape, time_axis, _, _ = order
    usual, back = time_first(order), inverse(time_first(order))
    steps = shape[usual[0]]
    x = drawn(*shape, device=device, dtype=dtype)
    weight = drawn(*((3,) if kind == "sliding" else (steps, steps)), device=device, seed=1)
    bias = drawn(*(() if kind == "sliding" else (steps,)), device=device, seed=2)

    def run(x, weight, bias, **axis):
        options = {"surrogate": "triangle", "backend": backend, **axis}
        if kind == "sliding":
            return (sliding_psn(x, weight, bias, **options),)
        return (psn(x, weight, bias, band=2 if kind == "band" else None, **options),)

    def plain(x, weight, bias):
        return (run(x.permute(usual).contiguous(), weight, bias)[0].permute(back),)

    (found,), gradients = results(lambda *leaves: run(*leaves, time_axis=time_axis), x, (weight, bias))
    grads = [drawn(*found.shape, device=device, dtype=dtype, seed=9)]
    (expected,), others = results(plain, x, (weight, bias), grads)
    assert torch.equal(found, expected)
    if backend == "torch":  # a product of matrices, whose order may depend on the layout
        torch.testing.assert_close(gradients[0], others[0], rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-4)
    else:
        assert torch.equal(gradients[0], others[0])
    for one, other in zip(gradients[1:], others[1:], strict=True):  # sums, whose order differs
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)


@pytest.mark.usefixtures("each_thread_count")
@pytest.mark.parametrize("group", (64, 65, 600, 4096))
def test_every_size_of_a_group(group):
    """Tiles that end with a group, and what several threads share."""
    for steps, dtype in itertools.product((1, 4, 19), (torch.float32, torch.float16, torch.float64)):
        x = drawn(1 + 200_000 // (group * steps), steps, group, device="cpu", dtype=dtype)
        weight, bias = (drawn(*shape, device="cpu", seed=1) for shape in ((steps, steps), (steps,)))
        found, gradients = results(lambda *leaves: (psn(*leaves, time_axis=1),), x, (weight, bias))
        expected, others = results(
            lambda x, *leaves: (psn(x.transpose(0, 1).contiguous(), *leaves).transpose(0, 1),), x, (weight, bias)
        )
        assert torch.equal(found[0], expected[0]) and torch.equal(gradients[0], others[0])
        assert found[0].is_contiguous() and gradients[0].is_contiguous()
        for one, other in zip(gradients[1:], others[1:], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)


def test_nothing_is_copied():
    weight, bias = torch.randn(4, 4, requires_grad=True), torch.randn(4, requires_grad=True)
    taps, value = torch.randn(3, requires_grad=True), torch.randn(1, requires_grad=True)

    def run(x, time_axis):
        options = {"time_axis": time_axis, "backend": "cpp"}
        for spikes in (psn(x, weight, bias, **options), sliding_psn(x, taps, value, **options)):
            spikes.backward(torch.ones_like(spikes))

    assert copies(lambda: run(torch.randn(3, 4, 8, 5, 5, requires_grad=True), 1)) == []
    assert copies(lambda: run(torch.randn(3, 8, 5, 5, 4, requires_grad=True), -1))  # time is innermost


@pytest.mark.parametrize("axis", (1, -1))
def test_inputs_of_an_earlier_call(axis, backend, device):
    x = drawn(3, 6, 40, 6, device=device)  # time is either of the axes of 6
    weight, bias = drawn(3, device=device, seed=1), torch.tensor(-1.0, device=device)
    first, state = sliding_psn(
        x.narrow(axis, 0, 4), weight, bias, return_state=True, time_axis=axis, backend=backend
    )  # fmt: skip
    second = sliding_psn(x.narrow(axis, 4, 2), weight, bias, state, time_axis=axis, backend=backend)
    whole = sliding_psn(x.movedim(axis, 0), weight, bias, backend=backend).movedim(0, axis)
    assert state.shape[axis] == 2 and torch.equal(torch.cat([first, second], axis), whole)


@pytest.mark.parametrize("stateful", (False, True))
@pytest.mark.parametrize("make", [lambda **o: MaskedPSN(2, 6, lambda_init=1.0, **o), lambda **o: SlidingPSN(3, **o)])
def test_layers(make, stateful, backend, device):
    x = drawn(3, 6, 40, device=device)
    torch.manual_seed(0)
    layer = make(time_axis=1, stateful=stateful, backend=backend).to(device)
    torch.manual_seed(0)
    plain = make(backend=backend).to(device)
    parts = [layer(each) for each in (x.split(2, 1) if stateful else (x,))]
    assert torch.equal(torch.cat(parts, 1), plain(x.transpose(0, 1).contiguous()).transpose(0, 1))
    assert "time_axis=1" in repr(layer)


def test_compiled_and_exported():
    layer = PSN(4, time_axis=1)
    x = torch.randn(3, 4, 40, requires_grad=True)
    spikes, expected = torch.compile(layer, fullgraph=True, backend="aot_eager")(x), layer(x)
    assert torch.equal(spikes, expected) and spikes.stride() == expected.stride() == x.stride()
    with torch.no_grad():
        program = torch.export.export(layer, (x.detach(),), dynamic_shapes={"x": {0: torch.export.Dim("batch")}})
        larger = torch.randn(5, 4, 40)
        assert torch.equal(program.module()(larger), layer(larger))


def test_errors():
    x, weight, bias = torch.randn(3, 4, 5), torch.randn(4, 4), torch.randn(4)
    with pytest.raises(ValueError, match=r"time_axis must be an axis of x, whose shape is \(3, 4, 5\); got 3"):
        psn(x, weight, bias, time_axis=3)
    with pytest.raises(ValueError, match=r"weight must have the shape \[5, 5\]; got \[4, 4\]"):
        psn(x, weight, bias, time_axis=2)
    with pytest.raises(TypeError, match="x must be a tensor; got list"):
        sliding_psn([1.0], bias, bias[0], time_axis=1)
    with pytest.raises(ValueError, match="before must have the shape"):
        sliding_psn(x, bias, bias[0], torch.zeros(4, 3, 5), time_axis=1)
