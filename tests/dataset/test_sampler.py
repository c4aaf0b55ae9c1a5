"""The order of training depends on the seed and the epoch, and on nothing that came before."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinical_symile.dataset import EpochSampler
from clinical_symile.errors import InputError


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 3), st.integers(0, 3))
def test_batches_are_full_and_disjoint(n: int, batch_size: int, seed: int, epoch: int) -> None:
    rows = np.arange(n) * 3
    batches = list(EpochSampler(rows, batch_size, seed, epoch))
    assert len(batches) == len(EpochSampler(rows, batch_size, seed, epoch)) == n // min(n, batch_size)
    assert {len(batch) for batch in batches} == {min(n, batch_size)}
    seen = np.concatenate(batches)
    assert len(set(seen.tolist())) == len(seen)
    assert set(seen.tolist()) <= set(rows.tolist())


def test_each_epoch_has_its_own_order_whoever_asks() -> None:
    rows = np.arange(100)
    third = list(EpochSampler(rows, 10, 0, 3))
    list(EpochSampler(rows, 10, 0, 4))
    np.testing.assert_array_equal(third, list(EpochSampler(rows, 10, 0, 3)))
    assert not np.array_equal(third, list(EpochSampler(rows, 10, 0, 4)))
    assert not np.array_equal(third, list(EpochSampler(rows, 10, 1, 3)))


def test_no_rows_is_an_error() -> None:
    with pytest.raises(InputError, match="no admissions"):
        EpochSampler(np.array([], dtype=np.int64), 4, 0, 0)
