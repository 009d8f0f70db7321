"""Methods of other packages: what they remove, against the packages used directly, and what is said without them."""

import functools
import sys

import destripe
import numpy
import pytest
import torch
from oracle import close
from PIL import Image
from skimage.restoration import denoise_nl_means
from stripes import drawn, striped

from deal import cli
from deal.evaluate import protocol
from deal.evaluate.baselines import packaged
from deal.evaluate.baselines.denoising import noise_deviation
from deal.evaluate.method_registry import PACKAGED, candidates
from deal.evaluate.method_registry import classical_method as method
from deal.evaluate.metrics import psnr
from deal.io.synthetic import thermal_scene

MODULES = {"destripe": "destripe", "nl-means": "skimage"}
SHORT = {"destripe": functools.partial(packaged.destripe, rounds=20), "nl-means": packaged.nl_means}


@pytest.fixture(scope="module")
def scene():
    return thermal_scene(96, 128, seed=1)[None]


def noisy(x, deviation):
    return x + deviation * torch.randn(x.shape, generator=torch.Generator().manual_seed(3), dtype=x.dtype)


def test_destripe_removes_stripes_of_columns(scene):
    y = striped(scene, "stripe", 0.05)
    assert psnr(method("destripe")(y), scene) > psnr(y, scene) + 3
    assert psnr(method("rows:destripe")(y.mT).mT, scene) > psnr(y, scene) + 3


def test_destripe_is_the_package_on_arrays(scene):
    y = striped(scene, "stripe", 0.1)[0, 0]
    for weights in ((0.33, 0.003), (0.1, 0.001)):
        expected = destripe.destripe(y.numpy(), *weights, 100, device="cpu")
        assert close(packaged.destripe(y[None, None], *weights, 100)[0, 0], torch.from_numpy(expected), 1e-4)


@pytest.mark.parametrize(("deviation", "gain"), [(0.03, 4), (0.05, 5)])
def test_nl_means_remove_noise(scene, deviation, gain):
    y = noisy(scene, deviation)
    assert psnr(method("nl-means")(y), scene) > psnr(y, scene) + gain


def test_nl_means_know_no_more_than_the_image(scene):
    """Its strength is estimated, so stripes, which are no noise of pixels, stay."""
    y = noisy(scene, 0.04)
    noise = noise_deviation(y).item()
    expected = denoise_nl_means(y[0, 0].numpy(), 5, 4, h=0.8 * noise, sigma=noise)
    assert numpy.array_equal(method("nl-means")(y)[0, 0].numpy(), expected)
    stripes = torch.zeros(1, 1, 96, 128) + torch.arange(128) % 2
    assert torch.equal(method("nl-means")(stripes), stripes)


@pytest.mark.parametrize("name", PACKAGED)
@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_flat_images_stay(name, value):
    x = torch.full((1, 1, 37, 53), value)
    assert torch.equal(method(name)(x), x)


@pytest.mark.parametrize("name", SHORT)
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (2, 9), (3, 3), (37, 53)])
def test_sizes_batches_and_channels(name, shape):
    x = drawn(2, 2, *shape)
    before = x.clone()
    result = SHORT[name](x)
    assert result.shape == x.shape and result.dtype == x.dtype and result.isfinite().all() and torch.equal(x, before)
    for k in range(2):
        assert torch.equal(result[k : k + 1], SHORT[name](x[k : k + 1]))
        assert torch.equal(result[:, k : k + 1], SHORT[name](x[:, k : k + 1]))
    turned = x.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2)
    assert torch.equal(SHORT[name](turned), result)
    assert close(SHORT[name](x.double()).float(), result, 1e-3)


@pytest.mark.parametrize("name", PACKAGED)
@pytest.mark.parametrize("written", ["{}", "rows:{}", "midway+{}"])
def test_the_extra_is_named_if_a_package_is_absent(name, written, monkeypatch):
    monkeypatch.setitem(sys.modules, MODULES[name], None)
    package = {"destripe": "destripe", "nl-means": "scikit-image"}[name]
    with pytest.raises(
        ModuleNotFoundError, match=rf'{name} needs {package}, .*: pip install "deal-kernels\[evaluate\]"'
    ):
        method(written.format(name))


def test_the_command_says_so_before_anything_is_computed(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "destripe", None)
    Image.new("L", (40, 30)).save(tmp_path / "x.png")
    options = ["--methods", "destripe", "-o", str(tmp_path / "out"), "--crop", "none"]
    assert cli.main(["evaluate", "--data", str(tmp_path), *options]) == 1
    said = capsys.readouterr().err
    assert said.startswith("deal: error: destripe needs destripe") and said.count("\n") == 1


def test_best_classical_does_without_and_says_so(monkeypatch):
    cpu = torch.device("cpu")
    assert "midway+rows:midway+nl-means" in candidates()
    assert "without nl-means" not in protocol.of_methods(["best-classical"], [], cpu)
    monkeypatch.setitem(sys.modules, "skimage", None)
    assert not [name for name in candidates() if "nl-means" in name]
    assert "(without nl-means: scikit-image is not installed)" in protocol.of_methods(["best-classical"], [], cpu)
