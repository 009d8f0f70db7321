"""Every wrong argument is named, with what came and what is accepted."""

import math
import re

import pytest
import torch

from deal_kernels.degradation import OPERATIONS, Mixture, apply, mixture, sample_params

X = torch.zeros(2, 1, 12, 16)
WEIGHTS = torch.zeros(2, 3, 2)
OPS = ("stripe", "contrast_0.5")
PARAMS = {"stripe": torch.zeros(2, 3, 16)}
BLUR = {"x": torch.zeros(2, 1, 24, 24), "ops": ("wide_blur", "contrast_0.5")}
LEAF = torch.zeros(2, 3, 16, requires_grad=True)

CASES = (
    ({"x": [1.0]}, TypeError, "x must be a tensor; got list"),
    ({"x": X.long()}, TypeError, "x must be float32, float16, bfloat16 or float64; got torch.int64"),
    ({"x": X.to_sparse()}, TypeError, "x must be a dense tensor; got the layout torch.sparse_coo"),
    ({"x": X[0]}, ValueError, r"x must be \[B, C, H, W\] with one or three channels; got the shape \(1, 12, 16\)"),
    ({"x": X.expand(2, 2, 12, 16)}, ValueError, r"one or three channels; got the shape \(2, 2, 12, 16\)"),
    ({"weights": 0.5}, TypeError, "weights must be a tensor; got float"),
    ({"weights": WEIGHTS.long()}, TypeError, "weights must be a dense floating-point tensor; got torch.int64"),
    ({"weights": WEIGHTS.to("meta")}, ValueError, "weights must be on the device of x, cpu; got meta"),
    ({"weights": WEIGHTS[0]}, ValueError, r"B = 2 samples, S at least 1 and N = 2 operations; got the shape \(3, 2\)"),
    ({"weights": WEIGHTS[:1]}, ValueError, r"weights must be \[B, S, N\] with B = 2.*got the shape \(1, 3, 2\)"),
    ({"weights": WEIGHTS[:, :0]}, ValueError, r"weights must be.*got the shape \(2, 0, 2\)"),
    ({"weights": WEIGHTS[..., :1]}, ValueError, r"weights must be.*N = 2 operations; got the shape \(2, 3, 1\)"),
    ({"ops": "stripe"}, TypeError, "ops must be a list of names; got 'stripe'"),
    ({"ops": 7}, TypeError, "ops must be a list of names; got 7"),
    ({"ops": []}, ValueError, "ops must have at least one name; got none"),
    ({"ops": ["stripe", 5]}, TypeError, "ops must be names; got int"),
    ({"ops": ["stripe", ["noise"]]}, TypeError, "ops must be names; got list"),
    ({"params": [1]}, TypeError, "params must map names to tensors; got list"),
    ({"params": None}, ValueError, "params must have 'stripe' for these ops; got nothing, which lacks 'stripe'"),
    ({"params": {**PARAMS, "gain": X}}, ValueError, "params must have 'stripe' for these ops; got 'stripe', 'gain'"),
    ({"params": {"stripe": 3.0}}, TypeError, r"params\['stripe'\] must be a tensor; got float"),
    ({"params": {"stripe": PARAMS["stripe"].int()}}, TypeError, r"params\['stripe'\] must be a dense floating-point"),
    ({"params": {"stripe": torch.zeros(2, 3, 12)}}, ValueError, r"must have the shape \(2, 3, 16\); got \(2, 3, 12\)"),
    (BLUR | {"params": {"wide_blur": torch.tensor([[1.0, 0.0, 2.0]] * 2)}}, ValueError,
     r"params\['wide_blur'\] must be above 0, as it has deviations; got 0"),
    (BLUR | {"params": {"wide_blur": torch.tensor([[1.0, 3.0, -1.0]] * 2)}}, ValueError, "deviations; got -1"),
    (BLUR | {"params": {"wide_blur": torch.full((2, 3), math.nan)}}, ValueError, "deviations; got nan"),
    ({"params": {"stripe": LEAF}}, ValueError, r"params\['stripe'\] has no gradient; got a tensor that requires grad"),
    ({"backend": "cublas"}, ValueError, "backend must be 'auto' or one of cpp, cuda, triton, torch; got 'cublas'"),
    ({"backend": "triton"}, RuntimeError, "backend 'triton' cannot run: on cpu tensors it needs TRITON_INTERPRET=1"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "error", "message"), CASES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_arguments(arguments, error, message):
    given = {"x": X, "weights": WEIGHTS, "ops": OPS, "params": PARAMS} | arguments
    with pytest.raises(error, match=message):
        mixture(**given)


UNKNOWN = (
    "stripes", "", "_5", "contrast", "contrast_", "contrast_-1", "contrast_0.5.1", "contrast_nan", "contrast_1e3",
    "contrast_٣", "sharpen_0.5", "posterize", "max_pool_resize", "noise_3", "identity_1", "stripe_", "Contrast_0.5",
    "wide_blur_2", "clip_1", "quantise", "tone_0.5",
)  # fmt: skip


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_name_comes_with_the_known_ones(name):
    with pytest.raises(ValueError, match=f"ops has the unknown name '{name}'; known are {', '.join(OPERATIONS)}"):
        mixture(X, WEIGHTS[..., :1], [name])
    with pytest.raises(ValueError, match="unknown name"):
        Mixture([name])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("posterize_0", "posterize needs 1 to 8 bits; got 'posterize_0' in ops"),
        ("posterize_9", "posterize needs 1 to 8 bits"),
        ("quantise_9", "quantise needs 1 to 8 bits; got 'quantise_9' in ops"),
        ("posterize_2.5", "posterize needs 1 to 8 bits"),
        ("max_pool_resize_1", "max_pool_resize needs an integer factor of at least 2; got 'max_pool_resize_1' in ops"),
        ("bicubic_resize_2.5", "bicubic_resize needs an integer factor of at least 2"),
        ("gaussian_blur_0", "gaussian_blur needs a positive, finite deviation; got 'gaussian_blur_0' in ops"),
        ("contrast_" + "9" * 400, "contrast needs a finite share of the image"),
        ("average_pool_resize_" + "9" * 400, "average_pool_resize needs an integer factor of at least 2"),
    ],
)
def test_a_strength_that_an_operation_does_not_have(name, message):
    for run in (lambda: apply(name, X), lambda: Mixture(["identity", name]), lambda: sample_params([name], X, 1)):
        with pytest.raises(ValueError, match=message):
            run()


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (0, 9)])
def test_an_image_smaller_than_the_window(shape):
    for name in (
        "gaussian_blur",
        "gaussian_blur_1.5",
        "max_pool_resize_5",
        "bicubic_resize_5",
        "average_pool_resize_5",
        "coarse_5",
    ):
        message = rf"{name} needs images of 5 x 5 pixels or more; got {shape[0]} x {shape[1]}"
        with pytest.raises(ValueError, match=message):
            apply(name, torch.zeros(1, 1, *shape), torch.ones(1))


