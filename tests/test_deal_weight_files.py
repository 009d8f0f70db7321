"""Files of weights: whole or not at all, and what is said of those that are something else."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import DATA

from deal.io.atomic import atomic_write
from deal.model import weight_files
from deal.model.network import DEAL

RELEASED = DATA / "golden" / "deal_released_epoch839.pt"


@pytest.fixture
def released():
    if not RELEASED.exists():
        missing = pytest.fail if os.environ.get("DEAL_TEST_DATA_REQUIRED") else pytest.skip
        missing(f"{RELEASED} is not there: set DEAL_TEST_DATA to the folder that holds golden/")
    return torch.load(RELEASED, map_location="cpu", weights_only=True)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def small(**options):
    torch.manual_seed(0)
    return DEAL([("scale", 5, 3), ("spike", 5, 3, 2)], width=4, **options)


@pytest.mark.parametrize(
    "options",
    [{}, {"channels": 3, "neuron": "binary", "norm": "tdbn"}],
    ids=str,
)
def test_round_trip(tmp_path, options):
    network = small(**options)
    network(torch.rand(2, network.channels, 20, 24))  # moves the running statistics
    path = tmp_path / "network.safetensors"
    network.save_pretrained(path, trained_on="noise")
    loaded = DEAL.from_pretrained(path)
    assert loaded.config == network.config and not loaded.training
    assert same(loaded.state_dict(), network.state_dict())
    assert weight_files.load_tensors(path)[1]["trained_on"] == "noise"
    assert os.listdir(tmp_path) == [path.name]


def test_precision_is_kept(tmp_path):
    path = tmp_path / "network.safetensors"
    small().to(torch.bfloat16).save_pretrained(path)
    assert DEAL.from_pretrained(path).input_conv.weight.dtype == torch.bfloat16


def test_released(released):
    network = DEAL.from_released(RELEASED)
    assert network.config == DEAL(channels=3).config and not network.training
    assert sum(parameter.numel() for parameter in network.parameters()) == 572_323
    state = network.state_dict()
    assert len(state) == 92
    assert torch.equal(state["blocks.1.spiking.norm.weight"], released["module.block3.snn.bn.weight"])
    assert torch.equal(state["blocks.3.large_conv.bias"], released["module.block5.up_conv.conv2d.bias"])
    assert torch.equal(state["refine_conv.weight"], released["module.conv3.conv2d.weight"])
    assert state["blocks.0.small_norm.num_batches_tracked"] == 10_907


def test_released_under_the_later_names(released, tmp_path):
    """The released code renames its layers when it loads its checkpoint, and would save those names."""
    later = {
        "conv1": "input_conv", "conv2": "feature_conv", "conv3": "refine_conv", "conv4": "output_conv",
        "block2": "scale_block1", "block3": "spike_block1", "block4": "spike_block2", "block5": "scale_block2",
    }  # fmt: skip
    inside = {
        "norm1": "first_norm", "norm2": "second_norm", "up_norm": "upscale_norm", "down_norm": "downscale_norm",
        "snn": "spiking_conv",
    }  # fmt: skip
    renamed = {}
    for name, tensor in released.items():
        layer, *rest = name.removeprefix("module.").split(".")
        if layer in later:
            renamed[".".join((later[layer], *(inside.get(part, part) for part in rest)))] = tensor
    torch.save(renamed, tmp_path / "later.pt")
    assert same(weight_files.load_released(tmp_path / "later.pt"), weight_files.load_released(RELEASED))


def test_what_is_not_the_released_network(released, tmp_path):
    path = tmp_path / "other.pt"
    torch.save({"encoder.weight": torch.zeros(1), **released}, path)
    with pytest.raises(
        ValueError, match=r"other.pt is not a checkpoint of the released network: unknown are encoder.weight"
    ):
        DEAL.from_released(path)
    del released["module.conv3.conv2d.weight"]
    torch.save(released, path)
    with pytest.raises(ValueError, match=r"(?s)other.pt does not fit the network.*refine_conv.weight"):
        DEAL.from_released(path)
    torch.save([1], path)
    with pytest.raises(ValueError, match=r"must hold a state_dict, names to tensors; got list"):
        DEAL.from_released(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"other.pt is not a checkpoint of tensors"):
        DEAL.from_released(path)


def test_what_is_not_a_saved_network(tmp_path):
    path = tmp_path / "other.safetensors"
    with pytest.raises(FileNotFoundError, match=r"other.safetensors does not exist"):
        DEAL.from_pretrained(path)
    with pytest.raises(FileNotFoundError, match=r"is not a file"):
        DEAL.from_pretrained(tmp_path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"other.safetensors is not a safetensors file"):
        DEAL.from_pretrained(path)
    weight_files.save_tensors(path, {"weight": torch.zeros(2)}, {})
    with pytest.raises(ValueError, match=r"has no 'deal.config' in its metadata"):
        DEAL.from_pretrained(path)
    for config, message in (
        ('{"width": 4}', "input_conv.weight"),
        ('{"depth": 4}', "depth"),
        ("4", "config"),
        ("{", "config"),
    ):
        weight_files.save_tensors(path, {"weight": torch.zeros(2)}, {"deal.config": config})
        with pytest.raises(ValueError, match=rf"(?s)other.safetensors does not fit the network.*{message}"):
            DEAL.from_pretrained(path)


@pytest.mark.parametrize(
    "config",
    [
        {"blocks": [["scale", 3, 3, 1]] * 100_000, "width": 1},
        {"width": 100_000},
        {"blocks": [["scale", 100_001, 3, 1]]},
    ],
    ids=["many blocks", "wide", "large kernels"],
)
def test_a_small_file_describes_no_huge_network(config, tmp_path):
    """It neither fills the memory nor takes minutes."""
    path = tmp_path / "huge.safetensors"
    weight_files.save_tensors(path, {"weight": torch.zeros(2)}, {"deal.config": json.dumps(config)})
    start = time.perf_counter()
    with pytest.raises(ValueError, match=r"huge.safetensors does not fit the network"):
        DEAL.from_pretrained(path)
    assert time.perf_counter() - start < 30


@pytest.mark.parametrize("blocks", [[("scale", 3, 3)] * 60, [("spike", 11, 7, 2)] * 4], ids=["deep", "large kernels"])
def test_a_narrow_network_is_not_taken_for_a_huge_one(blocks, tmp_path):
    DEAL(blocks, width=1).save_pretrained(tmp_path / "narrow.safetensors")
    assert DEAL.from_pretrained(tmp_path / "narrow.safetensors").width == 1


def test_a_checkpoint_of_pytorch_is_named(tmp_path):
    """No message recommends to run what is in the file."""
    path = tmp_path / "x.pt"
    torch.save({"run": test_a_checkpoint_of_pytorch_is_named}, path)
    with pytest.raises(ValueError, match=r"x.pt is not a safetensors file: .* see `deal convert`"):
        DEAL.from_pretrained(path)
    with pytest.raises(ValueError, match=r"x.pt is not a checkpoint of tensors; nothing else is loaded") as raised:
        DEAL.from_released(path)
    assert "weights_only" not in str(raised.value)


def test_a_fused_network_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match=r"call save_pretrained\(\) before fuse"):
        small().eval().fuse().save_pretrained(tmp_path / "network.safetensors")
    assert not os.listdir(tmp_path)


def test_what_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="stop"), atomic_write(path) as file:
        file.write(b"new")
        raise RuntimeError("stop")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["weights"]


def test_a_link_stays_one(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    with atomic_write(tmp_path / "link") as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_bytes() == b"new"


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "none" / "weights"):
        raise AssertionError("there is nothing to write to")


SLOW_WRITER = """
import sys, time
from deal.io.atomic import atomic_write
with atomic_write(sys.argv[1]) as file:
    file.write(b"new" * 100_000)
    file.flush()
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_killed_writer_leaves_what_was_there(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"old")
    paths = {**os.environ, "PYTHONPATH": str(Path(weight_files.__file__).parents[2])}
    with subprocess.Popen([sys.executable, "-c", SLOW_WRITER, path], stdout=subprocess.PIPE, env=paths) as writer:
        assert writer.stdout.readline() == b"writing\n"
        assert path.read_bytes() == b"old"
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    assert path.read_bytes() == b"old"


def test_permissions_are_usual_ones(tmp_path):
    """A file that is made under another name first must not stay readable to its owner alone."""
    (tmp_path / "plain").write_bytes(b"")
    with atomic_write(tmp_path / "weights") as file:
        file.write(b"new")
    assert (tmp_path / "weights").stat().st_mode == (tmp_path / "plain").stat().st_mode
