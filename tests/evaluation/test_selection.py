import torch

from vqvae2.evaluation.image_sets import index_in_class
from vqvae2.evaluation.selection import Networks, draw_samples, select_fraction
from vqvae2.imaging.convert import to_uint8
from vqvae2.metrics.features import extract_features


def test_samples_are_those_of_the_pipeline(evaluation, extractor):
    networks = Networks(extractor, extractor)
    samples = draw_samples(evaluation, networks, torch.tensor([2, 2, 0]), 1)
    assert samples.labels.tolist() == [0, 0, 1, 1]
    assert samples.seeds.tolist() == [0, 3, 1, 4]
    images = evaluation.pipeline.sample([1], seeds=[4]).images
    expected = extract_features(extractor, [to_uint8(images)])
    torch.testing.assert_close(samples.features.features[3:], expected.features)


def test_a_fraction_is_the_best_of_the_first_samples_of_each_class(evaluation, extractor):
    counts = torch.full((12,), 2)
    samples = draw_samples(evaluation, Networks(extractor, extractor), counts, 0.25)
    assert len(samples.labels) == 96
    scores = samples.features.probabilities.gather(1, samples.labels[:, None])[:, 0]
    torch.testing.assert_close(samples.scores, scores)
    means = []
    for fraction in (1.0, 0.5, 0.25):
        selected = select_fraction(samples, counts, fraction)
        number_of = dict(
            zip(samples.seeds.tolist(), index_in_class(samples.labels).tolist(), strict=True)
        )
        assert max(number_of[seed] for seed in selected.seeds.tolist()) < 2 / fraction
        assert selected.labels.bincount().tolist() == [2] * 12
        means.append(selected.scores.mean().item())
    assert means == sorted(means)
    assert means[0] < means[-1]
    best = select_fraction(samples, counts, 0.25).scores.view(12, 2).sort(descending=True).values
    assert torch.equal(best, scores.view(12, 8).topk(2).values)


def test_a_class_without_images_shifts_no_other(evaluation, extractor):
    """The classifier has as many outputs as classes, also where the last of them are absent."""
    counts = torch.tensor([3, 0, 2, *[0] * 9])
    samples = draw_samples(evaluation, Networks(extractor, extractor), counts, 0.5)
    scores = samples.features.probabilities.gather(1, samples.labels[:, None])[:, 0]
    torch.testing.assert_close(samples.scores, scores)
    assert select_fraction(samples, counts, 0.5).labels.tolist() == [0, 0, 0, 2, 2]
