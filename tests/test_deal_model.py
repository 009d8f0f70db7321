"""The enhancement network against recorded outputs of the released one, and against its layers in plain torch."""

import copy

import pytest
import torch
from conftest import DATA
from deal_oracle import Oracle
from oracle import close

from deal.model.blocks import PRESETS, Block
from deal.model.network import DEAL
from deal.model.weight_files import released_name

BLOCKS = [("scale", 5, 3), ("spike", 7, 5, 2), ("scale", 3, 3, 2), ("spike", 5, 5)]
VARIANTS = [{}, {"channels": 3}, {"neuron": "binary"}, {"norm": "tdbn"}, {"neuron": "binary", "norm": "tdbn"}]


def network(blocks=BLOCKS, dtype=torch.float64, **options):
    """A small one whose norms have weights and statistics of their own, some of the weights negative."""
    torch.manual_seed(0)
    made = DEAL(blocks, width=6, **options).to(dtype)
    with torch.no_grad():
        for name, tensor in made.state_dict().items():
            if "norm" in name and "num" not in name:
                tensor.uniform_(0.5, 1.5) if "var" in name else tensor.normal_()
            elif "spike" not in name and name.endswith("conv.weight"):
                tensor.mul_(2)
    return made


def images(made, *shape, dtype=torch.float64):
    return torch.rand(shape[0], made.channels, *shape[1:], dtype=dtype)


def oracle(made, state=None):
    levels = {"integer": 4, "binary": 1}[made.neuron]
    factor = 0.5**0.5 if made.norm == "tdbn" else 1.0
    return Oracle(made.state_dict() if state is None else state, made.plan, made.training, levels, factor)


@pytest.fixture
def released():
    path = DATA / "golden" / "deal_released_epoch839.pt"
    if not path.exists():
        pytest.skip(f"{path} is not there: set DEAL_TEST_DATA to the folder that holds golden/")
    return DEAL.from_released(path)


@pytest.mark.parametrize(("preset", "count"), [("cascade1", 382_307), ("cascade2", 572_323), ("cascade3", 958_947)])
def test_parameters(preset, count):
    made = DEAL(preset, channels=3)
    assert sum(parameter.numel() for parameter in made.parameters()) == count
    assert made.min_size == 11
    one = DEAL(preset)
    assert count - sum(parameter.numel() for parameter in one.parameters()) == 2 * 9 * 32 + 2 * (9 * 32 + 1)


@pytest.mark.parametrize(("preset", "paper"), [("cascade1", 303.4), ("cascade2", 455.6), ("cascade3", 762.4)])
def test_operations_are_those_of_the_paper(preset, paper):
    """It counts 4 for every value that a norm takes as well: four norms of a block, or one over four steps."""
    made = DEAL(preset, channels=3)
    norms = len(made.plan) * 4 * 4 * 32
    assert (made.macs + norms) * 1024 * 768 / 1e9 == pytest.approx(paper, abs=0.06)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_evaluation(options):
    made = network(**options).eval()
    x = images(made, 2, 21, 26)
    before = copy.deepcopy(made.state_dict())
    expected = oracle(made)(x)
    assert close(made(x), expected, 1e-12)
    assert all(torch.equal(tensor, before[name]) for name, tensor in made.state_dict().items())
    fused = copy.deepcopy(made).fuse()
    assert fused.fused and not made.fused and close(fused(x), expected, 1e-12)
    assert close(fused.fuse()(x), expected, 1e-12)


@pytest.mark.parametrize("negative", [True, False])
def test_fused_with_scales_of_either_sign(negative):
    """Positive ones go into the next convolution; others have to stay where the residual is added."""
    made = network().eval()
    with torch.no_grad():
        for block in (made.blocks[0], made.blocks[2]):
            block.second_norm.weight.abs_().add_(0.1)
            block.second_norm.weight[2] *= -1 if negative else 1
    x = images(made, 2, 21, 26)
    expected = made(x)
    fused = made.fuse()
    assert [block.scale is None for block in fused.blocks if hasattr(block, "scale")] == [not negative] * 2
    assert close(fused(x), expected, 1e-12)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_gradients_and_statistics(options, training):
    made = network(**options).train(training)
    state = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    for name, _ in made.named_parameters():
        state[name].requires_grad_()
    x = images(made, 2, 21, 26).requires_grad_()
    y, expected = made(x), oracle(made, state)(x)
    assert close(y, expected, 1e-12)
    grad = torch.randn_like(y)
    names = [name for name, _ in made.named_parameters()]
    ours = torch.autograd.grad(y, (x, *made.parameters()), grad)
    theirs = torch.autograd.grad(expected, (x, *(state[name] for name in names)), grad)
    largest = max(gradient.abs().max() for gradient in theirs)
    for name, one, other in zip(("x", *names), ours, theirs, strict=True):
        # A bias in front of a norm has no gradient: what is left of it is noise beside the others.
        assert (one - other).abs().max() <= 1e-11 * max(other.abs().max(), 1e-3 * largest), name
    for name, tensor in made.named_buffers():
        if "num_batches" in name:
            assert tensor == int(training)
        else:
            assert close(tensor, state[name], 1e-12), name


