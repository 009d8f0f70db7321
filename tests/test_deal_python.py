"""`Enhancer` from Python: what goes in comes back in its kind, dtype and range, and its parts have its units."""

from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

import deal
from deal.io.images import UnusableImage, read_frames, to_frame
from deal.io.reference import Reference
from deal.io.synthetic import thermal_scene
from deal.model.weight_files import load_tensors, save_tensors

HEIGHT, WIDTH = 72, 96


@pytest.fixture(scope="module")
def enhancer():
    return deal.Enhancer("deal-u-small", precision="fp32", device="cpu")


def scene(seed=0):
    """[H, W] in [0, 1], with stripes."""
    stripes = 0.05 * numpy.random.default_rng(seed).standard_normal(WIDTH)
    return (thermal_scene(HEIGHT, WIDTH, seed=seed)[0].numpy() * 0.8 + 0.1 + stripes).clip(0, 1)


ARRAYS = {
    "uint8": scene() * 255,
    "uint16": 29000 + 2500 * scene(),
    "int16": 2500 * scene() - 1000,
    "int32": 2e8 + 2500 * scene(),
    "uint32": 4e9 + 2500 * scene(),
    "int64": -1e12 + 2500 * scene(),
    "float16": 25 * scene() - 5,
    "float32": 25 * scene() - 5,
    "float64": 1e9 + 25 * scene(),
}


@pytest.mark.parametrize("dtype", ARRAYS)
def test_arrays(enhancer, dtype):
    """The stripes are less, the mean of measured values stays, and the units do not matter."""
    image = ARRAYS[dtype].astype(dtype)
    before = image.copy()
    result = enhancer(image)
    assert isinstance(result, numpy.ndarray) and result.dtype == dtype and result.shape == image.shape
    assert numpy.array_equal(image, before)
    assert not numpy.array_equal(result, image)
    if dtype != "uint8":
        unit = 25 if numpy.dtype(dtype).kind == "f" else 2500
        offset = float(image.astype(numpy.float64).min())
        change = (result.astype(numpy.float64) - image.astype(numpy.float64)) / unit
        ours = numpy.float32((image.astype(numpy.float64) - offset) / unit)
        expected = enhancer(ours).astype(numpy.float64) - ours
        assert abs(change.mean()) < 1e-3
        assert abs(change - expected).max() < (0.02 if dtype == "float16" else 2e-3)


def test_a_stack_is_its_images(enhancer):
    stack = numpy.stack([(29000 + 2500 * scene(seed)).astype(numpy.uint16) for seed in range(3)])
    result = enhancer(stack)
    assert result.shape == stack.shape and result.dtype == numpy.uint16
    for one, image in zip(result, stack, strict=True):
        assert numpy.array_equal(one, enhancer(image))
    colours = numpy.repeat((255 * scene()).astype(numpy.uint8)[None, ..., None], 3, -1)
    assert numpy.array_equal(enhancer(colours)[0], enhancer(colours[0]))


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16", "I", "F"])
def test_pil_images(enhancer, mode):
    values = 255 * scene() if mode in ("L", "RGB") else 2500 * scene()
    image = Image.fromarray(values.astype({"L": "u1", "RGB": "u1", "I;16": "u2", "I": "i4", "F": "f4"}[mode]))
    image = image.convert("RGB") if mode == "RGB" else image
    image.info["dpi"] = (72, 72)
    result = enhancer(image)
    assert isinstance(result, Image.Image) and result.mode == mode and result.size == image.size
    assert numpy.array_equal(numpy.array(result), enhancer(numpy.array(image)))
    assert result.info == {"dpi": (72, 72)}


