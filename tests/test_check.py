"""The check of a machine: it passes here, and says what is wrong where a machine or a result is.

What only a GPU can do wrong is simulated: a call gives what a broken kernel would give, and torch.cuda answers as it
does with a broken driver.
"""

import contextlib
import importlib
import json
import os
import resource
import subprocess
import sys
import types
from importlib.metadata import EntryPoint

import pytest
import torch
from broken_calls import BROKEN, LIF, TDBN, broken, the_result

import deal_kernels
from deal_kernels import backend as backends
from deal_kernels.check import agreement, cases, command, machine, report, runner
from deal_kernels.check.calls import Call, Draw
from deal_kernels.check.cases import Target
from deal_kernels.check.registry import CALLS
from deal_kernels.check.runner import Check, Figure, NotApplicable, Outcome
from deal_kernels.lif import lif

ROOT = os.path.dirname(os.path.dirname(__file__))


def command_line(*arguments, **environment):
    line = [sys.executable, "-m", "deal_kernels", *arguments]
    environment = {**os.environ, "PYTHONPATH": ROOT, **environment}
    return subprocess.run(line, capture_output=True, text=True, timeout=1200, env=environment)


def test_it_passes_here(tmp_path):
    """Everything that applies to a CPU, in less than two minutes of two of its cores."""
    file, before = tmp_path / "check.json", resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = command_line("--check", "--json", str(file), OMP_WAIT_POLICY="passive")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(file.read_text())
    assert found["schema"] == report.SCHEMA and found["passed"]
    assert found["machine"]["torch"] == torch.__version__
    assert found["machine"]["backends"] == deal_kernels.info()["backends"]
    parts = {result["part"] for result in found["results"] if result["result"] == "PASS"}
    assert parts >= {"machine", "agreement", "repeats", "training", "speed"}
    assert {result["name"] for result in found["results"] if result["part"] == "agreement"} >= {
        f"{call.name}, torch on cpu" for call in CALLS
    }
    assert all(figure["milliseconds"] > 0 for figure in found["figures"])
    assert all(result["name"] in done.stdout for result in found["results"])
    assert "0 failed" in done.stdout
    if not torch.cuda.is_available():
        assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 240


def test_parts_are_chosen():
    done = command_line("--check", "--only", "machine")
    assert done.returncode == 0 and "backend cpp" in done.stdout and "agreement" not in done.stdout


@pytest.mark.parametrize("arguments", [("--only", "machine"), ("--json", "x"), ("--check", "--only", "all")])
def test_options_that_mean_nothing_are_refused(arguments):
    assert command_line(*arguments).returncode == 2


def test_a_failure_is_told_and_the_others_go_on(monkeypatch, tmp_path, capsys):
    def raises():
        raise ValueError("first line\nsecond line")

    def skips():
        raise NotApplicable("no such thing here")

    found = {"wrong": raises, "not here": skips, "right": lambda: Outcome("fine", (Figure("a", "b", 1.5, 3.0, 4.0),))}
    checks = [Check("machine", *each) for each in found.items()]
    monkeypatch.setitem(command.OWN, "machine", lambda targets: checks)
    assert command.check(["machine"], tmp_path / "found.json") is False
    written = json.loads((tmp_path / "found.json").read_text())
    assert not written["passed"]
    assert [(each["result"], each["detail"]) for each in written["results"]] == [
        ("FAIL", "ValueError: first line"), ("SKIP", "no such thing here"), ("PASS", "fine"),
    ]  # fmt: skip
    assert written["figures"][0]["milliseconds"] == 1.5
    printed = capsys.readouterr().out
    assert "wrong    FAIL  ValueError: first line" in printed and "1 passed, 1 failed, 1 do not apply here" in printed
    assert "75%" in printed


def test_parts_of_other_packages(monkeypatch, capsys):
    """One that adds a check, and one that is broken."""
    added = types.SimpleNamespace(
        name="added", value="a:b", load=lambda: lambda targets: [Check("added", "one", lambda: Outcome(""))]
    )
    broken = types.SimpleNamespace(name="broken", value="c:d", load=lambda: importlib.import_module("no_such_module"))
    monkeypatch.setattr(command, "entry_points", lambda group: [added, broken])
    assert command.check(["added"])
    assert not command.check(["added", "broken"])
    assert "broken     c:d FAIL  ModuleNotFoundError: No module named 'no_such_module'" in capsys.readouterr().out


def test_the_part_of_deal_is_declared():
    """As the metadata of an installed package have it."""
    tomllib = pytest.importorskip("tomllib")
    with open(f"{ROOT}/pyproject.toml", "rb") as file:
        declared = tomllib.load(file)["project"]["entry-points"]
    (entry,) = declared[command.GROUP].items()
    part = EntryPoint(*entry, command.GROUP).load()
    names = [check.name for check in part([Target("cuda", "cuda")])]
    assert names[-1] == "fused network as a graph, cuda" and len(names) == 4


