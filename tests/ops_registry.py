"""Further calls, and networks, for the tests that are the same for all operations."""

from __future__ import annotations

import functools
import itertools

import torch
from conftest import BACKENDS
from ops_networks import Network
from torch import Tensor, nn

from deal_kernels.check.calls import Call, Draw
from deal_kernels.check.registry import (
    CALLS,
    MIXED,
    NO_CPP,
    NORM,
    convolved,
    mixed_images,
    mixed_steps,
    pair,
    positive,
    run_conv2d,
    run_mixture,
    run_pad2d,
    run_tdbn,
    slid_steps,
    tau,
)
from deal_kernels.conv import Conv2d
from deal_kernels.degradation import Mixture
from deal_kernels.lif import LIF, lif
from deal_kernels.multistate import ALIF, CUBA
from deal_kernels.pad import pad2d
from deal_kernels.psn import PSN, MaskedPSN, SlidingPSN, psn, sliding_psn
from deal_kernels.ssim import L1SSIM, l1_ssim, ssim, ssim_map
from deal_kernels.tdbn import TDBNLIF, SpikingConv, TDBatchNorm2d, tdbn_lif

OUTPUTS = {"spikes": {}, "mean": {"reduce": "mean"}, "packed": {"pack": True}}


def _lif_variant(output: str, steps: int | None, state: bool) -> Call:
    row, options = (2, 3, 5), OUTPUTS[output] | {"steps": steps, "return_state": state, "surrogate": "atan"}
    leaves = () if output == "packed" else (0, 1, 2, 3) if state else (0,)
    return Call(
        f"lif-{output}-{steps}-{state}",
        lambda x, v0, tau, threshold, backend: lif(x, v0, tau=tau, v_threshold=threshold, backend=backend, **options),
        (Draw(row if steps else (4, *row)), Draw(row, parameter=True), tau(3), tau(3)),
        leaves,
        ("lif",),
    )


def _lif_of_samples_variant(output: str) -> Call:
    """[B, T, N, C], whose samples are groups of neurons in memory."""
    options = OUTPUTS[output] | {"return_state": True, "surrogate": "atan", "time_axis": 1, "channel_axis": -1}
    return Call(
        f"lif-samples-{output}",
        lambda x, v0, tau, threshold, backend: lif(x, v0, tau=tau, v_threshold=threshold, backend=backend, **options),
        (Draw((2, 4, 16, 3)), Draw((2, 16, 3), parameter=True), tau(3), tau(3)),
        () if output == "packed" else (0, 1, 2, 3),
        ("lif",),
    )


def _tdbn_lif_variant(output: str, steps: int | None, full: bool) -> Call:
    row, options = (2, 3, 5, 2), OUTPUTS[output] | {"steps": steps, "surrogate": "atan", "training": True}
    x = Draw(row if steps else (4, *row))

    def run(x, weight, bias, shortcut=None, v0=None, tau=2.0, threshold=1.0, *, backend):
        return tdbn_lif(
            x, weight, bias, shortcut=shortcut, v0=v0, tau=tau, v_threshold=threshold, return_state=full,
            backend=backend, **options,
        )  # fmt: skip

    more = (x, Draw(row, parameter=True), tau(3), tau(3)) if full else ()
    inputs = (x, positive(3), positive(3), *more)
    leaves = () if output == "packed" else tuple(range(len(inputs))) if full else (0,)
    return Call(f"tdbn_lif-{output}-{steps}-{full}", run, inputs, leaves, (*NORM[:2], "tdbn_lif"))


def _image_variants():
    """Shapes, types, layouts and choices of gradients that the operations of images tell apart."""
    for (stages, dtype), leaves in itertools.product(
        ((1, torch.float32), (3, torch.bfloat16)), ((), (0, 1), (0,), (1,))
    ):
        yield Call(
            f"mixture-{stages}-{leaves}", run_mixture, mixed_images(2, 3, 9, 11, stages), leaves, ("degradation",),
            dtype=dtype, channels_last=True,
        )  # fmt: skip
    for (padding, dtype), (function, leaves) in itertools.product(
        (("zeros", torch.float32), ("valid", torch.bfloat16)),
        ((ssim_map, (1,)), (l1_ssim, ()), (l1_ssim, (0,)), (l1_ssim, (0, 1))),
    ):
        yield Call(
            f"{function.__name__}-{padding}-{leaves}",
            lambda a, b, backend, f=function, padding=padding: f(a, b, padding=padding, backend=backend),
            pair(2, 3, 13, 17), leaves, (), dtype=dtype, channels_last=function is ssim_map,
        )  # fmt: skip
    for (mode, dtype), last in itertools.product(
        (("reflect", torch.float32), ("replicate", torch.bfloat16), ("zeros", torch.float32)), (False, True)
    ):
        yield Call(
            f"pad2d-{mode}-{last}", functools.partial(run_pad2d, mode=mode), (Draw((2, 8, 6, 5)),), (0,), ("pad2d",),
            backends=NO_CPP, dtype=dtype, channels_last=last,
        )  # fmt: skip
    for dtype, last, (count, leaves) in itertools.product(
        (torch.float32, torch.bfloat16), (False, True), ((2, ()), (4, (0, 1, 2, 3)), (2, (0,)), (3, (1, 2)))
    ):
        yield Call(
            f"conv2d-{dtype}-{last}-{leaves}", run_conv2d, convolved(2, 8, 6, 20, 17)[:count], leaves, ("conv2d",),
            backends=("cpp", "triton"), dtype=dtype, channels_last=last,
        )  # fmt: skip


