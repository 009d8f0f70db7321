"""The examples in the docstrings run."""

import doctest

import pytest

import deal_kernels.backend
import deal_kernels.lif


@pytest.mark.parametrize("module", [deal_kernels.backend, deal_kernels.lif], ids=lambda m: m.__name__)
def test_examples(module):
    result = doctest.testmod(module)
    assert result.attempted > 0 and result.failed == 0
