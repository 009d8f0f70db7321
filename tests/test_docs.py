"""The examples in the docstrings run."""

import doctest

import pytest

import deal.baselines
import deal.baselines.wavelets
import deal.checkpoint
import deal.context
import deal.data
import deal.evaluate
import deal.fusion
import deal.generator
import deal.methods
import deal.metrics
import deal.model
import deal.reco
import deal.report
import deal.scenes
import deal.smoothing
import deal.suites
import deal_kernels.backend
import deal_kernels.compat.spikingjelly
import deal_kernels.degradation
import deal_kernels.degradation.sampling
import deal_kernels.lif
import deal_kernels.tdbn
import deal_kernels.tdbn.functional
import deal_kernels.tdbn.modules

MODULES = (
    deal.baselines,
    deal.baselines.wavelets,
    deal.checkpoint,
    deal.context,
    deal.data,
    deal.evaluate,
    deal.fusion,
    deal.generator,
    deal.methods,
    deal.metrics,
    deal.model,
    deal.reco,
    deal.report,
    deal.scenes,
    deal.smoothing,
    deal.suites,
    deal_kernels.backend,
    deal_kernels.compat.spikingjelly,
    deal_kernels.degradation,
    deal_kernels.degradation.sampling,
    deal_kernels.lif,
    deal_kernels.tdbn,
    deal_kernels.tdbn.functional,
    deal_kernels.tdbn.modules,
)


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_examples(module):
    result = doctest.testmod(module)
    assert result.attempted > 0 and result.failed == 0
