"""A digest of what the CPU kernels compute, to compare instruction sets by."""

import hashlib
import itertools

import torch

from deal_kernels.degradation import mixture, sample_params
from deal_kernels.lif import lif
from deal_kernels.multistate import alif, clif, cuba, lsnn
from deal_kernels.psn import psn, sliding_psn
from deal_kernels.tdbn import tdbn_lif

CHARGES = ({"tau": 3.0}, {"tau": 2.0, "decay_input": False}, {"beta": 0.7})
RESETS = ({"v_reset": -0.3}, {"v_reset": None}, {"reset": "none"})
FIRES = ({"surrogate": "sigmoid"}, {"surrogate": "atan", "fire": "gt"}, {"surrogate": "triangle"}, {"levels": 3})
THERMAL = ("wide_blur", "row_gain", "tone", "dead", "glow", "shading", "partial_stripe")
# Without contrast, whose mean is a sum.
DEGRADATIONS = (
    "sharpness_0.7", "saturation_0.5", "posterize_5", "gaussian_blur_1.2", "max_pool_resize_3", "average_pool_resize_2",
    "bicubic_resize_2", "quantise_5", "clip", *THERMAL,
)  # fmt: skip
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def digest() -> str:
    generator = torch.Generator().manual_seed(0)
    total = hashlib.sha256()

    def add(*tensors: torch.Tensor) -> None:
        for tensor in tensors:
            total.update(tensor.detach().contiguous().view(torch.uint8).numpy().tobytes())

    for charge, reset, fire, dtype in itertools.product(CHARGES, RESETS, FIRES, DTYPES):
        x = torch.randn(19, 3, 77, generator=generator, dtype=torch.float64).mul(2).to(dtype).requires_grad_()
        tau = torch.rand(77, generator=generator).add(1)
        for neuron in (charge, {"tau": tau}):
            if neuron is charge or "beta" not in charge:
                spikes, v = lif(x, **neuron, **reset, **fire, return_state=True)
                grads = torch.autograd.grad([spikes, v], x, [torch.ones_like(spikes), torch.ones_like(v)])
                packed = lif(x.detach(), **charge, **reset, pack=True) if "levels" not in fire else spikes
                rate = lif(x.detach(), **charge, **reset, **fire, reduce="mean")
                add(spikes, v, *grads, packed, rate)
        # Statistics are sums, whose order depends on the length of a vector: these are given.
        statistics = torch.randn(77, generator=generator), torch.rand(77, generator=generator) + 0.5
        spikes, v = tdbn_lif(x, None, None, *statistics, training=False, **charge, **reset, **fire, return_state=True)
        add(spikes, v, *torch.autograd.grad([spikes, v], x, [torch.ones_like(spikes), torch.ones_like(v)]))
    for dtype, function in itertools.product(DTYPES, (psn, sliding_psn)):
        x = torch.randn(19, 3, 77, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        shape = ((19, 19), (19,)) if function is psn else ((4,), ())
        spikes = function(x, *(torch.randn(size, generator=generator) for size in shape))
        add(spikes, *torch.autograd.grad(spikes, x, torch.ones_like(spikes)))
    for function, dtype in itertools.product((cuba, alif, lsnn, clif), DTYPES):
        x = torch.randn(19, 3, 77, generator=generator, dtype=torch.float64).mul(2).to(dtype).requires_grad_()
        threshold = torch.rand(77, generator=generator).add(0.5)
        spikes, states = function(x, v_threshold=threshold, surrogate="sigmoid", return_state=True)
        add(spikes, *states, *torch.autograd.grad([spikes, *states], x, [*map(torch.ones_like, (spikes, *states))]))
    for channels, dtype in itertools.product((1, 3), DTYPES):
        x = torch.rand(2, channels, 11, 37, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        weights = torch.rand(2, 3, len(DEGRADATIONS), generator=generator).mul(0.2)
        params = sample_params(THERMAL, x, 3, generator=generator)
        y = mixture(x, weights, DEGRADATIONS, params)
        add(y, *torch.autograd.grad(y, x, torch.ones_like(y)))
    return total.hexdigest()
