"""Reconstructions by the plain and by the sharp decoder of a run, from the same codes.

    python benchmarks/decoders.py RUN --extractor NETWORK.pt --images 5000

Validation images are compared with their reconstructions by each decoder, through one feature
extractor, which may not be the network of the decoder's loss. Prints a table.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from vqvae2.cli.display import show_table
from vqvae2.data.order import evenly_spaced
from vqvae2.evaluation.evaluation import Evaluation
from vqvae2.evaluation.image_sets import dataset_images, reconstructed_images
from vqvae2.evaluation.validation import measure_decoder
from vqvae2.metrics.extractors import Extractor, open_extractor
from vqvae2.metrics.features import cached_features, distances_between, extract_features
from vqvae2.metrics.results import Measurement
from vqvae2.pipeline import DecoderName
from vqvae2.report.tables import set_table
from vqvae2.runs.folder import RunFolder

DECODERS: tuple[DecoderName, ...] = ("plain", "sharp")


@dataclass(frozen=True)
class Options:
    """Compare the decoders of a run.

    Arguments:
        run: A run folder with a sharp decoder.
        extractor: Path of a TorchScript file, or efficientnet-lite0.
        extractor_name: Its name in the table.
        images: Validation images, at most.
    """

    run: Annotated[Path, tyro.conf.Positional]
    extractor: str = "efficientnet-lite0"
    extractor_name: str = ""
    images: int = 5000


def measure(evaluation: Evaluation, extractor: Extractor, limit: int) -> Measurement:
    """Distances of reconstructions to their originals, and the error of the decoder."""
    evaluation.require_independent(extractor)
    dataset = evaluation.validation
    indices = evenly_spaced(len(dataset), limit)
    real = cached_features(
        extractor, lambda: dataset_images(dataset, indices, "images", evaluation.progress)
    )
    decoded = extract_features(extractor, reconstructed_images(evaluation, dataset, indices))
    labels, num_classes = dataset.labels[indices], len(dataset.class_names)
    mse = measure_decoder(evaluation, limit, evaluation.pipeline.decoder)["mse"]
    measurement = distances_between(real, decoded)
    return measurement.add(class_accuracy=decoded.class_accuracy(labels, num_classes), mse=mse)


def main() -> None:
    options = tyro.cli(Options)
    extractor = open_extractor(options.extractor, options.extractor_name)
    folder = RunFolder(options.run)
    sets = {
        decoder: measure(Evaluation.open(folder, decoder=decoder), extractor, options.images)
        for decoder in DECODERS
    }
    title = "Reconstructions of validation images against these images"
    show_table(set_table(title, sets, extractor.name))


if __name__ == "__main__":
    main()
