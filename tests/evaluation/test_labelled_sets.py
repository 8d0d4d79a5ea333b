"""Sets of images for classifiers: the same images as in memory, at most two batches at a time."""

import weakref
from dataclasses import replace

import torch
import torch.multiprocessing as multiprocessing
from gloo import free_port, join_group, leave_group

from vqvae2.distributed import SINGLE_PROCESS, World
from vqvae2.evaluation.image_sets import reconstructed_images, sampled_images
from vqvae2.evaluation.labelled_sets import (
    halved,
    joint_batches,
    real_set,
    reconstructed_set,
    sampled_set,
    stored,
)


def test_sets_on_disk_are_the_images_that_metrics_measure(evaluation):
    dataset, indices = evaluation.splits.train, torch.tensor([5, 0, 77, 401])
    labels, seeds = dataset.labels[indices], torch.tensor([3, 1, 4, 1])
    pairs = [
        (real_set(evaluation, dataset, indices), [dataset.batch(indices)]),
        (
            reconstructed_set(evaluation, dataset, indices),
            reconstructed_images(evaluation, dataset, indices),
        ),
        (sampled_set(evaluation, labels, seeds), sampled_images(evaluation, labels, seeds)),
    ]
    for images, batches in pairs:
        assert torch.equal(images.batch(torch.arange(4)), torch.cat(list(batches)))
        assert torch.equal(images.labels, labels)
        assert images.size == 16


def test_halved_images_are_means_of_2x2_pixels(evaluation):
    dataset = evaluation.validation
    pixels = dataset.batch(torch.arange(len(dataset))).double()
    expected = pixels.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5)).round()
    images = halved(evaluation, dataset)
    assert torch.equal(images.batch(torch.arange(len(dataset))).double(), expected)
    assert torch.equal(images.labels, dataset.labels)
    some = halved(evaluation, dataset, torch.tensor([7, 2]))
    assert torch.equal(some.batch(torch.tensor([1])).double(), expected[2:3])
    assert (len(some), some.size) == (2, 8)


def test_at_most_two_batches_of_a_set_are_in_memory(evaluation):
    alive: list[weakref.ref] = []

    def batches():
        for _ in range(20):
            images = torch.zeros(5, 3, 16, 16, dtype=torch.uint8)
            alive.append(weakref.ref(images))
            assert sum(reference() is not None for reference in alive) <= 2
            yield images

    images = stored(evaluation, batches(), torch.zeros(100).long(), 16, SINGLE_PROCESS)
    del images
    assert not any(reference() is not None for reference in alive)


def join_batches(rank: int, port: int) -> None:
    """Process 0 has 5 images in batches of 2, process 1 has 4 in one batch."""
    join_group(rank, 2, port)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    world, images = World.current(), torch.arange(9).byte()[:, None, None, None]
    images = images.expand(9, 3, 2, 2)
    local = world.shard(images).split(2 if world.is_main else 4)
    joint = torch.zeros_like(images)
    rounds = 0
    for indices, pixels in joint_batches(local, torch.arange(9), 2, world):
        joint[indices] = pixels
        rounds += 1
    assert rounds == 3
    assert torch.equal(joint, images)
    leave_group()


def test_every_process_gets_the_images_of_all_though_their_batches_differ():
    multiprocessing.spawn(join_batches, (free_port(),), nprocs=2)


def test_a_set_leaves_nothing_in_the_run_folder(evaluation, tmp_path):
    folder = replace(evaluation.folder, path=tmp_path)
    images = sampled_set(replace(evaluation, folder=folder), torch.arange(3), torch.arange(3))
    assert len(images) == 3
    assert not list(tmp_path.iterdir())
