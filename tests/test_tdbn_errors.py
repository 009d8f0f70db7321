"""Every wrong argument is named, with what came and what is accepted."""

import pytest
import torch

from deal_kernels.tdbn import TDBNLIF, SpikingConv, TDBatchNorm2d, tdbn, tdbn_lif

X = torch.zeros(4, 2, 3, 5, 5)


@pytest.mark.parametrize("run", [tdbn, tdbn_lif])
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"x": [1.0]}, TypeError, "x must be a tensor; got list"),
        ({"x": X.long()}, TypeError, "x must be float32.*got torch.int64"),
        ({"x": torch.zeros(4, 3)}, ValueError, r"x must be \[T, B, C.*got the shape \(4, 3\)"),
        ({"weight": torch.ones(4)}, ValueError, r"weight must have one value per channel, 3 .*got the shape \(4,\)"),
        ({"bias": torch.ones(3, 1)}, ValueError, r"bias must have one value per channel, 3 .*got the shape \(3, 1\)"),
        ({"bias": 1.0}, TypeError, "bias must be a tensor; got float"),
        ({"weight": torch.ones(3, device="meta")}, ValueError, "weight must be on the device of x, cpu; got meta"),
        ({"running_mean": torch.zeros(3)}, ValueError, "running_mean and running_var must both be given, or neither"),
        (
            {"running_mean": torch.zeros(2), "running_var": torch.ones(2)},
            ValueError,
            "running_mean must have one value per channel, 3",
        ),
        ({"momentum": 1.5}, ValueError, "momentum must be from 0 to 1; got 1e-05 and 1.5"),
        ({"eps": -1.0}, ValueError, "eps must not be negative"),
        ({"eps": "small"}, TypeError, "eps must be a number; got str"),
        ({"alpha": "1"}, TypeError, "alpha must be a number; got str"),
        ({"backend": "cublas"}, ValueError, "backend must be 'auto' or one of cpp, cuda, triton, torch; got 'cublas'"),
    ],
    ids=str,
)
def test_arguments(run, arguments, error, message):
    with pytest.raises(error, match=message):
        run(**{"x": X, "training": True} | arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"shortcut": X[0]},
            ValueError,
            r"shortcut must be like x, torch.float32 \(4, 2, 3, 5, 5\); got torch.float32",
        ),
        ({"shortcut": X.double()}, ValueError, "shortcut must be like x, torch.float32 .*; got torch.float64"),
        ({"shortcut": 1.0}, TypeError, "shortcut must be a tensor; got float"),
        ({"v0": X}, ValueError, r"v0 must have the shape of one step, \(2, 3, 5, 5\)"),
        ({"tau": 0.5}, ValueError, "tau must be at least 1; got 0.5"),
        ({"surrogate": "step"}, ValueError, "surrogate must be one of .*; got 'step'"),
        ({"tau": 2.0, "beta": 0.5}, ValueError, "tau and beta exclude each other"),
        ({"steps": 0}, ValueError, "steps must be an integer of at least 1; got 0"),
        ({"x": X[0, 0, 0, 0], "steps": 2}, ValueError, r"x must be \[B, C, ...\] with steps; got the shape \(5,\)"),
        ({"x": X.clone().requires_grad_(), "pack": True}, ValueError, "pack=True has no gradient"),
        ({"out": X}, TypeError, "out"),
    ],
    ids=str,
)
def test_neuron_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        tdbn_lif(**{"x": X, "training": True} | arguments)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 1, 3, 1, 1)])
def test_one_value_per_channel(shape):
    for run in (tdbn, tdbn_lif):
        with pytest.raises(ValueError, match="training needs more than one value per channel; got x of shape"):
            run(torch.zeros(shape), training=True)
        run(torch.zeros(shape), None, None, torch.zeros(3), torch.ones(3), training=False)


def test_a_threshold_of_each_neuron_is_no_factor_of_a_channel():
    theta = torch.ones(3, 5, 5)
    with pytest.raises(ValueError, match="with alpha, v_threshold must have one value or one per channel, 3; got the"):
        tdbn_lif(torch.zeros(4, 2, 3, 5, 5), training=True, v_threshold=theta)
    assert tdbn_lif(torch.randn(4, 2, 3, 5, 5), training=True, alpha=None, v_threshold=theta).shape == (4, 2, 3, 5, 5)


def test_modules():
    with pytest.raises(ValueError, match="initialise_only=True needs an alpha and affine=True"):
        TDBatchNorm2d(3, affine=False, initialise_only=True)
    with pytest.raises(ValueError, match="initialise_only=True needs an alpha and affine=True"):
        TDBatchNorm2d(3, alpha=None, initialise_only=True)
    with pytest.raises(TypeError, match="unexpected keyword argument 'taus'"):
        TDBNLIF(3, taus=2.0)
    with pytest.raises(TypeError, match="unexpected keyword argument 'steps'"):
        SpikingConv(3, 3, steps=4)
    with pytest.raises(ValueError, match="reduce must be one of None, 'mean'; got 'sum'"):
        SpikingConv(3, 3, reduce="sum")
    with pytest.raises(ValueError, match="a norm without running statistics cannot be folded"):
        TDBatchNorm2d(3, track_running_stats=False).folded()
    with pytest.raises(ValueError, match="weight must have one value per channel, 4"):
        TDBatchNorm2d(3)(torch.zeros(4, 2, 4, 5, 5))
