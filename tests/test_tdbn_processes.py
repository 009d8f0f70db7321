"""A world of two processes with a part of the batch each gives the numbers of one process with all of it."""

import processes
import pytest
import torch
from oracle import close

from deal_kernels.tdbn import tdbn

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed")


@pytest.mark.parametrize("shares", [(2, 2), (1, 3), (0, 2)], ids=str)
@pytest.mark.parametrize("backend", ["cpp", "torch"])
def test_two_processes(tmp_path, backend, shares):
    torch.multiprocessing.spawn(processes.run, (tmp_path / "meeting", backend, shares, tmp_path), processes.WORLD)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(processes.WORLD)]
    whole = processes.steps(backend, slice(None), sum(shares))
    for index, expected in enumerate(whole):
        mine = [part[index] for part in parts]
        kind = index % 8
        if kind < 4:  # results and gradients of x: each process has those of its samples
            together = torch.cat(mine, 1)
            if index == 8 or index == 10:
                assert (together == expected).float().mean() > 0.999  # a membrane at the threshold may round over it
            else:
                assert close(together, expected, 1e-5), index
        elif kind < 6:  # of weight and bias: each process has its share of the sum
            assert close(sum(mine), expected, 1e-5), index
        else:  # running statistics: the same everywhere
            assert torch.equal(*mine) and close(mine[0], expected, 1e-6), index


def test_groups(tmp_path):
    torch.multiprocessing.spawn(processes.run_alone, (tmp_path / "meeting", tmp_path), processes.WORLD)
    x = processes.batch(processes.WORLD)[0]
    for rank in range(processes.WORLD):
        alone, own_group, together = torch.load(tmp_path / f"{rank}.pt")
        assert torch.equal(alone, tdbn(x[:, rank : rank + 1], training=True))
        assert torch.equal(alone, own_group)
        assert close(together, tdbn(x, training=True)[:, rank : rank + 1], 1e-5)
