"""Derivatives beyond backward(): second ones, torch.func, and forward mode. They are right, or refused."""

import ops_registry as registry
import oracle
import pytest
import torch
from test_every_op import on_backends
from torch.autograd import forward_ad

from deal_kernels import surrogate
from deal_kernels.lif import LIF, lif
from deal_kernels.neuron import neuron
from deal_kernels.tdbn import TDBatchNorm2d, tdbn, tdbn_lif

NEURONS = [
    {"surrogate": "atan"},
    {"v_reset": None, "surrogate": "sigmoid", "decay_input": False},
    {"v_reset": -0.2, "surrogate": "erf", "fire": "gt", "scale": 0.5},
    {"reset": "soft", "v_reset": None, "reset_by": 0.7, "surrogate": "fast_sigmoid"},
    {"reset": "none", "surrogate": "exponential"},
    {"reset": "next_hard", "surrogate": "atan"},
    {"reset": "next_soft", "v_reset": None, "surrogate": "atan"},
    {"reset": "twice_soft", "v_reset": None, "surrogate": "triangle"},
    {"detach_reset": True, "surrogate": "atan"},
    {"carry_gradient": False, "surrogate": "atan"},
    {"levels": 4, "v_reset": None},
    {"levels": 3, "v_reset": 0.1},
]


def doubles(*shape, low=None, high=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    if low is None:
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
    return (torch.rand(shape, generator=generator, dtype=torch.float64) * (high - low) + low).requires_grad_()


def inputs_of_neuron():
    """x, v0, tau and threshold."""
    return doubles(4, 2, 3, 5), doubles(2, 3, 5, seed=1), doubles(3, low=1.2, high=3.0), doubles(3, low=0.5, high=1.5)


def by_channel(p):
    return p.reshape(-1, 1)


def ours(x, v0, tau, threshold, backend=None, **settings):
    return lif(x, v0, tau=tau, v_threshold=threshold, return_state=True, backend=backend, **settings)


def loops(x, v0, tau, threshold, **settings):
    return oracle.lif(
        x, v0, tau=by_channel(tau), v_threshold=by_channel(threshold), second_derivatives=True, **settings
    )


def first_and_second(function, leaves):
    """Gradients of the leaves, and those of a function of these and of the gradients that they came from."""
    results = function(*leaves)
    grads = [doubles(*result.shape, seed=7 + k) for k, result in enumerate(results)]
    first = torch.autograd.grad(results, leaves, grads, create_graph=True, allow_unused=True, materialize_grads=True)
    weights = [doubles(*each.shape, seed=20 + k).detach() for k, each in enumerate(first)]
    total = sum((each * weight).sum() for each, weight in zip(first, weights, strict=True))
    second = torch.autograd.grad(total, [*leaves, *grads], allow_unused=True, materialize_grads=True)
    return first, second


def check_second(function, expected, leaves):
    first, second = first_and_second(function, leaves)
    wanted_first, wanted = first_and_second(expected, leaves)
    assert all(oracle.close(*pair) for pair in zip(first, wanted_first, strict=True))
    assert all(oracle.close(*pair) for pair in zip(second, wanted, strict=True))
    assert any(each.abs().max() > 0.1 for each in second)
    return first


@pytest.mark.parametrize("settings", NEURONS, ids=str)
def test_second_derivatives(settings, backend, device):
    if backend == "triton" or device != "cpu":
        pytest.skip("has no float64")
    leaves = inputs_of_neuron()
    found = check_second(lambda *t: ours(*t, backend=backend, **settings), lambda *t: loops(*t, **settings), leaves)
    results = ours(*leaves, backend=backend, **settings)
    alone = torch.autograd.grad(results, leaves, [doubles(*r.shape, seed=7 + k) for k, r in enumerate(results)])
    assert all(torch.equal(*pair) for pair in zip(found, alone, strict=True))  # create_graph changes no bit


@pytest.mark.parametrize("output", [{"output": "v"}, {"output": "h"}, {"reduce": "mean"}, {"steps": 3}], ids=str)
def test_second_derivatives_of_every_output(output):
    x, *others = inputs_of_neuron()
    leaves = (doubles(2, 3, 5) if "steps" in output else x), *others
    check_second(lambda *t: ours(*t, **output), lambda *t: loops(*t, **output), leaves)


def test_second_derivatives_of_a_function_as_surrogate():
    x, slope = doubles(4, 6), surrogate.ATan(3.0)
    found = first_and_second(lambda x: [lif(x, surrogate=lambda u: slope(u))], [x])
    expected = first_and_second(lambda x: [lif(x, surrogate=slope)], [x])
    for one, other in zip((*found[0], *found[1]), (*expected[0], *expected[1]), strict=True):
        assert oracle.close(one, other)


def test_third_derivatives():
    def third(function):
        x = doubles(3, 5)
        (first,) = torch.autograd.grad((function(x) + x).cos().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), x, create_graph=True)
        return torch.autograd.grad(second.square().sum(), x)[0]

    expected = third(lambda x: oracle.lif(x, surrogate="atan", second_derivatives=True)[0])
    assert oracle.close(third(lambda x: lif(x, surrogate="atan")), expected) and expected.abs().max() > 0.1


