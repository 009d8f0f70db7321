"""Measures of fused images: recorded values of real pairs, values by hand, and formulas written pixel by pixel."""

import json
import math
import os
from collections import Counter

import numpy
import pytest
from conftest import DATA
from PIL import Image

from deal.fusion.metrics import (
    deviation,
    entropy,
    fuse,
    fusion_metrics,
    gradient_transfer,
    mutual_information,
    scd,
    vif,
)

VARIANTS = ["standard", "legacy"]
NEAR = pytest.approx


def noise(*shape, seed=0, low=0, high=256):
    return numpy.random.default_rng(seed).integers(low, high, shape, numpy.uint8)


def flat(value, *shape):
    return numpy.full(shape or (48, 50), value, numpy.uint8)


def blobs(*shape, seed=0):
    """A smooth image that fills 0 to 255."""
    coarse = Image.fromarray(noise(6, 7, seed=seed)).resize(shape[::-1], Image.Resampling.BICUBIC)
    return numpy.array(coarse)


def recorded():
    path = DATA / "golden" / "fusion_metrics.json"
    if not path.exists():
        missing = pytest.fail if os.environ.get("DEAL_TEST_DATA_REQUIRED") else pytest.skip
        missing(f"{path} is not there: set DEAL_TEST_DATA to the folder that holds golden/ and data/")
    return json.loads(path.read_text())


def test_recorded_values():
    entries = recorded()
    assert len(entries) == 12
    pairs = DATA / "data" / "roadscene" / "pairs12"
    for entry, variants in entries.items():
        name, how = entry.split("|")
        infrared, visible = (numpy.array(Image.open(pairs / kind / name).convert("L")) for kind in ("ir", "vis"))
        fused = fuse(infrared, visible, how)
        for variant, expected in variants.items():
            assert fusion_metrics(fused, infrared, visible, variant) == NEAR(expected, abs=1e-9), (entry, variant)


def test_fusion():
    infrared, visible = numpy.array([[0, 255, 255, 7]], numpy.uint8), numpy.array([[1, 255, 0, 4]], numpy.uint8)
    assert fuse(infrared, visible, "max").tolist() == [[1, 255, 255, 7]]
    assert fuse(infrared, visible, "mean").tolist() == [[1, 255, 128, 6]]
    assert fuse(infrared, visible, "mean").dtype == numpy.uint8
    with pytest.raises(ValueError, match="how must be one of 'max', 'mean'; got 'ReCo'"):
        fuse(infrared, visible, "ReCo")


@pytest.mark.parametrize(
    ("counts", "bits"), [({9: 4}, 0), ({0: 5, 255: 5}, 1), ({1: 1, 2: 1, 3: 2}, 1.5), ({0: 1, 1: 1, 2: 1, 3: 1}, 2)]
)
def test_entropy_by_hand(counts, bits):
    image = numpy.repeat(numpy.array(list(counts), numpy.uint8), list(counts.values()))[None]
    assert entropy(image) == NEAR(bits) and math.copysign(1, entropy(image)) == 1


def information_by_hand(fused, source, most):
    def bits(values):
        return -sum(n / fused.size * math.log2(n / fused.size) for n in Counter(values).values())

    f, s = (image.reshape(-1).tolist() for image in (fused, source))
    together = [(min(one, most), min(other, most)) for one, other in zip(f, s, strict=True)]
    return bits(f) + bits(s) - bits(together)


@pytest.mark.parametrize("variant", VARIANTS)
def test_mutual_information(variant):
    fused, infrared, visible = (noise(20, 30, seed=seed, low=248) for seed in range(3))
    visible = numpy.maximum(visible, fused)
    most = 255 if variant == "standard" else 254
    expected = sum(information_by_hand(fused, source, most) for source in (infrared, visible))
    assert mutual_information(fused, infrared, visible, variant) == NEAR(expected)


def test_mutual_information_by_hand():
    halves = numpy.array([[254, 255]], numpy.uint8)
    assert mutual_information(halves, halves, flat(3, 1, 2)) == NEAR(1)
    assert mutual_information(halves, halves, halves, "legacy") == NEAR(4)  # their joint entropy is lost
    assert mutual_information(halves - 1, halves - 1, halves - 1, "legacy") == NEAR(2)


