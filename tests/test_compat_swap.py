"""`swap` of neurons of one's own."""

import pytest
from torch import nn

from deal_kernels.compat import swap
from deal_kernels.lif import LIF


class Mine(nn.Module):
    def __init__(self, tau):
        super().__init__()
        self.tau = tau


class Derived(Mine):
    pass


def made(neuron):
    return LIF(tau=neuron.tau)


def test_a_custom_neuron_is_replaced_wherever_it_is():
    shared = Mine(3.0)
    model = nn.Sequential(nn.Linear(4, 4), shared, nn.Sequential(shared, Mine(4.0), Derived(5.0)))
    report = swap(model, custom={Mine: made})
    assert [each.name for each in report.replaced] == ["1", "2.1"] and report.left == []
    assert model[1] is model[2][0] and model[1].tau == 3.0 and model[2][1].tau == 4.0
    assert type(model[2][2]) is Derived


def test_a_dry_run_changes_nothing():
    model = nn.Sequential(Mine(3.0))
    assert len(swap(model, custom={Mine: made}, dry_run=True).replaced) == 1
    assert type(model[0]) is Mine


def test_the_model_itself_has_no_place_to_put_another_module():
    with pytest.raises(ValueError, match="put the neuron into a module"):
        swap(Mine(3.0), custom={Mine: made})


def test_a_network_without_neurons():
    assert str(swap(nn.Sequential(nn.Linear(4, 4)))) == "0 of 0 neurons replaced"
