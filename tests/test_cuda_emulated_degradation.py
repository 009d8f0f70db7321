"""The CUDA degradation mixture's own source, run on a CPU, against the CPU kernel.

At every pixel both work out the same numbers in the same order, but for the mean of the grey and the gradients, which
sum in another order.
"""

import pytest
import torch
from cuda_emulation import HALVES, Compiled, Emulated, GuardedTensors, installed, library
from degradation_oracle import EVERY, case, output_gradient

from deal_kernels.degradation.names import PATTERNS
from deal_kernels.degradation.patterns import pattern

ALIKE = [name for name in EVERY if not name.startswith("contrast")]
MOVES = [name for name in EVERY if not name.startswith(("posterize", "quantise"))]
# The smallest images the blurs take, one tile and less, several tiles that are not whole, few rows and few columns.
SHAPES = ((1, 3, 5, 5), (1, 1, 10, 10), (2, 1, 23, 32), (1, 3, 37, 41), (2, 1, 7, 140), (1, 1, 101, 6))
SMALL = ((2, 1, 1, 1), (1, 3, 2, 9), (1, 1, 40, 2))
FITS_SMALL = (
    "identity", "contrast_0.5", "saturation_0.7", "sharpness_0.3", "posterize_5", "stripe", "gain", "noise", "row_gain",
    "tone", "dead", "glow", "shading", "partial_stripe", "quantise_3", "clip",
)  # fmt: skip

compiled = Compiled(pytest.importorskip("deal_kernels._C", reason="the extension is not built"))


@pytest.fixture(scope="module")
def emulated():
    return Emulated(library())


def kind_and_strength(name):
    if name in PATTERNS:
        return "pattern", 0.0
    kind, _, number = name.rpartition("_")
    return (kind, float(number)) if number[0].isdigit() else (name, 0.0)


class Call:
    """A mixture for both kernels."""

    def __init__(self, kernels, shape, ops, dtype=torch.float32, stages=2, straight_through=False, skew=0, x=None):
        self.kernels, self.dtype, self.stages, self.ops = kernels, dtype, stages, ops
        self.straight_through = straight_through
        self.tensors = GuardedTensors((skew, skew))
        given, weights, params = case(*shape, ops=ops, stages=stages, dtype=dtype)
        place = self.tensors.place
        self.x, self.weights = place(given if x is None else x), place(weights, skew=0)
        params |= {name: pattern(name, params[name], *shape[2:]) for name in PATTERNS if name in params}
        self.values = {name: place(value, skew=0) for name, value in params.items()}
        for name in ops:
            if name.startswith("gaussian_blur_"):
                self.values[name] = torch.full_like(self.weights[..., 0], kind_and_strength(name)[1])

    def run(self, kernels, direction, **tensors):
        ops = [
            kernels.make(
                "DegradationOp", kind=kind, strength=strength, straight_through=self.straight_through,
                values=self.values.get(name),
            )
            for name, (kind, strength) in zip(self.ops, map(kind_and_strength, self.ops), strict=True)
        ]  # fmt: skip
        batch, channels, height, width = self.x.shape
        kernels.run(
            f"degradation_{direction}", dtype=self.dtype, batch=batch, channels=channels, height=height, width=width,
            stages=self.stages, ops=ops, x=self.x, weights=self.weights, **tensors,
        )  # fmt: skip
        self.tensors.check()
        return tuple(tensors.values())

    def result(self, *shape):
        return self.tensors.result(*shape, dtype=self.dtype)

    def images(self):
        """Memory for the result, and for what the stages read."""
        return {"y": self.result(*self.x.shape), "inputs": self.result(self.stages - 1, *self.x.shape)}

    def forward(self):
        return self.run(self.kernels, "forward", **self.images()), self.run(compiled, "forward", **self.images())

    def gradients(self, wanted):
        of_x, of_weights = self.result(*self.x.shape), self.tensors.result(*self.weights.shape, skew=0)
        return {"grad_x": of_x if wanted[0] else None, "grad_weights": of_weights if wanted[1] else None}

    def backward(self, wanted=(True, True)):
        given = {"inputs": self.run(compiled, "forward", **self.images())[1]}
        given["grad"] = self.tensors.place(output_gradient(self.x))
        found = self.run(self.kernels, "backward", **given, **self.gradients(wanted))
        return found[2:], self.run(compiled, "backward", **given, **self.gradients(wanted))[2:]


def fitting(ops, shape):
    least = lambda name: int(name[-1]) if "resize" in name else 10 if name == "wide_blur" else 0  # noqa: E731
    return [name for name in ops if least(name) <= min(shape[2:])]


