"""Every wrong argument is named, with what came and what is accepted."""

import pytest
import torch

from deal_kernels.conv import Conv2d, conv2d

X = torch.zeros(2, 3, 12, 14)
W = torch.zeros(4, 3, 5, 5)
B = torch.zeros(4)
Y = torch.zeros(2, 4, 8, 10)

CASES = (
    ({"x": [1.0]}, TypeError, "x must be a tensor; got list"),
    ({"x": X.long()}, TypeError, "x must be float32, float16, bfloat16 or float64; got torch.int64"),
    ({"x": X.to_sparse()}, TypeError, "x must be a dense tensor; got the layout torch.sparse_coo"),
    ({"x": X[0, 0]}, ValueError, r"x must be \[B, C, H, W\] or \[C, H, W\]; got the shape \(12, 14\)"),
    ({"x": X[None]}, ValueError, r"x must be \[B, C, H, W\] or \[C, H, W\]; got the shape \(1, 2, 3, 12, 14\)"),
    ({"x": X[..., :0]}, ValueError, r"x must have pixels; got the shape \(2, 3, 12, 0\)"),
    ({"x": X[:0, :, :0]}, ValueError, r"x must have pixels; got the shape \(0, 3, 0, 14\)"),
    ({"weight": None}, TypeError, "weight must be a tensor; got NoneType"),
    ({"weight": W.int()}, TypeError, "weight must be a dense floating-point tensor; got torch.int32, torch.strided"),
    ({"weight": W.half()}, TypeError, "weight must be torch.float32 for x of torch.float32; got torch.float16"),
    (
        {"x": X.half(), "weight": W.double()},
        TypeError,
        "weight must be torch.float16 or torch.float32 for x of torch.float16; got torch.float64",
    ),
    ({"weight": W.to("meta")}, ValueError, "weight must be on the device of x, cpu; got meta"),
    ({"weight": W[0]}, ValueError, r"weight must be \[O, C, kH, kW\], none of them 0; got the shape \(3, 5, 5\)"),
    ({"weight": W[:0]}, ValueError, r"weight must be \[O, C, kH, kW\], none of them 0; got the shape \(0, 3, 5, 5\)"),
    (
        {"weight": W[:, :2]},
        ValueError,
        r"weight must have the channels of x, 3 for x of shape \(2, 3, 12, 14\); got 2 in the shape \(4, 2, 5, 5\)",
    ),
    ({"bias": 1.0}, TypeError, "bias must be a tensor; got float"),
    ({"bias": B.double()}, TypeError, "bias must be torch.float32 for x of torch.float32; got torch.float64"),
    ({"bias": B[:3]}, ValueError, r"bias must have the shape \(4,\) of weight's first axis; got \(3,\)"),
    ({"bias": B[:, None]}, ValueError, r"bias must have the shape \(4,\) of weight's first axis; got \(4, 1\)"),
    ({"padding": 1.5}, TypeError, "padding must be an integer or a pair of them; got 1.5"),
    ({"padding": True}, TypeError, "padding must be an integer or a pair of them; got True"),
    ({"padding": (1, 2, 3)}, TypeError, r"padding must be an integer or a pair of them; got \(1, 2, 3\)"),
    ({"padding": (1, -1)}, ValueError, r"padding must be at least 0; got \(1, -1\)"),
    ({"padding": "full"}, ValueError, "padding must be one of 'valid', 'same'; got 'full'"),
    (
        {"padding_mode": "circular"},
        ValueError,
        "padding_mode must be one of 'zeros', 'reflect', 'replicate'; got 'circular'",
    ),
    ({"dilation": 0}, ValueError, "dilation must be at least 1; got 0"),
    ({"dilation": (1, "2")}, TypeError, r"dilation must be an integer or a pair of them; got \(1, '2'\)"),
    ({"activation": "gelu"}, ValueError, "activation must be one of None, 'relu'; got 'gelu'"),
    ({"residual": 1.0}, TypeError, "residual must be a tensor; got float"),
    (
        {"residual": Y[:, :3]},
        ValueError,
        r"residual must be like the result, torch.float32 \(2, 4, 8, 10\); got torch.float32 \(2, 3, 8, 10\)",
    ),
    ({"residual": Y.double()}, ValueError, r"residual must be like the result.*; got torch.float64 \(2, 4, 8, 10\)"),
    ({"x": X[0], "residual": Y}, ValueError, r"residual must be like the result, torch.float32 \(4, 8, 10\); got"),
    (
        {"x": X[:, :, :4]},
        ValueError,
        r"the padded image must be at least as large as the dilated kernel; got images of 4 x 14, padding \(0, 0\), "
        r"a kernel of \(5, 5\) and dilation \(1, 1\)",
    ),
    (
        {"padding": (0, 1), "dilation": (1, 4)},
        ValueError,
        r"got images of 12 x 14, padding \(0, 1\), a kernel of \(5, 5\) and dilation \(1, 4\)",
    ),
    (
        {"padding": (12, 0), "padding_mode": "reflect"},
        ValueError,
        "padding_mode='reflect' needs images larger than the padding, 12 x 0; got 12 x 14",
    ),
    (
        {"x": X[..., :3], "padding": 3, "padding_mode": "reflect"},
        ValueError,
        "needs images larger than the padding, 3 x 3; got 12 x 3",
    ),
    ({"backend": "cublas"}, ValueError, "backend must be 'auto' or one of cpp, triton, torch; got 'cublas'"),
    (
        {"backend": "cuda"},
        RuntimeError,
        "backend 'cuda' cannot run: convolution has no kernel of its own there; backend 'torch' runs on any device",
    ),
    ({"backend": "triton"}, RuntimeError, "backend 'triton' cannot run: (on cpu tensors it|triton is not installed)"),
    (
        {"x": X.double(), "weight": W.double(), "backend": "triton"},
        RuntimeError,
        "backend 'triton' cannot run: it has no float64; backend 'torch' has",
    ),
    (
        {"x": X.double(), "weight": W.double(), "backend": "cpp"},
        RuntimeError,
        "backend 'cpp' cannot run: it has no float64; backend 'torch' has",
    ),
)


@pytest.mark.parametrize(
    ("arguments", "error", "message"), CASES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_arguments(arguments, error, message):
    options = {"x": X, "weight": W} | arguments
    with pytest.raises(error, match=message):
        conv2d(options.pop("x"), options.pop("weight"), options.pop("bias", None), **options)


def test_the_engine_runs_on_a_cpu_alone():
    with pytest.raises(RuntimeError, match="backend 'cpp' cannot run: it runs on cpu tensors, not on meta ones"):
        conv2d(X.to("meta"), W.to("meta"), backend="cpp")


def test_layers():
    with pytest.raises(ValueError, match="activation must be one of None, 'relu'; got 'tanh'"):
        Conv2d(3, 4, 5, activation="tanh")
    with pytest.raises(
        ValueError, match=r"backend must be None, 'auto' or 'torch' for stride \(2, 2\), 1 groups.*; got 'cpp'"
    ):
        Conv2d(3, 4, 5, stride=2, backend="cpp")
    with pytest.raises(ValueError, match=r"weight must have the channels of x, 2 for x"):
        Conv2d(3, 4, 5)(X[:, :2])
