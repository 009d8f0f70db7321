"""The CUDA SSIM's own source, run on a CPU, against the CPU kernel, which finds the same bits at every pixel."""

import pytest
import torch
from cuda_emulation import HALVES, Compiled, Emulated, GuardedTensors, installed, library
from ssim_oracle import images

C1, C2 = 1e-4, 9e-4
# Of one band and several, of one strip and several (108 columns with a gradient, 118 without), of odd numbers;
# bands of 8 rows, and at last of 16.
SHAPES = ((2, 1, 1), (1, 11, 11), (2, 40, 30), (1, 33, 109), (1, 70, 120), (1, 12, 237), (260, 20, 3))

compiled = Compiled(pytest.importorskip("deal_kernels._C", reason="the extension is not built"))


@pytest.fixture(scope="module")
def emulated():
    return Emulated(library())


def results(tensors, shape, dtype, margin, grads):
    """Memory for the map, and for the gradients that are wanted."""
    planes, height, width = shape
    values = tensors.result(planes, height - 2 * margin, width - 2 * margin, dtype=dtype)
    return values, *(tensors.result(*shape, dtype=dtype) if each else None for each in grads)


def both(kernels, shape, dtype, margin, grads, grad=None, skew=(0, 0)):
    """Results and loss of the emulated and of the CPU kernel."""
    tensors = GuardedTensors(skew)
    a, b = (tensors.place(image) for image in images(*shape, dtype=dtype))
    grad = None if grad is None else tensors.place(grad)
    of_map = grad is not None and grad.dim() > 0
    offset, structure, pixel = (0.25, 1.0, 0.0) if of_map else (0.25, -1.1, 0.75)
    planes, height, width = shape
    fields = {
        "dtype": dtype, "planes": planes, "height": height, "width": width, "margin": margin, "c1": C1, "c2": C2,
        "a": a, "b": b, "offset": offset, "structure": structure, "pixel": pixel, "grad": grad, "grad_of_map": of_map,
    }  # fmt: skip
    found, expected = (results(tensors, shape, dtype, margin, grads) for _ in range(2))
    outputs = dict(zip(("map", "grad_a", "grad_b"), found, strict=True))
    count = kernels.module.cuda.ssim_parts(kernels.call("ssim", **fields, **outputs))
    parts = torch.full((count,), torch.nan, dtype=torch.float64)
    loss = torch.empty(())
    kernels.run("ssim", **fields, **outputs, loss=parts)
    tensors.check()
    compiled.run("ssim", **fields, **dict(zip(("map", "grad_a", "grad_b"), expected, strict=True)), loss=loss)
    return (parts.sum() + offset, *found), (loss, *expected)


def check(*arguments, **options):
    found, expected = both(*arguments, **options)
    assert abs(found[0].item() - expected[0].item()) <= 2e-6 * max(1, abs(expected[0].item()))
    for one, other in zip(found[1:], expected[1:], strict=True):
        assert (one is None and other is None) or torch.equal(one, other)


@pytest.mark.parametrize("margin", [0, 5])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_loss_and_gradients(emulated, shape, margin):
    if margin and min(shape[1:]) < 11:
        pytest.skip("no window fits into the image")
    for grads in ((False, False), (True, True)):
        check(emulated, shape, torch.float32, margin, grads)


@pytest.mark.parametrize(("planes", "size", "rows"), [(1, 128, 8), (16, 128, 8), (32, 256, 32), (256, 512, 64)])
def test_bands_are_as_tall_as_leaves_enough_blocks(emulated, planes, size, rows):
    call = emulated.call(
        "ssim", dtype=torch.float32, planes=planes, height=size, width=size, margin=0, c1=C1, c2=C2, a=0, b=0,
        offset=0.0, structure=1.0, pixel=0.0, grad_of_map=False,
    )  # fmt: skip
    assert emulated.module.cuda.ssim_parts(call) == planes * -(-size // 118) * -(-size // rows)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_dtypes_and_gradients_that_are_wanted(emulated, dtype):
    for skew, grads in (((0, 0), (True, False)), ((1, 3), (False, True))):
        check(emulated, (1, 20, 25), dtype, 0, grads, grad=torch.tensor(0.5), skew=skew)


@pytest.mark.parametrize("margin", [0, 5])
def test_gradient_of_the_map(emulated, margin):
    grad = images(2, 20 - 2 * margin, 25 - 2 * margin, seed=3)[0] - 0.5
    check(emulated, (2, 20, 25), torch.float32, margin, (True, True), grad=grad)
    check(emulated, (2, 20, 25), torch.bfloat16, margin, (True, True), grad=grad.bfloat16())


def test_errors_name_what_is_missing(emulated):
    with pytest.raises(RuntimeError, match="float64"):
        both(emulated, (1, 4, 4), torch.float64, 0, (False, False))
    with installed(emulated.module, image=False), pytest.raises(RuntimeError, match="no kernel image"):
        both(emulated, (1, 4, 4), torch.float32, 0, (False, False))
