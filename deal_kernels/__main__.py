"""`python -m deal_kernels` prints which backends run on this machine.

`--check` also checks that they compute what they should, and how fast; `--bench` times the LIF neuron.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deal_kernels.backend import info
from deal_kernels.check.command import check, parts
from deal_kernels.lif import lif

STEPS = 4
SIZES = (1 << 15, 1 << 20)  # neurons: a layer that fits into the cache, and one that does not
SECONDS = 2.0  # for each row of the table


class Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor) -> Tensor:
        ctx.save_for_backward(u)
        return (u >= 0).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (u,) = ctx.saved_tensors
        a = torch.sigmoid(4 * u)
        return grad * (4 * (1 - a) * a)


def eager(x: Tensor) -> Tensor:
    """The default neuron of `lif` as a plain loop over time."""
    v = torch.zeros_like(x[0])
    spikes = []
    for current in x:
        h = v + (current - v) / 2.0
        s = Spike.apply(h - 1.0)
        v = (1 - s) * h
        spikes.append(s)
    return torch.stack(spikes)


def print_info() -> None:
    live = info()
    states = live.pop("backends")
    width = max(map(len, (*live, *states)))
    for name, value in live.items():
        print(f"{name.replace('_', ' '):{width}}  {'-' if value is None else value}")
    print("\nbackends")
    for name, state in states.items():
        print(f"  {name:{width - 2}}  {state}")


def seconds_of(call: Callable[[], object], device: str) -> float:
    start = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def medians(calls: list[Callable[[], object]], device: str) -> list[float]:
    """Median seconds of calls that take turns, so that a busy moment of the machine affects all of them."""
    for call in calls:
        seconds_of(call, device)
    times: list[list[float]] = []
    start = time.perf_counter()
    while len(times) < 5 or time.perf_counter() - start < SECONDS:
        times.append([seconds_of(call, device) for call in calls])
    return [statistics.median(each) for each in zip(*times, strict=True)]


def compare(x: Tensor, grad: Tensor) -> None:
    """Raises if `lif` and the loop differ: the speed of a wrong result means nothing."""
    spikes, expected = lif(x), eager(x)
    if not torch.equal(spikes, expected):
        raise SystemExit("lif differs from the eager loop on this machine: no figures")
    (got,), (wanted,) = (torch.autograd.grad(each, x, grad) for each in (spikes, expected))
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def forward(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.no_grad():
        return layer(x)


def forward_backward(layer: Callable[[Tensor], Tensor], x: Tensor, grad: Tensor) -> Tensor:
    return torch.autograd.grad(layer(x), x, grad)[0]


def bench() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"\nLIF, T={STEPS}, float32, {device}: the user's call, results allocated; medians")
    print(f"{'':18}{'neurons':>10}{'lif ms':>10}{'GB/s':>8}{'eager ms':>11}{'speedup':>9}")
    for neurons in SIZES:
        x = torch.randn(STEPS, neurons, device=device, requires_grad=True)
        grad = torch.randn_like(x)
        compare(x, grad)
        layers = (lif, eager)
        one: list[Callable[[], object]] = [partial(forward, layer, x) for layer in layers]
        both: list[Callable[[], object]] = [partial(forward_backward, layer, x, grad) for layer in layers]
        # The least traffic, in tensors: x and spikes, and for the gradient again x, its input and its result.
        for name, tensors, calls in (("forward", 2, one), ("forward+backward", 5, both)):
            own, loop = medians(calls, device)
            rate = tensors * x.nbytes / own / 1e9
            print(f"{name:18}{neurons:10}{own * 1e3:10.3f}{rate:8.1f}{loop * 1e3:11.2f}{loop / own:8.1f}x")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m deal_kernels", description="Print which backends run on this machine."
    )
    parser.add_argument("--bench", action="store_true", help="also time the LIF neuron against an eager loop")
    parser.add_argument("--check", action="store_true", help="also check every operation; exit status 1 if one fails")
    named = parts()
    parser.add_argument("--only", nargs="+", metavar="PART", choices=named, help=f"parts of it: {', '.join(named)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="a file for what the check finds")
    arguments = parser.parse_args()
    if not arguments.check and (arguments.only or arguments.json):
        parser.error("--only and --json belong to --check")
    print_info()
    if arguments.bench:
        bench()
    if arguments.check:
        print()
        if not check(arguments.only or (), arguments.json):
            raise SystemExit(1)


if __name__ == "__main__":
    main()
