"""`install`, in processes of its own: it changes what `import spikingjelly` means."""

import os
import subprocess
import sys

import pytest

PEERS = os.environ.get("DEAL_TEST_PEERS")
CODE = """
import torch
from deal_kernels import compat

compat.install()
compat.install()
from spikingjelly.{part} import functional, neuron
import spikingjelly.{part}.functional as again

assert again is functional and {neuron}.__module__.startswith({module!r}), {neuron}.__module__
theirs = torch.nn.Sequential({neuron}({arguments}), {neuron}({arguments}))
ours = torch.nn.Sequential({neuron}({arguments}), {neuron}({arguments}))
replaced = len(compat.swap(ours).replaced)
assert replaced == (2 if {module!r} == "spikingjelly" else 0), replaced
if hasattr(functional, "set_backend"):
    functional.set_backend(theirs, "cupy")
x = torch.randn(4, 2, 8) * 2
for _ in range(2):
    assert torch.equal(theirs(x), ours(x))
    functional.reset_net(theirs)
    functional.reset_net(ours)
"""
CLOCK_DRIVEN = {
    "part": "clock_driven", "neuron": "neuron.MultiStepLIFNode",
    "arguments": "tau=3.0, detach_reset=True, backend='cupy'",
}  # fmt: skip
ACTIVATION_BASED = {
    "part": "activation_based", "neuron": "neuron.LIFNode",
    "arguments": "v_threshold=0.15, step_mode='m', backend='cupy'",
}  # fmt: skip


def run(version, module, **call):
    path = [f"{PEERS}/spikingjelly-{version}"] if version else []
    path += filter(None, [os.environ.get("PYTHONPATH")])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE.format(module=module, **call)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(PEERS is None, reason="set DEAL_TEST_PEERS to the folder of tests/peers/install")
@pytest.mark.parametrize(
    ("version", "call"),
    [("2.0.0", ACTIVATION_BASED), ("0.0.0.0.14", ACTIVATION_BASED), ("0.0.0.0.14", CLOCK_DRIVEN),
     ("0.0.0.0.12", CLOCK_DRIVEN)],
)  # fmt: skip
def test_an_installed_part_stays_and_accepts_cupy(version, call):
    run(version, "spikingjelly", **call)


@pytest.mark.skipif(PEERS is None, reason="set DEAL_TEST_PEERS to the folder of tests/peers/install")
@pytest.mark.parametrize(("version", "call"), [("2.0.0", CLOCK_DRIVEN), ("0.0.0.0.12", ACTIVATION_BASED)])
def test_a_part_that_the_version_lacks_is_supplied(version, call):
    run(version, "deal_kernels", **call)


@pytest.mark.parametrize("call", [ACTIVATION_BASED, CLOCK_DRIVEN])
def test_without_spikingjelly(call):
    run(None, "deal_kernels", **call)
