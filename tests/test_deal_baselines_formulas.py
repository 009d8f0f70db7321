"""Classical methods, each against its formula written out, in float64 and without torch where that is possible."""

import math

import numpy
import pytest
import torch
from oracle import close
from stripes import drawn, striped

from deal.evaluate.baselines.columns import median_difference, midway, moment_matching
from deal.evaluate.baselines.contrast import clahe, stretch
from deal.evaluate.baselines.denoising import gaussian_blur, median_filter, noise_deviation
from deal.evaluate.baselines.guided import guided_filter
from deal.evaluate.baselines.variation import _solved, utv
from deal.evaluate.baselines.wavelets import _joined, _split, scaling_filter, wavelet_fourier
from deal.evaluate.metrics import affine_psnr
from deal.io.synthetic import thermal_scene


def columns_of(x):
    return x[0, 0].double().numpy()


def gaussian(values, deviation):
    """Along the last axis, mirrored at the ends."""
    reach = math.ceil(3 * deviation)
    weights = numpy.exp(-((numpy.arange(-reach, reach + 1) / deviation) ** 2) / 2)
    wide = numpy.pad(values, [(0, 0)] * (values.ndim - 1) + [(reach, reach)], mode="symmetric")
    count = values.shape[-1]
    parts = [(wide[..., k : k + 2 * reach + 1] * weights).sum(-1) / weights.sum() for k in range(count)]
    return numpy.stack(parts, -1)


@pytest.mark.parametrize("rows", [8, 9])
def test_median_difference(rows):
    x = drawn(1, 1, rows, 30)
    image = columns_of(x)
    offsets = numpy.concatenate([[0], numpy.median(numpy.diff(image, axis=1), axis=0).cumsum()])
    expected = image - (offsets - gaussian(offsets, 7))
    assert numpy.allclose(columns_of(median_difference(x)), expected, atol=1e-5)


def test_moment_matching():
    x = drawn(1, 1, 20, 30)
    image = columns_of(x)
    mean, spread = image.mean(0), image.std(0)
    expected = (image - mean) / spread * gaussian(spread, 2) + gaussian(mean, 2)
    assert numpy.allclose(columns_of(moment_matching(x)), expected, atol=1e-5)


def test_midway():
    x = striped(thermal_scene(40, 50)[None, :, :, :30], "stripe", 0.1)
    image = columns_of(x)
    candidates = [image]
    for width in range(1, 9):
        smooth = gaussian(numpy.sort(image, axis=0), width)
        ranks = image.argsort(0).argsort(0)
        candidates.append(numpy.take_along_axis(smooth, ranks, axis=0))
    variations = [sum(abs(numpy.diff(each, axis=axis)).sum() for axis in (0, 1)) for each in candidates]
    best = int(numpy.argmin(variations))
    assert best > 0
    assert numpy.allclose(columns_of(midway(x)), candidates[best], atol=1e-5)


def test_midway_chooses_image_by_image():
    plain, stripes = thermal_scene(64, 80)[None], striped(thermal_scene(64, 80)[None], "stripe", 0.1)
    result = midway(torch.cat([plain, stripes]))
    assert torch.equal(result[:1], plain) and not torch.equal(result[1:], stripes)


def guided_by_hand(guide, x, reach, least):
    """Of one row, window by window."""
    windows = [slice(max(0, k - reach), k + reach + 1) for k in range(len(x))]
    slopes, offsets = [], []
    for w in windows:
        slope = numpy.cov(guide[w], x[w], bias=True)[0, 1] / (guide[w].var() + least)
        slopes.append(slope)
        offsets.append(x[w].mean() - slope * guide[w].mean())
    return numpy.array([numpy.mean(slopes[w]) * guide[k] + numpy.mean(offsets[w]) for k, w in enumerate(windows)])


def test_guided_filter():
    x = drawn(1, 1, 20, 14)
    image = columns_of(x)
    smooth = numpy.stack([guided_by_hand(row, row, 3, 0.05) for row in image])
    down = zip(smooth.T, (image - smooth).T, strict=True)
    stripes = numpy.stack([guided_by_hand(guide, rest, 6, 0.02) for guide, rest in down], 1)
    assert numpy.allclose(columns_of(guided_filter(x, 3, 0.05, 6, 0.02)), image - stripes, atol=1e-5)


