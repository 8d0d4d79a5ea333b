import pytest
import torch
from tiny_pipelines import KINDS

from vqvae2.pipeline import sample_progressively
from vqvae2.pipeline.progressive import continued, preview
from vqvae2.sampling import UNKNOWN

DRAWING = [name for name in KINDS if name != "no priors"]


@pytest.mark.parametrize("kind", DRAWING)
def test_progressive_samples_end_as_those_of_sample(kind):
    pipeline = KINDS[kind]()
    labels, seeds = [0, pipeline.num_classes - 1], [3, 4]
    *parts, last = sample_progressively(pipeline, labels, seeds, interval_s=0)
    expected = pipeline.sample(labels, seeds)
    assert last.samples is not None
    assert last.images.equal(expected.images)
    assert last.samples.settings == expected.settings
    for part in parts:
        assert part.images.shape == expected.images.shape
        assert part.samples is None
    total = sum(prior.domain.num_values for prior in pipeline.priors)
    assert [part.done for part in parts] == list(range(1, total))
    assert [part.level for part in parts] == sorted(part.level for part in parts)


def test_levels_that_are_given_are_not_counted():
    pipeline = KINDS["two levels"]()
    codes = pipeline.sample([1], [5]).codes
    lower = codes[1].clone()
    lower[:, 2:] = UNKNOWN
    *parts, last = sample_progressively(pipeline, [1], [6], given=[codes[0], lower], interval_s=0)
    assert last.total == last.done == lower.numel()
    assert {part.level for part in parts} == {1}
    assert last.samples.codes[0].equal(codes[0])
    assert last.samples.codes[1][:, :2].equal(codes[1][:, :2])


def test_a_preview_shows_what_is_known_and_the_coarser_levels_elsewhere():
    pipeline = KINDS["two levels"]()
    codes = pipeline.sample([0], [1]).codes
    assert preview(pipeline, codes).equal(pipeline.decode(codes))
    nothing = torch.full_like(codes[1], UNKNOWN)
    coarse = pipeline.decode(codes, [0])
    assert preview(pipeline, [codes[0], nothing]).equal(coarse)
    assert (preview(pipeline, [torch.full_like(codes[0], UNKNOWN)]) == 0.5).all()
    half = codes[1].clone()
    half[:, half.shape[1] // 2 :] = UNKNOWN
    image = preview(pipeline, [codes[0], half])
    assert image[:, :, 8:].equal(coarse[:, :, 8:])
    assert not image[:, :, :8].equal(coarse[:, :, :8])


def test_unknown_positions_continue_the_row_above():
    codes = torch.tensor([[[3, UNKNOWN], [UNKNOWN, 5], [UNKNOWN, UNKNOWN]]])
    assert continued(codes).tolist() == [[[3, 0], [3, 5], [3, 5]]]


def test_few_previews_are_made_and_the_speed_is_known():
    pipeline = KINDS["two levels"]()
    (only,) = sample_progressively(pipeline, [0], [0], interval_s=100)
    assert only.samples is not None
    assert only.seconds_left == 0
    assert only.values_per_second > 0


def test_without_priors_nothing_is_drawn():
    with pytest.raises(ValueError, match="Needs the priors of all 2 levels"):
        list(sample_progressively(KINDS["no priors"](), [0]))
