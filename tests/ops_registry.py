"""Every operation of deal_kernels, as the tests that are the same for all of them call it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from conftest import BACKENDS
from ops_calls import Call, Draw, Network
from torch import Tensor, nn

from deal_kernels.consensus import consensus
from deal_kernels.conv import Conv2d, conv2d
from deal_kernels.degradation import Mixture, mixture
from deal_kernels.lif import LIF, lif
from deal_kernels.multistate import ALIF, CUBA, alif, clif, cuba, lsnn
from deal_kernels.psn import PSN, MaskedPSN, SlidingPSN, psn, sliding_psn
from deal_kernels.ssim import L1SSIM, l1_ssim, ssim, ssim_map
from deal_kernels.tdbn import TDBNLIF, SpikingConv, TDBatchNorm2d, tdbn, tdbn_lif

NO_TRITON = ("cpp", "cuda", "torch")
SOME = (
    "sharpness_0.7", "contrast_0.5", "posterize_5", "gaussian_blur", "average_pool_resize_2", "noise", "glow", "tone",
    "quantise_6",
)  # fmt: skip


def _tau(channels: int) -> Draw:
    return Draw((channels,), (1.0, 2.0), parameter=True)


def _positive(channels: int) -> Draw:
    return Draw((channels,), (0.5, 1.5), parameter=True)


def _lif(x: Tensor, *, backend: str | None = None) -> Tensor:
    return lif(x, surrogate="atan", backend=backend)


def _learnt_lif(
    x: Tensor, v0: Tensor, tau: Tensor, threshold: Tensor, *, backend: str | None = None
) -> tuple[Tensor, Tensor]:
    return lif(x, v0, tau=tau, v_threshold=threshold, v_reset=None, return_state=True, backend=backend)


def _lif_of_samples(x: Tensor, *, backend: str | None = None) -> Tensor:
    return lif(x, surrogate="atan", time_axis=1, backend=backend)


OUTPUTS = {"spikes": {}, "mean": {"reduce": "mean"}, "packed": {"pack": True}}


def _lif_variant(output: str, steps: int | None, state: bool) -> Call:
    row, options = (2, 3, 5), OUTPUTS[output] | {"steps": steps, "return_state": state, "surrogate": "atan"}
    leaves = () if output == "packed" else (0, 1, 2, 3) if state else (0,)
    return Call(
        f"lif-{output}-{steps}-{state}",
        lambda x, v0, tau, threshold, backend: lif(x, v0, tau=tau, v_threshold=threshold, backend=backend, **options),
        (Draw(row if steps else (4, *row)), Draw(row, parameter=True), _tau(3), _tau(3)),
        leaves,
        ("lif",),
    )


def _lif_of_samples_variant(output: str) -> Call:
    """[B, T, N, C], whose samples are groups of neurons in memory."""
    options = OUTPUTS[output] | {"return_state": True, "surrogate": "atan", "time_axis": 1, "channel_axis": -1}
    return Call(
        f"lif-samples-{output}",
        lambda x, v0, tau, threshold, backend: lif(x, v0, tau=tau, v_threshold=threshold, backend=backend, **options),
        (Draw((2, 4, 16, 3)), Draw((2, 16, 3), parameter=True), _tau(3), _tau(3)),
        () if output == "packed" else (0, 1, 2, 3),
        ("lif",),
    )


def _share(channels: int) -> Draw:
    return Draw((channels,), (0.2, 0.8), parameter=True)


def _multistate(function: Callable[..., Any], *names: str, states: int) -> Call:
    """A call with every state and parameter, of channels; all but the first parameter between 0.2 and 0.8."""

    def run(x: Tensor, *given: Tensor, backend: str | None = None) -> tuple[Tensor, ...]:
        parameters = dict(zip(names, given[states:], strict=True))
        result, last = function(x, *given[:states], **parameters, return_state=True, backend=backend)
        return result, *last

    def draws(*row: int) -> tuple[Draw, ...]:
        parameters = [_tau(3) if name == "tau" else _share(3) for name in names]
        return Draw((4, *row)), *[Draw(row, parameter=True)] * states, *parameters

    inputs = draws(2, 3, 5)
    return Call(
        function.__name__, run, inputs, tuple(range(len(inputs))), ("multistate",), draws(8, 3, 3000),
        any_threads=False,
    )  # fmt: skip


def _tdbn(x: Tensor, weight: Tensor, bias: Tensor, *, backend: str | None = None) -> Tensor:
    return tdbn(x, weight, bias, training=True, backend=backend)


def _tdbn_lif(x: Tensor, weight: Tensor, bias: Tensor, *, backend: str | None = None) -> Tensor:
    return tdbn_lif(x, weight, bias, training=True, surrogate="atan", backend=backend)


def _sliding_psn(
    x: Tensor, weight: Tensor, bias: Tensor, before: Tensor, *, backend: str | None = None
) -> tuple[Tensor, Tensor]:
    return sliding_psn(x, weight, bias, before, return_state=True, backend=backend)


def _mixed_steps(steps: int, *row: int) -> tuple[Draw, ...]:
    return Draw((steps, *row)), Draw((steps, steps), parameter=True), Draw((steps,), parameter=True)


def _slid(steps: int, *row: int) -> tuple[Draw, ...]:
    return Draw((steps, *row)), Draw((3,), parameter=True), Draw((), parameter=True), Draw((2, *row))


NORM = "tdbn_moments", "tdbn_normalise"


def _tdbn_lif_variant(output: str, steps: int | None, full: bool) -> Call:
    row, options = (2, 3, 5, 2), OUTPUTS[output] | {"steps": steps, "surrogate": "atan", "training": True}
    x = Draw(row if steps else (4, *row))

    def run(x, weight, bias, shortcut=None, v0=None, tau=2.0, threshold=1.0, *, backend):
        return tdbn_lif(
            x, weight, bias, shortcut=shortcut, v0=v0, tau=tau, v_threshold=threshold, return_state=full,
            backend=backend, **options,
        )  # fmt: skip

    more = (x, Draw(row, parameter=True), _tau(3), _tau(3)) if full else ()
    inputs = (x, _positive(3), _positive(3), *more)
    leaves = () if output == "packed" else tuple(range(len(inputs))) if full else (0,)
    return Call(f"tdbn_lif-{output}-{steps}-{full}", run, inputs, leaves, ("tdbn_moments", "tdbn_lif"))


def _mixture(
    x: Tensor, weights: Tensor, *values: Tensor, checkpoint: bool = False, backend: str | None = None
) -> Tensor:
    params = dict(zip(("gaussian_blur", "noise", "glow", "tone"), values, strict=True))
    return mixture(x, weights, SOME, params, checkpoint=checkpoint, backend=backend)


def _mixed(batch: int, channels: int, height: int, width: int, stages: int = 3) -> tuple[Draw, ...]:
    image = channels, height, width
    return (
        Draw((batch, *image), (0.0, 1.0)),
        Draw((batch, stages, len(SOME)), (0.0, 0.3), parameter=True),
        Draw((batch, stages), (1.0, 1.5), parameter=True),
        Draw((batch, stages, *image), (-0.1, 0.1), parameter=True),
        Draw((batch, stages, 4), (0.0, 0.3), parameter=True),
        Draw((batch, stages, 2), (0.2, 0.4), parameter=True),
    )


def _pair(*shape: int) -> tuple[Draw, Draw]:
    return Draw(shape, (0.0, 1.0)), Draw(shape, (0.0, 1.0))


def _conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, residual: Tensor | None = None, *, backend: str | None = None
) -> Tensor:
    return conv2d(
        x, weight, bias, residual=residual, padding=3, padding_mode="reflect",
        activation=None if residual is None else "relu", backend=backend,
    )  # fmt: skip


def _convolved(batch: int, inputs: int, outputs: int, height: int, width: int) -> tuple[Draw, ...]:
    bound = (inputs * 49) ** -0.5
    return (
        Draw((batch, inputs, height, width)),
        Draw((outputs, inputs, 7, 7), (-bound, bound)),
        Draw((outputs,)),
        Draw((batch, outputs, height, width)),
    )


def _rows(batch: int, rows: int, columns: int) -> tuple[Draw, ...]:
    shape = batch, rows, columns
    return Draw(shape), Draw(shape, (0.0, 1.0)), Draw((batch,), (0.1, 0.2))


CALLS = (
    Call("lif", _lif, (Draw((4, 2, 3, 5)),), (0,), ("lif",), (Draw((3, 300_001)),), second_derivatives=True),
    Call(
        "lif, samples", _lif_of_samples, (Draw((2, 4, 3, 15)),), (0,), ("lif",), (Draw((5, 3, 60_001)),),
        second_derivatives=True,
    ),
    Call(
        "lif, learnt", _learnt_lif, (Draw((4, 2, 3, 5)), Draw((2, 3, 5), parameter=True), _tau(3), _tau(3)),
        (0, 1, 2, 3), ("lif",), (Draw((4, 8, 3, 8000)), Draw((8, 3, 8000), parameter=True), _tau(3), _tau(3)),
        any_threads=False, second_derivatives=True,
    ),
    Call("psn", psn, _mixed_steps(2, 3, 5), (0, 1, 2), ("psn",), _mixed_steps(4, 100_001)),
    Call("sliding_psn", _sliding_psn, _slid(4, 2, 3, 5), (0, 1, 2, 3), ("psn",), _slid(4, 100_001)),
    _multistate(cuba, "alpha", "beta", "v_threshold", states=2),
    _multistate(alif, "tau", "adaptation", "strength", "v_threshold", states=2),
    _multistate(lsnn, "rate", "current_rate", "adaptation_rate", "strength", "v_threshold", states=3),
    _multistate(clif, "tau", "v_threshold", states=2),
    Call("cuba, numbers", lambda x, backend=None: cuba(x, backend=backend), (Draw((4, 2, 3, 5)),), (0,),
         ("multistate",), (Draw((3, 300_001)),)),
    Call(
        "tdbn", _tdbn, (Draw((4, 2, 3, 5, 2)), _positive(3), Draw((3,), parameter=True)), (0, 1, 2), NORM,
        (Draw((4, 2, 3, 100, 90)), _positive(3), Draw((3,), parameter=True)), any_threads=False,
        second_derivatives=True,
    ),
    Call(
        "tdbn_lif", _tdbn_lif, (Draw((4, 2, 3, 5, 2)), _positive(3), Draw((3,), parameter=True)), (0, 1, 2),
        ("tdbn_moments", "tdbn_lif"), (Draw((4, 2, 3, 100, 90)), _positive(3), Draw((3,), parameter=True)),
        any_threads=False, second_derivatives=True,
    ),
    Call(
        "mixture", _mixture, _mixed(2, 3, 9, 11), (0, 1), ("degradation",), _mixed(2, 1, 150, 170),
        backends=NO_TRITON,
    ),
    Call(
        "mixture, checkpoint", lambda *given, backend=None: _mixture(*given, checkpoint=True, backend=backend),
        _mixed(2, 1, 9, 11), (0, 1), ("degradation",), _mixed(3, 3, 70, 90), backends=NO_TRITON,
    ),
    *(
        Call(function.__name__, function, _pair(2, 3, 20, 25), (0, 1), (name,), large)
        for function, name, large in (
            (ssim, "ssim_loss", _pair(1, 3, 150, 170)), (l1_ssim, "ssim_loss", _pair(3, 1, 301, 270)),
            (ssim_map, "ssim_map", _pair(1, 3, 150, 170)),
        )
    ),
    Call(
        "conv2d", _conv2d, _convolved(2, 4, 6, 20, 17), (0, 1, 2, 3), ("conv2d",), _convolved(2, 24, 16, 90, 60),
        backends=("cpp", "triton", "torch"), second_derivatives=True, autocasts=True,
    ),
    Call(
        "consensus", consensus, _rows(2, 9, 20), (), ("consensus",), _rows(3, 90, 300), backends=("cpp", "torch"),
        second_derivatives=True,
    ),
)  # fmt: skip


def _image_variants():
    """Shapes, types, layouts and choices of gradients that the operations of images tell apart."""
    for (stages, dtype), leaves in itertools.product(
        ((1, torch.float32), (3, torch.bfloat16)), ((), (0, 1), (0,), (1,))
    ):
        yield Call(
            f"mixture-{stages}-{leaves}", _mixture, _mixed(2, 3, 9, 11, stages), leaves, ("degradation",),
            backends=NO_TRITON, dtype=dtype, channels_last=True,
        )  # fmt: skip
    for (padding, dtype), (function, leaves) in itertools.product(
        (("zeros", torch.float32), ("valid", torch.bfloat16)),
        ((ssim_map, (1,)), (l1_ssim, ()), (l1_ssim, (0,)), (l1_ssim, (0, 1))),
    ):
        yield Call(
            f"{function.__name__}-{padding}-{leaves}",
            lambda a, b, backend, f=function, padding=padding: f(a, b, padding=padding, backend=backend),
            _pair(2, 3, 13, 17), leaves, (), dtype=dtype, channels_last=function is ssim_map,
        )  # fmt: skip
    for dtype, last, (count, leaves) in itertools.product(
        (torch.float32, torch.bfloat16), (False, True), ((2, ()), (4, (0, 1, 2, 3)), (2, (0,)), (3, (1, 2)))
    ):
        yield Call(
            f"conv2d-{dtype}-{last}-{leaves}", _conv2d, _convolved(2, 8, 6, 20, 17)[:count], leaves, ("conv2d",),
            backends=("cpp", "triton"), dtype=dtype, channels_last=last,
        )  # fmt: skip


VARIANTS = (
    *(call for call in CALLS if call.operations == ("multistate",)),
    *(_lif_variant(*case) for case in itertools.product(OUTPUTS, (None, 3), (False, True))),
    *map(_lif_of_samples_variant, OUTPUTS),
    *(
        Call(f"tdbn-{axis}", _tdbn, (Draw(shape), _positive(3), _positive(3)), (0, 1, 2), NORM)
        for axis, shape in ((2, (4, 2, 3, 5, 2)), (1, (4, 3, 5, 2)))
    ),
    *(
        Call(
            f"psn-{band}",
            lambda *given, backend, band=band: psn(*given, band=band, backend=backend),
            _mixed_steps(4, 2, 3, 5),
            leaves,
            ("psn",),
        )
        for band, leaves in ((None, (0, 1, 2)), (2, (0,)))
    ),
    Call("sliding_psn-variant", sliding_psn, _slid(4, 2, 3, 5), (1, 2), ("psn",)),
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
        self.mixture = Mixture(SOME, checkpoint=checkpoint)

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
            _mixed(2, 1, 9, 11), (0, 1), ("degradation",),
        )
        for checkpoint in (False, True)
    ),
    Network("ssim", Losses, _pair(2, 3, 13, 17), (0, 1), ("ssim_loss", "ssim_map")),
    *(
        Network(
            f"conv2d, {named}", lambda named=named: Convolutions(named), (Draw((2, 3, 30, 28)),), (0,),
            ("conv2d",) if named == "cpp" else (), rtol=1e-4, atol=1e-6,
        )
        for named in ("cpp", "torch", None) if named != "cpp" or "cpp" in BACKENDS
    ),
)  # fmt: skip
