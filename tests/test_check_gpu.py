"""The parts of the check of a machine that need a GPU fail where something is wrong; and those that measure.

Without a GPU torch.cuda is simulated, and a call gives what a broken kernel would give.
"""

import contextlib
import os
import subprocess
import sys
import types

import pytest
import torch
from broken_calls import BROKEN, LIF, broken, the_result

from deal.model import check as deal_check
from deal_kernels.check import sanitizer, speed, streams, training
from deal_kernels.check.cases import Target
from deal_kernels.check.registry import CALLS

ROOT = os.path.dirname(os.path.dirname(__file__))


class Streams:
    """Stands for those of torch.cuda. Work is done at once, so that only what a test does is out of order."""

    def __init__(self, monkeypatch):
        self.current = self.default = object()
        for name, value in {
            "Stream": lambda: types.SimpleNamespace(synchronize=self.nothing, wait_stream=self.nothing),
            "stream": self.on, "default_stream": lambda: types.SimpleNamespace(synchronize=self.nothing),
            "current_stream": lambda: self.current, "synchronize": self.nothing, "_sleep": self.nothing,
            "is_available": lambda: True,
        }.items():  # fmt: skip
            monkeypatch.setattr(torch.cuda, name, value, raising=False)
        self.slept = []

    def nothing(self, *arguments):
        pass

    @contextlib.contextmanager
    def on(self, stream):
        before, self.current = self.current, stream
        yield
        self.current = before


def test_a_call_that_does_not_wait_for_its_stream(monkeypatch):
    fake = Streams(monkeypatch)
    assert streams.in_order(broken(lambda y, *_: y), BROKEN).detail == "default stream and side stream"
    given, _, _ = streams.two_sets(LIF, "cpu")
    for calls in (
        2,
        3,
    ):  # the first computes what is expected, the others are on the default stream and on a side stream
        count = []

        def early(y, x, calls=calls, count=count):
            count.append(fake.current)
            return LIF.run(given[0], backend="torch") + 0 * y if len(count) == calls else y

        found = the_result(lambda early=early: streams.in_order(broken(early), BROKEN))
        assert found.result == "FAIL" and "the call did not wait for its inputs" in found.detail
        assert ("on the default stream" in found.detail) == (calls == 2)


@pytest.fixture
def two_devices(monkeypatch):
    """Counts of allocations on the first of them, and which one is current."""
    state = types.SimpleNamespace(allocated=5, current=0)
    for name, value in {
        "device_count": lambda: 2, "device": lambda name: contextlib.nullcontext(), "synchronize": lambda *_: None,
        "memory_stats": lambda device: {"allocation.all.allocated": state.allocated},
        "current_device": lambda: state.current,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)
    return state


def on_another(call):
    return the_result(lambda: streams.on_another_device(call, BROKEN, "cpu", "cpu"))


def test_memory_of_the_current_device_changes(two_devices):
    def allocates(y, x):
        two_devices.allocated += 1
        return y

    assert on_another(broken(lambda y, *_: y)).result == "PASS"
    found = on_another(broken(allocates))
    assert found.result == "FAIL" and "allocated 1 times for a call on" in found.detail


def test_the_current_device_changes(two_devices):
    def switches(y, x):
        two_devices.current = 1
        return y

    found = on_another(broken(switches))
    assert found.result == "FAIL" and "device 1 after it" in found.detail


def test_another_device_computes_something_else(two_devices):
    count = []

    def changes(y, x):
        count.append(0)
        return y if len(count) == 1 else 1 - y

    found = on_another(broken(changes))
    assert found.result == "FAIL" and "computes something else" in found.detail


