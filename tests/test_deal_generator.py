"""The degradation generator: its size, what it mixes, and that the enhancement network's loss teaches it."""

import pytest
import torch
from oracle import close

from deal.io.synthetic import thermal_scene
from deal.model.generator import PRESET_RANGES, PRESETS, RELEASED, SHADINGS, THERMAL, TONES, Generator
from deal.model.network import DEAL
from deal_kernels.degradation import mixture
from deal_kernels.ssim import l1_ssim

STEP = 1e-8  # so small that hardly a pixel gets over a kink of the losses, of a ReLU or of a clamp
OPS = ["identity", "stripe", "contrast_0.5", "average_pool_resize_2"]
FAULTS = [
    "wide_blur", "row_gain", "tone", "dead", "glow", "shading", "partial_stripe", "quantise_8", "clip",
]  # fmt: skip


def scenes(count, side=40, dtype=torch.float32):
    return torch.stack([thermal_scene(side, side + 6, seed=seed) for seed in range(count)]).to(dtype)


def generator(ops=OPS, dtype=torch.float32, **options):
    torch.manual_seed(0)
    return Generator(ops, **options).to(dtype)


def fixed(made, x, seed=0):
    return made.sample(x, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("ops", "count"), [("released", 532_259), (["identity"] * 16, 900_944)])
def test_parameters(ops, count):
    assert sum(parameter.numel() for parameter in Generator(ops, channels=3).parameters()) == count


def test_presets():
    assert Generator().ops == THERMAL and Generator("released").ops == RELEASED
    assert RELEASED == (
        "sharpness_0.7", "saturation_0.7", "contrast_0.5", "posterize_5", "gaussian_blur", "max_pool_resize_4", "stripe"
    )  # fmt: skip
    assert THERMAL[0] == "identity"


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("ops", [*PRESETS, OPS, FAULTS], ids=str)
def test_it_mixes_by_its_weights(ops, channels):
    made = generator(ops, channels=channels).eval()
    x = scenes(2).expand(-1, channels, -1, -1)
    weights, params = made.weights(x), fixed(made, x)
    assert weights.shape == (2, made.stages, len(made.ops))
    assert close(weights.sum(-1), torch.ones(2, made.stages), 1e-6)
    assert not torch.equal(weights[0], weights[1])  # they depend on the image
    if ops == "camera":
        expected = x
        for stage, names in enumerate(made.stage_ops):
            columns = [made.ops.index(name) for name in names]
            values = {name: params[name] for name in names if name in params}
            expected = mixture(expected, weights[:, [stage]][..., columns], names, values)
    else:
        expected = mixture(x, weights, made.ops, params)
    assert torch.equal(made(x, params=params), expected)


def test_stages_with_operations_of_their_own():
    made = generator([["identity", "noise"], ["stripe", "identity"]]).eval()
    x = scenes(2)
    assert made.ops == ("identity", "noise", "stripe") and made.stages == 2
    weights = made.weights(x)
    assert (weights[:, 0, 2] == 0).all() and (weights[:, 1, 1] == 0).all()
    assert close(weights.sum(-1), torch.ones(2, 2), 1e-6)
    assert torch.equal(made.even(2)[1], torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.0, 0.5]]))
    assert Generator(**made.config).stage_ops == made.stage_ops
    with pytest.raises(ValueError, match="ops has the unknown name 'rain'"):
        generator([["identity"], ["rain"]])


def test_some_kinds_alone():
    """They do what they do in the mixture, with their weights, whatever the others do."""
    made, x = generator([["identity", "tone", "noise"], ["stripe", "contrast_0.5"], ["noise"]]), scenes(2)
    params = fixed(made, x)
    weights = torch.zeros(2, 3, len(made.ops))
    chosen = {(0, "tone"): 0.5, (0, "noise"): 0.5, (1, "stripe"): 0.75, (1, "contrast_0.5"): 0.25, (2, "noise"): 1.0}
    for (stage, name), weight in chosen.items():
        weights[:, stage, made.ops.index(name)] = weight
    gain, offset = params["tone"][:, 0, :, None, None, None].unbind(1)
    toned = 0.5 * x + 0.5 * (gain * x + offset)
    expected = 0.75 * toned + 0.25 * mixture(toned, torch.ones(2, 1, 1), ["contrast_0.5"])
    torch.testing.assert_close(made.only(TONES, x, weights, params), expected)
    assert torch.equal(made.only(SHADINGS, x, weights, params), x)


def test_ranges_of_a_preset_can_be_changed():
    assert generator("camera", ranges={"noise": (0.0, 0.5)}).ranges["noise"] == (0.0, 0.5)
    assert generator("camera").ranges["stripe"] == PRESET_RANGES["camera"]["stripe"]
    assert generator("thermal").ranges == {}


def test_given_weights():
    made, x = generator(), scenes(2)
    weights = torch.zeros(2, 5, len(OPS))
    weights[..., 0] = 1
    assert torch.equal(made(x, weights), x)


def test_dropout_makes_the_weights_random():
    made, x = generator(), scenes(1)
    assert not torch.equal(made.weights(x), made.weights(x))
    made.eval()
    assert torch.equal(made.weights(x), made.weights(x))
    assert torch.equal(*(generator(dropout=0.0).weights(x) for _ in range(2)))


