"""The CUDA degradation mixture's own source, run on a CPU, against the CPU kernel.

At every pixel both work out the same numbers in the same order, but for the mean of the grey and the gradients, which
sum in another order.
"""

import ctypes

import pytest
import torch
from cuda_emulation import DTYPES, Rooms, address, integers, library, run
from degradation_oracle import EVERY, case, output_gradient

from deal_kernels.degradation import op
from deal_kernels.degradation.op import Settings

ALIKE = [name for name in EVERY if not name.startswith("contrast")]
MOVES = [name for name in EVERY if not name.startswith("posterize")]
# The smallest image the blur takes, one tile and less, several tiles that are not whole, few rows and few columns.
SHAPES = ((1, 3, 5, 5), (2, 1, 23, 32), (1, 3, 37, 41), (2, 1, 7, 140), (1, 1, 101, 6))
SMALL = ((2, 1, 1, 1), (1, 3, 2, 9), (1, 1, 40, 2))
FITS_SMALL = ("identity", "contrast_0.5", "saturation_0.7", "sharpness_0.3", "posterize_5", "stripe", "gain", "noise")

compiled = pytest.importorskip("deal_kernels._C", reason="the extension is not built")


@pytest.fixture(scope="module")
def emulated():
    return library()


class Call:
    """A mixture for both kernels."""

    def __init__(self, kernels, shape, ops, dtype=torch.float32, stages=2, straight_through=False, skew=0, x=None):
        self.kernels, self.dtype, self.stages = kernels, dtype, stages
        self.rooms = Rooms((skew, skew))
        given, weights, params = case(*shape, ops=ops, stages=stages, dtype=dtype)
        place = self.rooms.place
        self.x, self.weights = place(given if x is None else x), place(weights, skew=0)
        self.values = {name: place(value, skew=0) for name, value in params.items()}
        operations = op._operations(
            [self.values[name] for name in ops if name in params], Settings(ops, straight_through)
        )
        self.operations = [op._with_deviations(o, self.weights) for o in operations]  # they hold the deviations' memory
        self.described = [op._described(o) for o in self.operations]

    def numbers(self, *rest):
        """The arguments of tests/cuda_on_cpu/module.cpp."""
        each = (number for kind, _, through, values in self.described for number in (kind, through, values))
        sizes = DTYPES[self.dtype], *self.x.shape, self.stages, self.x.data_ptr(), self.weights.data_ptr()
        strengths = [strength for _, strength, _, _ in self.described]
        doubles = (ctypes.c_double * len(strengths))(*strengths)
        return doubles, integers(*sizes, len(self.described), *each, *rest)

    def workspace(self, backward):
        self.kernels.mixture_workspace.restype = ctypes.c_int64
        return self.rooms.result(self.kernels.mixture_workspace(*self.numbers(backward)), dtype=torch.uint8, skew=0)

    def emulate(self, direction, *tensors, device=0):
        room = self.workspace(direction == "backward")
        numbers = self.numbers(*map(address, tensors), room.data_ptr(), device)
        run(getattr(self.kernels, f"mixture_{direction}"), *numbers)
        self.rooms.check()
        return tensors

    def compile(self, direction, *tensors):
        arguments = DTYPES[self.dtype], *self.x.shape, self.stages, self.described
        addresses = map(address, (self.x, self.weights, *tensors))
        getattr(compiled, f"mixture_{direction}")(*arguments, *addresses, 1)
        return tensors

    def result(self, *shape):
        return self.rooms.result(*shape, dtype=self.dtype)

    def images(self):
        """Room for the result, and for what the stages read."""
        return self.result(*self.x.shape), self.result(self.stages - 1, *self.x.shape)

    def forward(self):
        return self.emulate("forward", *self.images()), self.compile("forward", *self.images())

    def gradients(self, wanted):
        of_weights = self.rooms.result(*self.weights.shape, skew=0)
        return self.result(*self.x.shape) if wanted[0] else None, of_weights if wanted[1] else None

    def backward(self, wanted=(True, True)):
        inputs = self.compile("forward", *self.images())[1]
        grad = self.rooms.place(output_gradient(self.x))
        found = self.emulate("backward", inputs, grad, *self.gradients(wanted))[2:]
        return found, self.compile("backward", inputs, grad, *self.gradients(wanted))[2:]


def fitting(ops, shape):
    return [name for name in ops if "resize" not in name or int(name[-1]) <= min(shape[2:])]


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


@pytest.mark.parametrize("dtype", list(DTYPES)[:3], ids=str)
def test_stages(emulated, dtype):
    shape = (2, 3, 19, 45)
    call = Call(emulated, shape, ALIKE, dtype, stages=3, skew=1)
    found, expected = call.forward()
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    unkept = call.emulate("forward", call.images()[0], None)[0]
    assert torch.equal(unkept, expected[0])
    call = Call(emulated, shape, MOVES, dtype, stages=3)
    found, expected = call.forward()
    rounding = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}[dtype]
    check_close(found, expected, rounding)
    found, expected = call.backward()
    check_close(found[:1], expected[:1], rounding)
    check_close(found[1:], expected[1:], 1e-5)


def test_gradients_that_are_wanted(emulated):
    call = Call(emulated, (1, 1, 9, 40), MOVES)
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
    with pytest.raises(RuntimeError, match="float64"):
        Call(emulated, (1, 1, 6, 6), ["identity"], torch.float64).emulate("forward", None, None)
    with pytest.raises(RuntimeError, match="at most 48 operations"):
        Call(emulated, (1, 1, 6, 6), ["identity"] * 49).emulate("backward", None, None, None, None)
    with pytest.raises(RuntimeError, match="invalid device"):
        Call(emulated, (1, 1, 6, 6), ["identity"]).emulate("forward", None, None, device=5)
