"""Calls that give what a broken kernel would give, and what the check of a machine says of them."""

import dataclasses

from deal_kernels.check import runner
from deal_kernels.check.cases import Target
from deal_kernels.check.registry import CALLS

LIF = CALLS[0]
TDBN = next(call for call in CALLS if call.name == "tdbn")
BROKEN = Target("cpp", "cpu")


def broken(change, call=LIF):
    """A call that computes right on torch, and on every other backend what `change` makes of the result."""

    def run(*tensors, backend):
        found = call.run(*tensors, backend="torch")
        return found if backend == "torch" else change(found, *tensors)

    return dataclasses.replace(call, run=run)


def the_result(check):
    (found,) = runner.run([runner.Check("part", "name", check)])
    return found
