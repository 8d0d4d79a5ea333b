"""A trained run under evaluation: opened once, then passed to every question of this package."""

import platform
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from typing import Self

import torch

import vqvae2
from vqvae2.data import images
from vqvae2.data.images import ImageDataset, ImageSplits, Progress, quiet
from vqvae2.distributed import SINGLE_PROCESS, World
from vqvae2.metrics.extractors import Extractor
from vqvae2.metrics.results import Provenance, RunMetrics
from vqvae2.pipeline import DecoderName, Pipeline
from vqvae2.runs.config import RunConfig
from vqvae2.runs.folder import RunFolder
from vqvae2.weights import fingerprint


@dataclass(frozen=True)
class Evaluation:
    """A run, its models and its images; each question about it is a function that takes this.

    Arguments:
        folder: of the run; results are written into its metrics.json.
        config: of the run.
        pipeline: the trained models.
        world: processes that share the work.
        progress: called with the work, the number of images done and their total.
        test: source of images that take the place of the validation images; "" for none.
    """

    folder: RunFolder
    config: RunConfig
    pipeline: Pipeline
    world: World = SINGLE_PROCESS
    progress: Progress = quiet
    test: str = ""

    @classmethod
    def open(
        cls,
        folder: RunFolder,
        device: str = "cpu",
        world: World = SINGLE_PROCESS,
        progress: Progress = quiet,
        decoder: DecoderName = "",
    ) -> Self:
        """Loads the models of a run folder; `decoder` as of `Pipeline`."""
        config = folder.read()
        pipeline = Pipeline.open(folder.path).to(device)
        pipeline.decoder = pipeline.require_decoder(decoder)
        pipeline.precision = config.precision
        return cls(folder, config, pipeline, world, progress)

    @property
    def device(self) -> str:
        """The device of the models."""
        return str(self.pipeline.device)

    @cached_property
    def splits(self) -> ImageSplits:
        """The training and validation images."""
        splits = images.open_images(self.config.data, progress=self.progress)
        return replace(splits, validation=self.validation) if self.test else splits

    @cached_property
    def validation(self) -> ImageDataset:
        """The validation or test images; they alone are decoded unless `splits` are open."""
        if self.test:
            names = self.pipeline.config.class_names
            return images.open_test(self.config.data, self.test, names, progress=self.progress)
        if "splits" in self.__dict__:
            return self.splits.validation
        return images.open_validation(self.config.data, progress=self.progress)

    def provenance(self, validation_images: int) -> Provenance:
        """The origin of a result on so many validation images."""
        data = self.config.data
        return Provenance(
            preset=self.config.preset,
            data=self.test or data.source,
            size=data.size,
            validation_images=validation_images,
            images_fingerprint=self.validation.fingerprint(),
            seed=self.config.seed,
            models=fingerprints(self.pipeline),
            versions=versions(),
            date=datetime.now(UTC).date().isoformat(),
            decoder=self.pipeline.decoder_in_use,
        )

    def require_independent(self, extractor: Extractor) -> None:
        """Raises ValueError for a network that was a loss of the decoder: it cannot judge."""
        is_sharp = self.pipeline.decoder_in_use == "sharp"
        decoder = self.pipeline.sharp_decoder if is_sharp else None
        if decoder is not None and decoder.perceptual_network == extractor.digest:
            raise ValueError(
                f"{extractor.name} was the perceptual network of this run's decoder, so its "
                "results would only show that the decoder was trained; choose another network."
            )

    def read(self) -> RunMetrics:
        """The results so far."""
        return self.folder.read_metrics()

    def write(self, metrics: RunMetrics) -> None:
        """Writes metrics.json, on the main process."""
        if self.world.is_main:
            self.folder.write_metrics(metrics)


def versions() -> dict[str, str]:
    """The versions of this package and of those that compute results."""
    return {
        "vqvae2": vqvae2.__version__,
        "torch": torch.__version__,
        **{name: version(name) for name in ("torchmetrics", "pillow")},
        "python": platform.python_version(),
    }


def fingerprints(pipeline: Pipeline) -> tuple[str, ...]:
    """Fingerprints of all models of a pipeline: results are valid for these weights alone."""
    return tuple(fingerprint(model) for model in pipeline.models)
