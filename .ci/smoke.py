"""What deal_kernels must do where its wheel, torch and numpy are installed and nothing else.

Run from outside the repository, by the Python of that environment.
"""

import importlib
import importlib.util
import multiprocessing
import pkgutil
from pathlib import Path

import torch

import deal_kernels
from deal_kernels.lif import lif


def check_imports() -> None:
    """All of deal_kernels but its Triton kernels imports without what only `deal` needs."""
    for name in ("PIL", "jsonargparse", "safetensors"):
        assert importlib.util.find_spec(name) is None, f"{name} is installed: this environment shows nothing"
    for module in pkgutil.walk_packages(deal_kernels.__path__, "deal_kernels."):
        if "triton" not in module.name:
            importlib.import_module(module.name)


def check_neuron() -> None:
    """The C++ kernels on two threads give what plain torch gives, forward and backward."""
    info = deal_kernels.info()
    assert info["backends"]["cpp"] == "live", info
    assert info["openmp"], info
    torch.set_num_threads(2)
    x = torch.randn(4, 1 << 18, requires_grad=True)
    grad = torch.randn_like(x)
    spikes = {backend: lif(x, backend=backend) for backend in ("cpp", "torch")}
    grads = {backend: torch.autograd.grad(result, x, grad)[0] for backend, result in spikes.items()}
    assert torch.equal(spikes["cpp"], spikes["torch"])
    torch.testing.assert_close(grads["cpp"], grads["torch"])


def check_openmp() -> None:
    """The extension runs on the OpenMP runtime of torch: it needs no other, and starts no second set of threads."""
    mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libgomp" in line}
    assert len(mapped) == 1, mapped
    assert Path(mapped.pop()).parent.samefile(Path(torch.__file__).parent / "lib")


def check_fork() -> None:
    """A forked child computes after its parent has used threads."""
    child = multiprocessing.get_context("fork").Process(target=lif, args=(torch.randn(4, 1 << 18),))
    child.start()
    child.join(60)
    assert child.exitcode == 0, f"the child's exit code is {child.exitcode} (None: it hangs)"


if __name__ == "__main__":
    check_imports()
    check_neuron()
    check_openmp()
    check_fork()
    print(deal_kernels.info())