def test_the_exit_status_tells(monkeypatch):
    from deal_kernels import __main__ as main

    monkeypatch.setattr(sys, "argv", ["deal_kernels", "--check", "--only", "machine"])
    monkeypatch.setattr(main, "check", lambda parts, file: False)
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 1


def test_a_gpu_that_does_not_answer_is_asked_no_more(monkeypatch):
    """An access outside memory: every later call of CUDA in the process fails with the same error."""

    def lost():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lost)
    first, second = runner.run(
        [Check("part", "guilty", lambda: Outcome("")), Check("part", "other", lambda: Outcome(""))]
    )
    assert first.result == "FAIL" and "illegal memory access" in first.detail
    assert second.result == "SKIP" and "since 'guilty'" in second.detail


def backends_forgotten():
    for function in (backends._loaded, backends.unavailable, backends.choose):
        function.cache_clear()


@pytest.fixture
def gpu(monkeypatch):
    """A machine with a GPU whose kernels answer `problem`."""
    answer = types.SimpleNamespace(problem="")
    built = types.SimpleNamespace(
        cuda=types.SimpleNamespace(problem=lambda: answer.problem), isa=lambda: "avx2", openmp=True,
        cuda_architectures="sm_90",
    )  # fmt: skip
    backends_forgotten()
    monkeypatch.setattr(backends, "_loaded", lambda: (built, None))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "device", lambda name: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    yield answer
    monkeypatch.undo()
    backends_forgotten()


OLD = "the driver is for CUDA 12.4, and the kernels are built with CUDA 13.0"


@pytest.mark.parametrize("problem", ["", OLD, "no kernel image is available for execution on the device"])
def test_kernels_that_do_not_run_on_the_gpu(gpu, problem):
    gpu.problem = problem
    found = the_result(lambda: machine.backend("cuda"))
    assert (found.result, found.detail) == (("FAIL", f"cuda:0: {problem}") if problem else ("PASS", "sm_90"))


def test_a_backend_that_is_not_built_does_not_apply(gpu, monkeypatch):
    monkeypatch.setattr(backends, "_loaded", lambda: (types.SimpleNamespace(), None))
    assert the_result(lambda: machine.backend("cuda")).result == "SKIP"


def test_an_old_triton(gpu, monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", types.SimpleNamespace(__version__="3.2.0"))
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: True)
    found = the_result(lambda: machine.backend("triton"))
    assert found.result == "FAIL" and "triton is 3.2.0" in found.detail


def test_an_extension_that_does_not_load(monkeypatch):
    def load(name):
        raise ImportError("libgomp.so.1: cannot open shared object file")

    backends_forgotten()
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(backends.importlib, "import_module", load)
    found = the_result(lambda: machine.backend("cpp"))
    monkeypatch.undo()
    backends_forgotten()
    assert found.result == "FAIL" and "libgomp.so.1" in found.detail


@pytest.mark.parametrize(
    ("count", "built", "expected"),
    [(0, "13.0", "SKIP"), (1, None, "SKIP"), (1, "13.0", "FAIL")],
)
def test_a_driver_that_torch_cannot_use(monkeypatch, count, built, expected):
    """Torch then says that there is no GPU, and the driver knows better."""

    def told(value):
        def tell(pointer):
            pointer._obj.value = value
            return 0

        return tell

    driver = types.SimpleNamespace(cuInit=lambda flags: 0, cuDeviceGetCount=told(count), cuDriverGetVersion=told(12040))
    monkeypatch.setattr(machine, "driver", lambda: driver)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", built)
    found = the_result(machine.gpu)
    assert found.result == expected
    assert expected != "FAIL" or "the driver is for CUDA 12.4, torch is built for 13.0" in found.detail


def one_spike_flipped(y, *tensors):
    flipped = torch.zeros_like(y)
    flipped.view(-1)[-1] = 1
    return (y - flipped).abs()


class WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y):
        return y.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * (1 + 1e-4)


def unwritten(y, x):
    fresh = x.new_empty(x.shape)
    fresh.view(-1)[:-1] = y.detach().reshape(-1)[:-1]
    return y + (fresh - y).detach()


