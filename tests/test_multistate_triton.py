"""Neurons with several states in Triton: the tests of test_multistate.py in the interpreter, and compilation."""

from pathlib import Path

import pytest
import torch
from multistate_oracle import MODELS
from triton_testing import Recorder, compiles, exact_ptx, interpreted

from deal_kernels import multistate
from deal_kernels.multistate import op
from deal_kernels.multistate import triton as room

PARTS = "triton and (spikes or half or step_by_step)"


@interpreted(str(Path(__file__).with_name("test_multistate.py")), "-k", PARTS)
def test_in_the_interpreter(interpreter):
    output, _ = interpreter.communicate()
    assert interpreter.returncode == 0, output


@interpreted(
    str(Path(__file__).with_name("test_multistate_axes.py")),
    "-k",
    "triton and spikes and dtype0 and not odd and not lsnn",
)
def test_axes_in_the_interpreter(interpreter):
    output, _ = interpreter.communicate()
    assert interpreter.returncode == 0, output


ALIGNED, UNALIGNED = (4, 2, 8, 64), (17, 2, 5, 7)
VARIANTS = {  # settings, shape and dtype of x, output, whether there are states and parameters per channel
    "plain": ({"surrogate": "atan"}, ALIGNED, torch.float32, "spikes", False),
    "learnt": ({"surrogate": "sigmoid"}, UNALIGNED, torch.float32, "spikes", True),
    "halves": ({"surrogate": "triangle", "fire": "gt"}, ALIGNED, torch.bfloat16, "states", True),
}


def inputs(name, settings, shape, dtype, learnt, monkeypatch):
    """The arguments that the function gives to the operation."""
    found = []
    monkeypatch.setattr(op, "multistate", lambda i, *rest: found.append(i) or (i.x, ()))
    x = torch.zeros(shape, dtype=dtype)
    each = {key: torch.full((shape[2],), 0.5 if key != "tau" else 3.0) for key in MODELS[name]} if learnt else {}
    if not learnt and name == "cuba, rates":
        each = {"rate": 0.1, "current_rate": 0.2}
    states = [torch.zeros(shape[1:])] * (3 if name == "lsnn" else 2) if learnt else []
    getattr(multistate, name.split(",")[0])(x, *states, **each, **settings)
    return found[0]


@compiles
@pytest.mark.parametrize(("variant", "capability"), [("plain", 90), ("learnt", 90), ("learnt", 80), ("halves", 80)])
@pytest.mark.parametrize("name", MODELS)
def test_what_the_kernels_compile_to(name, variant, capability, monkeypatch):
    settings, shape, dtype, output, learnt = VARIANTS[variant]
    i = inputs(name, settings, shape, dtype, learnt, monkeypatch)
    result, state = op.result_like(i, output), torch.empty(i.row().shape)
    wanted = [state if learnt else None for _ in i.states], [state if learnt else None for _ in i.parameters]
    for kernel in ("forward", "backward"):
        recorder = Recorder()
        with monkeypatch.context() as patch:
            patch.setattr(room, f"{kernel}_kernel", recorder)
            if kernel == "forward":
                room.forward(i, output, result, [state] * len(i.states))
            else:
                room.backward(i, result, [state] * len(i.states), output, op.result_like(i, "spikes"), *wanted)
        exact_ptx(capability, getattr(room, f"{kernel}_kernel"), recorder.arguments)