def recorded_gradients(made, recorded):
    x = recorded["x"].clone().requires_grad_()
    y = made.train()(x)
    y.backward(recorded["g"])
    results = {"train_y": y.detach(), "train_gx": x.grad}
    results |= {f"grad:{name}": parameter.grad for name, parameter in made.named_parameters()}
    return results | {f"buf:{name}": buffer for name, buffer in made.named_buffers()}


def test_released_training(golden, released):
    """In float64, where no rounding moves a charge over the edge of a spike or of a gradient's window."""
    recorded = {name: tensor.double() for name, tensor in golden("deal_released_ne.npz").items()}
    ours = recorded_gradients(released.double(), recorded)
    checked = 0
    for name, expected in recorded.items():
        kind, _, of = name.partition(":")
        found = ours.get(f"{kind}:{released_name(of)}" if of else name)
        if found is not None:
            assert close(found, expected, 1e-4), name
            checked += 1
    assert checked == 2 + 5 + 3


@pytest.mark.parametrize(("x", "y"), [("x", "eval_y"), ("gray", "eval_gray_y")])
@pytest.mark.parametrize("kind", ["evaluation", "fused", "float64"])
def test_released_evaluation(golden, released, kind, x, y):
    """To 1e-5, once the charges that lie on the edge of a spike, as near as rounding goes, fall to the same side.

    The oracle in float64 says which those are; any order of summation decides them its own way. They are tried one by
    one, and what is left has to agree everywhere.
    """
    recorded = golden("deal_released_ne.npz")
    exact = Oracle({name: tensor.double() for name, tensor in released.state_dict().items()}, released.plan)
    made = {"evaluation": released, "fused": copy.deepcopy(released).fuse(), "float64": released.double()}[kind]
    dtype = made.input_conv.weight.dtype
    with torch.no_grad():
        ours = made(recorded[x].to(dtype)).double()
        if kind == "float64":
            assert close(ours, exact(recorded[x].double()), 1e-12)
        for image, expected in ((ours, ours), (recorded[y].double(), recorded[y].double())):
            assert nearest(exact, recorded[x].double(), expected) <= 1e-5
            assert (image - ours).abs().median() <= 1e-6
    if kind != "float64":
        assert (ours - recorded[y]).abs().max() <= 2e-3


def nearest(exact, x, expected):
    """How near the oracle comes, with the ties on the sides that bring it nearest."""
    exact.nudges, exact.ties = {}, []
    best = (exact(x) - expected).abs().max()
    ties = exact.ties
    assert len(ties) < 40
    for tie in ties:
        if best <= 1e-5:
            break
        exact.nudges[tie[:2]] = tie[2]
        error = (exact(x) - expected).abs().max()
        if error < best:
            best = error
        else:
            del exact.nudges[tie[:2]]
    return best


def test_one_channel_equals_three():
    one = network(channels=1).eval()
    three = one.with_channels(3)
    x = images(one, 2, 21, 26)
    y = three(x.expand(-1, 3, -1, -1))
    assert three.channels == 3 and close(y, one(x).expand_as(y), 1e-12)
    assert close(three.with_channels(1)(x), one(x), 1e-12)


def test_one_channel_of_the_released_weights(released):
    three = released.double()
    one = three.with_channels(1)
    assert one.config == {**three.config, "channels": 1} and not one.training
    x = torch.rand(1, 1, 40, 48, dtype=torch.float64)
    y = three(x.expand(-1, 3, -1, -1))
    apart = (y - y.mean(1, keepdim=True)).abs().max()
    assert apart > 1e-4 and (one(x) - y.mean(1, keepdim=True)).abs().max() <= apart**2


def test_same_channels_are_a_copy():
    made = network()
    other = made.with_channels(1)
    assert other.training and all(torch.equal(a, b) for a, b in zip(made.parameters(), other.parameters(), strict=True))
    with torch.no_grad():
        other.input_conv.weight.zero_()
    assert made.input_conv.weight.any()


