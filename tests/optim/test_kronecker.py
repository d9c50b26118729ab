"""Rank-one updates of inverse factors against dense inverses."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mkor_models import D

from visviva.optim.kronecker import updated


def spd(n=12, seed=0):
    x = torch.randn(n, 2 * n, dtype=D, generator=torch.Generator().manual_seed(seed))
    return x @ x.T / (2 * n) + 0.1 * torch.eye(n, dtype=D)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.5, 0.999), st.integers(1, 20), st.integers(0, 1000))
def test_exact_update_is_the_dense_inverse(gamma, updates, seed):
    dense = spd(seed=seed)
    inverse = torch.linalg.inv(dense)
    inverse = (inverse + inverse.T) / 2
    vectors = torch.randn(updates, 12, dtype=D, generator=torch.Generator().manual_seed(seed))
    for v in vectors:
        inverse = updated(inverse, v, gamma)
        dense = gamma * dense + (1 - gamma) * torch.outer(v, v)
    expected = torch.linalg.inv(dense)
    assert (inverse - expected).abs().max() < 1e-9 * expected.abs().max()
    assert torch.linalg.eigvalsh((inverse + inverse.T) / 2).min() > 0
    assert torch.equal(inverse, inverse.T)


def test_printed_update_grows_where_the_inverse_shrinks():
    """Card: along the vector 0.46 -> 0.65 (printed) instead of 0.46 -> 0.30; both stay positive definite."""
    dense, v = spd(), torch.randn(12, dtype=D, generator=torch.Generator().manual_seed(1))
    v = v / torch.linalg.vector_norm(v)
    before = torch.linalg.inv(dense)
    exact, printed = updated(before, 2 * v, 0.9), updated(before, 2 * v, 0.9, "printed")
    assert v @ exact @ v < v @ before @ v < v @ printed @ v
    assert torch.linalg.eigvalsh(printed).min() > 0


def test_released_update_inverts_its_own_sum():
    before, v = torch.linalg.inv(spd()), torch.randn(12, dtype=D)
    expected = torch.linalg.inv(torch.linalg.inv(0.95 * before + 0.05 * torch.eye(12, dtype=D)) + torch.outer(v, v))
    assert torch.allclose(updated(before, v, 0.95, "released"), expected, rtol=0, atol=1e-12)
