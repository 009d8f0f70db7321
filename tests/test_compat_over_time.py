"""`over_time` against the loop that it replaces, on networks of torch alone."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional

from deal_kernels.compat import over_time
from deal_kernels.lif import LIF
from deal_kernels.surrogate import ATan
from deal_kernels.tdbn import TDBatchNorm2d

T, B = 6, 3
spike = ATan().spike


class Neuron(nn.Module):
    """Takes its state and returns it."""

    def __init__(self):
        super().__init__()
        self.decay = nn.Parameter(torch.tensor(0.8))

    def forward(self, x, mem=None):
        mem = x if mem is None else self.decay * mem + x
        spikes = spike(mem - 0.5)
        return spikes, mem - 0.5 * spikes


class Keeping(Neuron):
    """Keeps its state."""

    def __init__(self):
        super().__init__()
        self.mem = None

    def forward(self, x):
        spikes, self.mem = super().forward(x, self.mem)
        return spikes


class Given(nn.Module):
    """The caller keeps the states."""

    def __init__(self):
        super().__init__()
        self.first, self.a, self.second, self.b = nn.Linear(5, 8), Neuron(), nn.Linear(8, 4), Neuron()

    def forward(self, x, mem_a, mem_b):
        spikes, mem_a = self.a(self.first(x), mem_a)
        spikes, mem_b = self.b(self.second(spikes), mem=mem_b)
        return spikes, mem_a, mem_b


class InAttributes(Given):
    """The network keeps the states, and returns one of them."""

    def __init__(self, start=None):
        super().__init__()
        self.mem_a, self.mem_b = start, None

    def forward(self, x):
        spikes, self.mem_a = self.a(self.first(x), self.mem_a)
        spikes, self.mem_b = self.b(self.second(spikes), self.mem_b)
        return {"spikes": spikes, "membranes": [self.mem_b]}


class Images(nn.Module):
    """A residual network with all that a step may have around its neurons."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.a = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), Keeping()
        self.again, self.group, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.GroupNorm(2, 4), Keeping()
        self.pool, self.head = nn.Sequential(nn.MaxPool2d(2), nn.ReLU(inplace=True), nn.Flatten()), nn.Linear(36, 3)
        self.weight = nn.Parameter(torch.rand(4, 1, 1))

    def forward(self, x):
        y = self.a(self.norm(self.conv(x))) * self.weight
        z = self.b(self.group(self.again(y))) + y
        z += y.mean(dim=(2, 3), keepdim=True)
        z = torch.cat([z, y], dim=1)[:, :4].transpose(2, 3)
        z = torch.sigmoid(z) if self.training else z
        rows = self.pool(z).view(x.size(0), -1)
        return self.head(rows) - functional.softmax(rows, dim=-1).amax(1, keepdim=True)


def loop(network, inputs, states=()):
    """What the loop gives: the results of all steps, stacked, and the states after the last one."""
    results = []
    for x in inputs:
        found = network(x, *states)
        if states:
            found, *states = found
        results.append(found)
    tree = torch.utils._pytree
    return tree.tree_map(lambda *each: torch.stack(each), results[0], *results[1:]), states


def same(ours, theirs):
    ours, theirs = torch.utils._pytree.tree_leaves(ours), torch.utils._pytree.tree_leaves(theirs)
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.equal(mine, other)


def gradients(result, x, network):
    total = sum((each * torch.arange(each.numel()).view(each.shape).sin()).sum() for each in result)
    return torch.autograd.grad(total, [x, *network.parameters()], allow_unused=True)


