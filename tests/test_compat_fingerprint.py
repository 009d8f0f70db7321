"""The fingerprint of a function's source, by which `swap` recognises neurons."""

import functools

import torch

from deal_kernels.compat.fingerprint import fingerprint


def sample(self, x, *, factor: float = 0.5):
    """Documentation."""
    kept: list[int] = [len(f"{name!r:>3}") for name in ("a", "b")]
    for i, (one, _) in enumerate(x[1:, ..., None]):
        kept[-1] += (one * -2 if i >= 1 else factor) @ self.table[i]
    return kept, None, True, 1e-3


def test_the_fingerprint_is_the_same_in_all_versions_of_python():
    assert fingerprint(sample) == "016aa87941dd9f54"
    assert fingerprint(sample, sample) != fingerprint(sample)


def test_without_a_source_there_is_no_fingerprint():
    space = {}
    exec("def forward(self, x): return x", space)
    assert fingerprint(space["forward"]) is None
    assert fingerprint(torch.relu) is None
    assert fingerprint(lambda x: x) is None
    assert fingerprint(sample, torch.relu) is None


def test_a_wrapped_function_is_not_the_one_it_wraps():
    @functools.wraps(sample)
    def wrapped(*inputs, **named):
        return sample(*inputs, **named)

    assert fingerprint(wrapped) is None
