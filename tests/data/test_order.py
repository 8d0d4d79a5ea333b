"""The order of examples: shuffled epochs, windows of blocks, the joint batch of processes."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vqvae2.data.order import (
    BlockShuffle,
    Shuffle,
    batch_indices,
    evenly_spaced,
    inference_batch_size,
)
from vqvae2.distributed import World

seeds = st.integers(0, 2**32 - 1)


@given(
    examples=st.integers(1, 50), share=st.integers(1, 7), size=st.integers(1, 4), seed=seeds,
    step=st.integers(0, 1000),
)  # fmt: skip
@settings(max_examples=50, deadline=None)
def test_processes_together_take_the_joint_batch(examples, share, size, seed, step):
    order, batch_size = Shuffle(examples), share * size
    joint = batch_indices(order, batch_size, seed, step)
    parts = [batch_indices(order, batch_size, seed, step, World(r, size)) for r in range(size)]
    assert torch.equal(joint, torch.cat(parts))
    assert 0 <= int(joint.min()) <= int(joint.max()) < examples


def test_every_epoch_takes_every_example_once():
    sequence = torch.cat([batch_indices(Shuffle(30), 8, seed=3, step=s) for s in range(15)])
    epochs = sequence.view(4, 30)
    assert (epochs.sort().values == torch.arange(30)).all()
    assert len(epochs.unique(dim=0)) == 4


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    window=st.integers(1, 9),
    seed=st.integers(0, 3),
)
def test_an_epoch_of_blocks_takes_every_example_once_and_opens_few_at_a_time(counts, window, seed):
    order = BlockShuffle(tuple(counts), window)
    examples = order.at(torch.arange(len(order)), seed, epoch=1)
    assert examples.sort().values.tolist() == list(range(sum(counts)))
    owners = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    blocks = owners[examples].tolist()
    for position in range(len(blocks)):
        # A block is open from its first example to its last.
        open_blocks = set(blocks[: position + 1]) & set(blocks[position:])
        assert len(open_blocks) <= window


def test_processes_share_the_batches_of_blocks_too():
    order = BlockShuffle((3, 5, 2, 7), 2)
    joint = torch.cat([batch_indices(order, 4, 0, step) for step in range(9)])
    assert joint[:17].sort().values.tolist() == list(range(17))
    parts = [
        torch.cat([batch_indices(order, 4, 0, step, World(rank, 2)) for rank in range(2)])
        for step in range(9)
    ]
    assert torch.equal(joint, torch.cat(parts))
    assert not torch.equal(joint[:17], joint[17:34])


@given(total=st.integers(1, 10_000), limit=st.integers(1, 500))
@settings(max_examples=50, deadline=None)
def test_evenly_spaced_indices_are_distinct_and_span_all_examples(total, limit):
    indices = evenly_spaced(total, limit)
    assert len(indices) == min(total, limit) == len(indices.unique())
    assert int(indices[-1]) >= total - 1 - total // len(indices)


def test_evenly_spaced_indices_take_every_class_of_sorted_examples():
    assert evenly_spaced(100, 10).tolist() == list(range(0, 100, 10))
    assert evenly_spaced(5, 10).tolist() == [0, 1, 2, 3, 4]


def test_inference_batches_have_about_the_same_number_of_pixels():
    assert [inference_batch_size(side) for side in (8, 64, 128, 1024)] == [128, 128, 32, 1]
