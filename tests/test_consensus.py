"""The consensus of rows: the kernel against the specification, and what a robust mean has to do."""

import pytest
import torch
from conftest import BACKENDS
from hypothesis import given, settings
from hypothesis import strategies as st

from deal_kernels.consensus import consensus, reference

WAYS = ("cpp", "torch")


@pytest.fixture(params=WAYS)
def way(request):
    if request.param not in BACKENDS:
        pytest.skip("the extension is not built")
    return request.param


def rows(batch, count, columns, seed=0):
    """Values near 0.3 in most rows and anywhere in the others, with weights and tolerances."""
    random = torch.Generator().manual_seed(seed)
    x = 0.3 + 0.01 * torch.randn(batch, count, columns, generator=random)
    odd = torch.rand(x.shape, generator=random) < 0.3
    x = torch.where(odd, torch.randn(x.shape, generator=random), x)
    return x, torch.rand(x.shape, generator=random), 0.01 + 0.02 * torch.rand(batch, generator=random)


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 3), count=st.integers(1, 40), columns=st.integers(1, 100), seed=st.integers(0, 1000),
)  # fmt: skip
def test_the_kernel_computes_the_specification(batch, count, columns, seed):
    """In float64, where two starts have clearly different supports: else rounding may decide between them."""
    x, weights, tolerance = rows(batch, count, columns, seed)
    expected = reference.consensus(x.double(), weights.double(), tolerance.double())
    found = consensus(x, weights, tolerance)
    assert ((found - expected).abs() < 1e-4).float().mean() > 0.95


def test_quartiles_are_exact(way):
    """With two equal camps the search can only leave the mean by starting at a quartile, which lies in a camp."""
    for sign in (1.0, -1.0):
        x = sign * torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0])[None, :, None].expand(1, 5, 20).contiguous()
        found = consensus(x, torch.ones_like(x), torch.tensor([0.01]), backend=way)
        assert (found - sign).abs().max() < 1e-2


def test_outliers_do_not_move_it(way):
    x, weights, tolerance = rows(2, 200, 50)
    assert (consensus(x, weights, tolerance, backend=way) - 0.3).abs().max() < 0.02
    assert (x.mean(1) - 0.3).abs().max() > 0.05


@pytest.mark.parametrize("share", [0.2, 0.45])
def test_neighbours_outvote_an_edge(way, share):
    """That covers nearly half of the rows, which have the larger weights."""
    random = torch.Generator().manual_seed(0)
    steps = 0.05 * torch.randn(40, generator=random)
    differences = steps + 0.002 * torch.randn(1, 100, 40, generator=random)
    weights = torch.ones_like(differences)
    high = round(share * 100)
    differences[:, :high, 15:19] += torch.tensor([0.05, 0.1, 0.1, 0.05])
    weights[:, high:] = 0.7
    agreed = consensus(differences, weights, torch.tensor([0.01]), backend=way)
    assert (agreed[0] - steps).abs().max() < 0.005


def test_weights_of_zero_exclude_rows(way):
    x = torch.zeros(1, 10, 12)
    x[:, 5:] = 1
    weights = torch.ones_like(x)
    weights[:, :5] = 0
    assert (consensus(x, weights, torch.tensor([0.1]), backend=way) - 1).abs().max() < 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(dtype):
    x, weights, tolerance = (each.to(dtype) for each in rows(1, 50, 20))
    found = consensus(x, weights, tolerance)
    assert found.dtype == dtype and (found - 0.3).abs().max() < 0.05


def test_no_images():
    assert consensus(torch.zeros(0, 4, 9), torch.zeros(0, 4, 9), torch.zeros(0)).shape == (0, 9)


def test_it_has_no_gradient():
    x, weights, tolerance = rows(1, 20, 10)
    assert not consensus(x.requires_grad_(), weights, tolerance).requires_grad


X = torch.zeros(1, 4, 9)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((X[0], X[0], torch.ones(4)), ValueError, r"x must be \[B, R, W\] with rows and columns.*\(4, 9\)"),
        ((X[:, :0], X[:, :0], torch.ones(1)), ValueError, "x must be .* with rows and columns"),
        ((X, X[:, :2], torch.ones(1)), ValueError, r"weights must have the shape \(1, 4, 9\)"),
        ((X, X.double(), torch.ones(1)), ValueError, "weights must have"),
        ((X, X, torch.ones(2)), ValueError, r"tolerance must have the shape \(1,\) and torch.float32; got \(2,\)"),
        ((X, X, 1.0), TypeError, "tolerance must be a tensor"),
    ],
)
def test_errors(arguments, error, message):
    with pytest.raises(error, match=message):
        consensus(*arguments)


def test_backends_that_cannot_run():
    with pytest.raises(RuntimeError, match="backend 'triton' cannot run: the consensus has no kernel there"):
        consensus(X, X, torch.ones(1), backend="triton")
    with pytest.raises(RuntimeError, match="backend 'cpp' cannot run: it has no float64"):
        consensus(X.double(), X.double(), torch.ones(1).double(), backend="cpp")
