"""Neurons with several states against what other libraries recorded."""

import pytest
import torch
from oracle import close

from deal_kernels.multistate import clif, cuba
from deal_kernels.surrogate import FastSigmoid


def test_norse(golden, backend, device):
    recorded = {key: value.to(device) for key, value in golden("norse.npz").items() if key.startswith("lif")}
    x = recorded["lif_x"].requires_grad_()
    # Their step times their inverse time constants, in single precision.
    rate, current_rate = (torch.tensor(0.001) * inverse for inverse in (100, 200))
    spikes, (v, i) = cuba(
        x, rate=rate.item(), current_rate=current_rate.item(), fire="gt", surrogate=FastSigmoid(slope=1.0),
        return_state=True, backend=backend,
    )  # fmt: skip
    spikes.backward(recorded["lif_g"])
    assert torch.equal(spikes, recorded["lif_s"])
    assert torch.equal(v, recorded["lif_v"]) and torch.equal(i, recorded["lif_i"])
    assert close(x.grad, recorded["lif_gx"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_complementary_neuron_by_hand(dtype):
    """SpikingJelly's ComplementaryLIFNode with its defaults."""
    x = torch.tensor([0.8, 0.4, 0.9, 0.4, 1.0], dtype=dtype)
    assert clif(x).tolist() == [0.0, 0.0, 1.0, 0.0, 1.0]