def check_close(found, expected, tolerance):
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is None or one.numel() == 0:
            continue
        limit = tolerance * max(1.0, other.abs().max().item())
        assert (one.double() - other.double()).abs().max().item() <= limit


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_each_operation_has_the_same_bits(emulated, shape):
    for name in fitting(ALIKE, shape):
        found, expected = Call(emulated, shape, [name], stages=1).forward()
        assert torch.equal(found[0], expected[0]), name


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients_of_each_operation(emulated, shape):
    for name in fitting(EVERY, shape):
        call = Call(emulated, shape, [name], stages=1, straight_through=True)
        found, expected = call.backward()
        check_close(found[:1], expected[:1], 2e-6)
        check_close(found[1:], expected[1:], 1e-5)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_stages(emulated, dtype):
    shape = (2, 3, 19, 45)
    call = Call(emulated, shape, ALIKE, dtype, stages=3, skew=1)
    found, expected = call.forward()
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    unkept = call.run(emulated, "forward", y=call.images()["y"])[0]
    assert torch.equal(unkept, expected[0])
    call = Call(emulated, shape, MOVES, dtype, stages=3)
    found, expected = call.forward()
    rounding = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}[dtype]
    check_close(found, expected, rounding)
    found, expected = call.backward()
    check_close(found[:1], expected[:1], rounding)
    check_close(found[1:], expected[1:], 1e-5)


def test_gradients_that_are_wanted(emulated):
    call = Call(emulated, (1, 1, 11, 40), MOVES)
    both = call.backward()[0]
    for k, wanted in enumerate(((True, False), (False, True))):
        found = call.backward(wanted)[0]
        assert found[1 - k] is None and torch.equal(found[k], both[k])


@pytest.mark.parametrize("shape", SMALL, ids=str)
def test_small_images(emulated, shape):
    call = Call(emulated, shape, FITS_SMALL, straight_through=True)
    check_close(*call.forward(), 1e-6)
    check_close(*call.backward(), 1e-5)


def test_many_operations_of_a_kind(emulated):
    ops = [f"{kind}_0.{share}" for kind in ("contrast", "saturation", "sharpness") for share in range(10)]
    ops += ["max_pool_resize_2", "max_pool_resize_7", "gaussian_blur", "gaussian_blur_0.8", "stripe", "stripe"]
    ops += ["wide_blur", "gaussian_blur_1.4", "wide_blur", "bicubic_resize_3", "wide_blur"]
    call = Call(emulated, (1, 3, 17, 36), ops)
    check_close(*call.forward(), 2e-6)
    check_close(*call.backward(), 1e-5)


def test_of_equal_largest_values_the_first_has_the_gradient(emulated):
    x = torch.tensor([[3.0, 3.0, 1.0, 5.0], [3.0, 3.0, 5.0, 5.0]])[None, None]
    found, expected = Call(emulated, x.shape, ["max_pool_resize_2"], stages=1, x=x).backward()
    assert found[0].count_nonzero() == 2 and torch.equal(found[0] == 0, expected[0] == 0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite(emulated, value):
    shape = (1, 3, 20, 40)
    for name in EVERY:
        x = case(*shape, ops=[name], stages=1)[0]
        x[0, 1, 9, 17] = value
        call = Call(emulated, shape, [name], stages=1, x=x, straight_through=True)
        for one, other in (*zip(*call.forward(), strict=True), *zip(*call.backward(), strict=True)):
            assert torch.equal(one.isfinite(), other.isfinite()), name
            check_close([one.nan_to_num(0, 0, 0)], [other.nan_to_num(0, 0, 0)], 1e-5)


def test_a_block_of_several_tiles(emulated):
    """More than 1024 tiles, which is as many blocks as a sample has."""
    call = Call(emulated, (1, 1, 1, 32 * 1026 + 5), ["contrast_0.5", "stripe", "posterize_3"], straight_through=True)
    check_close(*call.forward(), 1e-6)
    check_close(*call.backward(), 1e-5)


def test_errors_name_what_is_missing(emulated):
    def run(ops=("identity",), dtype=torch.float32, kernels=emulated):
        call = Call(kernels, (1, 1, 6, 6), ops, dtype)
        call.run(kernels, "forward", **call.images())

    with pytest.raises(RuntimeError, match="float64"):
        run(dtype=torch.float64)
    with pytest.raises(RuntimeError, match="at most 48 operations"):
        run(["identity"] * 49)
    with installed(emulated.module, image=False), pytest.raises(RuntimeError, match="no kernel image"):
        run()
