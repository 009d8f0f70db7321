"""Which of two implementations is faster, measured at first use: with a clock that says what the test wants."""

import functools

import pytest
import torch
from conv_oracle import tensors

from deal_kernels._common import first_use
from deal_kernels.conv import choice, op, reference
from deal_kernels.conv.reference import Geometry


@pytest.fixture(autouse=True)
def nothing_measured(monkeypatch):
    monkeypatch.setattr(first_use, "_choices", {})


class Implementation:
    """Takes as long as it is told, round by round, and counts how often it runs."""

    def __init__(self, *times, result=1.0):
        self.times, self.runs, self.timed, self.result = times, 0, 0, result

    def __call__(self):
        self.runs += 1
        return [torch.full((3,), self.result)]


def clock(run):
    run()
    run.timed += 1
    return run.times[(run.timed - 1) % len(run.times)]


@pytest.mark.parametrize(
    ("new", "usual", "faster"),
    [
        ((1.0,), (2.0,), True), ((2.0,), (1.0,), False), ((1.0,), (1.0,), False),
        ((1.0,), (1.04,), False),  # within the noise
        ((1.0,), (1.06,), True),
        ((9.0, 9.0, 1.0, 9.0, 9.0), (2.0,), True),  # the best round counts
        ((1.5,), (9.0, 9.0, 9.0, 1.0, 9.0), False),
    ],
)  # fmt: skip
def test_the_faster_one_is_taken(new, usual, faster):
    assert first_use.is_faster("key", Implementation(*new), Implementation(*usual), clock) is faster
    assert first_use.known("key") is faster


def test_a_key_is_measured_once():
    new, usual = Implementation(1.0), Implementation(2.0)
    assert first_use.known(("GPU", 1)) is None
    assert all(first_use.is_faster(("GPU", 1), new, usual, clock) for _ in range(3))
    assert new.timed == usual.timed == first_use.ROUNDS and new.runs == usual.runs == first_use.ROUNDS + 1
    slow = Implementation(3.0)
    assert not first_use.is_faster(("another GPU", 1), slow, usual, clock)
    assert first_use.known(("GPU", 1)) and slow.timed == first_use.ROUNDS


def test_what_fails_is_never_taken():
    def fails():
        raise RuntimeError("out of shared memory")

    usual = Implementation(9.0)
    with pytest.warns(UserWarning, match="the kernel in its place failed: RuntimeError.'out of shared memory'"):
        assert not first_use.is_faster("key", fails, usual, clock)
    assert not first_use.is_faster("key", fails, usual, clock) and usual.timed == 0


@pytest.mark.parametrize("result", [1.1, torch.nan])
def test_another_result_is_never_taken(result):
    with pytest.warns(UserWarning, match="the result of the kernel in its place is .* from its own"):
        assert not first_use.is_faster("key", Implementation(1.0, result=result), Implementation(2.0), clock)


def test_an_error_of_the_usual_one_is_the_callers():
    def fails():
        raise torch.OutOfMemoryError("of the caller")

    with pytest.raises(torch.OutOfMemoryError):
        first_use.is_faster("key", Implementation(1.0), fails, clock)
    assert first_use.known("key") is None


