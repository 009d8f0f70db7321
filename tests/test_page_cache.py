"""Large results come from memory that is used again, and are ordinary tensors."""

import multiprocessing
import pickle

import pytest
import torch

from deal_kernels._common import page_cache
from deal_kernels.lif import lif

SHAPE = (4, 1 << 19)  # 8 MiB of float32


@pytest.fixture(autouse=True)
def nothing_kept():
    page_cache.release()
    yield
    page_cache.release()


def spikes():
    return lif(torch.full(SHAPE, 3.0))


def test_memory_is_used_again_only_when_nobody_holds_it():
    first = spikes()
    address = first.data_ptr()
    row = first[1].numpy()
    del first
    other = spikes()
    assert other.data_ptr() != address
    assert (row == 1).all()
    del row
    assert spikes().data_ptr() == address


def test_a_result_of_another_size_takes_kept_memory_with_little_to_spare():
    address = spikes().data_ptr()
    assert lif(torch.zeros(4, (1 << 19) - 5)).data_ptr() == address
    assert lif(torch.zeros(4, 1 << 21)).data_ptr() != address


def test_no_more_is_kept_than_allowed(monkeypatch):
    monkeypatch.setattr(page_cache, "KEEP", 17 << 20)
    held = [spikes() for _ in range(4)]
    del held
    assert 0 < sum(map(len, page_cache._kept)) <= 17 << 20
    page_cache.release()
    assert page_cache._kept == []


def test_results_are_ordinary_tensors():
    x = torch.full(SHAPE, 3.0, requires_grad=True)
    result = lif(x)
    result.mul_(2)  # which torch refuses for views made inside an operation
    result.sum().backward()
    assert x.grad.shape == SHAPE and not result._is_view()
    assert torch.equal(pickle.loads(pickle.dumps(result.detach())), result)
    assert spikes().resize_(2, 3).shape == (2, 3)


def test_sharing_moves_a_result_out_of_the_kept_memory():
    result = spikes()
    address = result.data_ptr()
    result.share_memory_()
    assert result.data_ptr() != address and spikes().data_ptr() == address and (result == 1).all()


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_a_forked_child_writes_into_memory_of_its_own():
    result = spikes()
    few = result[0, :9]  # a child has none of torch's threads
    child = multiprocessing.get_context("fork").Process(target=few.zero_)
    child.start()
    child.join()
    assert child.exitcode == 0 and (result == 1).all()