@pytest.mark.parametrize("shape", [(9, 12), (12, 9)])
def test_an_image_smaller_than_the_wide_window(shape):
    message = f"wide_blur needs images of 10 x 10 pixels or more; got {shape[0]} x {shape[1]}"
    with pytest.raises(ValueError, match=message):
        apply("wide_blur", torch.zeros(1, 1, *shape), torch.ones(1))
    assert apply("wide_blur", torch.zeros(1, 1, 10, 10), torch.ones(1)).shape == (1, 1, 10, 10)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("wide_blur", (2,)), ("row_gain", (2, 12)), ("tone", (2, 2)), ("dead", (2, 1, 12, 16)), ("glow", (2, 4)),
        ("shading", (2, 4, 4)), ("partial_stripe", (2, 3, 16)),
    ],
)  # fmt: skip
def test_the_shape_of_values(name, shape):
    apply(name, X, torch.ones(shape))
    expected = (2, 1, *shape[1:])
    with pytest.raises(
        ValueError, match=re.escape(f"params['{name}'] must have the shape {expected}; got (2, 1, 5, 7)")
    ):
        apply(name, X, torch.ones(2, 5, 7))
    with pytest.raises(
        ValueError, match=re.escape(f"params['{name}'] has no gradient; got a tensor that requires grad")
    ):
        apply(name, X, torch.ones(shape, requires_grad=True))


