import torch

from vqvae2.data.images import quiet
from vqvae2.evaluation.image_sets import (
    dataset_images,
    index_in_class,
    reconstructed_images,
    sample_seeds,
    sampled_images,
    tracked,
)
from vqvae2.imaging.convert import to_float, to_uint8


def test_no_two_samples_of_an_evaluation_have_the_same_seed():
    """With equal seeds in every class, samples of different classes have equal noise."""
    labels = torch.arange(12).repeat_interleave(25)
    seeds = sample_seeds(labels, 12)
    assert len(seeds.unique()) == len(labels)
    shuffled = labels[torch.randperm(300, generator=torch.Generator().manual_seed(0))]
    assert len(sample_seeds(shuffled, 12).unique()) == len(labels)


def test_samples_of_different_classes_have_different_noise(evaluation):
    """The untrained priors ignore their label, so equal noise would give equal samples."""
    labels = torch.arange(12)
    seeds = sample_seeds(labels, 12)
    samples = torch.cat(list(sampled_images(evaluation, labels, seeds)))
    assert len(samples.flatten(1).unique(dim=0)) == 12


def test_more_samples_leave_the_seeds_of_the_first_as_they_are():
    few, many = (torch.arange(5).repeat_interleave(count) for count in (3, 9))
    first = index_in_class(many) < 3
    assert torch.equal(sample_seeds(many, 5)[first], sample_seeds(few, 5))


def test_index_in_class_counts_earlier_labels():
    assert index_in_class(torch.tensor([2, 0, 2, 2, 0])).tolist() == [0, 0, 1, 2, 1]


def test_images_of_every_origin_are_uint8_in_the_order_of_their_indices(evaluation):
    dataset, indices = evaluation.validation, torch.tensor([5, 2, 7])
    images = torch.cat(list(dataset_images(dataset, indices, "images", quiet)))
    assert torch.equal(images, dataset.batch(indices))
    reconstructed = torch.cat(list(reconstructed_images(evaluation, dataset, indices)))
    expected = to_uint8(evaluation.pipeline.reconstruct(to_float(images)))
    assert torch.equal(reconstructed, expected)
    sampled = torch.cat(list(sampled_images(evaluation, indices, indices)))
    assert torch.equal(sampled, to_uint8(evaluation.pipeline.sample([5, 2, 7], [5, 2, 7]).images))


def test_progress_is_reported_after_each_batch():
    reports = []
    batches = tracked(
        torch.zeros(10, 1).split(4), "work", 10, lambda *report: reports.append(report)
    )
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert reports == [("work", 4, 10), ("work", 8, 10), ("work", 10, 10)]
