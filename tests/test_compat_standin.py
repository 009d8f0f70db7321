"""The neurons of the stand-ins for SpikingJelly, against loops written from SpikingJelly's formulas."""

import copy
import itertools
import pickle

import pytest
import torch
from torch import nn

from deal_kernels import surrogate
from deal_kernels.compat.spikingjelly.standin import activation_based, cext, clock_driven, neurons

SPIKE = {"Sigmoid": surrogate.Sigmoid().spike, "ATan": surrogate.ATan().spike}
X = torch.randn(6, 2, 3, 7, generator=torch.Generator().manual_seed(0)) * 1.5  # [T, B, C, L]


def sharp(u):
    return SPIKE["ATan"](u)


def charge_if(v, x):
    return v + x


def charge_lif(decay, decay_input, v_reset, shared):
    """`decay` multiplies by 1 / tau. SpikingJelly writes each case as it stands here."""
    if decay_input:
        return lambda v, x: v + decay(x - v) if v_reset in (None, 0) else v + decay(x - (v - v_reset))
    if shared:
        return lambda v, x: v * (1 - decay.share) + x
    return lambda v, x: (v - decay(v - (v_reset or 0))) + x


class Division:
    def __init__(self, tau):
        self.tau, self.share = tau, 1 / tau

    def __call__(self, a):
        return a / self.tau


class Product:
    def __init__(self, share):
        self.share = share

    def __call__(self, a):
        return a * self.share


def loop(x, charge, spike, v_threshold, v_reset, detach_reset, v=None):
    """Spikes and states after every step."""
    v = torch.full_like(x[0], v_reset or 0.0) if v is None else v
    spikes, states = [], []
    for current in x:
        h = charge(v, current)
        s = spike(h - v_threshold)
        r = s.detach() if detach_reset else s
        v = h - r * v_threshold if v_reset is None else (1 - r) * h + r * v_reset
        spikes.append(s)
        states.append(v)
    return torch.stack(spikes), torch.stack(states)


def assert_same(node, charge, spike, settings):
    """Bits of spikes and states, and gradients by the input, over two calls."""
    torch.manual_seed(0)
    x = [X.clone().requires_grad_(), (-X).flip(1).clone().requires_grad_()]
    y = [X.clone().requires_grad_(), (-X).flip(1).clone().requires_grad_()]
    found = [(node(each), node.v_seq) for each in x]
    expected = [loop(y[0], charge, spike, **settings)]
    expected.append(loop(y[1], charge, spike, **settings, v=expected[0][1][-1]))
    total = {"found": 0, "expected": 0}
    for (s, v), (s_expected, v_expected) in zip(found, expected, strict=True):
        assert torch.equal(s, s_expected) and torch.equal(v, v_expected)
        g, gv = torch.randn_like(s), torch.randn_like(v)
        total["found"] = total["found"] + (s * g + v * gv).sum()
        total["expected"] = total["expected"] + (s_expected * g + v_expected * gv).sum()
    assert torch.equal(node.v, expected[1][1][-1])
    found, expected = torch.autograd.grad(total["found"], x), torch.autograd.grad(total["expected"], y)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=2e-6 * b.abs().max().item())


GRID = list(itertools.product((None, 0.0, -0.3), (False, True), ("Sigmoid", "ATan")))


@pytest.mark.parametrize("decay_input", [True, False])
@pytest.mark.parametrize("kind", ["IF", "LIF", "ParametricLIF"])
def test_clock_driven_neurons_over_time(kind, decay_input):
    for v_reset, detach_reset, name in GRID:
        settings = {"v_threshold": 0.7, "v_reset": v_reset, "detach_reset": detach_reset}
        own = {"IF": {}, "LIF": {"tau": 3.0}, "ParametricLIF": {"init_tau": 3.0}}[kind]
        own |= {} if kind == "IF" else {"decay_input": decay_input}
        function = getattr(clock_driven.surrogate, name)()
        node = getattr(clock_driven.neuron, f"MultiStep{kind}Node")(
            **own, **settings, surrogate_function=function, backend="cupy"
        )
        decay = Division(3.0) if kind == "LIF" else Product(node.w.sigmoid()) if own else None
        charge = charge_lif(decay, decay_input, v_reset, v_reset in (None, 0)) if own else charge_if
        assert_same(node, charge, SPIKE[name], settings)