@pytest.mark.parametrize("backend", ["cpp", "cuda"])
def test_what_has_no_kernel(backend):
    message = f"backend '{backend}' cannot run"
    with pytest.raises(RuntimeError, match=message):
        apply("coarse_2", X, backend=backend)
    assert apply("coarse_2", X, backend="torch").shape == apply("coarse_2", X).shape == X.shape


def test_apply():
    with pytest.raises(ValueError, match="params must have 'stripe' for these ops; got nothing, which lacks 'stripe'"):
        apply("stripe", X)
    with pytest.raises(ValueError, match="params must have nothing for these ops; got 'contrast_0.5'"):
        apply("contrast_0.5", X, torch.zeros(2))
    with pytest.raises(TypeError, match=r"params\['gain'\] must be a tensor; got float"):
        apply("gain", X, 0.5)
    with pytest.raises(TypeError, match="x must be a tensor; got NoneType"):
        apply("identity", None)


def test_drawing():
    for options, error, message in (
        ({"stripe": 0.5}, TypeError, "stripe must be a pair of numbers; got 0.5"),
        ({"stripe": (0.5,)}, TypeError, r"stripe must be a pair of numbers; got \(0.5,\)"),
        ({"gain": (0.0, "1")}, TypeError, "gain must be a number; got str"),
        ({"noise": (0.0, math.inf)}, ValueError, "noise must be finite; got inf"),
        ({"noise": (0.2, 0.1)}, ValueError, r"noise must be a range of .* at least 0.*got \(0.2, 0.1\)"),
        ({"gain": (-0.1, 0.1)}, ValueError, "gain must be a range .* at least 0, the smaller first"),
        ({"gaussian_blur": (0.0, 1.0)}, ValueError, "gaussian_blur must be a range of deviations that are positive"),
        ({"wide_blur": (0.0, 1.0)}, ValueError, "wide_blur must be a range of deviations that are positive"),
        ({"dead": (0.0, 1.1)}, ValueError, r"dead must be a range of shares that are from 0 to 1.*got \(0.0, 1.1\)"),
        ({"tone": (-0.1, 1.0)}, ValueError, "tone must be a range of gains that are at least 0, the smaller first"),
        ({"tone_offset": (0.1, 0.0)}, ValueError, "tone_offset must be a range of offsets that are finite"),
        ({"glow": (-0.1, 0.0)}, ValueError, "glow must be a range of strengths that are at least 0"),
        ({"stages": 0}, ValueError, "stages must be an integer of at least 1; got 0"),
        ({"stages": True}, ValueError, "stages must be an integer of at least 1; got True"),
        ({"x": X[0]}, ValueError, r"x must be images \[B, C, H, W\].*got torch.float32 of the shape \(1, 12, 16\)"),
        ({"x": X.long()}, ValueError, "x must be images .* of a floating-point type; got torch.int64"),
        ({"x": (2, 1, 12, 16)}, ValueError, "x must be images .*; got tuple"),
    ):  # fmt: skip
        with pytest.raises(error, match=message):
            sample_params(**({"ops": OPS, "x": X, "stages": 3} | options))


def test_a_module_checks_before_it_draws():
    with pytest.raises(TypeError, match="weights must be a tensor; got NoneType"):
        Mixture(OPS)(X, None)
    with pytest.raises(TypeError, match="x must be a tensor; got list"):
        Mixture(OPS)([1.0], WEIGHTS)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the backend can run")
def test_a_named_backend_runs_or_raises():
    with pytest.raises(RuntimeError, match="backend 'cuda' cannot run"):
        mixture(X, WEIGHTS, OPS, PARAMS, backend="cuda")
