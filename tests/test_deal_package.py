"""What `import deal` gives: lazy names, without torch, and one way of imports between the packages."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

import deal
from deal.inference.enhancer import Enhancer
from deal.model.network import DEAL
from deal.training.loop import train

ROOT = Path(deal.__file__).parent
# Each package may import those before it, and itself.
ORDER = (("checks", "io"), ("model",), ("fusion", "inference", "training"), ("evaluate",), ("cli",))


@pytest.mark.parametrize("name", deal.__all__)
def test_exported_names(name):
    exported = getattr(deal, name)
    assert exported.__name__ == name and exported.__doc__ and name in dir(deal)


def test_exports_are_what_they_are_named_for():
    """Also after the packages have been imported, whose names must not hide them."""
    importlib.import_module("deal.training.loop")
    assert deal.train is train and deal.DEAL is DEAL and deal.Enhancer is Enhancer
    with pytest.raises(AttributeError, match="has no attribute 'Players'"):
        _ = deal.Players


def test_import_is_fast():
    script = "import deal, sys; assert not {'torch', 'PIL', 'numpy', 'jsonargparse', 'deal_kernels'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_enhancing_files_arrays_and_pil_images(tmp_path):
    torch.manual_seed(0)
    network = DEAL([("scale", 3, 3)], width=4)
    network.save_pretrained(tmp_path / "tiny.safetensors")
    random = numpy.random.default_rng(0)
    enhancer = deal.Enhancer(network)
    colours, counts = (
        random.integers(0, 256, (30, 40, 3), numpy.uint8),
        random.integers(0, 9000, (30, 40), numpy.uint16),
    )
    for pixels in (colours, counts):
        path = tmp_path / "image.png"
        Image.fromarray(pixels).save(path)
        expected = enhancer(path)
        assert expected.dtype == pixels.dtype and expected.shape == pixels.shape
        for image in (pixels, Image.fromarray(pixels)):
            assert numpy.array_equal(enhancer(image), expected)
            assert numpy.array_equal(deal.enhance(image, model=tmp_path / "tiny.safetensors"), expected)
    kelvins = 280 + 40 * random.random((30, 40), numpy.float32)
    assert enhancer(kelvins).dtype == numpy.float32
    assert numpy.array_equal(enhancer(kelvins, (280, 320)), enhancer(kelvins, (280.0, 320.0)))


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        ([[1, 2]], TypeError, "image must be a path, a numpy array or a PIL image; got list"),
        (numpy.zeros((4, 4)), TypeError, "image must be one of uint8, uint16, float32; got float64"),
        (
            numpy.zeros((4, 4, 2), numpy.uint8),
            ValueError,
            r"must be \[H, W\] or \[H, W, 3\].*got the shape \(4, 4, 2\)",
        ),
        (numpy.zeros((0, 4), numpy.uint8), ValueError, r"at least one pixel; got the shape \(0, 4\)"),
        (numpy.full((4, 4), numpy.nan, numpy.float32), ValueError, "the image has pixels that are not finite"),
    ],
)
def test_images_of_other_kinds(image, error, message):
    with pytest.raises(error, match=message):
        Enhancer(DEAL([("scale", 3, 3)], width=4))(image)


def imports(path):
    """The modules of deal that a file imports, wherever it does so."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_imports_go_one_way():
    """cli -> evaluate -> training, inference, fusion -> model -> io -> deal_kernels."""
    level = {name: place for place, names in enumerate(ORDER) for name in names}
    for path in ROOT.rglob("*.py"):
        package = path.relative_to(ROOT).parts[0].removesuffix(".py")
        for name in imports(path):
            parts = name.split(".")
            if package in level and parts[0] == "deal" and len(parts) > 1 and parts[1] in level and parts[1] != package:
                assert level[parts[1]] < level[package] or {package, parts[1]} == {"io", "checks"}, f"{path}: {name}"


def test_files_are_small():
    for path in ROOT.rglob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path
