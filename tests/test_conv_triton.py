"""The Triton convolution against an oracle in float64, and what its kernels compile to."""

import itertools

import conv_oracle as oracle
import pytest
import torch
from conv_oracle import distance, tensors
from test_conv import EXTRAS, check
from triton_testing import (
    DEVICE,
    HALVES,
    INTERPRETED,
    ROUNDING,
    Recorder,
    compile_for,
    compiles,
    interpreted,
    resources,
    runs,
)

from deal_kernels.conv import conv2d
from deal_kernels.conv import triton as room
from deal_kernels.conv.reference import MODES, Geometry


@interpreted(__file__)
def test_in_the_interpreter(interpreter):
    output, _ = interpreter.communicate()
    assert interpreter.returncode == 0, output


# x, weight, and how they meet. Tiles have 8 x 16 pixels: of some images one reads nothing beyond the border.
GEOMETRIES = {
    "1x1": ((2, 33, 9, 17), (16, 33, 1, 1), {}),
    "3x3": ((1, 16, 24, 48), (32, 16, 3, 3), {"padding": 1}),
    "3x3, dilated": ((2, 32, 8, 19), (33, 32, 3, 3), {"padding": 2, "dilation": 2}),
    "3x3, several blocks of columns": ((1, 3, 7, 5), (70, 3, 3, 3), {"padding": 1}),
    "5x5": ((1, 33, 9, 11), (3, 33, 5, 5), {"padding": 2}),
    "11x11": ((1, 32, 6, 9), (16, 32, 11, 11), {"padding": 5}),
    "11x11, one channel": ((1, 1, 23, 40), (1, 1, 11, 11), {"padding": 5}),
    "11x11, dilated": ((1, 2, 12, 14), (3, 2, 11, 11), {"padding": 10, "dilation": 2}),
    "flat kernel": ((1, 3, 9, 18), (1, 3, 3, 11), {"padding": (1, 5)}),
    "same, even": ((1, 3, 10, 11), (4, 3, 4, 6), {"padding": "same", "dilation": (1, 2)}),
    "wide padding": ((1, 2, 5, 6), (3, 2, 3, 3), {"padding": (4, 5)}),
    "a row": ((1, 16, 1, 30), (16, 16, 1, 3), {"padding": (0, 1)}),
}


def channels_last(drawn):
    x, weight, bias, residual = drawn
    x, residual = (each.contiguous(memory_format=torch.channels_last) for each in (x, residual))
    return x, weight, bias, residual


@runs
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", GEOMETRIES)
def test_geometries(name, mode):
    x, weight, geometry = GEOMETRIES[name]
    geometry = geometry | {"padding_mode": mode}
    drawn = tensors(x, weight, device=DEVICE, **geometry)
    check(channels_last(drawn), EXTRAS["everything"], "triton", 1e-6, **geometry)


@runs
@pytest.mark.parametrize("extras", EXTRAS)
def test_extras(extras):
    geometry = {"padding": 1, "padding_mode": "reflect"}
    drawn = tensors((1, 16, 9, 11), (3, 16, 3, 3), device=DEVICE, **geometry)
    for each in (drawn, channels_last(drawn)):
        check(each, EXTRAS[extras], "triton", 1e-6, **geometry)


@runs
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("parameters", ["half", "float32"])
@pytest.mark.parametrize("channels, mode", [((32, 16), "zeros"), ((3, 33), "reflect")], ids=str)
def test_half_types(dtype, parameters, channels, mode):
    inputs, outputs = channels
    geometry = {"padding": 1, "padding_mode": mode}
    x, weight, bias, residual = tensors((1, inputs, 9, 18), (outputs, inputs, 3, 3), device=DEVICE, **geometry)
    weight = weight.to(dtype)  # what tensor cores multiply
    kind = dtype if parameters == "half" else torch.float32
    drawn = x.to(dtype), weight.to(kind), bias.to(kind), residual.to(dtype)
    check(channels_last(drawn), EXTRAS["everything"], "triton", ROUNDING[dtype], **geometry)


@runs
def test_layouts():
    """The result is channels-last where x is, whatever the residual and the weight are."""
    x, weight, bias, residual = tensors((1, 16, 5, 6), (5, 16, 3, 3), device=DEVICE, padding=1)
    expected = oracle.conv2d(*(each.cpu().double() for each in (x, weight, bias, residual)), padding=1)
    for image, factor, added in itertools.product(*map(layouts, (x, weight, residual))):
        y = conv2d(image, factor, bias, residual=added, padding=1, backend="triton")
        last = image.is_contiguous(memory_format=torch.channels_last)
        assert y.is_contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
        assert distance(y, expected) <= 1e-6


