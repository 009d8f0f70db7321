"""Which tests run on a GPU by default."""

from pathlib import Path
from types import SimpleNamespace

from conftest import OWN, SHARED, thinned


def item(file, test, *values, backend=None):
    parameters = f"[{'-'.join(map(str, values))}]" if values else ""
    callspec = SimpleNamespace(params={"backend": backend} if backend else {})
    return SimpleNamespace(nodeid=f"{file}::{test}{parameters}", path=Path(file), callspec=callspec)


def test_a_part_of_what_triton_compiles_kernels_for():
    others = [item("test_a.py", "test_x", k, backend="cuda") for k in range(5)] + [item("test_a_triton.py", "test_x")]
    own = [item("test_a_triton.py", f"test_{name}", k) for name in "yz" for k in range(OWN + 1)]
    shared = [item("test_a.py", f"test_{k}", "triton", backend="triton") for k in range(2 * SHARED)]
    items = [*others, *own, *shared]
    kept, left = thinned(items)
    assert [each for each in items if each not in left] == kept and len(kept) + len(left) == len(items)
    assert kept[: len(others)] == others
    assert [each.nodeid.partition("::")[2] for each in kept[len(others) :]] == [
        "test_y[0]", f"test_y[{OWN}]", "test_z[0]", f"test_z[{OWN}]", "test_0[triton]", f"test_{SHARED}[triton]",
    ]  # fmt: skip
