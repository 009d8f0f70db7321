"""The Triton SSIM, run in the interpreter by the tests of every backend, and what its kernel compiles to."""

from pathlib import Path

import pytest
import torch
from triton_testing import Recorder, compile_for, compiles, resources, run_in_the_interpreter, starts_interpreter

from deal_kernels.ssim import triton as room
from deal_kernels.ssim.op import Settings


@starts_interpreter
def test_in_the_interpreter():
    run_in_the_interpreter(str(Path(__file__).with_name("test_ssim.py")))