class Convolution:
    """Stands for the kernel of Triton, and counts its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, *arguments, backend):
        assert backend == "triton"
        self.calls += 1
        return reference.conv2d(*arguments)


@pytest.fixture
def on_a_gpu(monkeypatch):
    """A convolution in Triton on a CPU that passes for a GPU, and a clock by which it takes so many milliseconds."""
    convolution = Convolution()

    def prepare(ours, name="a GPU"):
        def milliseconds(run):
            before = convolution.calls
            run()
            return ours if convolution.calls > before else 1.0

        monkeypatch.setattr(op, "conv2d", convolution)
        monkeypatch.setattr(choice, "_tensor_cores", lambda device: name)
        monkeypatch.setattr(first_use, "milliseconds", milliseconds)
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
        return convolution

    return prepare


PADDED = Geometry((1, 1, 1, 1), "reflect", (1, 1))


def images(*shape, dtype=torch.bfloat16):
    x, weight, _, residual = tensors(shape, (16, shape[1], 3, 3), padding=1)
    x, residual = (each.to(dtype).contiguous(memory_format=torch.channels_last) for each in (x, residual))
    return x, weight.to(dtype), residual


def is_faster(x, weight, residual=None, g=PADDED, trains=False, relu=False):
    return choice._triton_is_faster(x, weight, g, trains, residual, relu)


@pytest.mark.parametrize("trains", [False, True])
@pytest.mark.parametrize("ours", [0.5, 2.0])
def test_a_convolution_is_measured_against_that_of_torch(on_a_gpu, ours, trains):
    convolution = on_a_gpu(ours)
    x, weight, residual = images(2, 16, 9, 11)
    x.requires_grad_(trains)
    assert is_faster(x, weight, residual, trains=trains, relu=True) is (ours < 1)
    measured = convolution.calls
    assert measured == first_use.ROUNDS + 1 and x.grad is None
    assert is_faster(x, weight, residual, trains=trains, relu=True) is (ours < 1)
    assert convolution.calls == measured


def test_what_is_measured_again(on_a_gpu):
    """Another device, shape, type, padding and use; not another image of nearly the same size."""
    convolution = on_a_gpu(0.5)
    x, weight, residual = images(1, 16, 9, 11)

    def measures(function):
        before = convolution.calls
        assert function()
        return convolution.calls > before

    assert measures(lambda: is_faster(x, weight))
    assert not measures(lambda: is_faster(*images(1, 16, 10, 12)[:2]))
    assert measures(lambda: is_faster(*images(4, 16, 9, 11)[:2]))
    assert measures(lambda: is_faster(*images(1, 8, 9, 11)[:2]))
    assert measures(lambda: is_faster(x.half(), weight.half()))
    assert measures(lambda: is_faster(x, weight, g=Geometry((2, 2, 2, 2), "reflect", (2, 2))))
    assert measures(lambda: is_faster(x, weight, residual))
    assert measures(lambda: is_faster(x, weight, relu=True))
    assert measures(lambda: is_faster(x, weight, trains=True))
    on_a_gpu(0.5, "another GPU")
    assert measures(lambda: is_faster(x, weight))


def test_what_is_not_even_measured(on_a_gpu, monkeypatch):
    convolution = on_a_gpu(0.5)
    x, weight, _ = images(1, 16, 9, 11)
    assert not is_faster(x.float(), weight.float())
    assert not is_faster(x.contiguous(), weight)
    assert not is_faster(x[:0], weight)
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        assert not is_faster(x, weight)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]):
        assert not is_faster(x, weight)
    monkeypatch.setattr(choice, "_tensor_cores", lambda device: None)
    assert not is_faster(x, weight)
    assert convolution.calls == 0


def test_a_measurement_is_used_while_a_graph_is_captured(on_a_gpu, monkeypatch):
    on_a_gpu(0.5)
    x, weight, _ = images(1, 16, 9, 11)
    assert is_faster(x, weight)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert is_faster(x, weight)


def test_a_checkpoint_sees_nothing_of_it(on_a_gpu):
    """The second of its forward passes, which measures nothing, keeps as many tensors as the first."""
    on_a_gpu(0.5)
    x, weight, _ = images(1, 16, 9, 11)
    x.requires_grad_()

    def layer(x):
        assert is_faster(x, weight, trains=True)
        return reference.conv2d(x, weight, None, None, PADDED, False)

    y = torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False)
    (found,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(found, torch.autograd.grad(layer(x).sum(), x)[0])


def test_auto_takes_torch_where_nothing_can_be_measured():
    for device in ("meta", "cpu"):
        x = torch.empty(1, 16, 9, 11, dtype=torch.bfloat16, device=device).contiguous(memory_format=torch.channels_last)
        assert not is_faster(x, torch.empty(16, 16, 3, 3, dtype=torch.bfloat16, device=device))
    chosen = functools.partial(choice.chosen_backend, None, g=PADDED, trains=False)
    assert chosen(x.to("meta"), torch.empty(16, 16, 3, 3, dtype=torch.bfloat16, device="meta")) == "torch"