def test_one_device_is_not_enough(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    (check,) = streams.devices([Target("cuda", "cuda")])
    assert the_result(check.run).result == "SKIP"


def eager(step):
    """A graph that runs the step again."""
    found = step()

    def replay():
        for tensor, value in zip(found, step(), strict=True):
            tensor.copy_(value)

    return found, replay


def test_graphs(monkeypatch):
    monkeypatch.setattr(streams, "captured", eager)
    right = broken(lambda y, *_: y)
    assert the_result(lambda: streams.replayed(right, BROKEN)).result == "PASS"
    monkeypatch.setattr(streams, "captured", lambda step: (step(), lambda: None))
    found = the_result(lambda: streams.replayed(right, BROKEN))
    assert found.result == "FAIL" and "the replayed graph computes something else" in found.detail

    def refused(step):
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing")

    monkeypatch.setattr(streams, "captured", refused)
    found = the_result(lambda: streams.replayed(right, BROKEN))
    assert found.result == "FAIL" and "not permitted when stream is capturing" in found.detail


def test_a_step_is_captured_after_it_ran_on_a_side_stream(monkeypatch):
    fake, states = Streams(monkeypatch), []
    default = fake.current

    @contextlib.contextmanager
    def graph(graph):
        fake.current = "capture"
        yield
        fake.current = default

    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: types.SimpleNamespace(replay="replay"))
    monkeypatch.setattr(torch.cuda, "graph", graph)

    def step():
        states.append("capture" if fake.current == "capture" else fake.current is not default)
        return [len(states)]

    assert streams.captured(step) == ([3], "replay")
    assert states == [True, True, "capture"]


def test_gpu_parts_have_every_call_of_the_library_on_a_gpu(two_devices):
    targets = [Target("cpp", "cpu"), Target("torch", "cpu"), Target("cuda", "cuda"), Target("torch", "cuda")]
    for part in (streams.streams, streams.devices, streams.graphs):
        assert [check.name for check in part(targets)] == [
            f"{call.name}, cuda on cuda" for call in CALLS if "cuda" in call.backends
        ]
        assert part(targets[:2]) == []


SANITIZER = """#!{python}
import os, sys
print("========= COMPUTE-SANITIZER")
print("{message}")
program = sys.argv[sys.argv.index({python!r}):]
assert os.environ["PYTORCH_NO_CUDA_MEMORY_CACHING"] == "1" and sys.argv[1:3] == ["--tool", "memcheck"]
os.execv(program[0], program) if {status} == 0 else sys.exit({status})
"""


@pytest.mark.parametrize(("status", "expected"), [(0, "PASS"), (86, "FAIL")])
def test_the_sanitizer(tmp_path, monkeypatch, status, expected):
    """One that runs the program and finds nothing, and one that finds something."""
    message = "========= Invalid __global__ read of size 4 bytes" if status else ""
    tool = tmp_path / "compute-sanitizer"
    tool.write_text(SANITIZER.format(python=sys.executable, message=message, status=status))
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", ROOT)
    monkeypatch.setattr(sanitizer, "SECONDS", 300)
    found = the_result(lambda: sanitizer.sanitized("memcheck"))
    assert found.result == expected, found.detail
    assert expected == "PASS" or found.detail == "exit status 86: Invalid __global__ read of size 4 bytes"


def test_a_program_that_fails_under_the_sanitizer():
    row = "tiny       lif, cuda on cuda FAIL  RuntimeError: CUDA error"
    assert sanitizer.complaint(f"========= COMPUTE-SANITIZER\n{row}\n========= ERROR SUMMARY: 0 errors") == row
    assert sanitizer.complaint("Traceback\nImportError: libcuda\n") == "ImportError: libcuda"
    assert sanitizer.complaint("") == "no output"


def test_a_sanitizer_that_is_not_there_or_too_slow(monkeypatch):
    monkeypatch.setattr(sanitizer.shutil, "which", lambda *arguments, **named: None)
    assert the_result(lambda: sanitizer.sanitized("memcheck")).result == "SKIP"

    def late(*arguments, **named):
        raise subprocess.TimeoutExpired("compute-sanitizer", 60)

    monkeypatch.setattr(sanitizer.shutil, "which", lambda *arguments, **named: "compute-sanitizer")
    monkeypatch.setattr(sanitizer.subprocess, "run", late)
    found = the_result(lambda: sanitizer.sanitized("memcheck"))
    assert found.result == "SKIP" and "took longer than 60 s" in found.detail


