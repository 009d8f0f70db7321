"""Every wrong argument is named, with what came and what is accepted."""

import pytest
import torch

from deal_kernels.lif import LIF, Learned, lif, unpack
from deal_kernels.surrogate import ATan, FastSigmoid, Sigmoid, Window

X = torch.zeros(4, 2, 3)
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"x": [1.0]}, TypeError, "x must be a tensor; got list"),
        ({"x": torch.zeros(0, 3)}, ValueError, r"x must have at least one time step; got the shape \(0, 3\)"),
        ({"x": torch.zeros(())}, ValueError, "x must have at least one time step"),
        ({"x": torch.zeros(4, 3, dtype=torch.complex64)}, TypeError, "x must be float32.*got torch.complex64"),
        ({"x": torch.zeros(4, 3).to_sparse()}, TypeError, "x must be a dense tensor; got the layout torch.sparse_coo"),
        ({"steps": 0}, ValueError, "steps must be an integer of at least 1; got 0"),
        ({"steps": 2.0}, ValueError, "steps must be an integer of at least 1; got 2.0"),
        ({"steps": True}, ValueError, "steps must be"),
        ({"tau": 0.5}, ValueError, "tau must be at least 1; got 0.5"),
        ({"tau": 0.5, "decay_input": False}, ValueError, "tau must be at least 1; got 0.5"),
        ({"tau": NAN}, ValueError, "tau must be finite; got nan"),
        ({"tau": "2"}, TypeError, "tau must be a number; got str"),
        ({"tau": [2.0]}, TypeError, "tau must be a number; got list"),
        ({"beta": INF}, ValueError, "beta must be finite; got inf"),
        ({"v_threshold": NAN}, ValueError, "v_threshold must be finite; got nan"),
        ({"v_threshold": None}, TypeError, "v_threshold must be a number; got NoneType"),
        ({"v_reset": NAN}, ValueError, "v_reset must be finite; got nan"),
        ({"v_reset": None, "reset": "hard"}, ValueError, "reset='hard' needs a number as v_reset; got None"),
        ({"reset": None}, ValueError, "reset must be one of 'auto', 'hard', 'soft', 'none', 'next_.*; got None"),
        ({"tau": 2.0, "beta": 0.5}, ValueError, "tau and beta exclude each other; got tau=2.0, beta=0.5"),
        ({"rate": 0.5, "beta": 0.5}, ValueError, "rate and beta exclude each other"),
        ({"rate": NAN}, ValueError, "rate must be finite; got nan"),
        ({"v_rest": INF}, ValueError, "v_rest must be finite; got inf"),
        ({"scale": None}, TypeError, "scale must be a number; got NoneType"),
        ({"reset_by": 0.5}, ValueError, "reset_by is the amount of a soft reset; got reset_by=0.5 and a hard reset"),
        ({"thresh": 0.5}, TypeError, "got an unexpected keyword argument 'thresh'"),
        ({"surrogate": ATan}, ValueError, "surrogate must be one of .*got <class"),
        ({"reset": "later"}, ValueError, "reset must be one of 'auto', 'hard', 'soft', 'none', 'next_.*; got 'later'"),
        ({"surrogate": "step"}, ValueError, "surrogate must be one of 'sigmoid', 'atan'.*got 'step'"),
        ({"fire": ">"}, ValueError, "fire must be one of 'ge', 'gt'; got '>'"),
        ({"levels": 0}, ValueError, "levels must be an integer from 1 to 4194304; got 0"),
        ({"levels": 2.0}, ValueError, "levels must be an integer"),
        ({"levels": 2, "v_threshold": 0.0}, ValueError, "v_threshold must be positive with levels > 1; got 0.0"),
        ({"reduce": "sum"}, ValueError, "reduce must be one of None, 'mean'; got 'sum'"),
        ({"output": "u"}, ValueError, "output must be one of 'spikes', 'v', 'h'; got 'u'"),
        ({"reduce": "mean", "pack": True}, ValueError, "exclude each other; got pack=True, reduce='mean'"),
        ({"reduce": "mean", "output": "v"}, ValueError, "got pack=False, reduce='mean' and output='v'"),
        ({"levels": 2, "pack": True}, ValueError, "pack=True keeps one bit a spike and needs levels=1 and scale=1"),
        ({"scale": 0.5, "pack": True}, ValueError, "needs levels=1 and scale=1; got 1 and 0.5"),
        ({"v0": 0.5}, TypeError, "v0 must be a tensor; got float"),
        ({"v0": torch.zeros(2)}, ValueError, r"v0 must have the shape of one step, \(2, 3\); got \(2,\)"),
        ({"v0": torch.zeros(2, 3, dtype=torch.int32)}, TypeError, "v0 must be a dense floating-point tensor"),
        ({"v0": torch.zeros(2, 3, device="meta")}, ValueError, "v0 must be on the device of x, cpu; got meta"),
        (
            {"tau": torch.ones(4)},
            ValueError,
            r"tau, rate or beta must have one value, one per channel, or.* \(2, 3\) or \(3,\); got the shape \(4,\)",
        ),
        ({"beta": torch.ones(3, 1)}, ValueError, r"tau, rate or beta must have one value, one per channel, or a shape"),
        ({"v_threshold": torch.ones(2)}, ValueError, "v_threshold must have one value, one per channel, or a shape"),
        ({"v_threshold": torch.ones(3, dtype=torch.int64)}, TypeError, "v_threshold must be a dense floating-point"),
        ({"tau": torch.ones(3, device="meta")}, ValueError, "tau, rate or beta must be on the device of x, cpu"),
        ({"backend": "cublas"}, ValueError, "backend must be 'auto' or one of cpp, cuda, triton, torch; got 'cublas'"),
        ({"backend": "cuda"}, RuntimeError, "backend 'cuda' cannot run: it runs on cuda tensors, not on cpu ones"),
        (
            {"out": torch.zeros(4, 2, 4)},
            ValueError,
            r"out must be torch.float32 \(4, 2, 3\) on cpu; got torch.float32 \(4, 2, 4\)",
        ),
        ({"out": torch.zeros(4, 3, 2).mT}, ValueError, "out must have the strides"),
    ],
)
def test_error(arguments, error, message):
    x = arguments.pop("x", X)
    with pytest.raises(error, match=message):
        lif(x, **arguments)