@pytest.mark.parametrize(
    ("pixels", "standard", "legacy"),
    [
        ([90, 110], 10, math.sqrt(50)),
        ([0, 200], 100, math.sqrt(255 / 2)),
        ([5, 5, 5], 0, 0),
        ([1, 2], 0.5, math.sqrt(1 / 2)),  # a half is rounded up
        ([0, 0, 1], math.sqrt(2) / 3, math.sqrt(1 / 3)),
        ([100, 100, 100, 160], math.sqrt(675), math.sqrt(255 / 4)),
    ],
)
def test_deviation_by_hand(pixels, standard, legacy):
    image = numpy.array([pixels], numpy.uint8)
    assert deviation(image) == NEAR(standard) and deviation(image, "legacy") == NEAR(legacy)


def test_scd():
    fused, infrared, visible = (blobs(40, 50, seed=seed) for seed in range(3))
    expected = sum(
        numpy.corrcoef((fused.astype(float) - other).flatten(), source.flatten())[0, 1]
        for other, source in ((visible, infrared), (infrared, visible))
    )
    assert scd(fused, infrared, visible) == NEAR(expected)
    dim = (infrared // 2, visible // 2)
    assert scd(dim[0] + dim[1], *dim) == NEAR(2)


def fidelity_by_hand(reference, distorted, legacy):
    """Window by window and value by value."""
    r, d = reference.astype(float), distorted.astype(float)
    passed = possible = 0
    for scale in range(1, 5):
        size = 2 ** (5 - scale) + 1
        squared = (numpy.arange(size) - size // 2) ** 2
        window = numpy.exp(-numpy.add.outer(squared, squared) / (2 * (size / 5) ** 2))
        window /= window.sum()

        def means(image, size=size, window=window):
            rows, columns = (side - size + 1 for side in image.shape)
            parts = ((image[i : i + size, j : j + size] * window).sum() for i in range(rows) for j in range(columns))
            return numpy.fromiter(parts, float).reshape(rows, columns)

        if scale > 1:
            r, d = means(r)[::2, ::2], means(d)[::2, ::2]
        most = 255 if legacy and scale == 1 else math.inf
        moments = [means(image) for image in (r, d)]
        moments += [means(numpy.minimum(product, most)) for product in (r * r, d * d, r * d)]
        for mr, md, rr, dd, rd in zip(*(moment.flatten() for moment in moments), strict=True):
            vr, vd, cov = max(0, rr - mr * mr), max(0, dd - md * md), rd - mr * md
            g = cov / (vr + 1e-10)
            v = vd - g * cov
            if vr < 1e-10:
                g, v, vr = 0, vd, 0
            if vd < 1e-10:
                g, v = 0, 0
            if g < 0:
                g, v = 0, vd
            passed += math.log10(1 + g * g * vr / (max(v, 1e-10) + 2))
            possible += math.log10(1 + vr / 2)
    return passed / possible


@pytest.mark.parametrize("variant", VARIANTS)
def test_vif(variant):
    infrared, visible = blobs(41, 46), noise(41, 46, high=20)
    visible[:20] = 16  # where there is nothing to see
    fused = fuse(infrared, visible, "mean")
    fused[30:] = 16
    fused[:, :10] = 255 - fused[:, :10]
    expected = sum(fidelity_by_hand(source, fused, variant == "legacy") for source in (infrared, visible))
    assert vif(fused, infrared, visible, variant) == NEAR(expected, abs=1e-7)


def test_vif_by_hand():
    image, other = noise(60, 70), noise(60, 70, seed=1)
    assert vif(image, image, image) == NEAR(2, abs=1e-5)
    assert vif(flat(9, 60, 70), image, other) == NEAR(0, abs=1e-9)
    assert vif(255 - image, image, image) < 0.01
    half = (image // 4 + 96).astype(numpy.uint8)
    assert vif(half, image, image) < vif(image, image, image) < vif(image, half, half)  # contrast is rewarded


def transfer_by_hand(fused, infrared, visible):
    """Pixel by pixel."""

    def sobel(image, i, j):
        p = numpy.pad(image.astype(int), 1)[i : i + 3, j : j + 3].tolist()
        y = p[0][0] + 2 * p[0][1] + p[0][2] - p[2][0] - 2 * p[2][1] - p[2][2]
        x = p[0][2] + 2 * p[1][2] + p[2][2] - p[0][0] - 2 * p[1][0] - p[2][0]
        return math.sqrt(x * x + y * y), math.atan(y / x) if x else math.pi / 2

    kept = total = 0
    for i in range(fused.shape[0]):
        for j in range(fused.shape[1]):
            g_f, a_f = sobel(fused, i, j)
            for source in (infrared, visible):
                g, a = sobel(source, i, j)
                strength = g_f if g == g_f else min(g, g_f) / max(g, g_f)
                direction = 1 - abs(a - a_f) / (math.pi / 2)
                share = 0.9994 / (1 + math.exp(-15 * (strength - 0.5)))
                kept += g * share * 0.9879 / (1 + math.exp(-22 * (direction - 0.8)))
                total += g
    return kept / total


def test_gradient_transfer():
    infrared, visible = blobs(17, 23), noise(17, 23, high=40)
    for how in ("max", "mean"):
        fused = fuse(infrared, visible, how)
        assert gradient_transfer(fused, infrared, visible) == NEAR(transfer_by_hand(fused, infrared, visible), abs=1e-9)


def test_gradient_transfer_by_hand():
    image = blobs(30, 40)
    assert gradient_transfer(image, image, image) == NEAR(0.9994 * 0.9879 / (1 + math.exp(-4.4)), abs=1e-3)
    assert gradient_transfer(flat(0, 30, 40), image, image) < 1e-3


def test_flat_images():
    """What is not defined is no number, and nothing else is."""
    image = noise(48, 50)
    of_flat = fusion_metrics(flat(7), image, image)
    assert (of_flat["EN"], of_flat["MI"], of_flat["SD"]) == NEAR((0, 0, 0)) and of_flat["SCD"] == NEAR(-2)
    assert not any(map(math.isnan, of_flat.values()))
    nothing = fusion_metrics(image, flat(7), flat(7))
    assert [name for name, value in nothing.items() if math.isnan(value)] == ["SCD", "VIF"]
    assert math.isnan(gradient_transfer(image, flat(0), flat(0)))
    assert not math.isnan(gradient_transfer(image, flat(7), flat(0)))
    assert math.isnan(scd(image, image, image))


def test_measures_are_the_single_ones():
    fused, infrared, visible = images = [blobs(50, 60, seed=seed) for seed in range(3)]
    before = [image.copy() for image in images]
    for variant in VARIANTS:
        assert fusion_metrics(fused, infrared, visible, variant) == {
            "EN": entropy(fused),
            "MI": mutual_information(fused, infrared, visible, variant),
            "SD": deviation(fused, variant),
            "SCD": scd(fused, infrared, visible),
            "VIF": vif(fused, infrared, visible, variant),
            "Qabf": gradient_transfer(fused, infrared, visible),
        }
    assert all(numpy.array_equal(one, other) for one, other in zip(images, before, strict=True))
    turned = [image[:, ::-1] for image in images]
    assert fusion_metrics(*turned) == fusion_metrics(*map(numpy.ascontiguousarray, turned))


@pytest.mark.parametrize("measure", [fusion_metrics, mutual_information, scd, vif, gradient_transfer])
@pytest.mark.parametrize(
    ("infrared", "error", "message"),
    [
        (flat(0, 48, 49), ValueError, r"infrared must have the shape of fused, \(48, 50\); got \(48, 49\)"),
        (flat(0).astype(float), TypeError, "infrared must be uint8; got float64"),
        (flat(0).tolist(), TypeError, "infrared must be a numpy array; got list"),
        (flat(0, 48, 50, 3), ValueError, r"infrared must be \[H, W\] .*; got the shape \(48, 50, 3\)"),
        (flat(0, 0, 50), ValueError, r"at least one pixel; got the shape \(0, 50\)"),
    ],
)
def test_errors(measure, infrared, error, message):
    with pytest.raises(error, match=message):
        measure(flat(0), infrared, flat(0))


def test_other_errors():
    with pytest.raises(ValueError, match="VIF needs images of 41 x 41 pixels or more; got 60 x 40"):
        vif(*[flat(0, 60, 40)] * 3)
    for call in (lambda: deviation(flat(1), "old"), lambda: fusion_metrics(*[flat(1)] * 3, "old")):
        with pytest.raises(ValueError, match="variant must be one of 'standard', 'legacy'; got 'old'"):
            call()
    with pytest.raises(TypeError, match="image must be uint8; got float64"):
        entropy(flat(0) / 255)