def layouts(x):
    return x, x.contiguous(memory_format=torch.channels_last), torch.stack([x, x * torch.nan], -1)[..., 0]


@runs
def test_an_image_alone_an_empty_batch_and_what_is_not_finite():
    x, weight, bias, _ = tensors((2, 3, 9, 20), (4, 3, 3, 3), device=DEVICE, padding=1)
    options = {"padding": 1, "activation": "relu", "backend": "triton"}
    together = conv2d(x, weight, bias, **options)
    assert torch.equal(conv2d(x[1], weight, bias, **options), together[1])
    of_none = x[:0].requires_grad_()
    y = conv2d(of_none, weight, bias, **options)
    assert y.shape == (0, 4, 9, 20) and torch.autograd.grad(y.sum(), of_none)[0].shape == of_none.shape
    x[0, 1, 4, 6] = torch.nan
    changed = conv2d(x, weight, bias, **options)
    assert changed[0, :, 3:6, 5:8].isnan().all() and changed.isnan().sum() == 4 * 9
    assert torch.equal(changed[1], together[1])


@runs
@pytest.mark.parametrize("mode", MODES)
def test_the_gradient_of_the_image_alone(mode):
    """It needs no image, and no other gradient."""
    x, weight, _, _ = tensors((1, 3, 7, 9), (4, 3, 5, 5), device=DEVICE, padding=2)
    y = conv2d(x.requires_grad_(), weight, padding=2, padding_mode=mode, backend="triton")
    assert [kept.shape for kept in y.grad_fn.saved_tensors if kept is not None] == [weight.shape]
    exact = x.detach().cpu().double().requires_grad_()
    expected = oracle.conv2d(exact, weight.cpu().double(), padding=2, padding_mode=mode)
    (found,), (theirs,) = (oracle.gradients(*pair) for pair in ((y, [x]), (expected, [exact])))
    assert distance(found, theirs) <= 1e-6


@runs
def test_autocast():
    """The gradients that torch computes are in the type of the forward pass, too."""
    x, weight, bias, _ = tensors((1, 3, 7, 9), (4, 3, 3, 3), device=DEVICE, padding=1)
    leaves = [leaf.requires_grad_() for leaf in (x, weight, bias)]
    options = {"padding": 1, "padding_mode": "reflect", "backend": "triton"}
    expected = conv2d(x.bfloat16(), weight, bias, **options)
    with torch.autocast(DEVICE, torch.bfloat16):
        y = conv2d(*leaves, **options)
        found = torch.autograd.grad(y.sum(), leaves)
    assert torch.equal(y, expected) and y.dtype == torch.bfloat16
    for one, other in zip(found, torch.autograd.grad(expected.sum(), leaves), strict=True):
        assert one.dtype == torch.float32 and torch.equal(one, other)


class Bounds:
    """A kernel in the interpreter that keeps where its tensors lie."""

    def __init__(self, kernel):
        self.kernel, self.spans = kernel, []

    def __getitem__(self, grid):
        def launch(**arguments):
            given = [each for each in arguments.values() if isinstance(each, torch.Tensor)]
            self.spans = [(each.data_ptr(), each.data_ptr() + each.numel() * each.itemsize) for each in given]
            return self.kernel[grid](**arguments)

        return launch

    def holds(self, addresses, size):
        inside = [(addresses >= first) & (addresses + size <= end) for first, end in self.spans]
        return sum(inside).astype(bool).all()


@pytest.mark.skipif(not INTERPRETED, reason="only the interpreter tells the addresses")
@pytest.mark.parametrize("mode", MODES)
def test_nothing_outside_the_tensors_is_read_or_written(mode, monkeypatch):
    from triton.runtime import interpreter

    checked = []
    for name in ("convolution_kernel", "fold_kernel"):
        kernel = Bounds(getattr(room, name))
        monkeypatch.setattr(room, name, kernel)
        checked.append(kernel)
    accesses = []

    def watched(access, mask_at):
        def run(self, pointers, *rest):
            active = pointers.data[rest[mask_at].data.astype(bool)]
            size = pointers.dtype.element_ty.primitive_bitwidth // 8
            accesses.append(any(kernel.holds(active, size) for kernel in checked))
            return access(self, pointers, *rest)

        return run

    for name, mask_at in (("create_masked_load", 0), ("create_masked_store", 1)):
        original = getattr(interpreter.InterpreterBuilder, name)
        monkeypatch.setattr(interpreter.InterpreterBuilder, name, watched(original, mask_at))
    for shape, kernel, padding in (((1, 33, 9, 17), (5, 33, 3, 3), (3, 4)), ((2, 3, 7, 9), (17, 3, 5, 5), (2, 6))):
        x, weight, bias, residual = channels_last(tensors(shape, kernel, padding=padding))
        options = {"padding": padding, "padding_mode": mode, "backend": "triton"}
        conv2d(x.requires_grad_(), weight, bias, residual=residual, **options).sum().backward()
    assert len(accesses) > 100 and all(accesses)


