import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vqvae2.metrics.rows import Rows


@given(st.lists(st.integers(0, 40), min_size=1, max_size=12), st.sampled_from([(), (3,), (2, 2)]))
def test_rows_are_those_of_all_batches_in_order(sizes, shape):
    batches = [torch.randn(size, *shape, dtype=torch.float64) for size in sizes]
    rows = Rows()
    for batch in batches:
        rows.append(batch)
    collected, expected = rows.tensor(), torch.cat(batches)
    assert torch.equal(collected, expected)
    assert collected.dtype == torch.float64
    assert collected.untyped_storage().nbytes() == expected.numel() * 8, "no memory beyond them"


def test_rows_are_copies():
    rows, batch = Rows(), torch.ones(2, 3)
    rows.append(batch)
    batch.zero_()
    assert torch.equal(rows.tensor(), torch.ones(2, 3))


def test_no_rows_are_one_clear_line():
    with pytest.raises(ValueError, match="at least one batch of rows, got none"):
        Rows().tensor()
