"""The norm alone and in front of the neuron, against torch's own batch norm, a float64 oracle and each other."""

import itertools

import oracle
import pytest
import torch
from oracle import close

from deal_kernels.compat.spikingjelly import ThresholdDependentBatchNorm2d
from deal_kernels.lif import lif
from deal_kernels.tdbn import TDBNLIF, TDBatchNorm2d, op, tdbn, tdbn_lif

SHAPES = ((4, 2, 3, 5, 7), (3, 5, 70), (6, 5, 4, 9), (1, 1, 2, 33, 65), (2, 3, 130, 2, 3))
LAYOUTS = ("contiguous", "channels last", "batch last", "every second step", "not dense")


def arranged(x, layout):
    """The same values in another layout; the batch axis comes before that of the channels."""
    channels = 1 if x.dim() == 4 else 2
    if layout == "channels last":
        return x.movedim(channels, -1).contiguous().movedim(-1, channels)
    if layout == "batch last":
        return x.movedim(channels - 1, -1).contiguous().movedim(-1, channels - 1)
    if layout == "every second step":
        return torch.stack([x, torch.full_like(x, torch.nan)], 1).flatten(0, 1)[::2]
    if layout == "not dense":
        return torch.stack([x, torch.full_like(x, torch.nan)], -1)[..., 0]
    return x


def case(shape, seed=0, dtype=torch.float32, device="cpu", offset=0.5):
    """x, and a weight and bias for its channels."""
    generator = torch.Generator().manual_seed(seed)
    channels = shape[1 if len(shape) == 4 else 2]
    x = torch.randn(shape, generator=generator, dtype=torch.float64) * 1.5 + offset
    weight = torch.rand(channels, generator=generator, dtype=torch.float64) + 0.5
    bias = torch.randn(channels, generator=generator, dtype=torch.float64)
    state = torch.float64 if dtype == torch.float64 else torch.float32
    return x.to(device, dtype), weight.to(device, state), bias.to(device, state)


def gradients(result, leaves, seed=1):
    generator = torch.Generator().manual_seed(seed)
    results = result if isinstance(result, tuple) else (result,)
    grads = [torch.randn(r.shape, generator=generator, dtype=torch.float64).to(r) for r in results]
    return torch.autograd.grad(results, leaves, grads)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_plain_norm_is_torchs_batch_norm(backend, device, shape, layout):
    axis = 1 if len(shape) == 4 else 2
    ours = TDBatchNorm2d(shape[axis], alpha=None, backend=backend)
    theirs = torch.nn.BatchNorm1d(shape[axis])
    for norm in (ours.to(device), theirs.to(device)):
        with torch.no_grad():
            norm.weight.copy_(torch.linspace(0.5, 1.5, ours.num_features))
            norm.bias.copy_(torch.linspace(-1, 1, ours.num_features))

    def flat(norm, x):
        return norm(x.movedim(axis, -1).flatten(0, -2)).unflatten(0, x.movedim(axis, -1).shape[:-1]).movedim(-1, axis)

    for training in (True, True, False):
        ours.train(training), theirs.train(training)
        x = case(shape, seed=5 + training, device=device)[0].requires_grad_()
        y, expected = ours(arranged(x, layout)), flat(theirs, x)
        assert y.shape == x.shape and y.dtype == x.dtype
        grads = gradients(y, (x, ours.weight, ours.bias))
        expected_grads = gradients(expected, (x, theirs.weight, theirs.bias))
        for one, other in zip((y, *grads), (expected, *expected_grads), strict=True):
            assert close(one, other, 2e-6)
    for (name, one), other in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        assert close(one, other, 1e-6), name


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("tracks", [False, True])
@pytest.mark.parametrize("momentum", [None, 0.3])
def test_options_of_batch_norm(backend, device, affine, tracks, momentum):
    options = {"affine": affine, "track_running_stats": tracks, "momentum": momentum, "eps": 1e-3}
    ours = TDBatchNorm2d(3, alpha=None, backend=backend, **options).to(device)
    theirs = torch.nn.BatchNorm2d(3, **options).to(device)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for training, seed in ((True, 0), (True, 1), (False, 2), (True, 3), (False, 4)):
        ours.train(training), theirs.train(training)
        x = case((6, 3, 5, 4), seed, device=device)[0]
        assert close(ours(x), theirs(x), 1e-6)
    theirs.load_state_dict(ours.state_dict())
    assert close(ours(x), theirs(x), 1e-6)