@pytest.mark.parametrize("decay_input", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_activation_based_lif_rounds_a_hard_reset_to_zero_otherwise_in_evaluation(training, decay_input):
    for v_reset, detach_reset, name in GRID:
        settings = {"v_threshold": 0.7, "v_reset": v_reset, "detach_reset": detach_reset}
        function = getattr(activation_based.surrogate, name)()
        node = activation_based.neuron.LIFNode(
            3.0, decay_input, **settings, surrogate_function=function, step_mode="m", store_v_seq=True
        ).train(training)
        shared = v_reset is None or (training and v_reset == 0)
        assert_same(node, charge_lif(Division(3.0), decay_input, v_reset, shared), SPIKE[name], settings)


@pytest.mark.parametrize("decay_input", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_activation_based_parametric_lif_is_the_same_in_evaluation(training, decay_input):
    for v_reset, detach_reset, name in GRID:
        settings = {"v_threshold": 1.0, "v_reset": v_reset, "detach_reset": detach_reset}
        node = activation_based.neuron.ParametricLIFNode(
            3.0, decay_input, **settings, surrogate_function=getattr(activation_based.surrogate, name)(),
            step_mode="m", backend="cupy", store_v_seq=True,
        ).train(training)  # fmt: skip
        charge = charge_lif(Product(node.w.sigmoid()), decay_input, v_reset, v_reset in (None, 0))
        assert_same(node, charge, SPIKE[name], settings)


@pytest.mark.parametrize("v_reset", [None, 0.0, -0.3])
@pytest.mark.parametrize("decay_input", [True, False])
def test_gradient_of_w(decay_input, v_reset):
    x, node = X.double(), clock_driven.neuron.MultiStepParametricLIFNode(3.0, decay_input, v_reset=v_reset).double()
    charge = charge_lif(Product(node.w.sigmoid()), decay_input, v_reset, v_reset in (None, 0))
    pair = [(node(x), node.v_seq), loop(x, charge, SPIKE["Sigmoid"], 1.0, v_reset, False)]
    g, gv = torch.randn_like(x), torch.randn_like(x)
    found, expected = (torch.autograd.grad((s * g + v * gv).sum(), node.w)[0] for s, v in pair)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("detach_input", [True, False])
@pytest.mark.parametrize("name", ["ATan", "Sigmoid"])
def test_cext_neurons(name, detach_input):
    settings = {"v_threshold": 1.0, "v_reset": 0.0, "detach_reset": True}
    spike = getattr(surrogate, name)(2.0).spike
    named = {"surrogate_function": name, "detach_reset": True}
    for node, decay in [
        (cext.neuron.MultiStepIFNode(**named), None),
        (cext.neuron.MultiStepLIFNode(3.0, detach_input, **named), Product(1 / 3.0)),
        (cext.neuron.MultiStepParametricLIFNode(3.0, detach_input, **named), "w"),
    ]:
        decay = Product(node.w.sigmoid()) if decay == "w" else decay
        charge = charge_lif(decay, not detach_input, 0.0, False) if decay else charge_if
        y, (expected, states) = node(X), loop(X, charge, spike, **settings)
        assert torch.equal(y, expected) and torch.equal(node.v, states[-1])
        node.reset()
        assert node.v == 0.0 and isinstance(node.v, float)
    assert node.state_dict()["w"].shape == (1,)


@pytest.mark.parametrize(
    ("several", "one"),
    [
        (clock_driven.neuron.MultiStepLIFNode(tau=3.0), clock_driven.neuron.LIFNode(tau=3.0)),
        (activation_based.neuron.IFNode(step_mode="m"), activation_based.neuron.IFNode()),
        (cext.neuron.MultiStepParametricLIFNode(), cext.neuron.ParametricLIFNode()),
    ],
    ids=["clock_driven", "activation_based", "cext"],
)
def test_one_step_after_the_other_is_all_steps_at_once(several, one):
    several, one = copy.deepcopy(several), copy.deepcopy(one)
    assert torch.equal(several(X), torch.stack([one(x) for x in X])) and torch.equal(several.v, one.v)


def test_another_shape_starts_again():
    node = clock_driven.neuron.MultiStepLIFNode(v_reset=-0.2)
    fresh = copy.deepcopy(node)
    node(X)
    assert torch.equal(node(X[:, :1]), fresh(X[:, :1]))


def test_reset_restores_the_threshold_in_clock_driven_alone():
    old, new = clock_driven.neuron.MultiStepIFNode(), activation_based.neuron.IFNode()
    old.v_threshold = new.v_threshold = 0.3
    assert torch.equal(old(X), clock_driven.neuron.MultiStepIFNode(v_threshold=0.3)(X))
    old.reset(), new.reset()
    assert (old.v_threshold, new.v_threshold) == (1.0, 0.3)
    assert old.v == 0.0 and old.v_seq is None and not hasattr(new, "v_seq")


def test_a_threshold_for_each_neuron_is_aligned_from_the_right():
    x, threshold = X[..., :3], torch.tensor([0.3, 0.6, 0.9])  # [T, B, C, L] with as many places as channels
    for function in (None, sharp):
        node = activation_based.neuron.IFNode(step_mode="m", surrogate_function=function)
        node.v_threshold = threshold
        assert torch.equal(node(x), loop(x, charge_if, sharp, threshold, 0.0, False)[0])


def test_a_state_of_ones_own_is_where_the_steps_start():
    for v in (0.5, torch.full_like(X[0], 0.5)):
        node = activation_based.neuron.IFNode(step_mode="m")
        node.v = v
        start = torch.full_like(X[0], 0.5)
        assert torch.equal(node(X), loop(X, charge_if, SPIKE["Sigmoid"], 1.0, 0.0, False, start)[0])


@pytest.fixture
def calls(monkeypatch):
    """The calls of `lif` by neurons."""
    found = []
    monkeypatch.setattr(
        neurons, "lif", lambda *args, run=neurons.lif, **named: found.append(named) or run(*args, **named)
    )
    return found


def test_v_seq_is_computed_when_it_is_asked_for(calls):
    node = clock_driven.neuron.MultiStepLIFNode()
    node(X)
    assert len(calls) == 1
    states = node.v_seq
    assert len(calls) == 2 and node.v_seq is states and torch.equal(states[-1], node.v)


def test_v_seq_knows_when_its_input_was_changed():
    node, x = clock_driven.neuron.MultiStepLIFNode(), X.clone()
    node(x)
    x.add_(1)
    with pytest.raises(RuntimeError, match="changed in place"):
        _ = node.v_seq


def test_v_seq_of_a_call_without_gradient_has_none():
    node, x = clock_driven.neuron.MultiStepParametricLIFNode(), X.clone().requires_grad_()
    with torch.no_grad():
        node(x)
    assert not node.v_seq.requires_grad
    node.reset()
    node(x)
    node.detach()
    assert not node.v_seq.requires_grad and not node.v.requires_grad
    with torch.inference_mode():
        node(X)
        assert node.v_seq.shape == X.shape


class OfInit(activation_based.neuron.LIFNode):
    """As SpikingResformer has them."""

    def __init__(self):
        super().__init__(
            tau=2.0, decay_input=True, v_threshold=1.0, v_reset=0.0, detach_reset=True, step_mode="m",
            surrogate_function=activation_based.surrogate.ATan(), backend="cupy", store_v_seq=False,
        )  # fmt: skip


def test_a_subclass_with_its_own_init_is_one_call(calls):
    assert torch.equal(
        OfInit()(X), loop(X, charge_lif(Division(2.0), True, 0.0, False), SPIKE["ATan"], 1.0, 0.0, True)[0]
    )
    assert len(calls) == 1


class HalfReset(clock_driven.neuron.MultiStepIFNode):
    def neuronal_reset(self, spike):
        self.v = self.v - spike * 0.5


class HalfInput(activation_based.neuron.BaseNode):
    def neuronal_charge(self, x):
        self.v = self.v + 0.5 * x


class Doubled(activation_based.neuron.IFNode):
    def single_step_forward(self, x):
        return super().single_step_forward(2 * x)


def test_parts_of_a_step_can_be_replaced():
    spike = SPIKE["Sigmoid"]
    v, expected = torch.zeros_like(X[0]), []
    for x in X:
        v = v + x
        expected.append(spike(v - 1))
        v = v - expected[-1] * 0.5
    node = HalfReset()
    assert torch.equal(node(X), torch.stack(expected)) and node.v_seq.shape == X.shape
    half = HalfInput(v_reset=None, step_mode="m", store_v_seq=True)
    s, states = loop(X, lambda v, x: v + 0.5 * x, spike, 1.0, None, False)
    assert torch.equal(half(X), s) and torch.equal(half.v_seq, states)
    assert torch.equal(Doubled(step_mode="m")(X), loop(2 * X, charge_if, spike, 1.0, 0.0, False)[0])


def smooth(u):
    return torch.sigmoid(4 * u)


@pytest.mark.parametrize(
    ("function", "spike"),
    [
        (sharp, sharp),
        (surrogate.ATan(), sharp),
        (activation_based.surrogate.Sigmoid(spiking=False), smooth),
        (activation_based.surrogate.NonzeroSignLogAbs(), lambda u: (u >= 0).to(u)),
    ],
    ids=["function", "of deal_kernels", "smooth", "derivative as a function"],
)
def test_surrogate_functions(function, spike):
    settings = {"v_threshold": 1.0, "v_reset": None, "detach_reset": False}
    node = activation_based.neuron.LIFNode(3.0, False, surrogate_function=function, step_mode="m", **settings)
    expected = loop(X, charge_lif(Division(3.0), False, None, True), spike, **settings)
    assert torch.equal(node(X), expected[0]) and torch.equal(node.v, expected[1][-1])


def test_copies_keep_the_state_and_not_its_gradient():
    net = nn.Sequential(nn.Linear(7, 7), clock_driven.neuron.MultiStepLIFNode())
    net(X)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(other[1].v, net[1].v) and not other[1].v.requires_grad and other[1].v_seq is None
        assert torch.equal(other(X), copy.deepcopy(net)(X))
    assert list(net.state_dict()) == ["0.weight", "0.bias"]
    assert net.double()[1].v.dtype == net[1].v_seq.dtype == torch.float64
    assert net(X.double()).dtype == torch.float64


def test_half_precision_keeps_a_float32_state():
    node = clock_driven.neuron.MultiStepLIFNode()
    assert node(X.half()).dtype == torch.float16 and node.v.dtype == node.v_seq.dtype == torch.float32
    assert node((X * 2).int()).dtype == torch.float32
    step_by_step = clock_driven.neuron.MultiStepLIFNode(surrogate_function=sharp)
    assert step_by_step(X.half()).dtype == torch.float16 and step_by_step.v.dtype == torch.float32


def test_memories():
    node = activation_based.neuron.IFNode(step_mode="m", store_v_seq=True)
    node.register_memory("count", 3)
    node.count += 1
    node(X)
    assert [name for name, _ in node.named_memories()] == ["v", "v_seq", "count"]
    assert list(node.memories())[2] == 4 and torch.equal(list(node.memories())[1], node.v_seq) and "count" in dir(node)
    node.reset()
    assert node.count == 3 and node.v_seq is None
    del node.count
    assert not hasattr(node, "count")
    with pytest.raises(ValueError, match="already has an attribute 'v'"):
        node.register_memory("v", 0.0)


@pytest.mark.parametrize("kind", ["clock_driven", "activation_based"])
def test_compiled_neurons(kind):
    named = {"clock_driven": {}, "activation_based": {"step_mode": "m", "store_v_seq": True}}[kind]
    module = {"clock_driven": clock_driven, "activation_based": activation_based}[kind].neuron
    node = getattr(module, "MultiStepLIFNode" if kind == "clock_driven" else "LIFNode")(**named)
    plain = copy.deepcopy(node)
    torch._dynamo.reset()
    compiled = torch.compile(node, backend="eager", fullgraph=True)
    assert torch.equal(compiled(X), plain(X)) and torch.equal(compiled(X), plain(X))
    assert torch.equal(node.v, plain.v) and torch.equal(node.v_seq, plain.v_seq)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: clock_driven.neuron.MultiStepLIFNode(backend="lava"), "backend must be one of 'torch', 'cupy'"),
        (lambda: clock_driven.neuron.check_backend("jax"), "backend must be one of"),
        (lambda: activation_based.neuron.LIFNode(tau=1.0), "tau must be above 1; got 1.0"),
        (lambda: activation_based.neuron.ParametricLIFNode(init_tau=0.5), "init_tau must be above 1; got 0.5"),
        (lambda: activation_based.neuron.IFNode(step_mode="t"), "step_mode must be one of 's', 'm'; got 't'"),
        (lambda: activation_based.neuron.IFNode("high"), "v_threshold must be a number; got str"),
        (lambda: activation_based.neuron.IFNode(surrogate_function=nn.ReLU), "surrogate_function must be a function"),
        (lambda: activation_based.neuron.BaseNode()(X), "BaseNode has to define neuronal_charge"),
        (lambda: activation_based.base.MemoryModule()(X), "MemoryModule has to define single_step_forward"),
        (lambda: cext.neuron.IFNode(surrogate_function="Erf"), "must be one of 'ATan', 'Sigmoid'; got 'Erf'"),
        (lambda: clock_driven.neuron.MultiStepIFNode()(torch.zeros(3)), "x_seq must be [T, B, ...]"),
    ],
)
def test_errors(make, message):
    with pytest.raises((ValueError, TypeError, NotImplementedError)) as raised:
        make()
    assert message in str(raised.value)


def test_names_without_a_stand_in():
    with pytest.raises(ImportError, match="spikingjelly.clock_driven.neuron.QIFNode: install spikingjelly"):
        from deal_kernels.compat.spikingjelly.standin.clock_driven.neuron import QIFNode  # noqa: F401
    with pytest.raises(ImportError, match="spikingjelly.activation_based.encoding: install spikingjelly"):
        from deal_kernels.compat.spikingjelly.standin.activation_based import encoding  # noqa: F401
    assert not hasattr(activation_based.neuron, "MultiStepLIFNode")
