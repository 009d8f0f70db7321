"""Parallel spiking neurons: every backend against the specification, and the specification against plain formulas."""

import gc
from fractions import Fraction

import pytest
import torch

from deal_kernels.psn import op, psn, reference, sliding_psn
from deal_kernels.psn.reference import Inputs
from deal_kernels.surrogate import KINDS, ATan, of_numbers

HALVES = (torch.float16, torch.bfloat16)
DTYPES = (torch.float32, *HALVES)
STEPS = (1, 2, 7, 33)
SIZES = (1, 63, 1031)


def drawn(*shape, dtype=torch.float32, device="cpu", seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(device, dtype)


def matrix(steps, neurons, band=None, dtype=torch.float32, device="cpu"):
    """A call with a weight for every pair of steps."""
    computed = torch.float64 if dtype == torch.float64 else torch.float32
    weight = drawn(steps, steps, dtype=computed, device=device, seed=1) / steps**0.5
    bias = drawn(steps, dtype=computed, device=device, seed=2)
    return Inputs(drawn(steps, neurons, dtype=dtype, device=device), weight, bias, band, 0)


def sliding(steps, neurons, k, skipped=0, dtype=torch.float32, device="cpu"):
    """A call with the same weights for all steps."""
    computed = torch.float64 if dtype == torch.float64 else torch.float32
    weight = drawn(k, dtype=computed, device=device, seed=1)
    bias = drawn(1, dtype=computed, device=device, seed=2)
    return Inputs(drawn(steps, neurons, dtype=dtype, device=device), weight, bias, k, skipped)


def calls(dtype, device):
    for steps in STEPS:
        for neurons in SIZES:
            yield matrix(steps, neurons, dtype=dtype, device=device)
            yield matrix(steps, neurons, 3, dtype=dtype, device=device)
            yield sliding(steps, neurons, 4, dtype=dtype, device=device)
        yield sliding(steps + 5, 77, 6, 5, dtype=dtype, device=device)
    yield matrix(130, 70, dtype=dtype, device=device)
    yield sliding(700, 65, 11, dtype=dtype, device=device)
    yield sliding(9, 65, 40, dtype=dtype, device=device)


def plain(i, surrogate=None):
    """The same in differentiable torch operations, in the type of x."""
    steps = i.x.shape[0]
    weight = i.weight
    if i.sliding:
        padded = torch.cat([weight.new_zeros(steps), weight])
        rows = [padded[len(padded) - 1 - t :][:steps] for t in range(steps)]
        weight = torch.stack([torch.cat([row, row.new_zeros(steps - len(row))]) for row in rows])
    weight = weight if i.band is None else weight.tril().triu(1 - i.band)
    h = (weight @ i.x.flatten(1) + i.bias[:, None])[i.skipped :].view(i.outputs, *i.x.shape[1:])
    return h if surrogate is None else surrogate.spike(h)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bits_of_the_specification(backend, device, dtype):
    if backend == "torch":
        pytest.skip("it is the specification")
    for i in calls(dtype, device):
        h = op.launch_forward(i, True, backend)
        expected = reference.membranes(i)
        assert torch.equal(h, expected), (i.x.shape, i.band, i.sliding)
        assert torch.equal(op.launch_forward(i, False, backend), (expected >= 0).to(dtype))


def test_float64(backend, device):
    if backend in ("cuda", "triton"):
        pytest.skip("it has no float64")
    for i in calls(torch.float64, device):
        torch.testing.assert_close(op.launch_forward(i, True, backend), plain(i), rtol=1e-12, atol=1e-12)


def test_the_specification_rounds_once():
    a, b, c = drawn(3, 4000, seed=3) * 10.0 ** torch.randint(-18, 18, (3, 4000))
    cancels = slice(0, 2000)
    c[cancels] = -(a * b)[cancels] * (1 + drawn(2000, seed=4) * 1e-7)
    found = reference.fused(a, b, c)
    lower, higher = (torch.nextafter(found, torch.full_like(found, bound)) for bound in (-torch.inf, torch.inf))
    for values in zip(a.tolist(), b.tolist(), c.tolist(), found.tolist(), lower.tolist(), higher.tolist(), strict=True):
        if torch.inf in map(abs, values):
            continue
        a1, b1, c1, result, *neighbours = map(Fraction, values)
        exact = a1 * b1 + c1
        assert all(abs(exact - result) <= abs(exact - other) for other in neighbours)


def gradients(i, surrogate, backend):
    leaves = [tensor.detach().clone().requires_grad_() for tensor in i[:3]]
    spikes = op.psn(i._replace(x=leaves[0], weight=leaves[1], bias=leaves[2]), surrogate, backend)
    return spikes.detach(), torch.autograd.grad(spikes, leaves, drawn(*spikes.shape, seed=5).to(spikes))


def plain_gradients(i, surrogate):
    leaves = [tensor.detach().double().requires_grad_() for tensor in i[:3]]
    spikes = plain(i._replace(x=leaves[0], weight=leaves[1], bias=leaves[2]), surrogate)
    grad = drawn(*spikes.shape, seed=5).to(i.x.dtype).to(spikes)
    return torch.autograd.grad(spikes, leaves, grad)


def sizes_of_terms(i, surrogate):
    """The sums of the sizes of what is added up to the gradients of weight and bias."""
    wide = i._replace(x=i.x.double(), weight=i.weight.double(), bias=i.bias.double())
    grad_h = drawn(i.outputs, i.x.shape[1], seed=5).to(i.x.dtype).to(wide.x) * surrogate(plain(wide))
    return reference.gradients(wide._replace(x=wide.x.abs()), grad_h.abs(), (False, True))[1:]


@pytest.mark.parametrize("dtype", [torch.float64, *DTYPES], ids=str)
def test_gradients(backend, device, dtype):
    if dtype == torch.float64 and backend in ("cuda", "triton"):
        pytest.skip("it has no float64")
    near = 1e-12 if dtype == torch.float64 else 5e-6
    near_x = {torch.float16: 2**-10, torch.bfloat16: 2**-7}.get(dtype, near)
    for i in calls(dtype, device):
        _, (grad_x, *sums) = gradients(i, ATan(), backend)
        expected_x, *expected_sums = plain_gradients(i, ATan())
        assert (grad_x - expected_x).abs().max() <= near_x * expected_x.abs().max()
        for ours, expected, terms in zip(sums, expected_sums, sizes_of_terms(i, ATan()), strict=True):
            assert ours.shape == expected.shape
            assert ((ours - expected).abs() <= near * terms).all(), (i.x.shape, i.band, i.sliding)


@pytest.mark.parametrize("kind", KINDS)
def test_every_surrogate(backend, device, kind):
    surrogate = of_numbers(kind, (0.3, 0.7, 0.1))
    for i in (matrix(8, 321, device=device), sliding(8, 321, 3, device=device)):
        _, found = gradients(i, surrogate, backend)
        for ours, expected in zip(found, plain_gradients(i, surrogate), strict=True):
            assert (ours - expected).abs().max() <= 2e-5 * expected.abs().max()


def test_a_function_as_surrogate(backend, device):
    for i in (matrix(8, 321, device=device), matrix(8, 321, 3, device=device), sliding(9, 321, 4, 3, device=device)):
        (spikes, expected), (other, found) = (
            gradients(i, surrogate, backend) for surrogate in (ATan(), lambda u: ATan()(u))
        )
        assert torch.equal(other, spikes)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * theirs.abs().max().item())


