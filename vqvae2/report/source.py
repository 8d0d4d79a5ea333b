"""The run that a report describes: its config, models, images, codes and metrics."""

import shlex
from functools import cached_property

from vqvae2.data.codes import read_codes
from vqvae2.data.images import ImageDataset, open_validation
from vqvae2.metrics.results import Measurement, RunMetrics
from vqvae2.metrics.usage import CodeUsage
from vqvae2.pipeline import Pipeline
from vqvae2.report.blocks import Block, Text
from vqvae2.report.doctor import count_codes
from vqvae2.runs.config import RunConfig
from vqvae2.runs.folder import RunFolder
from vqvae2.training.stage import is_saved
from vqvae2.weights import code_fingerprint


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
        metrics = self.folder.read_metrics()
        if not metrics:
            raise ValueError(f"Nothing was measured yet: {self.command('evaluate')}.")
        return metrics

    @property
    def priors(self) -> Measurement:
        """The metrics of the priors; empty before they are measured."""
        return self.metrics.priors or Measurement(0)

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