def test_the_factor(backend, device):
    x, weight, bias = case((4, 2, 3, 5, 7), device=device)
    plain = tdbn(x, weight, bias, training=True, alpha=None, backend=backend)
    scaled = tdbn(x, weight, bias, training=True, alpha=0.7, v_threshold=0.15, backend=backend)
    assert close(scaled - bias.reshape(3, 1, 1), (plain - bias.reshape(3, 1, 1)) * (0.7 * 0.15))
    threshold = torch.tensor([0.5, 1.0, 2.0], device=device, requires_grad=True)
    each = tdbn(x, weight, bias, training=True, v_threshold=threshold, backend=backend)
    assert close(each - bias.reshape(3, 1, 1), (plain - bias.reshape(3, 1, 1)) * threshold.detach().reshape(3, 1, 1))
    (grad,) = torch.autograd.grad(each.square().sum(), threshold)
    assert (grad != 0).all()


def test_parameters_need_not_be_contiguous(backend, device):
    x, weight, bias = case((4, 2, 3, 5, 7), device=device)
    given = [weight, bias, torch.zeros_like(bias), torch.ones_like(bias)]
    strided = [torch.stack([p, torch.full_like(p, torch.nan)], 1)[:, 0] for p in given]
    for run, training in itertools.product((tdbn, tdbn_lif), (True, False)):
        ours = run(x, *strided, training=training, backend=backend)
        assert torch.equal(ours, run(x, *given, training=training, backend=backend))
    assert all(torch.equal(p, q) for p, q in zip(given, strided, strict=True))


def test_initialise_only_puts_the_factor_into_the_weight(backend, device):
    x = case((4, 2, 3, 5, 7), device=device)[0]
    strict = TDBatchNorm2d(3, alpha=0.7071, v_threshold=0.15, backend=backend).to(device)
    initial = TDBatchNorm2d(3, alpha=0.7071, v_threshold=0.15, initialise_only=True, backend=backend).to(device)
    assert torch.allclose(initial.weight, torch.full_like(initial.weight, 0.7071 * 0.15))
    assert torch.equal(strict.weight, torch.ones_like(strict.weight))
    assert close(initial(x), strict(x))
    assert close(initial.folded()[0], strict.folded()[0]) and close(initial.folded()[1], strict.folded()[1])


def test_golden(golden, backend, device):
    recorded = {name: tensor.to(device) for name, tensor in golden("spikingjelly.npz").items() if "tdbn" in name}
    norm = ThresholdDependentBatchNorm2d(0.7071, 0.15, 3, backend=backend).to(device)
    assert close(norm.weight.detach(), recorded["tdbn_w"])
    x = recorded["tdbn_x"].requires_grad_()
    y = norm(x)
    grads = torch.autograd.grad(y, (x, norm.weight, norm.bias), recorded["tdbn_g"])
    for name, ours in zip(("y", "gx", "gw", "gb"), (y, *grads), strict=True):
        assert close(ours, recorded[f"tdbn_{name}"], 1e-5), name
    assert close(norm.running_mean, recorded["tdbn_rm"], 1e-5) and close(norm.running_var, recorded["tdbn_rv"], 1e-5)


@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_statistics_far_from_zero(backend, device, layout):
    generator = torch.Generator().manual_seed(0)
    x = arranged((torch.randn(3, 4, 5, 31, 33, generator=generator) + 1e4).to(device), layout)
    x[0, 0, :, 0, 0] = -3e4  # a broken pixel, the first that is read
    mean, variance = op.launch_moments(x, 2, backend)
    exact = torch.var_mean(x.double(), (0, 1, 3, 4), correction=0)
    assert ((variance - exact[0]) / exact[0]).abs().max() < 1e-4
    assert close(mean, exact[1], 1e-6)


