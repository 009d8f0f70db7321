"""deal doctor: what it finds on this machine, and what it says of an installation that is broken."""

import json
import shutil

import pytest

from deal import cli
from deal.cli import doctor
from deal.evaluate import self_test
from deal.model import pretrained


def test_this_machine(capsys):
    assert cli.main(["doctor", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    for words in ("deal", "torch", "python", "backends", "deal-u.safetensors", "sha256", "dB ->", "everything works"):
        assert words in said
    assert all(len(line) < 160 for line in said.splitlines())


def test_as_json(capsys):
    assert cli.main(["doctor", "--device", "cpu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["healthy"] and found["machine"]["backends"]["torch"] == "live"
    assert {each["state"] for each in found["weights"].values()} == {"ok"} and len(found["weights"]) == 3
    for name, recorded in self_test.RECORDED.items():
        assert abs(found["self_test"][name]["after"] - recorded) < self_test.TOLERANCE
        assert found["self_test"][name]["before"] < 20


def test_broken_weights(tmp_path, monkeypatch, capsys):
    """A flipped bit, other numbers, and a file that is cut: each is named, and the exit code is 1."""
    shutil.copytree(pretrained.WEIGHTS, tmp_path / "weights")
    monkeypatch.setattr(pretrained, "WEIGHTS", tmp_path / "weights")
    path = tmp_path / "weights" / "deal-u.safetensors"
    content = bytearray(path.read_bytes())
    content[-4] ^= 1  # a bit of the last number
    path.write_bytes(content)
    assert cli.main(["doctor", "--device", "cpu"]) == 1
    said = capsys.readouterr().out
    assert "is not the released file" in said and "something does not work" in said
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    path.write_bytes(content)
    assert cli.main(["doctor", "--device", "cpu"]) == 1
    assert f"it should be {self_test.RECORDED['deal-u']:.2f} dB" in capsys.readouterr().out
    path.write_bytes(content[:1000])
    assert cli.main(["doctor", "--device", "cpu", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert "is not a safetensors file" in found["weights"]["deal-u.safetensors"]["state"] and not found["healthy"]
    assert "is not a safetensors file" in found["self_test"]["error"]["reason"]


def test_a_device_that_is_not_there(capsys):
    assert cli.main(["doctor", "--device", "abacus"]) == 1
    assert "got 'abacus'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("required", "expected"),
    [
        (["numpy>=1", 'absent_package>=2; extra == "video"', 'numpy; extra == "video"'], "lacks absent_package: pip "),
        (['numpy>=1; extra == "video"', 'absent; extra == "dev"'], "ok"),
    ],
)
def test_extras(required, expected, monkeypatch):
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: required)
    [(extra, state)] = doctor._extras().items()
    assert extra == "video" and state.startswith(expected)