@pytest.mark.parametrize("argument", [{"pack": True}, {"out": torch.zeros(4, 2)}])
def test_results_without_gradient_say_so(argument):
    x = torch.zeros(4, 2, requires_grad=True)
    with pytest.raises(ValueError, match="has no gradient: call it under torch.no_grad"):
        lif(x, **argument)
    with torch.no_grad():
        lif(x, **argument)


def test_nan_threshold_tensor_never_fires(backend, device):
    """A tensor's values are not read back to be checked; NaN compares false."""
    x = torch.full((4, 8), 100.0, device=device)
    theta = torch.tensor(float("nan"), device=device)
    assert lif(x, v_threshold=theta, backend=backend).sum() == 0


def test_unpack_shape():
    with pytest.raises(ValueError, match=r"packed must be uint8 \[T, 2\] for a step of shape \(9,\)"):
        unpack(torch.zeros(4, 1, dtype=torch.uint8), (9,))


def test_module_arguments():
    with pytest.raises(TypeError, match="unexpected keyword argument 'thresh'"):
        LIF(thresh=1.0)
    with pytest.raises(TypeError, match="unexpected keyword argument 'out'"):
        LIF(out=X)


def test_learnt_time_constants():
    for arguments, accepted in (({"tau": Learned(1.0)}, "above 1"), ({"beta": Learned(1.5)}, "above 0 and below 1")):
        with pytest.raises(ValueError, match=rf"needs a start {accepted}; got 1"):
            LIF(**arguments)
    with pytest.raises(ValueError, match="channels must be None or an integer of at least 1; got 0"):
        Learned(2.0, 0)
    with pytest.raises(ValueError, match="tau and beta exclude each other"):
        LIF(tau=Learned(2.0), beta=0.5)(X)


def test_surrogate_parameters():
    for make, message in (
        (lambda: ATan(0.0), "alpha must be positive; got 0.0"),
        (lambda: FastSigmoid(slope=-1.0), "slope must be positive; got -1.0"),
        (lambda: FastSigmoid(height=NAN), "height must be finite; got nan"),
        (lambda: Sigmoid(height=NAN), "height must be finite; got nan"),
        (lambda: Window(1.0, 0.0), "low must be below high; got 1.0 and 0.0"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(TypeError, match="alpha must be a number; got str"):
        ATan("2")