def test_the_sanitizer_is_for_cuda():
    assert sanitizer.sanitizer([BROKEN]) == []
    assert len(sanitizer.sanitizer([Target("cuda", "cuda")])) == len(sanitizer.TOOLS)


def test_tiny_calls_that_are_not_finite():
    found = the_result(lambda: sanitizer.runs(broken(lambda y, *_: y / 0), BROKEN))
    assert found.result == "FAIL" and "is not finite" in found.detail


def test_speed(monkeypatch):
    monkeypatch.setattr(speed, "CPU_ELEMENTS", 1 << 12)
    monkeypatch.setattr(speed, "SECONDS", 0.01)
    for call in (LIF, CALLS[-1]):
        found = speed.timed(call, Target("torch", "cpu"), torch.float32)
        assert len(found.figures) == (2 if call.leaves else 1)
        for figure in found.figures:
            assert figure.milliseconds > 0 and figure.gigabytes_per_second > 0 and figure.copy_gigabytes_per_second > 0


def test_bytes_are_those_of_the_tensors(monkeypatch):
    """LIF reads x and writes spikes; backward reads x and the gradient of the spikes, and writes that of x."""
    monkeypatch.setattr(speed, "CPU_ELEMENTS", 1 << 12)
    monkeypatch.setattr(speed, "medians", lambda runs, device: [1.0] * len(runs))
    forward, both = speed.timed(LIF, Target("torch", "cpu"), torch.bfloat16).figures
    nbytes = 2 * torch.Size(LIF.sized(speed.sizes_for(LIF, 1 << 12))[0].shape).numel()
    assert forward.gigabytes_per_second == pytest.approx(2 * nbytes / 1e9) == forward.copy_gigabytes_per_second
    assert both.gigabytes_per_second == pytest.approx(5 * nbytes / 1e9)


def test_speed_takes_the_gpu_and_what_torch_has_there():
    checks = speed.speed(
        [Target("cpp", "cpu"), Target("cuda", "cuda"), Target("triton", "cuda"), Target("torch", "cuda")]
    )
    names = [check.name for check in checks]
    assert "lif, bfloat16, cuda on cuda" in names and "lif, float32, triton on cuda" in names
    assert "consensus, float32, torch on cuda" in names and not [name for name in names if "cpp" in name]


@pytest.mark.parametrize("loss", [torch.nan, 1.0])
def test_a_training_that_does_not_learn(monkeypatch, loss):
    monkeypatch.setattr(training, "l1_ssim", lambda y, x: 0 * y.mean() + loss)
    found = the_result(lambda: training.trained(training.Restorer, "cpu", "step", torch.float32, False))
    assert found.result == "FAIL" and ("the loss is nan" if loss != loss else "did not fall") in found.detail


def test_a_training_step_as_a_graph(monkeypatch):
    def warmed(step):
        for _ in range(training.WARM):
            step()
        loss = torch.zeros(())
        return [loss], lambda: loss.copy_(step()[0])

    monkeypatch.setattr(training, "captured", warmed)
    losses, _ = training.replays(training.Trainer(training.Restorer, "cpu", torch.float32))
    assert len(losses) == training.STEPS and losses[-1] < losses[0]
    monkeypatch.setattr(training, "captured", lambda step: (step(), lambda: None))
    with pytest.raises(AssertionError, match="the graph has the loss"):
        training.replays(training.Trainer(training.Restorer, "cpu", torch.float32))
    assert the_result(lambda: training.trained(training.Restorer, "cpu", "step", torch.float32, True)).result == "SKIP"


def test_the_fused_network_as_a_graph(monkeypatch):
    monkeypatch.setattr(deal_check, "captured", eager)
    found = deal_check.replayed("cpu", (1, 1, 40, 48))
    assert len(found.figures) == 2 and all(figure.milliseconds > 0 for figure in found.figures)
    monkeypatch.setattr(deal_check, "captured", lambda step: (step(), lambda: None))
    found = the_result(lambda: deal_check.replayed("cpu", (1, 1, 40, 48)))
    assert found.result == "FAIL" and "the replayed graph computes something else" in found.detail
    assert the_result(lambda: deal_check.fused("cpu")).result == "SKIP"