def test_only_wanted_gradients_are_computed(backend, device):
    for i in (matrix(6, 90, device=device), sliding(6, 90, 3, device=device)):
        _, expected = gradients(i, ATan(), backend)
        for wanted in range(3):
            given = [tensor.detach().requires_grad_(k == wanted) for k, tensor in enumerate(i[:3])]
            spikes = op.psn(Inputs(*given, i.band, i.skipped), ATan(), backend)
            (found,) = torch.autograd.grad(spikes, given[wanted], drawn(*spikes.shape, seed=5).to(spikes))
            assert torch.equal(found, expected[wanted])


def test_streaming_equals_all_at_once(backend, device):
    x = drawn(23, 3, 37, device=device)
    for k in (1, 2, 5, 40):
        weight, bias = drawn(k, device=device, seed=1), drawn(device=device, seed=2)
        expected, last = sliding_psn(x, weight, bias, return_state=True, backend=backend)
        assert last.shape == (k - 1, 3, 37)
        for part in (1, 2, 7):
            found, before = [], None
            for some in x.split(part):
                spikes, before = sliding_psn(some, weight, bias, before, return_state=True, backend=backend)
                found.append(spikes)
            assert torch.equal(torch.cat(found), expected) and torch.equal(before, last)


def test_gradients_pass_through_the_state():
    x, weight, bias = (
        drawn(9, 37, dtype=torch.float64),
        drawn(4, dtype=torch.float64, seed=1),
        drawn(1, seed=2).double(),
    )
    leaves = [each.requires_grad_() for each in (x, weight, bias)]
    first, before = sliding_psn(x[:5], weight, bias, return_state=True)
    parts = torch.cat([first, sliding_psn(x[5:], weight, bias, before)])
    grad = drawn(9, 37, dtype=torch.float64, seed=3)
    expected = torch.autograd.grad(sliding_psn(x, weight, bias), leaves, grad)
    torch.testing.assert_close(torch.autograd.grad(parts, leaves, grad), expected)