def copies(network, **options):
    """A network, and one over time with the same parameters."""
    torch.manual_seed(0)
    network = network()
    return network, over_time(copy.deepcopy(network), neurons=[Neuron, Keeping], **options)


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("training", [True, False])
def test_exact_gives_the_bits_of_the_loop_in_every_call(held, training):
    network, fast = copies(Images, exact=True)
    network.train(training), fast.train(training)
    for _ in range(2):
        x = torch.randn(B, 2, 6, 6) if held else torch.randn(T, B, 2, 6, 6)
        x.requires_grad_()
        expected, _ = loop(network, [x] * T if held else x)
        found = fast(x, steps=T) if held else fast(x)
        same(found, expected)
        for mine, other in zip(
            gradients([found], x, fast), gradients([expected], x, network), strict=True
        ):  # fmt: skip
            torch.testing.assert_close(mine, other, rtol=2e-5, atol=2e-5)
        for module in [*network.modules(), *fast.modules()]:
            if isinstance(module, Keeping):
                module.mem = module.mem.detach()
    same(list(fast.module.buffers()), list(network.buffers()))


def test_all_steps_at_once_differ_by_rounding_only():
    network, fast = copies(Images)
    x = torch.randn(T, B, 2, 6, 6)
    torch.testing.assert_close(fast(x), loop(network, x)[0])
    same([fast.module.norm.running_mean, fast.module.norm.num_batches_tracked], [
        network.norm.running_mean, network.norm.num_batches_tracked,
    ])  # fmt: skip


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("start", [None, 0.3])
def test_states_that_the_caller_keeps_come_back_after_the_last_step(exact, start):
    network, fast = copies(Given, exact=exact)
    x = torch.randn(T, B, 5)
    states = [None, None] if start is None else [torch.full((B, 8), start), torch.full((B, 4), start)]
    expected, last = loop(network, x, states)
    found, *mine = fast(x, *states)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(mine, list(last))
    assert [each.shape for each in mine] == [(B, 8), (B, 4)]


@pytest.mark.parametrize("start", [None, torch.zeros(B, 8)])
def test_states_in_attributes_go_on_in_the_next_call(start):
    network, fast = copies(lambda: InAttributes(start), exact=True)
    for _ in range(2):
        x = torch.randn(T, B, 5)
        expected, _ = loop(network, x)
        same(fast(x), expected)
        same(fast.module.mem_a, network.mem_a)
    assert fast(x)["membranes"][0].shape == (T, B, 4)


def test_tracing_leaves_the_network_as_it_was():
    network = InAttributes()
    before = {name: dict(vars(module)) for name, module in network.named_modules()}
    over_time(network, neurons=[Neuron])
    assert {name: dict(vars(module)) for name, module in network.named_modules()} == before


def test_a_layer_with_a_hook_is_called_step_by_step():
    network = nn.Sequential(nn.Linear(5, 4), Keeping())
    seen = []
    network[0].register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    fast = over_time(network, neurons=[Keeping])
    fast(torch.randn(T, B, 5))
    fast(torch.randn(B, 5), steps=2)
    assert seen == [(B, 4)] * (T + 2)


def test_dropout_draws_a_mask_for_every_step():
    fast = over_time(nn.Sequential(nn.Dropout(0.5)))
    for result in (fast(torch.ones(T, 1, 1000)), fast(torch.ones(1, 1000), steps=T)):
        assert len({tuple(step.flatten().tolist()) for step in result}) == T
    fast.eval()
    assert torch.equal(fast(torch.ones(T, 1, 3)), torch.ones(T, 1, 3))


def test_layers_of_this_package_take_all_steps():
    norm, neuron = TDBatchNorm2d(4, alpha=1.0), LIF(tau=2.0, stateful=True)
    fast = over_time(nn.Sequential(nn.Conv2d(2, 4, 3), norm, neuron, nn.Flatten()))
    x = torch.randn(T, B, 2, 6, 6)
    found = fast(x)
    current = torch.stack([fast.module[0](step) for step in x])
    torch.testing.assert_close(found, LIF(tau=2.0)(norm(current)).flatten(2))
    held = over_time(nn.Sequential(LIF(tau=2.0)))(x[0], steps=T)
    assert torch.equal(held, LIF(tau=2.0)(x[:1].expand(T, -1, -1, -1, -1)))


def test_a_branch_for_training_is_followed_in_each_mode():
    _, fast = copies(Images)
    assert not torch.equal(fast(torch.ones(2, B, 2, 6, 6)), fast.eval()(torch.ones(2, B, 2, 6, 6)))


