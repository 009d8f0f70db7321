"""The most memory that a command takes."""

import os
import subprocess
import sys

SCRIPT = """
import resource, sys
from deal import cli
code = cli.main(["enhance", "-i", sys.argv[1], "-o", sys.argv[2], "-m", "deal-u-small", "--quiet", "--threads", "1"])
print(code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_of_enhance(source, target):
    """In the units of ru_maxrss, which differ between systems."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(source), str(target)], capture_output=True, text=True, timeout=500,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    code, peak = map(int, done.stdout.split())
    assert code == 0, done.stderr
    return peak