@pytest.mark.parametrize("shape", [(6, 5), (7, 4), (1, 3), (2, 1)])
def test_cosine_transforms_solve_the_system(shape):
    rows, columns = shape

    def laplacian(count):
        difference = torch.eye(count, dtype=torch.float64).diff(dim=0)
        return difference.T @ difference

    system = 3 * torch.kron(laplacian(rows), torch.eye(columns)) + 2 * torch.kron(torch.eye(rows), laplacian(columns))
    x = drawn(1, 1, rows, columns, dtype=torch.float64)
    waves = [2 - 2 * torch.cos(math.pi * torch.arange(count, dtype=torch.float64) / count) for count in shape]
    eigenvalues = 3 * waves[0][:, None] + 2 * waves[1]
    inverse = torch.where(eigenvalues > 0, 1 / eigenvalues, 0)
    expected = torch.linalg.pinv(system) @ x.flatten()
    assert close(_solved(x, inverse).flatten(), expected, 1e-10)


def test_utv_finds_the_minimum():
    """An image of rows and columns of their own has a minimum of zero: the rows."""
    rows, columns = drawn(1, 1, 30, 1, dtype=torch.float64), drawn(1, 1, 1, 24, seed=1, dtype=torch.float64)
    result = utv(rows + columns, 0.1, 400, 10, 1, width=1e4)
    assert close(result - result.mean(), rows.expand(-1, -1, -1, 24) - rows.mean(), 1e-3)
    assert result.mean().item() == pytest.approx((rows + columns).mean().item(), abs=1e-6)


def test_utv_falls_to_no_less_than_the_minimum():
    x = striped(thermal_scene(24, 32, seed=2)[None].double(), "stripe", 0.1)

    def cost(u):
        return (u - x).diff(dim=2).abs().sum() + 0.1 * u.diff(dim=3).abs().sum()

    result = utv(x, 0.1, 1000, 10, 1, width=1e4)
    # The result gets the mean of x, constant but for rounding, which costs nothing.
    assert cost(result) < cost(x) / 2 and cost(result) < cost(median_difference(x))
    for seed in range(20):
        direction = drawn(*x.shape, seed=seed, dtype=torch.float64) - 0.5
        if seed % 2:
            direction = direction[:, :, :1].expand_as(x)
        for size in (1e-2, 1e-1):
            assert cost(result + size * direction) > cost(result) * 0.9999


@pytest.mark.parametrize("moments", range(1, 11))
def test_daubechies_filters(moments):
    taps = numpy.array(scaling_filter(moments))
    assert len(taps) == 2 * moments and taps.sum() == pytest.approx(math.sqrt(2))
    for shift in range(moments):
        product = (taps[2 * shift :] * taps[: len(taps) - 2 * shift]).sum()
        assert product == pytest.approx(float(shift == 0), abs=1e-7)
    places = numpy.arange(len(taps)) / len(taps)
    for power in range(moments):
        assert abs(((-1) ** numpy.arange(len(taps)) * taps * places**power).sum()) < 1e-6


def test_daubechies_filters_by_hand():
    assert scaling_filter(1) == pytest.approx([math.sqrt(0.5)] * 2)
    root = math.sqrt(3)
    expected = [(1 + root), (3 + root), (3 - root), (1 - root)]
    assert scaling_filter(2) == pytest.approx([each / (4 * math.sqrt(2)) for each in expected])


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("size", [2, 4, 16, 30])
def test_wavelets_are_orthogonal(dim, size):
    taps = scaling_filter(4)
    shape = [2, 1, 5, 5]
    shape[dim] = size
    x = drawn(*shape, dtype=torch.float64)
    low, high = _split(x, taps, dim)
    assert close(_joined(low, high, taps, dim), x, 1e-10)
    assert (low.square().sum() + high.square().sum()).item() == pytest.approx(x.square().sum().item())
    ramp = torch.linspace(0, 1, 64, dtype=torch.float64).reshape(1, 1, 1, 64)
    assert _split(ramp, taps, 3)[1][..., :-4].abs().max() < 1e-9  # but where its ends meet


def test_wavelet_fourier_takes_what_columns_have_and_rows_have_not():
    stripes = (torch.arange(256) % 2 - 0.5).expand(1, 1, 48, 256)
    assert wavelet_fourier(stripes).abs().max() < 0.1  # of the two equal columns where the mirror stands
    assert wavelet_fourier(stripes)[..., 64:-64].abs().max() < 1e-5
    rows = drawn(1, 1, 48, 1).expand(1, 1, 48, 64)
    assert close(wavelet_fourier(rows), rows, 1e-5)
    x = drawn(1, 1, 48, 64)
    assert close(wavelet_fourier(x, width=1e-3).mean(2), wavelet_fourier(x).mean(2), 1e-5)
    assert close(wavelet_fourier(x, width=1e-3) + x.mean(2, keepdim=True), x + wavelet_fourier(x.mean(2, True)), 1e-4)


