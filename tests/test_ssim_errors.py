"""Every wrong argument is named, with what came and what is accepted."""

import math

import pytest
import torch

from deal_kernels.ssim import L1SSIM, l1_ssim, ssim, ssim_map

A = torch.zeros(1, 3, 12, 12)

CASES = (
    ({"first": [1.0]}, TypeError, "{first} must be a tensor; got list"),
    ({"second": 0.5}, TypeError, "{second} must be a tensor; got float"),
    ({"first": A.long()}, TypeError, "{first} must be float32, float16, bfloat16 or float64; got torch.int64"),
    ({"second": A.to(torch.complex64)}, TypeError, "{second} must be float32.*got torch.complex64"),
    ({"first": A.to_sparse()}, TypeError, "{first} must be a dense tensor; got the layout torch.sparse_coo"),
    ({"first": A[0, 0]}, ValueError, r"{first} must be \[B, C, H, W\] or \[C, H, W\]; got the shape \(12, 12\)"),
    ({"first": A[None]}, ValueError, r"{first} must be \[B, C, H, W\].*got the shape \(1, 1, 3, 12, 12\)"),
    ({"second": A[:, :1]}, ValueError, r"{second} must have the shape of {first}, .*; got \(1, 1, 12, 12\)"),
    ({"second": A.double()}, ValueError, "{second} must have the dtype of {first}, torch.float32; got torch.float64"),
    ({"second": A.to("meta")}, ValueError, "{second} must have the device of {first}, cpu; got meta"),
    ({"data_range": 0}, ValueError, "data_range must be positive; got 0.0"),
    ({"data_range": -1.0}, ValueError, "data_range must be positive; got -1.0"),
    ({"data_range": math.nan}, ValueError, "data_range must be finite; got nan"),
    ({"data_range": "1"}, TypeError, "data_range must be a number; got str"),
    ({"padding": "same"}, ValueError, "padding must be one of 'zeros', 'valid'; got 'same'"),
    ({"padding": None}, ValueError, "padding must be one of 'zeros', 'valid'; got None"),
    ({"backend": "cublas"}, ValueError, "backend must be 'auto' or one of cpp, cuda, triton, torch; got 'cublas'"),
)


@pytest.mark.parametrize("function", [ssim, ssim_map, l1_ssim])
@pytest.mark.parametrize(("arguments", "error", "message"), CASES)
def test_arguments(function, arguments, error, message):
    names = ("y_hat", "y") if function is l1_ssim else ("a", "b")
    options = dict(arguments)
    images = options.pop("first", A), options.pop("second", A)
    with pytest.raises(error, match=message.format(first=names[0], second=names[1])):
        function(*images, **options)


@pytest.mark.parametrize("function", [ssim, ssim_map, l1_ssim])
@pytest.mark.parametrize("shape", [(10, 12), (12, 10), (1, 1), (0, 20)])
def test_an_image_smaller_than_the_window(function, shape):
    a = torch.zeros(1, 1, *shape)
    message = rf"padding='valid' needs images of 11 x 11 pixels or more; got {shape[0]} x {shape[1]}"
    with pytest.raises(ValueError, match=message):
        function(a, a, padding="valid")


def test_weights():
    for options, error, message in (
        ({"alpha": "1"}, TypeError, "alpha must be a number; got str"),
        ({"beta": math.inf}, ValueError, "beta must be finite; got inf"),
    ):
        for run in (l1_ssim, lambda a, b, **o: L1SSIM(**o)(a, b)):
            with pytest.raises(error, match=message):
                run(A, A, **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the backend can run")
def test_a_named_backend_runs_or_raises():
    with pytest.raises(RuntimeError, match="backend 'cuda' cannot run"):
        ssim(A, A, backend="cuda")
