"""Neurons with several states against independent loops: every model, reset, parameter, size, layout and dtype."""

import multistate_oracle as oracle
import pytest
import torch
from lif_kinds import FIRES
from multistate_oracle import CASES, MODELS, count, drawn, draws, ours, shapes, wide
from oracle import close

from deal_kernels.surrogate import Sigmoid

ROW = 2, 4, 8
SURROGATES = {name: kind for name, kind in FIRES.items() if "levels" not in kind}
EXACT = [name for name in MODELS if name != "clif"]  # whose states have the same bits on every device


def same(found, expected, name, backend):
    """Equal in every bit.

    But for the sigmoid in the state: torch computes the last few elements of a tensor, less than 32 on any processor,
    by another exponential, and a GPU has its own.
    """
    if name != "clif" or (backend in ("cpp", "torch") and expected[0].numel() % 32 == 0):
        return torch.equal(found, expected)
    return close(found, expected, 2e-6)


def leaves(name, steps, shape, dtype, device, row=ROW):
    """x, the initial states, and the parameters, all with a gradient."""
    count_of_states = count(name)
    x, *states = draws((steps, *row), *[row] * count_of_states, dtype=dtype, device=device)
    x = x * 1.5
    parameters = drawn(name, shape, dtype, device)
    for leaf in (x, *states, *parameters.values()):
        leaf.requires_grad_()
    return x, states, parameters


def gradients(results, leaves, grads):
    """Zero for a leaf that has no part in the results."""
    found = torch.autograd.grad(results, leaves, grads, allow_unused=True)
    return [torch.zeros_like(leaf) if grad is None else grad for leaf, grad in zip(leaves, found, strict=True)]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("output", ["spikes", "v"])
def test_oracle(backend, device, case, output):
    """Spikes and all states bit for bit; every gradient, that of single precision to its rounding."""
    name, options = CASES[case]
    for steps, shape in ((19, (4,)), (3, ())):
        x, states, parameters = leaves(name, steps, shape, torch.float32, device)
        result, last = ours(name)(
            x, *states, **parameters, **options, output=output, return_state=True, backend=backend
        )
        # The oracle has parameters for each neuron. Their gradients are the terms of the sums that ours are.
        each = {key: wide(p).detach().expand(ROW).clone().requires_grad_() for key, p in parameters.items()}
        expected, expected_last = oracle.run(name, x, *states, parameters=each, output=output, **options)
        for found, other in zip((result, *last), (expected, *expected_last), strict=True):
            assert found.dtype == torch.float32 and same(found, other, name, backend)
        g = draws(*(t.shape for t in (result, *last)), dtype=torch.float32, device=device, seed=1)
        grads = torch.autograd.grad([result, *last], [x, *states, *parameters.values()], g)
        others = gradients([expected, *expected_last], [x, *states, *each.values()], g)
        sums = len(parameters)
        for grad, other in zip(grads[:-sums], others[:-sums], strict=True):
            assert close(grad, other, 3e-6)
        for p, grad, terms in zip(parameters.values(), grads[-sums:], others[-sums:], strict=True):
            total, size = (t.sum_to_size(wide(p).shape).reshape(p.shape) for t in (terms, terms.abs()))
            assert grad.shape == p.shape and ((grad - total).abs() <= 3e-6 * size).all()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("backend", ["cpp", "torch"])
def test_double(case, backend):
    """All gradients at once, for parameters of every shape."""
    if backend == "cpp":
        pytest.importorskip("deal_kernels._C", reason="the extension is not built")
    name, options = CASES[case]
    for shape in shapes():
        x, states, parameters = leaves(name, 20, shape, torch.float64, "cpu")
        broadcast = {key: wide(p) for key, p in parameters.items()}
        result, last = ours(name)(x, *states, **parameters, **options, return_state=True, backend=backend)
        expected, expected_last = oracle.run(name, x, *states, parameters=broadcast, **options)
        assert torch.equal(result, expected)
        everything = [x, *states, *parameters.values()]
        g = draws(*(each.shape for each in (result, *last)), seed=1)
        grads = torch.autograd.grad([result, *last], everything, g)
        for grad, other in zip(grads, gradients([expected, *expected_last], everything, g), strict=True):
            assert close(grad, other, 1e-9)