@pytest.mark.parametrize("shape", [(HEIGHT, WIDTH), (1, HEIGHT, WIDTH), (3, HEIGHT, WIDTH), (2, 1, HEIGHT, WIDTH)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_pictures_in_tensors(enhancer, shape, dtype):
    """Tensors of floating point are pictures from 0 to 1, enhanced as those of 8 bits."""
    image = torch.from_numpy(scene().astype(numpy.float32)).expand(shape).to(dtype)
    result = enhancer(image)
    assert isinstance(result, torch.Tensor) and result.dtype == dtype and result.shape == image.shape
    assert result.min() >= 0 and result.max() <= 1
    eight_bits = enhancer((255 * scene()).round().astype(numpy.uint8)) / 255
    assert (result.double() - torch.from_numpy(eight_bits).expand(shape)).abs().mean() < 0.01
    assert not result.is_inference()


def test_integers_in_tensors(enhancer):
    counts = (29000 + 2500 * scene()).astype(numpy.uint16)
    for tensor in (torch.from_numpy(counts), torch.from_numpy(counts)[None], torch.from_numpy(counts)[None, None]):
        result = enhancer(tensor)
        assert result.dtype == torch.uint16 and result.shape == tensor.shape
        assert numpy.array_equal(result.reshape(HEIGHT, WIDTH).numpy(), enhancer(counts))
    colours = torch.from_numpy((255 * scene()).astype(numpy.uint8)).expand(3, -1, -1)
    assert numpy.array_equal(enhancer(colours).permute(1, 2, 0).numpy(), enhancer(colours.permute(1, 2, 0).numpy()))


def test_tensors_in_other_units_need_a_window(enhancer):
    degrees = torch.from_numpy((25 * scene() - 5).astype(numpy.float32))
    with pytest.raises(ValueError, match="must have values from 0 to 1; got .*: for other values, give a window"):
        enhancer(degrees)
    with pytest.raises(ValueError, match="must have values from 0 to 1; got nan"):
        enhancer(torch.full((8, 8), torch.nan))
    result = enhancer(degrees, (-5, 20))
    assert numpy.array_equal(result.numpy(), enhancer(degrees.numpy(), (-5, 20)))


def test_a_tensor_with_a_gradient_is_taken_as_values(enhancer):
    x = torch.from_numpy(scene().astype(numpy.float32)).requires_grad_()
    assert not enhancer(x).requires_grad


def test_a_path_gives_an_array(enhancer, tmp_path):
    counts = (29000 + 2500 * scene()).astype(numpy.uint16)
    Image.fromarray(counts).save(tmp_path / "frame.tif")
    for path in (tmp_path / "frame.tif", str(tmp_path / "frame.tif")):
        assert numpy.array_equal(enhancer(path), enhancer(counts))


def test_a_path_of_several_pages_gives_a_stack(enhancer, tmp_path):
    stack = numpy.stack([(29000 + 2500 * scene(seed)).astype(numpy.uint16) for seed in range(2)])
    pages = [Image.fromarray(each) for each in stack]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    numpy.save(tmp_path / "a.npy", stack)
    for name in ("a.tif", "a.npy"):
        assert numpy.array_equal(enhancer(tmp_path / name), enhancer(stack))
    assert enhancer.parts(tmp_path / "a.tif").gain.shape == (2, 1, 1)
    assert [frame.pixels.shape for frame in read_frames(tmp_path / "a.npy")] == [(HEIGHT, WIDTH)] * 2
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=[pages[1].crop((0, 0, 20, 20))])
    with pytest.raises(UnusableImage, match=r"a.tif has pages of different sizes or types: read them by `read_frames`"):
        enhancer(tmp_path / "a.tif")


def test_scale_enlarges_every_kind():
    enhancer = deal.Enhancer("deal-u-small", scale=2)
    image = (255 * scene()).astype(numpy.uint8)
    assert enhancer(numpy.stack([image, image])).shape == (2, 2 * HEIGHT, 2 * WIDTH)
    assert enhancer(Image.fromarray(image)).size == (2 * WIDTH, 2 * HEIGHT)
    assert enhancer(torch.from_numpy(image)[None]).shape == (1, 2 * HEIGHT, 2 * WIDTH)
    assert enhancer.parts(torch.from_numpy(image)[None]).columns.shape == (1, 2 * HEIGHT, 2 * WIDTH)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
def test_parts_explain_the_result(dtype):
    """All parts, in the units of the image, give the enhanced image, as long as no value is beyond black or white."""
    image = ARRAYS[dtype].astype(dtype)
    window = (0, 255) if dtype == "uint8" else (float(image.min()), float(image.max()))
    enhancer = deal.Enhancer("deal-u-small", radiometric=False, precision="fp32")
    columns, rows, shading, detail, gain, offset = enhancer.parts(image, window)
    expected = gain * (image - columns - rows - shading - detail) + offset
    assert columns.shape == image.shape and isinstance(gain, float)
    if dtype == "uint8":
        expected = expected.clip(0, 255).round()
    result = enhancer(image, window).astype(numpy.float64)
    scale = window[1] - window[0]
    assert abs(columns).max() > 0.01 * scale
    assert abs(result - expected).max() <= max(1 if dtype.startswith("u") else 0, 1e-5 * scale)


def test_parts_of_measured_values(enhancer):
    """Only columns and rows are taken out, and no part moves the mean, or touches telemetry."""
    image = (29000 + 2500 * scene()).astype(numpy.uint16)
    image[0] = 65535
    parts = enhancer.parts(image)
    assert (parts.gain, parts.offset) == (1, 0)
    assert not any(part[0].any() for part in parts[:4])
    assert all(abs(part[1:].mean()) < 0.1 for part in parts[:4])
    assert abs(image - parts.columns - parts.rows - enhancer(image)).max() <= 0.51


@pytest.mark.parametrize("shape", [(2, HEIGHT, WIDTH), (2, HEIGHT, WIDTH, 3)])
def test_parts_of_stacks(enhancer, shape):
    stack = numpy.stack([(255 * scene(seed)).astype(numpy.uint8) for seed in range(2)])
    stack = stack if len(shape) == 3 else numpy.repeat(stack[..., None], 3, -1)
    parts = enhancer.parts(stack)
    alone = [enhancer.parts(image) for image in stack]
    for name in parts._fields[:4]:
        assert numpy.array_equal(getattr(parts, name), numpy.stack([getattr(each, name) for each in alone]))
    assert parts.gain.shape == (2, *(1,) * (len(shape) - 1))
    assert parts.gain.ravel().tolist() == [each.gain for each in alone]


def test_parts_of_tensors(enhancer):
    batch = torch.from_numpy(scene().astype(numpy.float32)).expand(2, 3, -1, -1)
    parts = enhancer.parts(batch)
    assert all(isinstance(part, torch.Tensor) and not part.is_inference() for part in parts)
    assert parts.columns.shape == batch.shape and parts.gain.shape == (2, 1, 1, 1)
    restored = parts.gain * (batch - parts.columns - parts.rows - parts.shading - parts.detail) + parts.offset
    torch.testing.assert_close(restored.clamp(0, 1).float(), enhancer(batch), rtol=0, atol=1e-5)
    assert isinstance(enhancer.parts(batch[0]).gain, float)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (numpy.zeros((4, 4), bool), TypeError, "pixels must be one of uint8, .*; got bool"),
        (numpy.zeros((4, 4), complex), TypeError, "pixels must be one of .*; got complex128"),
        (numpy.zeros(4), ValueError, r"image must be \[H, W\] or \[H, W, 3\] .*; got the shape \(4,\)"),
        (numpy.zeros((0, 4)), ValueError, r"got the shape \(0, 4\)"),
        (numpy.zeros(()), ValueError, r"got the shape \(\)"),
        (numpy.zeros((9, 9, 2)), ValueError, r"or a stack of more than 4 columns; got the shape \(9, 9, 2\)"),
        (numpy.zeros((9, 9, 1)), ValueError, r"got the shape \(9, 9, 1\)"),
        (numpy.zeros((0, 4, 9)), ValueError, r"got the shape \(0, 4, 9\)"),
        (numpy.zeros((0, 4, 4)), ValueError, r"got the shape \(0, 4, 4\)"),
        (numpy.zeros((2, 2, 2, 2, 2)), ValueError, r"got the shape \(2, 2, 2, 2, 2\)"),
        (numpy.full((4, 4), numpy.nan), UnusableImage, "has pixels that are not finite"),
        (numpy.full((4, 4), 2**60), ValueError, "pixels must be integers of at most"),
        (torch.zeros(2, 4, 4), ValueError, r"a tensor must be \[H, W\], .*; got the shape \(2, 4, 4\)"),
        (torch.zeros(4), ValueError, r"got the shape \(4,\)"),
        (torch.zeros(4, 4, dtype=torch.bool), TypeError, "pixels must be one of .*; got bool"),
        ([[1, 2]], TypeError, "image must be a path, a numpy array, a PIL image or a tensor; got list"),
    ],
)
def test_errors(enhancer, image, error, message):
    with pytest.raises(error, match=message):
        enhancer(image)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("kind", ["deal-u", "paper"])