def test_it_can_be_copied_and_pickled():
    _, fast = copies(Given)
    x = torch.randn(T, B, 5)
    for other in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        same(other(x, None, None), fast(x, None, None))


def test_inputs_have_one_number_of_steps():
    class Two(nn.Module):
        def forward(self, x, y):
            return x + y

    fast = over_time(Two())
    with pytest.raises(ValueError, match=r"y must be \[T, ...\], with one T .*got the shape \(3, 2\)"):
        fast(torch.ones(2, 2), torch.ones(3, 2))
    with pytest.raises(TypeError, match="misses the argument y"):
        fast(torch.ones(2, 2))
    with pytest.raises(ValueError, match="steps must be an integer of at least 1; got 0"):
        fast(torch.ones(2, 2), torch.ones(2, 2), steps=0)


class Loop(Given):
    def forward(self, x):
        mem = None
        for _ in range(4):
            spikes, mem = self.a(self.first(x), mem)
        return spikes


class LoopOverX(Given):
    def forward(self, x):
        return [self.first(step) for step in x]


class Branch(Given):
    def forward(self, x):
        return self.first(x) if x.sum() > 0 else x


class Recurrent(Given):
    def forward(self, x, mem, before):
        spikes, mem = self.a(self.first(x) + before, mem)
        return spikes, mem, spikes


class RecurrentAttribute(Given):
    before = 0.0

    def forward(self, x):
        self.before = self.first(x + self.before)
        return self.before


class StateElsewhere(Given):
    def forward(self, x, mem):
        return self.a(self.first(x) + mem, mem)


class Forgetting(Given):
    def forward(self, x):
        return self.a(self.first(x), torch.zeros(B, 8))[0]


class NotReturned(Given):
    def forward(self, x, mem):
        return self.a(self.first(x), mem)[0]


class Counting(Given):
    count = 0

    def forward(self, x):
        self.count += 1
        return self.first(x)


class Noise(Given):
    def forward(self, x):
        return self.first(x + torch.randn(5))


class NoiseOfShape(Given):
    def forward(self, x):
        return self.first(x + torch.randn_like(x))


class ChangesItsInput(Given):
    def forward(self, x):
        return self.first(x.mul_(2))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Loop, "calls the neuron a more than once; it must compute one step, without the loop over time"),
        (LoopOverX, "cannot follow the forward of LoopOverX: .*It needs the forward of one step, without a loop"),
        (Branch, "cannot follow the forward of Branch: .*without branches that depend on values"),
        (RecurrentAttribute, "keeps self.before for the next step, and it is no state of a neuron"),
        (StateElsewhere, "uses its argument mem elsewhere than as the state of the neuron a"),
        (Forgetting, "a state of the neuron a starts anew in every step"),
        (NotReturned, "a state of the neuron a starts anew in every step, or is not returned"),
        (Counting, "forward sets self.count, which is no state of a neuron"),
        (Noise, "forward draws random numbers, which every step has its own of"),
        (NoiseOfShape, "does not run torch.randn_like: its result may differ from step to step"),
        (ChangesItsInput, "does not run torch.mul_ on x: it would change it at every step"),
        (lambda: nn.Sequential(nn.LSTM(5, 5)), "does not run 0, a LSTM: it is not known to compute every sample"),
        (lambda: nn.Sequential(LIF(reduce="mean")), "does not run 0, a LIF: it returns no plain spikes over time"),
    ],
)
def test_refuses(network, message):
    with pytest.raises(ValueError, match=message):
        over_time(network(), neurons=[Neuron, Keeping])


def test_a_spike_of_the_step_before_is_an_input_like_x():
    """An argument that is no neuron's state is taken as [T, ...]: the caller cannot give the network its own result."""
    fast = over_time(Recurrent(), neurons=[Neuron])
    with pytest.raises(ValueError, match="before must be"):
        fast(torch.randn(T, B, 5), None, torch.zeros(B, 8))