@pytest.mark.parametrize(
    ("precision", "of_convolutions", "asked"),
    [("highest", True, False), ("high", True, True), ("medium", True, True), ("high", False, False)],
)
def test_tf32_only_where_it_is_asked_for(precision, of_convolutions, asked):
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(precision)
        with torch.backends.cudnn.flags(allow_tf32=of_convolutions):
            assert room.rounds_to_tf32() is asked
    finally:
        torch.set_float32_matmul_precision(before)


def launched(monkeypatch, dtype, inputs, outputs, size, mode, *, back=False, tf32=False):
    """The arguments of the kernels for 256 x 320 images, forward with every extra or backward."""

    def empty(*shape):
        return torch.empty(shape, dtype=dtype, memory_format=torch.channels_last)

    x, y, weight = empty(1, inputs, 256, 320), empty(1, outputs, 256, 320), empty(outputs, inputs, size, size)
    g = Geometry((size // 2,) * 4, mode, (1, 1))
    recorders = Recorder(), Recorder()
    with monkeypatch.context() as patch:
        patch.setattr(room, "rounds_to_tf32", lambda: tf32)
        for name, recorder in zip(("convolution_kernel", "fold_kernel"), recorders, strict=True):
            patch.setattr(room, name, recorder)
        if back:
            room.backward(y, weight, g, x)
        else:
            room.forward(x, weight, torch.empty(outputs), torch.empty_like(y), g, True, y)
    return [getattr(recorder, "arguments", None) for recorder in recorders]


SHARED = {80: 163 * 1024, 90: 227 * 1024}  # bytes that a program may have
SPILT = 8  # bytes of products without tensor cores: ptxas saves two registers in some of them to run more programs


def compiled_within_limits(capability, kernel, arguments):
    """The PTX of a kernel that spills nothing and fits."""
    compiled = compile_for(capability, kernel, arguments)
    used, shared = resources(compiled.asm["cubin"]), compiled.metadata.shared
    print(f"sm_{capability}: {used}, {shared} bytes of shared memory, {arguments['num_warps']} warps")
    exact = arguments.get("PRECISION") == "ieee" and arguments["image"].dtype == torch.float32
    assert used is None or (used["LOCAL"] == 0 and used["STACK"] <= (SPILT if exact else 0))
    assert shared <= SHARED[capability]
    return compiled.asm["ptx"]


# The type, channels, columns, width of the kernel and mode: DEAL's layers, its first one, and odd numbers.
COMPILED = [
    (torch.bfloat16, 32, 32, 11, "reflect"),
    (torch.float16, 64, 64, 3, "reflect"),
    (torch.bfloat16, 4, 32, 3, "zeros"),
    (torch.bfloat16, 33, 17, 5, "replicate"),
    (torch.float32, 32, 64, 3, "reflect"),
]


@compiles
@pytest.mark.parametrize("back", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("case", COMPILED, ids=str)
@pytest.mark.parametrize("capability", [80, 90])
def test_what_the_convolution_compiles_to(capability, case, back, monkeypatch):
    arguments, _ = launched(monkeypatch, *case, back=back)
    ptx = compiled_within_limits(capability, room.convolution_kernel, arguments)
    on_tensor_cores = "wgmma.mma_async" in ptx if capability == 90 else "mma.sync" in ptx
    assert on_tensor_cores == (case[0] in HALVES) and ".f64" not in ptx


@compiles
@pytest.mark.parametrize("capability", [80, 90])
def test_what_tf32_compiles_to(capability, monkeypatch):
    arguments, _ = launched(monkeypatch, torch.float32, 64, 64, 3, "reflect", tf32=True)
    assert ".tf32" in compiled_within_limits(capability, room.convolution_kernel, arguments)


@compiles
@pytest.mark.parametrize("mode", ["reflect", "replicate"])
def test_what_folding_compiles_to(mode, monkeypatch):
    _, arguments = launched(monkeypatch, torch.bfloat16, 32, 32, 11, mode, back=True)
    ptx = compiled_within_limits(80, room.fold_kernel, arguments)
    assert "st.global.v4" in ptx and ".f64" not in ptx