def test_statistics_of_very_many_values(backend, device):
    if device == "cpu" and backend == "triton":
        pytest.skip("too much for the interpreter")
    x = torch.randn(1 << 16, generator=torch.Generator().manual_seed(0)).to(device)
    many = (x + 100).reshape(1, 1, 1, 1 << 16).expand(1 << 10, 1, 1, 1 << 16).contiguous()  # 2^26 of one channel
    mean, variance = op.launch_moments(many, 2, backend)
    exact_variance, exact_mean = torch.var_mean((x + 100).double(), correction=0)
    assert abs(variance.item() / exact_variance.item() - 1) < 1e-4
    assert abs(mean.item() / exact_mean.item() - 1) < 1e-6


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_normalised_bits_agree(backend, device, dtype, layout):
    for shape in SHAPES:
        x, weight, bias = case(shape, dtype=dtype, device=device)
        axis = 1 if len(shape) == 4 else 2
        mean, variance = op.launch_moments(x, axis, "torch")
        ours, theirs = (
            op.launch_normalise(arranged(x, layout), mean, weight, bias, axis, b) for b in (backend, "torch")
        )
        assert torch.equal(ours, theirs)
        factors = weight, bias, variance
        grad = torch.randn_like(x)
        ours, theirs = (
            op.launch_gradient(grad, arranged(x, layout), mean, factors, axis, b) for b in (backend, "torch")
        )
        assert torch.equal(ours, theirs)
        sums, expected = (op.launch_gradient_sums(grad, arranged(x, layout), mean, axis, b) for b in (backend, "torch"))
        assert close(sums, expected, 1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_normalised_in_float32(backend, device, dtype):
    x, weight, bias = case((4, 2, 3, 5, 7), dtype=dtype, device=device)
    x.requires_grad_()
    y = tdbn(x, weight, bias, training=True, backend=backend)
    wide = x.detach().float().requires_grad_()
    expected = tdbn(wide, weight, bias, training=True, backend="torch")
    assert y.dtype == dtype
    eps = torch.finfo(dtype).eps
    assert close(y.float(), expected, eps)
    assert close(gradients(y, x)[0].float(), gradients(expected, wide)[0], 2 * eps)


NEURONS = (
    {},
    {"tau": 3.0, "v_reset": None, "surrogate": "atan", "v_threshold": 0.7},
    {"tau": 2.0, "decay_input": False, "v_reset": -0.3, "surrogate": "triangle", "detach_reset": True, "fire": "gt"},
    {"beta": 0.25, "levels": 4, "v_reset": None, "detach_reset": True},
    {"tau": None, "reset": "none", "surrogate": "rectangle"},
)
OUTPUTS = ({}, {"reduce": "mean"}, {"steps": 5}, {"steps": 5, "reduce": "mean"})


@pytest.mark.parametrize("layout", ["contiguous", "channels last", "every second step"])
@pytest.mark.parametrize("output", OUTPUTS, ids=str)
@pytest.mark.parametrize("neuron", NEURONS, ids=lambda n: ",".join(n) or "default")
def test_fused_is_norm_then_neuron(backend, device, neuron, output, layout):
    threshold = neuron.get("v_threshold", 1.0)
    for shape, shortcut in itertools.product(((20, 2, 3, 5, 7), (4, 3, 66, 3, 5)), (False, True)):
        if "steps" in output:
            shape = shape[1:]
        x, weight, bias = case(shape, device=device)
        add = torch.randn_like(x) if shortcut else None
        leaves = [t.requires_grad_() for t in (x, weight, bias, add) if t is not None]
        given = arranged(x, layout)
        fused = tdbn_lif(given, weight, bias, training=True, shortcut=add, backend=backend, **output, **neuron)
        y = tdbn(given, weight, bias, training=True, v_threshold=threshold, backend=backend)
        y = y + add if shortcut else y
        apart = lif(y, backend=backend, **output, **neuron)
        assert torch.equal(fused, apart)
        for ours, theirs in zip(gradients(fused, leaves), gradients(apart, leaves), strict=True):
            assert close(ours, theirs, 1e-5)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("neuron", NEURONS, ids=lambda n: ",".join(n) or "default")
def test_fused_gradients_in_double(neuron, training):
    """Against autograd through torch's batch norm and a plain loop, for every leaf."""
    for backend in ("cpp", "torch"):
        x, weight, bias = case((5, 2, 3, 4, 3), dtype=torch.float64)
        shortcut, v0 = torch.randn_like(x), torch.randn_like(x[0])
        running = torch.linspace(-1, 1, 3).double(), torch.linspace(0.5, 2, 3).double()
        leaves = [t.requires_grad_() for t in (x, weight, bias, shortcut, v0)]
        ours = tdbn_lif(
            x, weight, bias, *(r.clone() for r in running), training=training, shortcut=shortcut, v0=v0,
            return_state=True, backend=backend, **neuron,
        )  # fmt: skip
        factor = neuron.get("v_threshold", 1.0)
        y = torch.nn.functional.batch_norm(x.flatten(0, 1), *running, weight * factor, bias, training).view_as(x)
        theirs = oracle.lif(y + shortcut, v0, **neuron)
        for one, other in zip((*ours, *gradients(ours, leaves)), (*theirs, *gradients(theirs, leaves)), strict=True):
            assert close(one, other, 1e-10)


def test_input_expanded_over_time(backend, device):
    x, weight, bias = case((1, 2, 3, 5, 7), device=device)
    x, shortcut = x.expand(4, 2, 3, 5, 7), case((4, 2, 3, 5, 7), seed=2, device=device)[0]
    for add in (None, shortcut):
        ours, whole = (tdbn_lif(t, weight, bias, training=True, shortcut=add, backend=backend) for t in (x, x.clone()))
        assert torch.equal(ours, whole)


def test_learnt_threshold_and_decay(backend, device):
    x, weight, bias = case((6, 2, 3, 4, 5), device=device)
    for channels in (1, 3):
        tau = torch.full((channels,), 2.5, device=device).requires_grad_()
        threshold = torch.full((channels,), 0.8, device=device).requires_grad_()
        fused = tdbn_lif(x, weight, bias, training=True, tau=tau, v_threshold=threshold, backend=backend)
        y = tdbn(x, weight, bias, training=True, v_threshold=threshold, backend=backend)
        apart = lif(y, tau=tau, v_threshold=threshold, backend=backend)
        assert torch.equal(fused, apart)
        leaves = (tau, threshold)
        for ours, theirs in zip(gradients(fused, leaves), gradients(apart, leaves), strict=True):
            assert close(ours, theirs, 1e-5)


def test_packed_and_state(backend, device):
    x, weight, bias = case((4, 2, 3, 5, 7), device=device)
    y = tdbn(x, weight, bias, training=True, backend=backend)
    packed, v = tdbn_lif(x, weight, bias, training=True, pack=True, return_state=True, backend=backend)
    expected, expected_v = lif(y, pack=True, return_state=True, backend=backend)
    assert torch.equal(packed, expected) and torch.equal(v, expected_v)


def test_nan_stays_in_its_channel(backend, device):
    x, weight, bias = case((4, 2, 3, 5, 7), device=device)
    x[1, 0, 1, 2, 3] = torch.nan
    clean = x.clone()
    clean[:, :, 1] = 0.0
    for run in (tdbn, tdbn_lif):
        leaf = x.clone().requires_grad_()
        y, expected = (run(t, weight, bias, training=True, backend=backend) for t in (leaf, clean))
        assert torch.equal(y[:, :, ::2], expected[:, :, ::2])
        (grad,) = torch.autograd.grad(y[:, :, ::2].sum(), leaf)
        assert grad[:, :, ::2].isfinite().all()
    assert tdbn(x, weight, bias, training=True, backend=backend)[:, :, 1].isnan().all()


@pytest.mark.parametrize("shape", [(4, 0, 3, 5, 7), (4, 2, 3, 0, 7)])
def test_no_elements(backend, device, shape):
    x = torch.zeros(shape, device=device, requires_grad=True)
    running = torch.zeros(3, device=device), torch.ones(3, device=device)
    for run in (tdbn, tdbn_lif):
        y = run(x, None, None, *running, training=False, backend=backend)
        assert y.shape == x.shape and torch.autograd.grad(y.sum(), x)[0].shape == x.shape
        for nothing in (x, torch.zeros(4, 2, 0, 5, 7, device=device)):
            with pytest.raises(ValueError, match="more than one value per channel"):
                run(nothing, training=True, backend=backend)


def test_kept_for_backward(backend, device):
    layer = TDBNLIF(8, backend=backend).to(device)
    x = torch.randn(4, 2, 8, 30, 30, device=device, requires_grad=True)
    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.update({t.data_ptr(): t}) or t, lambda t: t):
        spikes = layer(x)
    assert spikes.requires_grad
    assert sum(t.numel() * t.element_size() for t in kept.values()) <= 1.05 * x.numel() * 4


def test_frozen_norm_is_affine(backend, device):
    """In evaluation the statistics are constants, to the gradient too."""
    layer = TDBNLIF(3, backend=backend).to(device).eval()
    layer.norm.running_mean.copy_(torch.tensor([0.1, 0.2, 0.3]))
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    x = case((4, 2, 3, 5, 7), device=device)[0].requires_grad_()
    scale, shift = (p.reshape(3, 1, 1) for p in layer.norm.folded())
    apart = lif(x * scale + shift, backend=backend)
    same = layer(x) == apart
    assert same.float().mean() > 0.999  # a membrane at the threshold may round to either side
    (ours,), (theirs,) = gradients(layer(x), (x,)), gradients(apart, (x,))
    assert close(ours, theirs, 1e-4) or not same.all()
    for name, tensor in layer.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_stateful_layer_runs_a_stream(backend, device):
    layer = TDBNLIF(3, v_reset=None, stateful=True, backend=backend).to(device).eval()
    x = case((6, 2, 3, 5, 7), device=device)[0]
    whole = layer(x)
    layer.reset()
    assert torch.equal(torch.cat([layer(x[:2]), layer(x[2:])]), whole)
