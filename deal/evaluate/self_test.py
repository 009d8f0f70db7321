"""A test of the bundled weights on one frame, which takes a few seconds."""

from __future__ import annotations

import time
from typing import NamedTuple

import torch

from deal.evaluate.camera_protocol import HARD, degrade
from deal.evaluate.demonstration import clean_frame
from deal.evaluate.metrics import affine_psnr
from deal.inference.enhancer import Enhancer
from deal.model.pretrained import is_bundled, load

SEED = 7  # of the degradation
# PSNR of the restored frame after fitting gain and offset, dB, in float32 on a CPU.
RECORDED = {"deal-u": 19.32, "deal-u-small": 18.48}
TOLERANCE = 0.1  # dB; other devices round in another way


class Outcome(NamedTuple):
    """The outcome for one network."""

    passed: bool
    before: float  # PSNR of the degraded frame, dB
    after: float  # and of the restored one
    seconds: float
    reason: str


def self_test(device: str = "auto") -> dict[str, Outcome]:
    """Restores a frame with all degradations of a camera by each bundled network, and compares the PSNR with the
    recorded one."""
    clean = clean_frame()
    degraded = degrade(clean, HARD, torch.Generator().manual_seed(SEED))
    before = affine_psnr(degraded, clean).item()
    return {name: _tested(name, recorded, device, degraded, clean, before) for name, recorded in RECORDED.items()}


def _tested(
    name: str, recorded: float, device: str, degraded: torch.Tensor, clean: torch.Tensor, before: float
) -> Outcome:  # fmt: skip
    if not is_bundled(name):
        return Outcome(False, before, before, 0.0, f"{name} is not part of this package")
    start = time.perf_counter()
    restored = Enhancer(load(name), device=device, precision="fp32").enhance_tensor(degraded)
    after, seconds = affine_psnr(restored.clamp(0, 1), clean).item(), time.perf_counter() - start
    passed = abs(after - recorded) <= TOLERANCE
    reason = f"{before:.2f} dB -> {after:.2f} dB in {seconds:.1f} s"
    return Outcome(passed, before, after, seconds, reason if passed else f"{reason}; it should be {recorded:.2f} dB")
