"""The layout of csrc, and the structs through which Python calls its kernels."""

import re
from pathlib import Path

import pytest
from check_cuda_resources import LIMITS, Kernel, faults

ROOT = Path(__file__).parents[1] / "csrc"
SHARED = {"common", "math"}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_ops_include_nothing_of_each_other(device):
    for path in (ROOT / device).rglob("*"):
        if not path.is_file():
            continue
        room = path.parent.name
        for include in re.findall(r'#include "(.*)"', path.read_text()):
            target = (path.parent / include).resolve()
            assert target.is_file(), f"{path} includes {include}"
            allowed = {room, *SHARED} if room != "common" else SHARED
            assert target.parent.name in allowed or target == ROOT / "types.h", f"{path} includes {include}"


@pytest.mark.parametrize("name", LIMITS)
def test_too_many_registers_of_a_cuda_kernel_are_a_fault(name):
    most = LIMITS[name]
    assert not faults(Kernel(f"{name}, 4>", 90, most, 0, 0))
    assert faults(Kernel(f"{name}, 4>", 90, most + 1, 0, 0)) == [f"{most} registers at most"]
    assert faults(Kernel("other<float>", 90, 255, 0, 16)) == ["0 bytes of stack, 16 spilled"]


def test_fields_go_by_their_names():
    kernels = pytest.importorskip("deal_kernels._C", reason="the extension is not built")
    given = {"mean": 1, "scale": 2, "shift": 3, "channels": 4, "inner": 5}
    kernels.Norm(**given, shortcut=6)
    with pytest.raises(TypeError, match="Norm needs scale"):
        kernels.Norm(mean=1)
    with pytest.raises(TypeError, match="Norm has no field offset"):
        kernels.Norm(**given, offset=0)
    with pytest.raises(TypeError, match="Norm: mean has the wrong type"):
        kernels.Norm(**given | {"mean": "1"})
    with pytest.raises(TypeError):
        kernels.Norm(1, 2, 3, 4, 5)