@pytest.mark.parametrize("preset", [*PRESETS, BLOCKS])
def test_reach(preset):
    """Which pixels have a gradient, in a network of small positive weights that nothing in it cuts off."""
    made = DEAL(preset, width=2).eval().double()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "conv" in name:
                parameter.fill_(0.3 / parameter[0].numel() if parameter.dim() == 4 else 0)
    side = 2 * made.reach + 7
    x = torch.rand(1, 1, made.min_size, side, dtype=torch.float64, requires_grad=True)
    made(x)[..., side // 2].sum().backward()
    seen = x.grad.abs().amax((0, 1, 2)).nonzero().flatten()
    assert (seen.min(), seen.max()) == (side // 2 - made.reach, side // 2 + made.reach)


@pytest.mark.parametrize("size", [(11, 11), (11, 40), (33, 12)])
def test_small_and_odd_sizes(size):
    made = DEAL("cascade2", width=4).double().eval()
    x = images(made, 1, *size)
    assert close(made(x), oracle(made)(x), 1e-12)


def test_batches_and_layouts():
    """Without spikes, which a rounding may move by a whole level."""
    made = network([("scale", 5, 3), ("scale", 3, 3, 2)], torch.float32).eval()
    x = images(made, 3, 24, 31, dtype=torch.float32)
    with torch.no_grad():
        y = made(x)
        assert y.is_contiguous()
        assert close(torch.cat([made(each[None]) for each in x]), y, 1e-5)
        assert made(x[:0]).shape == (0, 1, 24, 31)
        three = made.with_channels(3)
        many = x.expand(-1, 3, -1, -1)
        assert three(many.contiguous()).is_contiguous()
        assert close(three(many.contiguous(memory_format=torch.channels_last)), three(many.contiguous()), 1e-5)


def test_autocast():
    made = network(dtype=torch.float32).eval()
    x = images(made, 1, 24, 31, dtype=torch.float32)
    for training in (False, True):
        made.train(training)
        with torch.autocast("cpu", torch.bfloat16):
            y = made(x)
        y.float().square().sum().backward()
        assert y.isfinite().all() and all(parameter.grad.isfinite().all() for parameter in made.parameters())


def test_compiles_and_exports():
    made = network(BLOCKS[:2], dtype=torch.float32).eval()
    x = images(made, 1, 24, 31, dtype=torch.float32)
    with torch.no_grad():
        expected = made(x)
        assert close(torch.compile(made, fullgraph=True, backend="aot_eager")(x), expected, 1e-5)
        assert close(torch.export.export(made, (x,)).module()(x), expected, 1e-5)


def test_config_makes_the_same_network():
    made = network(channels=3, neuron="binary", norm="tdbn")
    assert DEAL(**made.config).config == made.config
    assert made.plan[:2] == (Block("scale", 5, 3, 1), Block("spike", 7, 5, 2))
    assert DEAL("cascade1").config == DEAL(PRESETS["cascade1"]).config


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": "cascade4"}, "blocks must be one of 'cascade1', 'cascade2', 'cascade3'; got 'cascade4'"),
        ({"blocks": []}, r"blocks must be the name of a preset or a list of at least one block; got \[\]"),
        ({"blocks": [("scale", 7)]}, r"\('scale' or 'spike', kernel, kernel, dilation\); got \('scale', 7\)"),
        ({"blocks": ["scale"]}, "a block must be"),
        ({"blocks": [("scale", 7, 4)]}, r"kernels of a block must be odd; got \('scale', 7, 4, 1\)"),
        ({"blocks": [("scale", 7, 5, 0)]}, "must be whole numbers of at least 1"),
        ({"blocks": [("blur", 7, 5)]}, "the kind of a block must be one of 'scale', 'spike'; got 'blur'"),
        ({"channels": 2}, "channels must be one of 1, 3; got 2"),
        ({"width": 0}, "width must be an integer of at least 1; got 0"),
        ({"neuron": "ternary"}, "neuron must be one of 'integer', 'binary'; got 'ternary'"),
        ({"norm": "layer"}, "norm must be one of 'bn', 'tdbn'; got 'layer'"),
    ],
    ids=str,
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        DEAL(**options)


@pytest.mark.parametrize("shape", [(1, 24, 31), (1, 3, 24, 31), (1, 1, 10, 31)])
def test_images_that_do_not_fit(shape):
    with pytest.raises(ValueError, match=r"x must be \[B, 1, H, W\] of 11 x 11 pixels or more; got the shape"):
        DEAL()(torch.rand(shape))


def test_a_fused_network_keeps_its_channels():
    with pytest.raises(ValueError, match="call with_channels\(\) before fuse"):
        network().eval().fuse().with_channels(3)
