"""A kernel that cannot get its memory raises MemoryError, and runs once there is memory again."""

import subprocess
import sys
from pathlib import Path

import pytest

compiled = pytest.importorskip("deal_kernels._C", reason="the extension is not built")


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on the memory of a process")
@pytest.mark.parametrize("kernel", ["lif_backward", "tdbn_moments", "degradation_forward", "conv_forward"])
def test_memory_error(kernel):
    program = Path(__file__).with_name("out_of_memory.py")
    done = subprocess.run([sys.executable, program, kernel, compiled.__file__], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "MemoryError\ndone\n"