def test_weights_in_another_precision(tmp_path, dtype, kind):
    network = deal.load("deal-u-small") if kind == "deal-u" else deal.DEAL([("scale", 3, 3)], width=4).eval()
    network.save_pretrained(tmp_path / "a.safetensors")
    tensors, notes = load_tensors(tmp_path / "a.safetensors")
    stored = {name: each.to(dtype) if each.is_floating_point() else each for name, each in tensors.items()}
    save_tensors(tmp_path / "b.safetensors", stored, notes)
    image = (255 * scene()).astype(numpy.uint8)
    one, other = (deal.Enhancer(tmp_path / f"{name}.safetensors", precision="fp32")(image) for name in "ab")
    assert abs(one.astype(int) - other).mean() < (4 if dtype == torch.bfloat16 else 1)


def pattern():
    return 60 * numpy.random.default_rng(5).standard_normal((HEIGHT, WIDTH)) + 100 * numpy.linspace(-1, 1, WIDTH) ** 2


def shutter(seed):
    """A frame of one temperature, with the pattern, noise, and a row of telemetry."""
    frame = 30000 + pattern() + 2 * numpy.random.default_rng(seed).standard_normal((HEIGHT, WIDTH))
    frame[0] = seed
    return frame.round().astype(numpy.uint16)


