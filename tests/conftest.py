import collections
import functools
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from torch._dynamo import trace_rules

import deal_kernels

# The compiler lists torch's functions once: before `poisoned_memory` replaces some of them.
trace_rules.get_torch_obj_rule_map()

# How long examples take to draw says something of a shared machine, nothing of the kernels.
settings.register_profile("shared", suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")

BACKENDS = [name for name, state in deal_kernels.info()["backends"].items() if state == "live"]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DEVICES = sorted({"cpu", DEVICE})
PEERS = os.environ.get("DEAL_TEST_PEERS")
IMPORTED = {}  # modules of SpikingJelly by version
DATA = Path(os.environ.get("DEAL_TEST_DATA", Path(__file__).parents[2] / "shared"))


INTERPRETER = pytest.StashKey[subprocess.Popen]()
COMPILES = torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1"  # Triton, for this machine's GPU
# Triton compiles 2,700 variants of its kernels for all tests, about one a second, and 300 for these parts: of each of
# its own tests one set of parameters in OWN, and of the tests that it shares with other backends one in SHARED.
OWN, SHARED = 11, 61


def pytest_addoption(parser):
    parser.addoption(
        "--all-variants", action="store_true",
        help="on a GPU, run all tests for which Triton compiles kernels, which takes most of an hour",
    )  # fmt: skip


def pytest_collection_modifyitems(config, items):
    if COMPILES and not config.option.all_variants:
        items[:], left = thinned(items)
        config.hook.pytest_deselected(items=left)


def thinned(items):
    """The items to run on a GPU, and those left out."""
    seen, kept, left = collections.Counter(), [], []
    for item in items:
        test, _, parameters = item.nodeid.partition("[")
        every, of = 1, None
        if parameters and item.path.name.endswith("_triton.py"):
            every, of = OWN, test
        elif parameters and item.callspec.params.get("backend") == "triton":
            every, of = SHARED, "shared"
        (left if seen[of] % every else kept).append(item)
        seen[of] += 1
    return kept, left


def pytest_collection_finish(session):
    """Begins what runs in Triton's interpreter. Beside all other tests it is over before its turn comes."""
    if session.config.option.collectonly:
        return
    for item in session.items:
        if mark := item.get_closest_marker("interpreted"):
            command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *mark.args]
            environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
            item.stash[INTERPRETER] = subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                preexec_fn=functools.partial(os.nice, 19),  # the others go first
            )  # fmt: skip


def pytest_sessionfinish(session):
    for item in session.items:
        if INTERPRETER in item.stash:
            item.stash[INTERPRETER].kill()


@pytest.fixture
def interpreter(request):
    """The process that was begun for the test."""
    return request.node.stash[INTERPRETER]


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


@pytest.fixture
def device(backend):
    """Where the tensors of a backend's tests live."""
    if backend == "triton":
        return "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
    return {"cpp": "cpu", "cuda": "cuda"}.get(backend, DEVICE)


@pytest.fixture(params=DEVICES)
def each_device(request, monkeypatch):
    """Every device there is, which "auto" then means, too."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # results are compared with those of a CPU
    return request.param


@pytest.fixture(params=(1, 2))
def each_thread_count(request):
    """The test runs with one thread and with two."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def automatic_device(request, monkeypatch):
    """Tests of deal that do not ask for each device run on the CPU, as it alone gives the same bits again."""
    of_deal = request.path.name.startswith("test_deal_")
    chosen = request.getfixturevalue("each_device") if "each_device" in request.fixturenames else "cpu"
    if of_deal and chosen == "cpu":
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def _spikingjelly_modules():
    return {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "spikingjelly"}


@pytest.fixture
def spikingjelly(monkeypatch):
    """Imports a module of SpikingJelly, in the version that it is asked for, for this test alone."""

    def imported(version, name):
        if PEERS is None:
            pytest.skip("set DEAL_TEST_PEERS to the folder of tests/peers/install")
        known = IMPORTED.setdefault(version, {})  # kept, because its operations can be registered only once
        for each, module in _spikingjelly_modules().items():
            if known.get(each) is not module:
                monkeypatch.delitem(sys.modules, each)
        sys.modules.update(known)
        monkeypatch.syspath_prepend(f"{PEERS}/spikingjelly-{version}")
        module = importlib.import_module(name)
        IMPORTED[version] = _spikingjelly_modules()
        return module

    yield imported
    for each in _spikingjelly_modules():
        del sys.modules[each]


@pytest.fixture
def golden():
    """Loads a recorded file by name, as a dict of tensors."""
    numpy = pytest.importorskip("numpy")

    def load(name):
        path = DATA / "golden" / name
        if not path.exists():
            missing = pytest.fail if os.environ.get("DEAL_TEST_DATA_REQUIRED") else pytest.skip
            missing(f"{path} is not there: set DEAL_TEST_DATA to the folder that holds golden/")
        recorded = numpy.load(path)
        return {key: torch.from_numpy(recorded[key]) for key in recorded.files if recorded[key].dtype.kind == "f"}

    return load


@pytest.fixture(autouse=True)
def poisoned_memory(monkeypatch):
    """Fills fresh memory with NaN (or 255), so that an element no kernel wrote is seen."""

    def poison(create):
        def created(*args, **kwargs):
            tensor = create(*args, **kwargs)
            if type(tensor) is not torch.Tensor or tensor.is_meta or tensor.requires_grad:
                return tensor
            return tensor.fill_(float("nan") if tensor.is_floating_point() else 255)

        return created

    for name in ("empty", "empty_like", "empty_strided"):
        monkeypatch.setattr(torch, name, poison(getattr(torch, name)))