def normed(x, weight, bias, training):
    """Batch norm of [T, B, C, ...] as torch computes it, with statistics of 0 and 1 in evaluation."""
    mean, variance = torch.zeros(3).double(), torch.ones(3).double()
    y = torch.nn.functional.batch_norm(x.flatten(0, 1), mean, variance, weight, bias, training)
    return y.unflatten(0, x.shape[:2])


@pytest.mark.parametrize("training", [True, False])
def test_second_derivatives_of_the_norm(training):
    leaves = doubles(4, 2, 3, 5, 2), doubles(3, low=0.5, high=1.5), doubles(3, seed=1)
    running = {} if training else {"running_mean": torch.zeros(3), "running_var": torch.ones(3)}
    check_second(
        lambda *t: [tdbn(*t, training=training, **running).square()],
        lambda *t: [normed(*t, training).square()], leaves,
    )  # fmt: skip


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("settings", NEURONS[:2], ids=str)
def test_second_derivatives_of_norm_and_neuron(training, settings):
    x, v0, tau, threshold = inputs_of_neuron()
    leaves = x, doubles(3, low=0.5, high=1.5), doubles(3, seed=1), doubles(4, 2, 3, 5, seed=2), v0, tau, threshold
    running = {} if training else {"running_mean": torch.zeros(3), "running_var": torch.ones(3)}

    def found(x, weight, bias, shortcut, v0, tau, threshold):
        return tdbn_lif(
            x, weight, bias, shortcut=shortcut, v0=v0, tau=tau, v_threshold=threshold, training=training, alpha=None,
            return_state=True, **running, **settings,
        )  # fmt: skip

    def expected(x, weight, bias, shortcut, *others):
        return loops(normed(x, weight, bias, training) + shortcut, *others, **settings)

    check_second(found, expected, leaves)


@pytest.mark.parametrize("settings", NEURONS, ids=str)
def test_torch_func(settings):
    """grad, jvp and the second derivatives they are composed to."""
    leaves = [each.detach() for each in inputs_of_neuron()]
    tangents = [doubles(*each.shape, seed=30 + k).detach() for k, each in enumerate(leaves)]

    def loss(function):
        return lambda *t: sum((result * result.cos()).sum() for result in function(*t, **settings))

    every = tuple(range(4))
    found = torch.func.grad(loss(ours), every)(*leaves)
    given = [each.clone().requires_grad_() for each in leaves]
    expected = torch.autograd.grad(loss(loops)(*given), given, allow_unused=True, materialize_grads=True)
    assert all(oracle.close(*pair) for pair in zip(found, expected, strict=True))

    value, along = torch.func.jvp(loss(ours), tuple(leaves), tuple(tangents))
    assert torch.equal(value, loss(ours)(*leaves))
    assert oracle.close(along, sum((a * b).sum() for a, b in zip(expected, tangents, strict=True)))

    with forward_ad.dual_level():
        duals = map(forward_ad.make_dual, leaves, tangents)
        assert oracle.close(forward_ad.unpack_dual(loss(ours)(*duals)).tangent, along)


