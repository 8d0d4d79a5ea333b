"""The run that a report describes: its config, models, images, codes and metrics."""

import shlex
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from vqvae2.data.codes import read_codes
from vqvae2.data.images import ImageDataset, open_validation
from vqvae2.data.order import evenly_spaced
from vqvae2.messages import counted
from vqvae2.metrics.results import Measurement, RunMetrics
from vqvae2.metrics.usage import CodeUsage
from vqvae2.pipeline import Pipeline
from vqvae2.report.blocks import Block, Text
from vqvae2.report.doctor import Finding, count_codes, diagnose
from vqvae2.runs.config import RunConfig
from vqvae2.runs.folder import RunFolder
from vqvae2.training.stage import is_saved
from vqvae2.weights import code_fingerprint

NUM_COLUMNS = 8  # samples of each class
MAX_CLASSES = 20  # of which samples are drawn
NUM_SAMPLES_WITHOUT_CLASSES = 32
MAX_SAMPLED_CODES = 20_000  # large models show fewer samples
MEASURED_SAMPLES = 2000  # in the advice to measure: a few minutes on a CPU


@dataclass(frozen=True)
class ClassSamples:
    """Samples of some classes with the seeds 0, 1, ...

    Arguments:
        class_names: the classes; ("",) for a model without classes.
        images: (B, C, H, W) in [0, 1] for each of them, one image per seed.
    """

    class_names: tuple[str, ...]
    images: tuple[Tensor, ...]


class ReportSource:
    """One run, of which every part is read at most once.

    Properties raise ValueError where their stage is not done; the message names the command that
    is missing.

    Arguments:
        folder: The run.
        device: Where the models compute.
    """

    def __init__(self, folder: RunFolder, device: str) -> None:
        self.folder, self.device = folder, device
        self.config: RunConfig = folder.read()
        self.grids = self.config.grids()

    @cached_property
    def pipeline(self) -> Pipeline:
        """The models that are trained so far."""
        if not is_saved(self.folder.autoencoder):
            raise ValueError(f"The autoencoder is not trained yet: {self.command('train --run')}.")
        return Pipeline.open(self.folder.path).to(self.device)

    @property
    def complete_pipeline(self) -> Pipeline:
        """The models, with the priors of all levels."""
        trained = len(self.pipeline.priors)
        if trained < len(self.grids):
            command = self.command("train --run")
            raise ValueError(f"{trained} of {len(self.grids)} priors are trained: {command}.")
        return self.pipeline

    @property
    def has_priors(self) -> bool:
        """Whether samples can be drawn."""
        return all(is_saved(self.folder.prior(level)) for level in range(len(self.grids)))

    @cached_property
    def samples(self) -> ClassSamples:
        """Samples of each class, or of evenly spaced ones; not too many codes are drawn."""
        pipeline = self.complete_pipeline
        names = pipeline.config.class_names
        classes = evenly_spaced(len(names), MAX_CLASSES).tolist() or [0]
        requested = NUM_COLUMNS if names else NUM_SAMPLES_WITHOUT_CLASSES
        codes_per_image = sum(prior.domain.num_values for prior in pipeline.priors)
        affordable = MAX_SAMPLED_CODES // (codes_per_image * len(classes))
        seeds = list(range(max(1, min(requested, affordable))))
        labels = [label for label in classes for _ in seeds]
        images = pipeline.sample(labels, seeds * len(classes)).images.split(len(seeds))
        shown = tuple(names[label] for label in classes) if names else ("",)
        return ClassSamples(shown, images)

    @cached_property
    def findings(self) -> list[Finding]:
        """What the doctor finds."""
        return diagnose(self.folder)

    @cached_property
    def validation(self) -> ImageDataset:
        """The validation images."""
        return open_validation(self.config.data)

    def class_of(self, index: int) -> str:
        """The class name of a validation image; "" without classes."""
        names = self.validation.class_names
        return names[int(self.validation.labels[index])] if names else ""

    @cached_property
    def usage(self) -> list[CodeUsage]:
        """How often each code of each level occurs in the validation images."""
        self.require_codes()
        autoencoder = code_fingerprint(self.pipeline.autoencoder)
        if not any(self.folder.codes.glob("validation-*.parquet")):
            raise ValueError(f"The codes are not extracted yet: {self.command('train --run')}.")
        return count_codes(read_codes(self.folder.codes, "validation", autoencoder))

    @cached_property
    def metrics(self) -> RunMetrics:
        """The results in metrics.json."""
        if not self.measured:
            raise ValueError(f"Nothing was measured yet: {self.command('evaluate')}.")
        return self.measured

    @cached_property
    def measured(self) -> RunMetrics:
        """The results in metrics.json; empty if nothing was measured."""
        return self.folder.read_metrics()

    @property
    def priors(self) -> Measurement:
        """The metrics of the priors; empty before they are measured."""
        return self.measured.priors or Measurement(0)

    def validation_count(self, number: int) -> str:
        """Such as `2,000 of the 10,000 validation images`."""
        summary = self.folder.read_data()
        total = summary.num_validation if summary else number
        if number >= total:
            return f"all {counted(total, 'validation image')}"
        return f"{number:,} of the {counted(total, 'validation image')}"

    def advice_to_measure(self) -> str:
        """How to measure samples, without a download where the run has classes."""
        summary = self.folder.read_data()
        number = min(MEASURED_SAMPLES, summary.num_train if summary else MEASURED_SAMPLES)
        if self.config.num_classes > 1:
            command = self.command(f"evaluate --samples {number} --extractor own")
            return (
                f"To measure them, {command}. It trains a classifier of these images for that. "
                "Without --extractor own it downloads the Inception network of published values."
            )
        command = self.command(f"evaluate --samples {number}")
        return (
            f"To measure them, {command}. It downloads the Inception network once; without a "
            "connection add `--extractor efficientnet-lite0`, which is in a package."
        )

    def command(self, arguments: str) -> str:
        """An instruction to run a command on this run."""
        return f"run `vqvae2 {arguments} {shlex.quote(str(self.folder.path))}`"

    def require_codes(self) -> None:
        """Raises ValueError for a prior on pixels, with its likelihood if it was measured."""
        if self.config.on_pixels:
            bits = self.priors.get("validation_bits_per_dim")
            value = "" if bits is None else f": {bits:.3f} bits per dimension on validation images"
            raise ValueError(f"This run models pixels directly, without codes{value}.")

    def outdated_metrics(self) -> list[Block]:
        """A note if priors were trained since the last evaluation."""
        measured = len(self.priors.levels("validation_nats_per_code"))
        trained = sum(is_saved(self.folder.prior(level)) for level in range(len(self.grids)))
        if trained <= measured:
            return []
        text = f"Priors were trained after this evaluation: {self.command('evaluate')}."
        return [Text(text, "note")]
