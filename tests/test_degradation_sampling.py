"""The values that are drawn for random operations."""

import torch

from deal_kernels.degradation import sample_params


def test_drawn_params_of_thermal_images():
    ops = ("wide_blur", "row_gain", "tone", "dead", "glow", "shading", "partial_stripe")
    x = torch.zeros(200, 1, 12, 10)
    drawn = sample_params(ops, x, 7, generator=torch.Generator().manual_seed(0))
    shapes = {
        "wide_blur": (), "row_gain": (12,), "tone": (2,), "dead": (1, 12, 10), "glow": (4,), "shading": (4, 4),
        "partial_stripe": (3, 10),
    }  # fmt: skip
    assert {name: tuple(value.shape) for name, value in drawn.items()} == {k: (200, 7, *v) for k, v in shapes.items()}
    again = sample_params(ops, x, 7, generator=torch.Generator().manual_seed(0))
    for name, value in drawn.items():
        assert value.dtype == torch.float32 and torch.equal(value.nan_to_num(9), again[name].nan_to_num(9)), name

    def uniform(values, low, high):
        assert low <= values.min() and values.max() <= high
        assert abs(values.mean() - (low + high) / 2) < 0.05 * (high - low)

    def deviation(values, mean, low, high):
        variance = (high**3 - low**3) / (3 * (high - low))  # the mean square of a uniform deviation
        assert abs(values.mean() - mean) < 0.1 * high and abs(values.var() / variance - 1) < 0.15

    uniform(drawn["wide_blur"], 1, 3)
    deviation(drawn["row_gain"], 1, 0.03, 0.1)
    uniform(drawn["tone"][..., 0], 0.2, 0.8), uniform(drawn["tone"][..., 1], 0.2, 0.4)
    replaced = drawn["dead"][~drawn["dead"].isnan()]
    assert abs(len(replaced) / drawn["dead"].numel() - 0.005) < 0.0005
    assert set(replaced.tolist()) == {0.0, 1.0} and abs(replaced.mean() - 0.5) < 0.05
    near, far = drawn["glow"][..., 2], drawn["glow"][..., 3]
    uniform(drawn["glow"][..., :2], 0, 1), uniform(near + far, 15 / 255, 75 / 255)
    assert (near * far == 0).all() and abs((near > 0).float().mean() - 0.5) < 0.05
    shading = drawn["shading"]
    assert (shading[..., 0, 0] == 0).all()
    deviation(shading[..., 0, 1], 0, 0.02, 0.1), deviation(2 * shading[..., 1, 1], 0, 0.02, 0.1)
    offset, first, end = drawn["partial_stripe"].unbind(2)
    deviation(offset, 0, 0, 5 / 255)
    assert (first <= end).all() and first.min() >= 0 and end.max() <= 1 and abs((end - first).mean() - 1 / 3) < 0.02
    fixed = sample_params(["tone"], x, 2, tone=(0.5, 0.5), tone_offset=(-0.25, -0.25))["tone"]
    assert torch.equal(fixed, torch.tensor([0.5, -0.25]).expand_as(fixed))


def test_draws_do_not_depend_on_other_operations():
    """One number a sample and stage, then the values, operation by operation."""
    x, generator = torch.zeros(2, 3, 6, 9), torch.Generator().manual_seed(5)
    expected = {"gaussian_blur": 1 + 0.5 * torch.rand(2, 4, generator=generator)}
    for name, mean, low, high, shape in (
        ("stripe", 0, 0, 0.51, (9,)), ("row_stripe", 0, 0, 0.51, (6,)), ("gain", 1, 0.05, 0.15, (9,)),
        ("noise", 0, 5 / 255, 25 / 255, (3, 6, 9)),
    ):  # fmt: skip
        deviation = low + (high - low) * torch.rand(2, 4, generator=generator)
        normal = torch.randn(2, 4, *shape, generator=generator)
        expected[name] = mean + deviation.reshape(2, 4, *[1] * len(shape)) * normal
    drawn = sample_params([*expected, "glow", "dead"], x, 4, generator=torch.Generator().manual_seed(5))
    assert all(torch.equal(drawn[name], value) for name, value in expected.items())


def test_drawn_params():
    ops = ("gaussian_blur", "stripe", "row_stripe", "gain", "noise", "identity")
    x = torch.zeros(200, 3, 6, 9, dtype=torch.float16)
    drawn = sample_params(ops, x, 7, generator=torch.Generator().manual_seed(0))
    shapes = {"gaussian_blur": (), "stripe": (9,), "row_stripe": (6,), "gain": (9,), "noise": (3, 6, 9)}
    assert {name: tuple(value.shape) for name, value in drawn.items()} == {k: (200, 7, *v) for k, v in shapes.items()}
    assert all(value.dtype == torch.float32 for value in drawn.values())
    again = sample_params(ops, x, 7, generator=torch.Generator().manual_seed(0))
    assert all(torch.equal(value, again[name]) for name, value in drawn.items())
    blur = drawn["gaussian_blur"]
    assert blur.min() >= 1 and blur.max() <= 1.5 and abs(blur.mean() - 1.25) < 0.02
    for name, mean, low, high in (("stripe", 0, 0, 0.51), ("gain", 1, 0.05, 0.15), ("noise", 0, 5 / 255, 25 / 255)):
        variance = (high**3 - low**3) / (3 * (high - low))  # the mean square of a uniform deviation
        assert abs(drawn[name].mean() - mean) < 0.01 and abs(drawn[name].var() / variance - 1) < 0.1, name
    assert (
        sample_params(["identity"], x, 1) == {}
        and sample_params(["gain"], x.double(), 1)["gain"].dtype == torch.float64
    )
    fixed = sample_params(["stripe"], x, 2, stripe=(0.0, 0.0))["stripe"]
    assert (fixed == 0).all()