def test_hessian():
    x = doubles(3, 4).detach()

    def total(function):
        return lambda x: function(x).cos().sum() + (x * function(x)).sum()

    found = torch.func.hessian(total(lambda x: lif(x, surrogate="atan")))(x)
    expected = torch.autograd.functional.hessian(
        total(lambda x: oracle.lif(x, surrogate="atan", second_derivatives=True)[0]), x
    )
    assert oracle.close(found, expected) and expected.abs().max() > 0.1


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("options", [{}, {"reduce": "mean"}, {"pack": True}, {"output": "v"}, {"levels": 3}], ids=str)
def test_vmap(axis, options):
    """The same bits as one call after another; also of samples whose currents are infinite."""
    x = torch.randn(3, 4, 2, 9)
    x[1, 2, 0, :2] = torch.tensor([torch.inf, -torch.inf])
    expected = torch.stack([lif(each, **options) for each in x])
    found = torch.func.vmap(lambda x: lif(x, **options), in_dims=axis)(x.movedim(0, axis))
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


def test_vmap_over_parameters_and_gradients_of_samples():
    x, tau = torch.randn(6, 4, 2, 3), torch.rand(6, 3) + 1.5
    found = torch.func.vmap(lambda x, tau: lif(x, tau=tau))(x, tau)
    assert torch.equal(found, torch.stack([lif(one, tau=of_one) for one, of_one in zip(x, tau, strict=True)]))
    layer = LIF(tau=torch.nn.Parameter(torch.tensor(2.0)), surrogate="atan")
    parameters = dict(layer.named_parameters())

    def loss(parameters, x):
        return torch.func.functional_call(layer, parameters, (x,)).mul(torch.arange(3.0)).sum()

    found = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)["tau"]
    expected = [torch.autograd.grad(loss(parameters, each), layer.tau)[0] for each in x]
    torch.testing.assert_close(found, torch.stack(expected))


def test_gradients_of_many_results_at_once():
    """Both ways in which torch maps the backward pass."""
    x = torch.randn(4, 2, 3, requires_grad=True)
    y, grads = lif(x, surrogate="atan"), torch.randn(5, 4, 2, 3)
    expected = torch.stack([torch.autograd.grad(y, x, grad, retain_graph=True)[0] for grad in grads])
    batched = torch.autograd.grad(y, x, grads, is_grads_batched=True, retain_graph=True)[0]
    mapped = torch.func.vmap(lambda grad: torch.autograd.grad(y, x, grad, retain_graph=True)[0])(grads)
    torch.testing.assert_close(batched, expected)
    torch.testing.assert_close(mapped, expected)


@pytest.mark.skipif(
    torch.__version__.startswith("2.9."), reason="its compiler takes no function of our own in torch.func"
)
def test_compiled_transforms():
    """They are compiled, or run as they are where the compiler would lose the tangents."""
    torch._dynamo.reset()
    x = torch.randn(3, 4, 5)

    def loss(x):
        return (lif(x, surrogate="atan") * x).sum()

    for transformed in (
        torch.func.grad(loss), torch.func.vmap(loss), lambda x: torch.func.jvp(loss, (x,), (x.cos(),)),
    ):  # fmt: skip
        torch.testing.assert_close(torch.compile(transformed, backend="aot_eager")(x), transformed(x))
    compiled = torch.compile(loss, backend="aot_eager")
    compiled(x)  # outside of a transform first
    torch.testing.assert_close(torch.func.grad(compiled)(x), torch.func.grad(loss)(x))
    with forward_ad.dual_level():
        one, other = (forward_ad.unpack_dual(each(forward_ad.make_dual(x, x.cos()))) for each in (compiled, loss))
        torch.testing.assert_close(one.tangent, other.tangent)


def test_out_is_refused():
    x, out = torch.randn(3, 4, 5), torch.empty(4, 5)
    with pytest.raises(ValueError, match="out= has no place in torch.func"):
        torch.func.vmap(lambda x: lif(x, out=out))(x)


