"""The names that `deal` exports, without an import of torch, and the images that it takes."""

import importlib
import subprocess
import sys

import numpy
import pytest
import torch
from PIL import Image

import deal
from deal.inference.enhancer import Enhancer
from deal.model.network import DEAL
from deal.training.loop import train


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