def test_stretch():
    x = drawn(2, 3, 8, 9)
    assert close(stretch(x).mean((1, 2, 3)), x.mean((1, 2, 3)), 1e-6)
    assert close(stretch(x).std((1, 2, 3)), 1.3 * x.std((1, 2, 3)), 1e-6)
    assert (affine_psnr(stretch(x), x) > 100).all()


def test_gaussian_blur():
    x = drawn(1, 1, 20, 31)
    expected = gaussian(gaussian(columns_of(x), 1.5).T, 1.5).T
    assert numpy.allclose(columns_of(gaussian_blur(x, 1.5)), expected, atol=1e-5)
    assert torch.equal(gaussian_blur(x), gaussian_blur(x, 2))


def test_median_filter():
    x = drawn(1, 1, 8, 11)
    wide = numpy.pad(columns_of(x), 1, mode="edge")
    expected = [[numpy.median(wide[i : i + 3, j : j + 3]) for j in range(11)] for i in range(8)]
    assert numpy.allclose(columns_of(median_filter(x)), expected)


def test_noise_is_estimated_whatever_columns_rows_and_edges_there_are():
    random = torch.Generator().manual_seed(0)
    deviations = torch.tensor([[0.01, 0.02], [0.05, 0.1]])
    noise = deviations[:, :, None, None] * torch.randn(2, 2, 128, 160, generator=random)
    for scene in (0, torch.randn(160), torch.randn(128, 1), (torch.arange(160) > 70).float()):
        assert (noise_deviation(noise + scene) / deviations - 1).abs().max() < 0.03
    assert noise_deviation(drawn(2, 3, 1, 9)).tolist() == [[0, 0, 0], [0, 0, 0]]


def clahe_by_hand(image, limit, tiles):
    """Pixel by pixel, of an image that tiles divide."""
    tall, wide = (side // tiles for side in image.shape)
    curves = {}
    for i in range(tiles):
        for j in range(tiles):
            part = image[i * tall : (i + 1) * tall, j * wide : (j + 1) * wide]
            shares = numpy.histogram(part, 256, (0, 1))[0] / part.size
            cut = numpy.minimum(shares, limit / 256)
            curves[i, j] = numpy.concatenate([[0], (cut + (1 - cut.sum()) / 256).cumsum()])
    result = numpy.empty_like(image)
    for (row, column), value in numpy.ndenumerate(image):
        y, x = (row + 0.5) / tall - 0.5, (column + 0.5) / wide - 0.5
        total = 0
        for i in (math.floor(y), math.floor(y) + 1):
            for j in (math.floor(x), math.floor(x) + 1):
                curve = curves[min(max(i, 0), tiles - 1), min(max(j, 0), tiles - 1)]
                mapped = numpy.interp(value * 256, numpy.arange(257), curve)
                total += (1 - abs(y - i)) * (1 - abs(x - j)) * mapped
        result[row, column] = total
    return result


@pytest.mark.parametrize(("limit", "tiles"), [(0.75, 4), (3, 2), (40, 1)])
def test_clahe(limit, tiles):
    x = (thermal_scene(32, 40, seed=1)[None] * 0.6 + 0.1).double()
    assert numpy.allclose(columns_of(clahe(x, limit, tiles)), clahe_by_hand(columns_of(x), limit, tiles), atol=1e-9)


def test_clahe_steepens_no_more_than_it_may():
    x = torch.linspace(0.4, 0.6, 64 * 64).reshape(1, 1, 64, 64)
    assert close(clahe(x, 0), x, 1e-5)
    result = clahe(x, 2, 1).flatten()
    assert (result.diff() >= 0).all() and (result.diff() <= 3 * 1.001 * x.flatten().diff()).all()
    assert result.max() - result.min() > 1.5 * 0.2
    assert torch.equal(clahe(2 * x - 0.5), clahe((2 * x - 0.5).clamp(0, 1)))
    assert clahe(drawn(1, 1, 40, 40) * 3 - 1).min() >= 0 and clahe(drawn(1, 1, 40, 40) * 3 - 1).max() <= 1 + 1e-6
