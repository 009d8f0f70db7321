"""The enhancement network with the released layers, in plain torch: every norm and every step for itself."""

import torch
from torch.nn import functional

ENDS = ("input_conv", "feature_conv", "refine_conv", "output_conv")


TIE = 1e-5


class Oracle:
    """Runs a state_dict of `deal.model.DEAL`. In training it moves the running statistics in it.

    `ties` gathers the charges that are nearly as far from one level of spikes as from the next: the block, which neuron
    it is, and what would push it over the edge. `nudges` pushes those that it names.
    """

    def __init__(self, state, plan, training=False, levels=4, factor=1.0):
        self.state, self.plan, self.training, self.levels, self.factor = state, plan, training, levels, factor
        self.nudges, self.ties = {}, []

    def conv(self, name, x, dilation=1):
        weight = self.state[f"{name}.weight"]
        edge = dilation * (weight.shape[-1] // 2)
        padded = functional.pad(x, [edge] * 4, mode="reflect")
        return functional.conv2d(padded, weight, self.state[f"{name}.bias"], dilation=dilation)

    def norm(self, name, x, factor=1.0):
        weight, bias, mean, var = (
            self.state[f"{name}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
        )
        return functional.batch_norm(x, mean, var, weight * factor, bias, self.training)

    def scale(self, name, x, carried, dilation):
        y = torch.relu(self.norm(f"{name}.first_norm", self.conv(f"{name}.first_conv", x)))
        y = torch.relu(self.norm(f"{name}.second_norm", self.conv(f"{name}.second_conv", y) + x))
        y = self.norm(f"{name}.large_norm", self.conv(f"{name}.large_conv", y, dilation))
        carried = torch.relu(y + carried)
        y = self.norm(f"{name}.small_norm", self.conv(f"{name}.small_conv", carried))
        return torch.relu(y + x), carried

    def spike(self, name, x, carried, dilation):
        y = torch.relu(self.conv(f"{name}.first_conv", x))
        y = torch.relu(self.conv(f"{name}.second_conv", y) + x)
        carried = torch.relu(self.conv(f"{name}.large_conv", y, dilation) + carried)
        spikes = self.spikes(self.nudged(name, self.conv(f"{name}.small_conv", carried)), name)
        y = functional.conv2d(spikes.flatten(0, 1), self.state[f"{name}.spiking.conv.weight"])
        y = self.norm(f"{name}.spiking.norm", y, self.factor).unflatten(0, spikes.shape[:2]).mean(0)
        return torch.relu(y + x), carried

    def nudged(self, name, x):
        for (block, index), push in self.nudges.items():
            if block == name:
                x.view(-1)[index] += push
        return x

    def spikes(self, x, name):
        v, spikes = 0.0, []
        for _ in range(4):
            h = 0.25 * v + x
            edge = h.detach().floor() + 0.5
            near = ((h - edge).abs() < TIE) & (h > 0) & (h < self.levels)
            push = (edge - h).sign() * 2 * TIE
            self.ties += [(name, k, push.view(-1)[k].item()) for k in near.view(-1).nonzero().flatten().tolist()]
            spikes.append(Fire.apply(h, self.levels))
            v = h - spikes[-1].detach()
        return torch.stack(spikes)

    def __call__(self, x):
        y = carried = torch.relu(self.conv("feature_conv", torch.relu(self.conv("input_conv", x))))
        for k, (kind, _, _, dilation) in enumerate(self.plan):
            y, carried = getattr(self, kind)(f"blocks.{k}", y, carried, dilation)
        return torch.tanh(self.conv("output_conv", torch.relu(self.conv("refine_conv", y)))) + x


class Fire(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h, levels):
        ctx.save_for_backward(h)
        ctx.levels = levels
        return (h >= 1).to(h.dtype) if levels == 1 else h.clamp(0, levels).round()

    @staticmethod
    def backward(ctx, grad):
        (h,) = ctx.saved_tensors
        if ctx.levels > 1:
            return grad * ((h >= 0) & (h <= ctx.levels)), None
        sigmoid = torch.sigmoid(4 * (h - 1))
        return grad * 4 * sigmoid * (1 - sigmoid), None
