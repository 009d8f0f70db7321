"""A run that was broken off, by whatever, and one that several processes share, come to what a plain one comes to.

Whole runs are compared on a CPU: a GPU adds gradients in any order, and a second run ends with other bits.
"""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import das_runs
import pytest
import torch

from deal.model import generator
from deal.model.network import DEAL
from deal.training.adversarial import AdversarialTraining
from deal.training.run_dir import LOG
from deal_kernels.conv import Conv2d


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def state(folder):
    return torch.load(folder / "last.pt", weights_only=True)


def rows(folder):
    with open(folder / LOG, newline="") as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def assert_same(one, other, path=""):
    if isinstance(one, torch.Tensor):
        assert torch.equal(one.cpu(), other.cpu()), path
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for name in one:
            if name not in ("seconds", "settings"):
                assert_same(one[name], other[name], f"{path}.{name}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), path
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{path}.{index}")
    else:
        assert one == other, path


def signalled(monkeypatch, step, number=signal.SIGINT):
    """Sends a signal in the middle of a step."""
    play = AdversarialTraining.step

    def playing(self, x, count, *others):
        if count == step:
            os.kill(os.getpid(), number)
        return play(self, x, count, *others)

    monkeypatch.setattr(AdversarialTraining, "step", playing)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    threads = torch.get_num_threads()
    das_runs.run(folder, steps=6)
    torch.set_num_threads(threads)
    return folder


def test_resumed_run_has_the_same_bits(tmp_path, whole, monkeypatch):
    """Broken off within the warm start, and between two rows of the log while the generator trainable."""
    for step, first in ((0, False), (4, True)):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            signalled(patch, step)
            das_runs.run(tmp_path, steps=6, resume=first)
        assert state(tmp_path)["step"] == step + 1
        torch.rand(7)  # torch's own random numbers have no part in it
    das_runs.run(tmp_path, steps=6, resume=True)
    assert_same(state(tmp_path), state(whole))
    assert rows(tmp_path) == rows(whole)


def test_longer_run_goes_on(tmp_path, whole):
    das_runs.run(tmp_path, steps=2)
    das_runs.run(tmp_path, steps=6, resume=True)
    assert_same(state(tmp_path), state(whole))


def test_lost_rows_are_written_again(tmp_path, whole):
    das_runs.run(tmp_path, steps=2)
    with open(tmp_path / LOG, "a") as file:
        file.write("3,9,9,9\n4,9")
    das_runs.run(tmp_path, steps=6, resume=True)
    assert rows(tmp_path) == rows(whole)


def test_a_resumed_run_starts_from_the_state_that_was_saved(tmp_path, each_device, monkeypatch):
    seen = {}

    def stands_still(self, *_):
        seen.update(self.state())
        raise KeyboardInterrupt

    das_runs.run(tmp_path, steps=3, device=each_device)
    saved = state(tmp_path)["training"]
    monkeypatch.setattr(AdversarialTraining, "step", stands_still)
    with pytest.raises(KeyboardInterrupt):
        das_runs.run(tmp_path, steps=6, device=each_device, resume=True)
    assert_same(seen, saved)


def test_finished_run_stays(tmp_path, each_device):
    first = das_runs.run(tmp_path, steps=2, device=each_device)
    again = das_runs.run(tmp_path, steps=2, device=each_device, resume=True)
    assert again[2:] == first[2:]


def test_terminated_run_saves_and_says_so(tmp_path, each_device, monkeypatch):
    signalled(monkeypatch, 0, signal.SIGTERM)
    with pytest.raises(SystemExit) as left:
        das_runs.run(tmp_path, steps=6, device=each_device)
    assert left.value.code == 143 and state(tmp_path)["step"] == 1
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_errors(tmp_path):
    das_runs.run(tmp_path, steps=1)
    with pytest.raises(FileExistsError, match="already has a run: set resume"):
        das_runs.run(tmp_path, steps=2)
    with pytest.raises(ValueError, match="batch was 2 and is 4; seed was 0 and is 1"):
        das_runs.run(tmp_path, steps=2, resume=True, batch=4, seed=1)
    (tmp_path / "last.pt").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"last\.pt is not a checkpoint of a run"):
        das_runs.run(tmp_path, steps=2, resume=True)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such signal")
