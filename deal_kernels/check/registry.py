"""Every operation of deal_kernels, as the check of a machine and the tests of all operations call it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from deal_kernels.check.calls import Call, Draw
from deal_kernels.consensus import consensus
from deal_kernels.conv import conv2d
from deal_kernels.degradation import mixture
from deal_kernels.lif import lif
from deal_kernels.multistate import alif, clif, cuba, lsnn
from deal_kernels.pad import pad2d
from deal_kernels.psn import psn, sliding_psn
from deal_kernels.ssim import l1_ssim, ssim, ssim_map
from deal_kernels.tdbn import tdbn, tdbn_lif

Draws = tuple[Draw, ...]
Shape = tuple[int, ...]

NO_CPP = ("cuda", "triton", "torch")
NORM = "tdbn_moments", "tdbn_scale", "tdbn_normalise"
MIXED = (
    "sharpness_0.7", "contrast_0.5", "posterize_5", "gaussian_blur", "average_pool_resize_2", "noise", "glow", "tone",
    "quantise_6",
)  # fmt: skip


def tau(channels: int) -> Draw:
    return Draw((channels,), (1.0, 2.0), parameter=True)


def positive(channels: int) -> Draw:
    return Draw((channels,), (0.5, 1.5), parameter=True)


def share(channels: int) -> Draw:
    return Draw((channels,), (0.2, 0.8), parameter=True)


def one(*shape: int) -> Draws:
    return (Draw(shape),)


def pair(*shape: int) -> Draws:
    return Draw(shape, (0.0, 1.0)), Draw(shape, (0.0, 1.0))


def learnt(*shape: int) -> Draws:
    return Draw(shape), Draw(shape[1:], parameter=True), tau(shape[2]), tau(shape[2])


def mixed_steps(steps: int, *row: int) -> Draws:
    return Draw((steps, *row)), Draw((steps, steps), parameter=True), Draw((steps,), parameter=True)


def mixed_steps_of_samples(batch: int, steps: int, *row: int) -> Draws:
    _, weight, bias = mixed_steps(steps)
    return Draw((batch, steps, *row)), weight, bias


def slid_steps(steps: int, *row: int) -> Draws:
    return Draw((steps, *row)), Draw((3,), parameter=True), Draw((), parameter=True), Draw((2, *row))


def normed(*shape: int) -> Draws:
    return Draw(shape), positive(shape[2]), Draw((shape[2],), parameter=True)


def mixed_images(batch: int, colours: int, height: int, width: int, stages: int = 3) -> Draws:
    image = colours, height, width
    return (
        Draw((batch, *image), (0.0, 1.0)),
        Draw((batch, stages, len(MIXED)), (0.0, 0.3), parameter=True),
        Draw((batch, stages), (1.0, 1.5), parameter=True),
        Draw((batch, stages, *image), (-0.1, 0.1), parameter=True),
        Draw((batch, stages, 4), (0.0, 0.3), parameter=True),
        Draw((batch, stages, 2), (0.2, 0.4), parameter=True),
    )


def convolved(batch: int, inputs: int, outputs: int, height: int, width: int) -> Draws:
    bound = (inputs * 49) ** -0.5
    return (
        Draw((batch, inputs, height, width)),
        Draw((outputs, inputs, 7, 7), (-bound, bound)),
        Draw((outputs,)),
        Draw((batch, outputs, height, width)),
    )


def rows(batch: int, count: int, columns: int) -> Draws:
    shape = batch, count, columns
    return Draw(shape), Draw(shape, (0.0, 1.0)), Draw((batch,), (0.1, 0.2))


def run_lif(x: Tensor, *, backend: str | None = None) -> Tensor:
    return lif(x, surrogate="atan", backend=backend)


def run_lif_of_samples(x: Tensor, *, backend: str | None = None) -> Tensor:
    return lif(x, surrogate="atan", time_axis=1, backend=backend)


def run_learnt_lif(
    x: Tensor, v0: Tensor, tau: Tensor, threshold: Tensor, *, backend: str | None = None
) -> tuple[Tensor, Tensor]:
    return lif(x, v0, tau=tau, v_threshold=threshold, v_reset=None, return_state=True, backend=backend)


def run_sliding_psn(
    x: Tensor, weight: Tensor, bias: Tensor, before: Tensor, *, backend: str | None = None
) -> tuple[Tensor, Tensor]:
    return sliding_psn(x, weight, bias, before, return_state=True, backend=backend)


def run_psn_of_samples(x: Tensor, weight: Tensor, bias: Tensor, *, backend: str | None = None) -> Tensor:
    return psn(x, weight, bias, time_axis=1, backend=backend)


def run_cuba(x: Tensor, *, backend: str | None = None) -> Any:
    return cuba(x, backend=backend)


def run_cuba_of_samples(x: Tensor, *, backend: str | None = None) -> Any:
    return cuba(x, time_axis=1, backend=backend)


def run_tdbn(x: Tensor, weight: Tensor, bias: Tensor, *, backend: str | None = None) -> Tensor:
    return tdbn(x, weight, bias, training=True, backend=backend)


def run_tdbn_lif(x: Tensor, weight: Tensor, bias: Tensor, *, backend: str | None = None) -> Tensor:
    return tdbn_lif(x, weight, bias, training=True, surrogate="atan", backend=backend)


def run_mixture(
    x: Tensor, weights: Tensor, *values: Tensor, checkpoint: bool = False, backend: str | None = None
) -> Tensor:
    params = dict(zip(("gaussian_blur", "noise", "glow", "tone"), values, strict=True))
    return mixture(x, weights, MIXED, params, checkpoint=checkpoint, backend=backend)


def run_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, residual: Tensor | None = None, *, backend: str | None = None
) -> Tensor:
    return conv2d(
        x, weight, bias, residual=residual, padding=3, padding_mode="reflect",
        activation=None if residual is None else "relu", backend=backend,
    )  # fmt: skip


def run_pad2d(x: Tensor, *, mode: Any = "reflect", backend: str | None = None) -> Tensor:
    return pad2d(x, (1, 2, 0, 3), mode, backend=backend)


def _sized(
    name: str, run: Callable[..., Any], axes: str, draws: Callable[..., Draws], small: Shape, large: Shape,
    leaves: tuple[int, ...], *operations: str, **more: Any,
) -> Call:  # fmt: skip
    """A call by the sizes of its tensors: those that every test takes, and large ones."""
    return Call(name, run, draws(*small), leaves, operations, draws(*large), axes, draws, **more)


def _multistate(function: Callable[..., Any], *names: str, states: int, exact: int) -> Call:
    """A call with every state and parameter, of channels; all but the first parameter between 0.2 and 0.8."""

    def run(x: Tensor, *given: Tensor, backend: str | None = None) -> tuple[Tensor, ...]:
        parameters = dict(zip(names, given[states:], strict=True))
        result, last = function(x, *given[:states], **parameters, return_state=True, backend=backend)
        return result, *last

    def draws(*shape: int) -> Draws:
        parameters = [tau(shape[2]) if name == "tau" else share(shape[2]) for name in names]
        return Draw(shape), *[Draw(shape[1:], parameter=True)] * states, *parameters

    return _sized(
        function.__name__, run, "TBCHW", draws, (4, 2, 3, 5), (4, 8, 3, 3000), tuple(range(1 + states + len(names))),
        "multistate", exact=exact, any_threads=False,
    )  # fmt: skip


CALLS = (
    _sized("lif", run_lif, "TBCHW", one, (4, 2, 3, 5), (3, 300_001), (0,), "lif", exact=1, second_derivatives=True),
    _sized(
        "lif, samples", run_lif_of_samples, "BTCHW", one, (2, 4, 3, 15), (5, 3, 60_001), (0,), "lif",
        exact=1, second_derivatives=True,
    ),
    _sized(
        "lif, learnt", run_learnt_lif, "TBCHW", learnt, (4, 2, 3, 5), (4, 8, 3, 8000), (0, 1, 2, 3), "lif",
        exact=2, any_threads=False, second_derivatives=True,
    ),
    _sized("psn", psn, "TBCHW", mixed_steps, (2, 3, 5), (4, 100_001), (0, 1, 2), "psn", exact=1),
    _sized(
        "psn, samples", run_psn_of_samples, "BTCHW", mixed_steps_of_samples, (2, 3, 35), (5, 4, 20_001), (0,), "psn",
        exact=1, backends=("cpp", "cuda", "torch"),
    ),
    _sized(
        "sliding_psn", run_sliding_psn, "TBCHW", slid_steps, (4, 2, 3, 5), (4, 100_001), (0, 1, 2, 3), "psn",
        exact=2,
    ),
    _multistate(cuba, "alpha", "beta", "v_threshold", states=2, exact=3),
    _multistate(alif, "tau", "adaptation", "strength", "v_threshold", states=2, exact=3),
    _multistate(lsnn, "rate", "current_rate", "adaptation_rate", "strength", "v_threshold", states=3, exact=4),
    _multistate(clif, "tau", "v_threshold", states=2, exact=1),  # torch has another sigmoid
    _sized("cuba, numbers", run_cuba, "TBCHW", one, (4, 2, 3, 5), (3, 300_001), (0,), "multistate", exact=1),
    _sized(
        "cuba, samples", run_cuba_of_samples, "BTCHW", one, (2, 4, 3, 15), (5, 3, 60_001), (0,), "multistate", exact=1
    ),
    _sized(
        "tdbn", run_tdbn, "TBCHW", normed, (4, 2, 3, 5, 2), (4, 2, 3, 100, 90), (0, 1, 2), *NORM,
        any_threads=False, second_derivatives=True,
    ),
    _sized(
        "tdbn_lif", run_tdbn_lif, "TBCHW", normed, (4, 2, 3, 5, 2), (4, 2, 3, 100, 90), (0, 1, 2),
        *NORM[:2], "tdbn_lif", any_threads=False, second_derivatives=True,
    ),
    _sized(
        "mixture", run_mixture, "BKHW", mixed_images, (2, 3, 9, 11), (2, 1, 150, 170), (0, 1), "degradation",
    ),
    _sized(
        "mixture, checkpoint", lambda *given, backend=None: run_mixture(*given, checkpoint=True, backend=backend),
        "BKHW", mixed_images, (2, 1, 9, 11), (3, 3, 70, 90), (0, 1), "degradation",
    ),
    *(
        _sized(function.__name__, function, "BKHW", pair, (2, 3, 20, 25), large, (0, 1), name)
        for function, name, large in (
            (ssim, "ssim_loss", (1, 3, 150, 170)), (l1_ssim, "ssim_loss", (3, 1, 301, 270)),
            (ssim_map, "ssim_map", (1, 3, 150, 170)),
        )
    ),
    _sized(
        "conv2d", run_conv2d, "BCOHW", convolved, (2, 4, 6, 20, 17), (2, 24, 16, 90, 60), (0, 1, 2, 3), "conv2d",
        backends=("cpp", "triton", "torch"), second_derivatives=True, autocasts=True,
    ),
    _sized(
        "pad2d", run_pad2d, "BCHW", one, (2, 3, 6, 5), (4, 8, 100, 90), (0,), "pad2d", backends=NO_CPP,
        second_derivatives=True,
    ),
    _sized(
        "consensus", consensus, "BRW", rows, (2, 9, 20), (3, 90, 300), (), "consensus", backends=("cpp", "torch"),
        second_derivatives=True,
    ),
)  # fmt: skip
