"""The policy of degradations: its random choices, its divergence from them, and what its price does."""

import pytest
import torch
from torch.distributions import AffineTransform, SigmoidTransform, TransformedDistribution, Uniform

from deal.io.synthetic import SyntheticScenes
from deal.model.device import choose_device
from deal.model.generator import CAMERA
from deal.model.policy import Policy, _logistic_divergence
from deal.training.adversarial import AdversarialTraining
from deal.training.distributed import ProcessGroup
from deal.training.settings import Settings


def policy(ops="camera"):
    torch.manual_seed(0)
    return Policy(ops, dropout=0.0)


def chances(made, count, seed=0):
    return made.chances(count, torch.Generator().manual_seed(seed))


def scenes(count):
    source = SyntheticScenes(count, 48, 64)
    return torch.stack([source[k] for k in range(count)])


def excited(made, size):
    """With logits and strengths away from random choices."""
    torch.nn.init.normal_(made.trunk[-1].weight, std=size, generator=torch.Generator().manual_seed(1))
    return made


def test_a_new_policy_makes_random_choices():
    made, x = policy(), scenes(2)
    drawn = chances(made, 2)
    for weights, divergence in (made.draw(x, *drawn), made.draw(None, *drawn)):
        assert divergence.abs().max() < 1e-5
        torch.testing.assert_close(weights, made.draw(None, *drawn)[0])


def test_the_number_of_degradations_is_uniform():
    made = policy()
    weights, _ = made.draw(None, *chances(made, 20_000))
    counts = torch.bincount((weights[:, :, 0] < 1).sum(1), minlength=made.stages + 1) / 20_000
    assert len(counts) == made.stages + 1 and (counts - 1 / len(counts)).abs().max() < 0.01


def test_operations_and_strengths_are_uniform():
    made = policy()
    weights, _ = made.draw(None, *chances(made, 20_000))
    for stage, names in enumerate(CAMERA):
        of_stage = weights[:, stage]
        shares = {name: (of_stage[:, made.ops.index(name)] > 0).float().mean().item() for name in names[1:]}
        assert all(abs(share - 0.5 / len(shares)) < 0.02 for share in shares.values())
        assert (of_stage.sum(-1) - 1).abs().max() < 1e-6 and (of_stage >= 0).all()
        others = [k for k, name in enumerate(made.ops) if name not in names]
        assert (of_stage[:, others] == 0).all()
    stripes = weights[:, 5, made.ops.index("stripe")]
    quantiles = stripes[stripes > 0].quantile(torch.tensor([0.1, 0.5, 0.9]))
    assert (quantiles - torch.tensor([0.1, 0.5, 0.9])).abs().max() < 0.03
    blurs = weights[:, 1, made.ops.index("wide_blur")]
    assert ((blurs == 0) | (blurs == 1)).all()  # half a blur is not a weaker blur


def test_stages_without_identity_always_act():
    made = policy([["noise", "stripe"], ["identity"]])
    weights, divergence = made.draw(None, *chances(made, 400))
    assert (weights[:, 0].sum(-1) == 1).all() and (weights[:, 0].max(-1).values == 1).all()
    assert (weights[:, 1, made.ops.index("identity")] == 1).all()
    assert divergence.isfinite().all()


@pytest.mark.parametrize("shift", [-4.0, -0.3, 0.05, 0.1, 1.0, 3.0])
def test_divergence_of_strengths(shift):
    """Against a mean over samples."""

    def logistic(mean):
        return TransformedDistribution(Uniform(0.0, 1.0), [SigmoidTransform().inv, AffineTransform(mean, 1.0)])

    torch.manual_seed(0)
    samples = logistic(shift).sample((400_000,)).clamp(-14, 14)
    expected = (logistic(shift).log_prob(samples) - logistic(0.0).log_prob(samples)).mean()
    assert abs(_logistic_divergence(torch.tensor(shift)) - expected) < 0.01 * max(1, abs(shift))


def test_divergence_of_operations():
    """Of one stage with three operations, against the sum by hand."""
    made = excited(policy([["identity", "max_pool_resize_2", "dead"]]), 0.05)
    x, drawn = scenes(3), chances(made, 3)
    numbers = made.classify(x)[:, :3]
    active = drawn[0][:, None]
    prior = torch.cat([1 - active, active / 2, active / 2], 1)
    chosen = prior * numbers.exp()
    chosen = chosen / chosen.sum(1, keepdim=True)
    expected = (chosen * (chosen / prior).log()).sum(1)
    torch.testing.assert_close(made.draw(x, *drawn)[1], expected)
    assert (expected > 1e-3).all()


def test_the_gradient_reaches_operations_and_strengths():
    made = excited(policy(), 0.01)
    x = scenes(2)
    weights, _ = made.draw(x, *chances(made, 2))
    made(x, weights, made.sample(x, torch.Generator().manual_seed(0))).square().mean().backward()
    bias = made.trunk[-1].bias.grad
    operations, strengths = bias[: -made.stages].view(made.stages, -1), bias[-made.stages :]
    assert ((operations != 0) <= made.allowed).all() and (operations != 0).any()
    assert (strengths != 0).any()


def game(price, steps=20):
    """The divergence of the policy after a game for the strongest degradations, with a network that stands still."""
    chosen = Settings(
        blocks=[["scale", 5, 3]], width=4, strategy="policy", price=price, learning_rate=0.0,
        generator_rate=0.01, fidelity_weight=0.0, update="simultaneous", dropout=0.0,
        ops=[["identity", "noise"], ["identity", "dead"]],
    )  # fmt: skip
    device = choose_device("auto")
    training, x = AdversarialTraining(chosen, ProcessGroup(device)), scenes(2)[..., :32, :32].contiguous().to(device)
    return [training.step(x, number, True)["divergence"].item() for number in range(steps)][-1]


@pytest.mark.usefixtures("each_device")
def test_the_price_holds_the_policy_back():
    free, dear = game(0.0), game(100.0)
    assert free > 0.1 and dear < 0.1 * free