VARIANTS = (
    *(call for call in CALLS if call.operations == ("multistate",)),
    *(_lif_variant(*case) for case in itertools.product(OUTPUTS, (None, 3), (False, True))),
    *map(_lif_of_samples_variant, OUTPUTS),
    *(
        Call(f"tdbn-{axis}", run_tdbn, (Draw(shape), positive(3), positive(3)), (0, 1, 2), NORM)
        for axis, shape in ((2, (4, 2, 3, 5, 2)), (1, (4, 3, 5, 2)))
    ),
    *(
        Call(
            f"psn-{band}",
            lambda *given, backend, band=band: psn(*given, band=band, backend=backend),
            mixed_steps(4, 2, 3, 5),
            leaves,
            ("psn",),
        )
        for band, leaves in ((None, (0, 1, 2)), (2, (0,)))
    ),
    Call("sliding_psn-variant", sliding_psn, slid_steps(4, 2, 3, 5), (1, 2), ("psn",)),
    *(_tdbn_lif_variant(*case) for case in itertools.product(OUTPUTS, (None, 3), (False, True))),
    *_image_variants(),
)


class Neurons(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(20))
        self.neurons = LIF(tau=nn.Parameter(torch.tensor(2.0)), v_reset=None, surrogate="atan")

    def forward(self, x: Tensor) -> Tensor:
        return self.neurons(torch.relu(x) * self.scale).sum(0)


class TwoLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = CUBA(alpha=nn.Parameter(torch.full((6,), 0.6)), v_reset=None, surrogate="atan")
        self.second = ALIF(adaptation=nn.Parameter(torch.tensor(0.8)), surrogate="atan")

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(torch.relu(x)) * 2.0).sum(0)


class Degraded(nn.Module):
    def __init__(self, checkpoint: bool) -> None:
        super().__init__()
        self.mixture = Mixture(MIXED, checkpoint=checkpoint)

    def forward(self, x: Tensor, weights: Tensor, blur: Tensor, noise: Tensor, glow: Tensor, tone: Tensor) -> Tensor:
        params = {"gaussian_blur": blur, "noise": noise, "glow": glow, "tone": tone}
        return self.mixture(torch.relu(x * 1.5), weights.softmax(-1), params).square()


class Losses(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.loss = L1SSIM()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        a = torch.relu(a * 1.5)
        return self.loss(a, b) + ssim(a, b, padding="valid") + ssim_map(a, b).square().mean()


class Convolutions(nn.Module):
    def __init__(self, backend: str | None) -> None:
        super().__init__()
        self.first = Conv2d(3, 8, 5, padding=2, padding_mode="reflect", activation="relu", backend=backend)
        self.second = Conv2d(8, 8, 7, padding="same", dilation=2, activation="relu", backend=backend)
        self.third = Conv2d(8, 2, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x * 1.5)
        return self.third(self.second(y, y)).square().mean()


class Padded(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return pad2d(torch.relu(pad2d(x * 1.5, 1)), (2, 1, 0, 3), "replicate").square().mean()


def _normed() -> nn.Module:
    return nn.Sequential(
        TDBatchNorm2d(3), TDBNLIF(3, alpha=None, surrogate="atan"), SpikingConv(3, 4, 3, padding=1, reduce="mean")
    )


NETWORKS = (
    Network("lif", Neurons, (Draw((4, 6, 20)),), (0,), ("lif",), exact=True),
    Network(
        "psn", lambda: nn.Sequential(MaskedPSN(2, 4, lambda_init=0.5), SlidingPSN(3), PSN(4)), (Draw((4, 6, 20)),),
        (0,), ("psn",), exact=True,
    ),
    Network("multistate", TwoLayers, (Draw((4, 3, 6, 20)),), (0,), ("multistate",), exact=True),
    *(
        Network(
            f"tdbn, {'training' if training else 'evaluation'}", _normed, (Draw((4, 2, 3, 6, 5)),), (0,),
            ("tdbn_normalise", "tdbn_lif"), training, rtol=1e-4, atol=1e-5,
        )
        for training in (True, False)
    ),
    *(
        Network(
            f"mixture, {'checkpoint' if checkpoint else 'kept'}", lambda checkpoint=checkpoint: Degraded(checkpoint),
            mixed_images(2, 1, 9, 11), (0, 1), ("degradation",),
        )
        for checkpoint in (False, True)
    ),
    Network("pad2d", Padded, (Draw((2, 3, 6, 5)),), (0,), ("pad2d",)),
    Network("ssim", Losses, pair(2, 3, 13, 17), (0, 1), ("ssim_loss", "ssim_map")),
    *(
        Network(
            f"conv2d, {named}", lambda named=named: Convolutions(named), (Draw((2, 3, 30, 28)),), (0,),
            ("conv2d",) if named == "cpp" else (), rtol=1e-4, atol=1e-6,
        )
        for named in ("cpp", "torch", None) if named != "cpp" or "cpp" in BACKENDS
    ),
)  # fmt: skip
