"""The generator as a policy: a distribution over degradations for each clean image, which plays against the network.

At every stage the policy chooses one operation, and a strength if the operation has one. Its choices start as random
ones: each image has an activity a, uniform from 0 to 1; a stage leaves the image as it is with the probability 1 - a,
and otherwise does one of its operations, all with the same probability; the strength is uniform from 0 to 1. The number
of degradations in an image is then uniform, too. The policy adds to the logarithms of these probabilities, and moves
the distribution of the strengths. Its divergence from the random choices has a price in training: an adversary without
a price would stay with the few degradations that are hardest at the moment, and the network would forget the others.

>>> policy = Policy("camera")
>>> x = torch.rand(2, 1, 64, 80)
>>> weights, divergence = policy.draw(x, *policy.chances(2, torch.Generator().manual_seed(0)))
>>> weights.shape, divergence.shape  # [B, S, N] and [B]
(torch.Size([2, 9, 17]), torch.Size([2]))
>>> policy(x, weights).shape
torch.Size([2, 1, 64, 80])
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator as Random
from torch import Tensor, nn

from deal.model.generator import Generator
from deal_kernels.degradation.names import known

# Kinds whose mixture with the identity is the same degradation, but weaker.
SCALABLE = {
    "contrast", "saturation", "sharpness", "stripe", "row_stripe", "partial_stripe", "gain", "row_gain", "tone",
    "noise", "glow", "shading",
}  # fmt: skip
EDGE = 1e-4  # distance of chances from 0 and 1


class Policy(Generator):
    """A distribution over degradations of each image. Arguments as of `Generator`."""

    scalable: Tensor
    whole: Tensor

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        nn.init.zeros_(self.trunk[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.trunk[-1].bias)  # type: ignore[arg-type]
        identity = torch.tensor([name == "identity" for name in self.ops])
        kinds = torch.tensor([known(name).kind in SCALABLE for name in self.ops])
        has_identity = (self.allowed & identity).any(1, keepdim=True)
        self.register_buffer("whole", (self.allowed & identity).float(), persistent=False)  # [S, N]
        self.register_buffer("scalable", (self.allowed & kinds & has_identity).float(), persistent=False)  # [S, N]

    def _outputs(self) -> int:
        return self.allowed.numel() + len(self.allowed)

    def chances(self, count: int, random: Random) -> tuple[Tensor, Tensor, Tensor]:
        """Uniform random numbers for `count` images: the activities [B], and those of operations [B, S, N] and of
        strengths [B, S]."""
        shape = count, self.stages, len(self.ops)
        drawn = (torch.rand(each, generator=random) for each in (shape[:1], shape, shape[:2]))
        activity, operations, strengths = (each.clamp(EDGE, 1 - EDGE) for each in drawn)
        return activity, operations, strengths

    def draw(
        self, x: Tensor | None, activity: Tensor, operations: Tensor, strengths: Tensor
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Mixture weights [B, S, N], and the divergence of the policy from random choices [B].

        Args:
            x: clean images [B, C, H, W]; None draws random choices.
            activity, operations, strengths: see `chances`.
        """
        prior = self._prior(activity)
        logits, shift = torch.zeros_like(prior), torch.zeros_like(strengths)
        if x is not None:
            numbers = self.classify(x)
            shift = numbers[:, -self.stages :]
            logits = numbers[:, : -self.stages].view_as(prior)
        log_policy = (prior + logits).masked_fill(~self.allowed, -torch.inf).log_softmax(-1)
        chosen = _one_hot(log_policy, operations)
        strength = torch.sigmoid(shift + torch.logit(strengths))[..., None]
        amounts = chosen * (1 - self.scalable * (1 - strength))
        weights = amounts + (1 - amounts.sum(-1, keepdim=True)) * self.whole
        policy = log_policy.exp()
        apart = (policy * (log_policy - prior).masked_fill(~self.allowed, 0)).sum((1, 2))
        moved = (policy * self.scalable).sum(-1) * _logistic_divergence(shift)
        return weights, apart + moved.sum(1)

    def _prior(self, activity: Tensor) -> Tensor:
        """The log-probabilities of random choices, [B, S, N]."""
        active = activity[:, None, None]
        others = (self.allowed.sum(1, keepdim=True) - self.whole.sum(1, keepdim=True)).clamp_min(1)  # [S, 1]
        has_identity = self.whole.any(1, keepdim=True)
        share = torch.where(has_identity, active, 1.0) / others
        probability = torch.where(self.whole > 0, 1 - active, share)
        return probability.log()


def _one_hot(log_policy: Tensor, chances: Tensor) -> Tensor:
    """One operation of each stage, drawn with the probabilities of the policy, with the gradient of a softmax."""
    gumbel = -(-chances.log()).log()
    soft = (log_policy + gumbel).softmax(-1)
    hard = torch.zeros_like(soft).scatter_(-1, soft.argmax(-1, keepdim=True), 1.0)
    return hard + (soft - soft.detach())


def _logistic_divergence(shift: Tensor) -> Tensor:
    """The divergence of a logistic distribution from one whose mean is lower by `shift`: shift coth(shift / 2) - 2."""
    size = shift.abs()
    near = size.square() / 6
    far = size.clamp_min(0.1) / torch.tanh(size.clamp_min(0.1) / 2) - 2
    return torch.where(size < 0.1, near, far)
