"""Runs a kernel of an extension file with too little memory, then with enough.

A program of its own, without torch, so that all memory but the kernel's is known.
"""

import ctypes
import importlib.util
import resource
import sys

HEADROOM = 4 << 20  # bytes; every call below allocates several times as much
THREADS = 2


def floats(count):
    return ctypes.create_string_buffer(4 * count)


address = ctypes.addressof


def lif_backward(kernels, scale):
    """One neuron, whose steps are copied into padded rows."""
    steps = 1024 * scale
    x, grad, grad_x = (floats(steps) for _ in range(3))
    neuron = kernels.Neuron(
        charge=kernels.Charge.decay_input, fire=kernels.Fire.ge, reset=kernels.Reset.hard,
        surrogate=kernels.Surrogate.atan, detach_reset=False, carries=True, rate=False, own_amount=False,
        decay=2.0, threshold=1.0, rest=0.0, reset_to=0.0, amount=0.0, alpha=2.0, height=0.0, outside=0.0, levels=1.0,
        scale=1.0,
    )  # fmt: skip
    call = kernels.LifBackward(
        neuron=neuron, dtype=kernels.DType.float32, output=kernels.Output.spikes, steps=steps, neurons=1, time_stride=1,
        x=address(x), grad=address(grad), grad_x=address(grad_x),
    )  # fmt: skip
    return call, (x, grad, grad_x)


def tdbn_moments(kernels, scale):
    """Many channels, each with its sums for every thread."""
    channels = 4096 * scale
    x, mean, variance = (floats(channels) for _ in range(3))
    call = kernels.TdbnMoments(
        dtype=kernels.DType.float32, steps=1, neurons=channels, time_stride=channels, channels=channels, inner=1,
        x=address(x), mean=address(mean), variance=address(variance),
    )  # fmt: skip
    return call, (x, mean, variance)


def degradation_forward(kernels, scale):
    """Two stages, between which an image is kept."""
    width = 8192 * scale
    x, y, weights = floats(64 * width), floats(64 * width), floats(2)
    call = kernels.DegradationForward(
        dtype=kernels.DType.float32, batch=1, channels=1, height=64, width=width, stages=2,
        ops=[kernels.DegradationOp(kind=kernels.Degradation.identity)], x=address(x), weights=address(weights),
        y=address(y),
    )  # fmt: skip
    return call, (x, y, weights)


def conv_forward(kernels, scale):
    """Many channels: each thread allocates its spectra, inside of the parallel region."""
    channels, tile = 8 * scale, 16
    x, out = floats(8 * channels * 20 * 20), floats(8 * 20 * 20)
    spectrum = floats(kernels.conv_spectrum_floats(channels, 1, tile))
    call = kernels.ConvForward(
        batch=8, in_channels=channels, out_channels=1, height=20, width=20, kernel_h=3, kernel_w=3, dilation_h=1,
        dilation_w=1, top=1, bottom=1, left=1, right=1, mode=kernels.Padding.zeros, tile=tile, channels_last=False,
        x=address(x), spectrum=address(spectrum), out=address(out),
    )  # fmt: skip
    return call, (x, spectrum, out)


CALLS = {call.__name__: call for call in (lif_backward, tdbn_moments, degradation_forward, conv_forward)}


def main(name, extension):
    spec = importlib.util.spec_from_file_location("deal_kernels._C", extension)
    kernels = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kernels)
    run = getattr(kernels.cpu, name)
    small, _tensors = CALLS[name](kernels, 1)
    run(small, THREADS)  # the threads start while there is memory
    large, _tensors = CALLS[name](kernels, 128)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + HEADROOM, most))
    try:
        run(large, THREADS)
    except MemoryError:
        print("MemoryError")
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    run(large, THREADS)
    print("done")


if __name__ == "__main__":
    main(*sys.argv[1:])