def test_drawn_values():
    made, x = generator(ranges={"stripe": (0.0, 0.0)}), scenes(2)
    assert not made.sample(x)["stripe"].any()
    one, same, other = fixed(generator(), x), fixed(generator(), x), fixed(generator(), x, seed=1)
    assert torch.equal(one["stripe"], same["stripe"]) and not torch.equal(one["stripe"], other["stripe"])


def adversarial_loss(made, enhancer, x, params):
    """What the generator descends: the worse the enhanced image and the nearer the degraded one, the better."""
    degraded = made(x, params=params)
    return l1_ssim(degraded, x) - l1_ssim(enhancer(degraded), x)


@pytest.mark.parametrize("ops", ["thermal", OPS], ids=str)
def test_gradient_equals_finite_differences(ops):
    """Through the enhancement network, the losses, five stages of the mixture, and the classifier, in float64."""
    made = generator(ops, torch.float64, stages=5).eval()
    torch.manual_seed(1)
    # The straight-through gradient of spikes is no derivative: a network without them.
    enhancer = DEAL([("scale", 3, 3)], width=3).double().eval()
    x = scenes(2, 24, torch.float64)
    params = fixed(made, x)
    parameters = list(made.parameters())
    gradients = torch.autograd.grad(adversarial_loss(made, enhancer, x, params), parameters)
    assert all(gradient.abs().max() > 0 for gradient in gradients)
    for seed in range(3):
        torch.manual_seed(seed)
        # Along the gradient, too: a random direction hardly meets it in so many dimensions.
        away = [g / g.norm() + (torch.randn_like(g) / g.numel() ** 0.5 if seed else 0) for g in gradients]
        slope = sum((gradient * direction).sum() for gradient, direction in zip(gradients, away, strict=True))
        ends = []
        for step in (STEP, -STEP):
            with torch.no_grad():
                for parameter, direction in zip(parameters, away, strict=True):
                    parameter.add_(direction, alpha=step)
                ends.append(adversarial_loss(made, enhancer, x, params))
                for parameter, direction in zip(parameters, away, strict=True):
                    parameter.sub_(direction, alpha=step)
        measured = (ends[0] - ends[1]) / (2 * STEP)
        assert abs(measured - slope) <= 1e-5 * abs(slope)


def test_its_parameters_change():
    made = generator("thermal")
    enhancer = DEAL([("scale", 3, 3), ("spike", 3, 3)], width=4)
    x = scenes(2)
    before = [parameter.detach().clone() for parameter in made.parameters()]
    step = torch.optim.SGD(made.parameters(), 2e-4, momentum=0.9)
    adversarial_loss(made, enhancer, x, None).backward()
    step.step()
    assert all(not torch.equal(one, other) for one, other in zip(before, made.parameters(), strict=True))


def test_the_loss_is_descended():
    made = generator("thermal").eval()
    torch.manual_seed(1)
    enhancer = DEAL([("scale", 3, 3)], width=3).eval().requires_grad_(False)
    x = scenes(2)
    params = fixed(made, x)
    step = torch.optim.SGD(made.parameters(), 1e-2)
    losses = []
    for _ in range(5):
        loss = adversarial_loss(made, enhancer, x, params)
        step.zero_grad()
        loss.backward()
        step.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True) and losses[0] - losses[-1] > 1e-4


def test_memory_for_time():
    plain, again = (generator(checkpoint=each).eval() for each in (False, True))
    x = scenes(2)
    params = fixed(plain, x)
    for one, other in zip(
        *(torch.autograd.grad(made(x, params=params).square().sum(), made.parameters()) for made in (plain, again)),
        strict=True,
    ):
        assert close(one, other, 1e-5)


def test_posterize_lets_gradients_pass_if_asked():
    for through in (False, True):
        made = generator(["posterize_3"], straight_through=through)
        x = scenes(1).requires_grad_()
        (gradient,) = torch.autograd.grad(made(x).sum(), x, materialize_grads=True)
        assert gradient.any() == through


def test_config_makes_the_same_generator():
    made = generator(channels=3, stages=2, dropout=0.1, ranges={"stripe": (0.1, 0.2)}, straight_through=True)
    other = Generator(**made.config)
    assert other.config == made.config and other.stages == 2 and other.ops == tuple(OPS)
    other.load_state_dict(made.state_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ops": "rain"}, "ops must be one of 'camera', 'thermal', 'released'; got 'rain'"),
        ({"ops": ["rain"]}, "ops has the unknown name 'rain'"),
        ({"channels": 2}, "channels must be one of 1, 3; got 2"),
        ({"stages": 0}, "stages must be .* of at least 1; got 0"),
        ({"ranges": {"stripe": (0.2, 0.1)}}, "stripe must be a range of deviations"),
    ],
    ids=str,
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        Generator(**options)


def test_unknown_range():
    with pytest.raises(TypeError, match="rain"):
        Generator(ranges={"rain": (0, 1)})


def test_images_that_do_not_fit():
    with pytest.raises(ValueError, match=r"x must be \[B, 1, H, W\]; got the shape \(1, 3, 20, 20\)"):
        Generator()(torch.rand(1, 3, 20, 20))