LAYOUTS = {
    "channels last": lambda x: x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, x.shape[:2]),
    "transposed": lambda x: x.transpose(1, 3).contiguous().transpose(1, 3),
    "every other step": lambda x: torch.stack([x, x + 1], 1).flatten(0, 1)[::2],
    "every other value": lambda x: torch.stack([x, x + 1], -1)[..., 0],
    "time last": lambda x: x.movedim(0, -1).contiguous().movedim(-1, 0),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(backend, device, layout):
    x = drawn(6, 2, 5, 4, 3, device=device)
    moved = LAYOUTS[layout](x)
    assert torch.equal(moved, x)
    for i in (matrix(6, 1, device=device), sliding(6, 1, 3, device=device)):
        (spikes, grads), (expected, others) = (gradients(i._replace(x=each), ATan(), backend) for each in (moved, x))
        assert torch.equal(spikes, expected)
        if layout in ("channels last", "transposed"):
            assert spikes.stride() == moved.stride() == grads[0].stride()
        for ours, theirs in zip(grads, others, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_one_neuron_without_further_axes(backend, device):
    x, weight, bias = drawn(5, device=device), drawn(5, 5, device=device, seed=1), drawn(5, 1, device=device, seed=2)
    assert torch.equal(psn(x, weight, bias, backend=backend), (weight @ x + bias[:, 0] >= 0).float())


@pytest.mark.parametrize("shape", [(4, 0), (4, 2, 0, 3)])
def test_no_neurons(backend, device, shape):
    for given in (drawn(4, 4, device=device), drawn(4, device=device)), (drawn(3, device=device), drawn(device=device)):
        for surrogate in ("atan", torch.ones_like):
            leaves = [each.requires_grad_() for each in (torch.zeros(shape, device=device), *given)]
            spikes = (psn if given[0].dim() == 2 else sliding_psn)(*leaves, surrogate=surrogate, backend=backend)
            assert spikes.shape == shape
            grads = torch.autograd.grad(spikes, leaves, torch.ones_like(spikes))
            assert all(grad.shape == leaf.shape and not grad.any() for grad, leaf in zip(grads, leaves, strict=True))


def test_a_step_does_not_see_what_is_outside_of_its_band(backend, device):
    x = drawn(9, 70, device=device)
    x[5] = torch.nan
    for i in (matrix(9, 70, 3, device=device), sliding(9, 70, 3, device=device)):
        h = op.launch_forward(i._replace(x=x), True, backend)
        assert h.isnan().any(1).tolist() == [t in (5, 6, 7) for t in range(9)]
        assert not op.launch_forward(i._replace(x=x), False, backend).isnan().any()


def test_weights_outside_of_the_band_do_not_count(backend, device):
    i = matrix(7, 90, 3, device=device)
    other = i.weight.clone()
    other[0, 1:] = other[6, :4] = 1000.0
    assert torch.equal(*(op.launch_forward(i._replace(weight=each), True, backend) for each in (i.weight, other)))
    _, (_, grad, _) = gradients(i, ATan(), backend)
    assert not grad.triu(1).any() and not grad.tril(-3).any() and grad.diagonal().all()


@pytest.mark.parametrize("surrogate", [ATan(), torch.ones_like])
def test_kept_for_backward_is_the_input(backend, device, surrogate):
    i = matrix(4, 1000, device=device)
    given = [tensor.requires_grad_() for tensor in i[:3]]
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        spikes = op.psn(i, surrogate, backend)
    assert [t.data_ptr() for t in kept] == [t.data_ptr() for t in given]
    del spikes
    gc.collect()


def test_halves_and_other_parameter_types(backend, device):
    x = drawn(4, 60, device=device)
    weight, bias = drawn(4, 4, device=device, seed=1), drawn(4, device=device, seed=2)
    expected = psn(x, weight, bias, backend=backend)
    assert torch.equal(psn(x, weight.double(), bias.double(), backend=backend), expected)
    assert torch.equal(psn(x, weight.T.contiguous().T, bias[:, None], backend=backend), expected)


X, W, B = torch.zeros(4, 3), torch.zeros(4, 4), torch.zeros(4)


@pytest.mark.parametrize(
    ("function", "arguments", "error", "message"),
    [
        (psn, ([1.0], W, B), TypeError, "x must be a tensor; got list"),
        (psn, (X[:0], W, B), ValueError, r"x must have at least one time step; got the shape \(0, 3\)"),
        (psn, (X.int(), W, B), TypeError, "x must be float32, float16, bfloat16 or float64; got torch.int32"),
        (psn, (X, W[:3], B), ValueError, r"weight must have the shape \[4, 4\]; got \[3, 4\]"),
        (psn, (X, W.int(), B), TypeError, "weight must be a dense floating-point tensor; got torch.int32"),
        (psn, (X, W, B[:3]), ValueError, r"bias must have the shape \[4\] or \[4, 1\]; got \[3\]"),
        (psn, (X, W, 1.0), TypeError, "bias must be a tensor; got float"),
        (psn, (X, W.to("meta"), B), ValueError, "weight must be on the device of x, cpu; got meta"),
        (sliding_psn, (X, W, B), ValueError, r"weight must have the shape \[k\], k at least 1; got \(4, 4\)"),
        (sliding_psn, (X, B[:0], B[0]), ValueError, r"k at least 1; got \(0,\)"),
        (sliding_psn, (X, B, B), ValueError, r"bias must have the shape \[\] or \[1\]; got \[4\]"),
        (sliding_psn, (X, B, B[0], X), ValueError, r"before must have the shape \[3, 3\]; got \[4, 3\]"),
    ],
)
def test_errors(function, arguments, error, message):
    with pytest.raises(error, match=message):
        function(*arguments)


@pytest.mark.parametrize("band", [0, 2.0, True])
def test_errors_of_the_options(band):
    with pytest.raises(ValueError, match=f"band must be an integer of at least 1; got {band}"):
        psn(X, W, B, band=band)
    with pytest.raises(ValueError, match="surrogate must be one of 'sigmoid'.*got 'step'"):
        psn(X, W, B, surrogate="step")
    with pytest.raises(RuntimeError, match="backend 'cuda' cannot run"):
        sliding_psn(X, B, B[0], backend="cuda")