@pytest.mark.parametrize("kind", SURROGATES)
@pytest.mark.parametrize("name", MODELS)
def test_surrogates(backend, device, name, kind):
    options = {key: value for key, value in SURROGATES[kind].items() if key != "scale"}
    x, states, parameters = leaves(name, 7, (), torch.float32, device)
    everything = [x, *states]
    for learnt in (False, True):
        chosen = parameters if learnt else {key: p.item() for key, p in parameters.items()}
        result, _ = ours(name)(x, *states, **chosen, **options, return_state=True, backend=backend)
        expected, _ = oracle.run(name, x, *states, parameters=parameters, **options)
        assert same(result, expected, name, backend)
        g = draws(result.shape, dtype=torch.float32, device=device, seed=1)
        grads = torch.autograd.grad(result, everything, g)
        for grad, other in zip(grads, torch.autograd.grad(expected, everything, g), strict=True):
            assert close(grad, other, 3e-6)


@pytest.mark.parametrize("name", MODELS)
def test_numbers_are_parameters_of_one_value(backend, device, name):
    x, states, parameters = leaves(name, 5, (), torch.float32, device)
    numbers = {key: p.item() for key, p in parameters.items()}
    for power_of_two in (False, True):
        if power_of_two and "tau" in numbers:
            numbers["tau"] = 2.0
            parameters = {**parameters, "tau": torch.tensor(2.0, device=device)}
        with torch.no_grad():
            found = ours(name)(x, *states, **numbers, return_state=True, backend=backend)
            expected = ours(name)(x, *states, **parameters, return_state=True, backend=backend)
        assert torch.equal(found[0], expected[0])
        assert all(torch.equal(*pair) for pair in zip(found[1], expected[1], strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_a_surrogate_of_the_caller(backend, device, name):
    """A function of u; everything else is that of a built-in surrogate."""
    x, states, parameters = leaves(name, 9, (4,), torch.float32, device)
    everything = [x, *states, *parameters.values()]

    def tanh_slope(u):
        return 0.5 * (1 - torch.tanh(u).square())

    for output in ("spikes", "v"):
        options = {**parameters, "output": output, "return_state": True, "backend": backend}
        mine, last = ours(name)(x, *states, surrogate=tanh_slope, **options)
        built_in, other_last = ours(name)(x, *states, surrogate=Sigmoid(2.0), **options)
        assert torch.equal(mine, built_in)
        g = draws(*(each.shape for each in (mine, *last)), dtype=torch.float32, device=device, seed=1)
        grads = torch.autograd.grad([mine, *last], everything, g)
        others = torch.autograd.grad([built_in, *other_last], everything, g)
        assert all(close(grad, other, 1e-5) for grad, other in zip(grads, others, strict=True))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("steps", "neurons"), [(1, 1), (2, 31), (16, 32), (17, 65), (40, 513), (3, 700)])
def test_sizes(backend, device, name, steps, neurons):
    """Every tail of a vector, a tile and a segment."""
    x, states, parameters = leaves(name, steps, (), torch.float32, device, row=(neurons,))
    result, last = ours(name)(x, *states, **parameters, surrogate="atan", return_state=True, backend=backend)
    expected, expected_last = oracle.run(name, x, *states, parameters=parameters, surrogate="atan")
    for found, other in zip((result, *last), (expected, *expected_last), strict=True):
        assert same(found, other, name, backend)
    g = draws(*(each.shape for each in (result, *last)), dtype=torch.float32, device=device, seed=1)
    grads = torch.autograd.grad([result, *last], [x, *states], g)
    others = torch.autograd.grad([expected, *expected_last], [x, *states], g)
    assert all(close(grad, other, 3e-6) for grad, other in zip(grads, others, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", MODELS)
def test_half(backend, device, name, dtype):
    """Half types are float32 inside: the result is that of float32 input, rounded once."""
    (x,) = draws((5, 4, 48), dtype=dtype, device=device, scale=1.5)
    x, exact = x.requires_grad_(), x.detach().float().requires_grad_()
    for output in ("spikes", "v"):
        results = [
            ours(name)(each, output=output, surrogate="atan", return_state=True, backend=backend) for each in (x, exact)
        ]
        (found, last), (expected, expected_last) = results
        assert found.dtype == (dtype if output == "spikes" else torch.float32)
        assert torch.equal(found.float(), expected)
        assert all(torch.equal(*pair) for pair in zip(last, expected_last, strict=True))
        (g,) = draws(found.shape, dtype=found.dtype, device=device, seed=1)
        (grad,) = torch.autograd.grad(found, x, g)
        (other,) = torch.autograd.grad(expected, exact, g.float())
        assert torch.equal(grad, other.to(dtype)) or (backend == "triton" and close(grad.float(), other, 2**-7))


@pytest.mark.parametrize("name", MODELS)
def test_step_by_step_is_the_sequence(backend, device, name):
    """One step at a time, joined by the states, gradients included."""
    x, states, parameters = leaves(name, 6, (4,), torch.float32, device)
    options = {**parameters, "surrogate": "atan", "return_state": True, "backend": backend}
    whole, last = ours(name)(x, *states, **options)
    parts, carried = [], states
    for current in x.split(1):
        spikes, carried = ours(name)(current, *carried, **options)
        parts.append(spikes)
    assert torch.equal(torch.cat(parts), whole)
    assert all(torch.equal(*pair) for pair in zip(carried, last, strict=True))
    g = draws(*(each.shape for each in (whole, *last)), dtype=torch.float32, device=device, seed=1)
    grads = torch.autograd.grad([torch.cat(parts), *carried], [x, *states], g)
    others = torch.autograd.grad([whole, *last], [x, *states], g)
    assert all(torch.equal(*pair) for pair in zip(grads, others, strict=True))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "arrange",
    [
        lambda x: x[:, :, ::2],
        lambda x: x[::2],
        lambda x: x.transpose(1, 2),
        lambda x: x.transpose(0, 2),
        lambda x: x[:1].expand(5, -1, -1, -1),
        lambda x: x.contiguous().flip(0),
        lambda x: x.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2),
    ],
)
def test_layouts(backend, device, name, arrange):
    (base,) = draws((6, 4, 4, 8), dtype=torch.float32, device=device, scale=1.5)
    x = arrange(base).detach().requires_grad_()
    parameters = drawn(name, (x.shape[2],), device=device)
    options = {**parameters, "surrogate": "atan", "return_state": True, "backend": backend}
    result, last = ours(name)(x, **options)
    copy = x.detach().contiguous().requires_grad_()
    expected, expected_last = ours(name)(copy, **options)
    assert all(torch.equal(*pair) for pair in zip((result, *last), (expected, *expected_last), strict=True))
    g = torch.randn(*result.shape[::-1], device=device).permute(*range(result.dim())[::-1])  # not like the spikes
    (grad,) = torch.autograd.grad(result, x, g)
    assert torch.equal(grad, torch.autograd.grad(expected, copy, g)[0])


@pytest.mark.parametrize("shape", [(4, 0), (3, 2, 0, 5)])
@pytest.mark.parametrize("name", MODELS)
def test_no_elements(backend, device, name, shape):
    x = torch.zeros(shape, device=device, requires_grad=True)
    result, last = ours(name)(x, return_state=True, backend=backend)
    assert result.shape == x.shape and all(state.shape == x.shape[1:] for state in last)
    result.sum().backward()
    assert x.grad.shape == x.shape


@pytest.mark.parametrize("name", MODELS)
def test_kept_for_backward_is_the_input_alone(backend, device, name):
    x = torch.randn(4, 1000, device=device, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        result = ours(name)(x, backend=backend)
    assert [t.data_ptr() for t in kept] == [x.data_ptr()] and result.requires_grad


@pytest.mark.parametrize("name", EXACT)
def test_nan_and_infinity(backend, device, name):
    """Special values reach the output that they reach in plain torch."""
    special = torch.tensor([float("nan"), float("inf"), -float("inf"), 3e38, -3e38, 1e-42, 0.0])
    x = torch.stack([special, special.roll(1), special.roll(2)]).to(device)
    for options in ({"v_reset": None}, {"reset": "none"}):
        result, last = ours(name)(x, **options, return_state=True, backend=backend)
        expected, expected_last = ours(name)(x, **options, return_state=True, backend="torch")
        for found, other in zip((result, *last), (expected, *expected_last), strict=True):
            assert torch.equal(found.nan_to_num(12345.0), other.nan_to_num(12345.0))