def test_a_reference_takes_the_pattern_away():
    """What is in the reference and the frame vanishes; the mean stays, and so does telemetry."""
    clean = 29000 + 2500 * scene()
    frame = (clean + pattern()).round().astype(numpy.uint16)
    frame[0] = 65535
    found = Reference.of([shutter(seed) for seed in range(16)])
    corrected = found.subtracted_from(frame)
    assert corrected.dtype == numpy.uint16 and numpy.array_equal(corrected[0], frame[0])
    error = corrected[1:] - clean[1:]
    assert error.std() < 1 and (frame[1:] - clean[1:]).std() > 60
    assert abs(corrected[1:].mean() - frame[1:].mean()) < 0.1


def test_a_reference_of_the_enhancer(tmp_path):
    """The network sees the frame without the pattern, and its window."""
    frame = (29000 + 2500 * scene() + 10 * pattern()).round().astype(numpy.uint16)
    paths = []
    for seed in range(4):
        paths.append(tmp_path / f"{seed}.tif")
        Image.fromarray((30000 + 10 * pattern()).round().astype(numpy.uint16)).save(paths[-1])
    corrected = Reference.of([numpy.array(Image.open(path)) for path in paths]).subtracted_from(frame)
    plain, with_reference = deal.Enhancer("deal-u-small"), deal.Enhancer("deal-u-small", reference=paths)
    assert numpy.array_equal(with_reference(frame), plain(corrected))
    assert to_frame(frame, reference=with_reference.reference).low == to_frame(corrected).low
    Image.fromarray(frame).save(tmp_path / "frame.tif")
    assert numpy.array_equal(with_reference(tmp_path / "frame.tif"), with_reference(frame))


def test_references_that_do_not_fit():
    with pytest.raises(ValueError, match="a reference must have at least one frame; got none"):
        Reference.of([])
    with pytest.raises(ValueError, match="frames of a reference must be alike; got 4 x 4 pixels of uint8 and 4 x 5"):
        Reference.of([numpy.zeros((4, 4), numpy.uint8), numpy.zeros((4, 5), numpy.uint8)])
    with pytest.raises(ValueError, match="a reference must have finite values"):
        Reference.of([numpy.full((4, 4), numpy.nan)])
    with pytest.raises(TypeError, match="reference must be a list of paths or arrays; got 'a.tif'"):
        deal.Enhancer("deal-u-small", reference="a.tif")
    fits = Reference.of([numpy.zeros((4, 4), numpy.uint8)])
    message = r"the image has 4 x 4 pixels of uint16, and the reference 4 x 4 pixels of uint8"
    with pytest.raises(UnusableImage, match=message):
        fits.subtracted_from(numpy.zeros((4, 4), numpy.uint16))


def test_values_at_the_end_of_their_range(enhancer):
    """Nothing becomes infinite, and integers do not wrap."""
    for dtype, high in (("float32", 3.4e38), ("float16", 65500.0), ("uint16", 65535), ("int16", 32767)):
        image = (high * scene()).astype(dtype)
        window = (0, high)
        result = enhancer(image, window)
        assert numpy.isfinite(result).all() and result.dtype == dtype
        assert abs(result.astype(numpy.float64) - image.astype(numpy.float64)).max() < 0.5 * high


@pytest.mark.parametrize("page", ["README.md", "deal/README.md"])
def test_the_lines_of_the_readme(page, tmp_path, monkeypatch):
    text = (Path(__file__).parents[1] / page).read_text()
    blocks = [each.split("```")[0] for each in text.split("```python\n")[1:]]
    lines = next(each for each in blocks if "from deal import Enhancer" in each)
    counts = (29000 + 2500 * scene()).astype(numpy.uint16)
    Image.fromarray(counts).save(tmp_path / "frame.tif")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(lines, names)
    assert names["enhanced"].dtype == numpy.uint16 and names["enhanced"].shape == (HEIGHT, WIDTH)