def test_kill_while_writing_loses_nothing(tmp_path, each_device):
    for turn in range(2):
        here = Path(das_runs.__file__)
        path = os.pathsep.join([str(here.parents[1]), os.environ.get("PYTHONPATH", "")])
        process = subprocess.Popen(
            [sys.executable, here, tmp_path, each_device], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip
        done = [int(process.stdout.readline()) for _ in range(2 + turn)][-1]
        time.sleep(0.005 * turn)
        process.kill()
        rest = process.communicate()[0].split()
        done = int(rest[-1]) if rest else done
        kept = state(tmp_path)
        assert kept["step"] in (done, done + 1)
        names = [name for name, _ in DEAL.from_pretrained(tmp_path / "last.safetensors").named_parameters()]
        assert all((kept["training"]["network"][name] == kept["step"]).all() for name in names)
        for name in ("last", "best"):
            weights = {
                each.unique().item() for each in DEAL.from_pretrained(tmp_path / f"{name}.safetensors").parameters()
            }
            assert len(weights) == 1 and weights <= {done, done + 1}


def gradients(optimiser):
    """Of an optimiser's first step, up to a factor: what it holds of momentum."""
    return [state.get("exp_avg", state.get("momentum_buffer")) for state in optimiser["state"].values()]


def image_by_image(forward):
    """A convolution of one image at a time."""

    def each(self, x, residual=None):
        residuals = [()] * len(x) if residual is None else zip(residual.split(1))
        return torch.cat([forward(self, image, *added) for image, added in zip(x.split(1), residuals, strict=True)])

    return each


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed")
def test_two_processes_are_one(tmp_path, monkeypatch):
    updates = "alternating", "simultaneous"
    torch.multiprocessing.spawn(das_runs.distributed, (tmp_path / "meeting", 2, tmp_path / "two", updates), 2)
    # Torch rounds a convolution of two images otherwise than two of one image on some processors. Near a threshold that
    # changes spikes and slopes, so here, too, each convolution is of one image.
    for convolution in (torch.nn.Conv2d, Conv2d):
        monkeypatch.setattr(convolution, "forward", image_by_image(convolution.forward))
    # What is left to differ is the order of sums. A float32 sum of n terms is exact up to n 2^-24 of the sum of their
    # sizes. The longest sums are over the pixels of both images, in the generator behind its first convolution.
    images, side = das_runs.TINY["batch"], das_runs.TINY["crop"]
    terms = {"network_optimiser": images * side**2, "generator_optimiser": images * (generator.SIDE // 2) ** 2}
    for update in updates:
        changes = das_runs.SHARED | {"update": update}
        das_runs.run(tmp_path / "one" / update, **changes)
        two, one = (state(tmp_path / count / update)["training"] for count in ("two", "one"))
        for optimiser, count in terms.items():
            for mine, theirs in zip(gradients(two[optimiser]), gradients(one[optimiser]), strict=True):
                largest = theirs.abs().max().item()
                torch.testing.assert_close(mine, theirs, rtol=0, atol=count * 2**-24 * largest)
        for name, theirs in one["network"].items():
            if "running" in name:
                torch.testing.assert_close(two["network"][name], theirs, rtol=1e-5, atol=1e-6)
        for mine, theirs in zip(rows(tmp_path / "two" / update), rows(tmp_path / "one" / update), strict=True):
            for name in mine:
                assert mine[name] == theirs[name] or float(mine[name]) == pytest.approx(float(theirs[name]), rel=1e-4)
