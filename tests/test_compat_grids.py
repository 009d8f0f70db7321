"""`swap` on the neurons of installed libraries, over grids of settings. tests/peers/install puts them into a folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PEERS

SCRIPTS = Path(__file__).parent / "peers"


@pytest.mark.skipif(PEERS is None, reason="set DEAL_TEST_PEERS to the folder of tests/peers/install")
@pytest.mark.parametrize(
    ("library", "version", "script", "least"),
    [
        ("spikingjelly", "2.0.0", "spikingjelly_grid", 500), ("spikingjelly", "0.0.0.0.14", "spikingjelly_grid", 500),
        ("spikingjelly", "0.0.0.0.12", "spikingjelly_grid", 500),
        ("spikingjelly", "2.0.0", "spikingjelly_states_grid", 2000), ("snntorch", "1.0.0", "snntorch_grid", 500),
        ("norse", "1.1.0", "norse_grid", 300),
    ],
)  # fmt: skip
def test_grid(library, version, script, least):
    command = [sys.executable, SCRIPTS / f"{script}.py", version]
    paths = os.pathsep.join([f"{PEERS}/{library}-{version}", *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[0]) > least