@pytest.mark.parametrize("training", [True, False])
def test_torch_func_of_norm_and_neuron(training):
    leaves = [doubles(4, 2, 3, 5, 2).detach(), doubles(3, low=0.5, high=1.5).detach(), doubles(3, seed=1).detach()]
    tangents = [doubles(*each.shape, seed=30 + k).detach() for k, each in enumerate(leaves)]
    running = {} if training else {"running_mean": torch.zeros(3), "running_var": torch.ones(3)}

    def loss(x, weight, bias):
        spikes = tdbn_lif(x, weight, bias, training=training, surrogate="atan", **running)
        return (spikes * x).sum() + tdbn(x, weight, bias, training=training, **running).sin().sum()

    given = [each.clone().requires_grad_() for each in leaves]
    expected = torch.autograd.grad(loss(*given), given)
    found = torch.func.grad(loss, (0, 1, 2))(*leaves)
    assert all(oracle.close(*pair) for pair in zip(found, expected, strict=True))
    _, along = torch.func.jvp(loss, tuple(leaves), tuple(tangents))
    assert oracle.close(along, sum((a * b).sum() for a, b in zip(expected, tangents, strict=True)))
    x = torch.randn(3, 4, 2, 3, 5, 2)
    mapped = torch.func.vmap(lambda x: TDBatchNorm2d(3, track_running_stats=False)(x))(x)
    torch.testing.assert_close(mapped, torch.stack([tdbn(each, training=True) for each in x]))


def test_second_derivatives_of_the_spikes_of_a_step():
    """Those of neurons of one's own, also through `neuron`."""
    spike = surrogate.ATan().spike

    @neuron(compiled=False)
    def step(x, v):
        h = v + (x - v) / 2.0
        s = spike(h - 1.0)
        return s, s * 0.0 + (1 - s) * h

    def second(function):
        x = doubles(4, 6)
        (first,) = torch.autograd.grad(function(x).square().sum(), x, create_graph=True)
        return torch.autograd.grad(first.square().sum(), x)[0]

    expected = second(lambda x: oracle.lif(x, surrogate="atan", second_derivatives=True)[0])
    assert oracle.close(second(lambda x: step(x, torch.zeros(6).double())[0]), expected)
    x = torch.randn(3, 4, 6)
    mapped = torch.func.vmap(lambda x: spike(x))(x)
    assert torch.equal(mapped, spike(x))


@on_backends(registry.CALLS)
def test_every_operation_is_mapped_or_refuses(call, backend, device):
    """vmap gives what single calls give; torch.func.grad and jvp give the gradient, or say that they cannot."""
    given = [call.tensors(device, seed=seed) for seed in range(2)]
    together = [torch.stack(pair) for pair in zip(*given, strict=True)]
    try:
        found = torch.func.vmap(lambda *t: call.results(list(t), backend))(*together)
    except RuntimeError as error:
        assert call.name.startswith("mixture") and "Batching rule not implemented" in str(error)
        found = ()
    for each, *expected in zip(found, *(call.results(t, backend) for t in given), strict=bool(found)):
        torch.testing.assert_close(each, torch.stack(expected))
    if not call.leaves:
        return
    tensors, tangents = given

    def loss(*t):
        return sum(result.float().square().sum() for result in call.results(list(t), backend))

    leaves = call.leaf_tensors(tensors)
    expected = torch.autograd.grad(loss(*leaves), [leaves[k] for k in call.leaves])
    try:
        found = torch.func.grad(loss, call.leaves)(*tensors)
        along = torch.func.jvp(loss, tuple(tensors), tuple(tangents))[1]
    except NotImplementedError as error:
        assert "torch.func" in str(error) and not call.second_derivatives
        return
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    if len(call.leaves) == len(tensors):
        wanted = sum((a * b).sum() for a, b in zip(expected, tangents, strict=True))
        torch.testing.assert_close(along, wanted, rtol=1e-3, atol=1e-3)