WRONG = {
    "a spike": (LIF, one_spike_flipped, "result 0 differs from torch in 1 of"),
    "the gradient": (LIF, lambda y, *_: WrongGradient.apply(y), "gradient of input 0 is off by"),
    "a type": (LIF, lambda y, *_: y.double(), "result 0 is"),
    "NaN": (TDBN, lambda y, *_: y * torch.nan, "result 0 is off by nan"),
    "values": (TDBN, lambda y, *_: y * (1 + 1e-5), "float32, aligned, T=1: result 0 is off by"),
    "an offset": (TDBN, lambda y, x, *_: y * 2 if x.storage_offset() else y, "float32, offset, T=1: result 0 is off"),
    "a layout": (
        TDBN, lambda y, x, *_: y if x.is_contiguous() else y * 2, "float32, channels-last, T=1: result 0 is off by"
    ),
    "many steps": (TDBN, lambda y, x, *_: y * 2 if len(x) > 16 else y, "T=17: result 0 is off by"),
    "odd sizes": (TDBN, lambda y, x, *_: y * 2 if x.shape[-1] % 2 else y, "float32, odd, T=1: result 0 is off by"),
    "halves": (TDBN, lambda y, x, *_: y * 2 if x.dtype == torch.bfloat16 else y, "bfloat16, aligned, T=1: result 0"),
    "an element that is not written": (LIF, unwritten, "result 0 differs from torch in 1 of"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_result(name):
    call, change, told = WRONG[name]
    found = the_result(lambda: agreement.agrees(broken(change, call), BROKEN))
    assert found.result == "FAIL" and told in found.detail, found.detail
    assert the_result(lambda: agreement.agrees(broken(lambda y, *_: y, call), BROKEN)).result == "PASS"


def test_data_on_which_rounding_decides_are_not_taken():
    """Here on any: the result is 1 or 0 with the last bit of float32."""
    call = Call(
        "unfit", lambda x, backend: (x.double() * 2**24 % 2 >= 1).to(x.dtype), (), (), (), axes="BHW",
        draws=lambda *shape: (Draw(shape),),
    )  # fmt: skip
    with pytest.raises(AssertionError, match="torch on the CPU is not near float64 on any of 30 sets"):
        cases.expected(cases.Case(call, torch.float32, "aligned", None))


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
def test_cases_have_the_layouts_they_name(call):
    """And for Triton, some of them in every type."""
    every = cases.cases_of(call, "cuda")
    assert (
        {case.dtype for case in every} == set(cases.DTYPES) == {case.dtype for case in cases.cases_of(call, "triton")}
    )
    assert {case.steps for case in every} == (set(cases.STEPS) if "T" in call.axes else {None})
    for case in every[:: len(cases.STEPS) if "T" in call.axes else 1]:
        drawn = [draw(torch.Generator(), "cpu", case.dtype) for draw in call.sized(cases.ALIGNED | {"T": 4})]
        tensors = case.tensors("cpu", drawn)
        assert all(torch.equal(*pair) for pair in zip(tensors, drawn, strict=True))
        x = tensors[0]
        assert x.storage_offset() == (case.layout == "offset")
        assert case.layout != "channels-last" or x.stride(cases.channel_axis(call)) == 1
        assert case.layout == "channels-last" or x.is_contiguous()


def test_triton_has_every_layout_and_time_in_some_call():
    few = [case for call in CALLS if "triton" in call.backends for case in cases.cases_of(call, "triton")]
    assert {case.layout for case in few} == set(cases.LAYOUTS)
    assert {case.steps for case in few} >= set(cases.STEPS)
    assert len(few) <= 40


def test_far_offsets(monkeypatch):
    neurons = 17 * 1001
    assert (
        agreement.FAR_NEURONS * agreement.FAR_STEPS == 2**31 + 8 and agreement.FAR_NEURONS % agreement.FAR_PERIOD == 0
    )
    target = Target("torch", "cpu")
    assert agreement.far_offsets(target, neurons).detail == f"{8 * neurons} elements"

    def wraps(x, backend):
        """As a kernel whose offsets have too few bits."""
        memory, half = x.reshape(-1), 1 << 16
        return lif(torch.cat([memory[:half], memory[: len(memory) - half]]).view_as(x), backend=backend)

    monkeypatch.setattr(agreement, "lif", wraps)
    found = the_result(lambda: agreement.far_offsets(target, neurons))
    assert found.result == "FAIL" and "has wrong spikes" in found.detail
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (11 << 30, 16 << 30))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    found = the_result(lambda: agreement.far_offsets(Target("cuda", "cuda")))
    assert found.result == "SKIP" and "11.0 are free" in found.detail


def test_far_offsets_are_for_gpus():
    targets = [Target("cpp", "cpu"), Target("cuda", "cuda"), Target("torch", "cuda")]
    assert [check.name for check in agreement.far(targets)] == ["lif, 2^31 + 8 elements, cuda on cuda"]


def test_results_that_change_from_run_to_run():
    call = broken(lambda y, *_: y + torch.rand(()) * 1e-6, TDBN)
    found = the_result(lambda: agreement.repeated(call, BROKEN))
    assert found.result == "FAIL" and "other bits in another run" in found.detail
    assert the_result(lambda: agreement.repeated(broken(lambda y, *_: y, TDBN), BROKEN)).result == "PASS"
