import torch

from vqvae2.distributed import SINGLE_PROCESS
from vqvae2.export.selection import Selection
from vqvae2.metrics.extractors import Extractor, Outputs
from vqvae2.pipeline import Samples


def brightness(images: torch.Tensor) -> Outputs:
    """Probabilities of two classes: dark and bright."""
    bright = images.float().mean(dim=(1, 2, 3)) / 255
    return Outputs(bright[:, None], torch.stack([1 - bright, bright], dim=1))


JUDGE = Extractor("brightness", "", brightness)


def batch(values: list[float], labels: list[int], seeds: list[int]) -> Samples:
    images = torch.tensor(values)[:, None, None, None].expand(-1, 3, 2, 2)
    return Samples(images, [], torch.tensor(labels), seeds)


def test_the_best_of_each_class_over_all_batches_are_selected():
    selection = Selection(JUDGE, num_classes=2, num_images=2)
    selection.add(batch([0.2, 0.8, 0.4], [1, 1, 0], [0, 1, 0]))
    selection.add(batch([0.6, 0.4, 0.0], [1, 1, 0], [2, 3, 1]))
    selection.add(batch([1.0], [0], [2]))
    pairs = [(0, 0), (0, 1), (1, 1), (1, 2)]
    assert selection.pairs(SINGLE_PROCESS) == pairs
    assert [(sample.label, sample.seed) for sample in selection.samples] == pairs


def test_of_equal_scores_the_lower_seed_is_selected():
    selection = Selection(JUDGE, num_classes=2, num_images=2)
    selection.add(batch([0.4] * 3, [1] * 3, [7, 5, 9]))
    selection.add(batch([0.4] * 2, [1] * 2, [6, 4]))
    assert selection.pairs(SINGLE_PROCESS) == [(1, 4), (1, 5)]
