"""The models of a pipeline, on disk and on a device: float tensors in, tensors out.

On disk they are in the hub's layout; every file has a format and a version, none is pickled:

    config.json              class names, image size, sampling
    autoencoder/             config.json, model.safetensors
    decoder/                 the same two files, if there is a sharp decoder
    priors/0/ priors/1/ ...  the same two files each, coarsest first

Legend: `B` batch, `C` image channels, `S` image side, `H W` code grid.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self, SupportsIndex

import torch
from torch import Tensor, nn

from vqvae2.autoencoder import VQVAE, Autoencoder
from vqvae2.autoencoder.sharp_decoder import SharpDecoder
from vqvae2.configuration import to_json
from vqvae2.messages import did_you_mean
from vqvae2.pipeline.samples import Samples
from vqvae2.precision import (
    Precision,
    bfloat16_copy,
    computing,
    exactly,
    float32_products,
    resolve,
)
from vqvae2.priors import Prior
from vqvae2.randomness import integers
from vqvae2.sampling import SamplingConfig, iterate_hierarchy
from vqvae2.sampling.guidance import rows_per_image
from vqvae2.saving import download, upload
from vqvae2.transfers import to_device
from vqvae2.weights import (
    PipelineConfig,
    code_fingerprint,
    load_autoencoder,
    load_decoder,
    load_prior,
    pretrained_folder,
    pretrained_names,
    rounded_to_half,
    save_autoencoder,
    save_decoder,
    save_prior,
)

DecoderName = Literal["", "plain", "sharp"]

Label = SupportsIndex | str
"""A class by its number or its name."""


@dataclass
class Models:
    """An autoencoder with the priors over its codes; before training `priors` is empty.

    Arguments:
        autoencoder: encodes and decodes.
        config: what the models do not contain.
        priors: one per level, coarsest first.
        precision: of the priors, in `log_prob` and `sample`; see `vqvae2.precision`.
        sharp_decoder: decodes the same codes to sharper images; None without a decoder stage.
        decoder: "plain", the autoencoder's own, or "sharp"; "" is the sharp one if there is one.
    """

    autoencoder: Autoencoder
    config: PipelineConfig
    priors: list[Prior] = field(default_factory=list)
    precision: Precision = "float32"
    sharp_decoder: SharpDecoder | None = None
    decoder: DecoderName = ""

    @classmethod
    def open(cls, name: str | Path) -> Self:
        """The models of a run folder, of `save_pretrained`, of this package, or of the hub.

        Arguments:
            name: a folder; the name of a model of this package, such as cifar10; or a name on the
                hub, such as owner/model.
        """
        folder = Path(name)
        if (folder / "model" / "autoencoder" / "config.json").is_file():
            return cls.from_pretrained(folder / "model")
        is_saved = (folder / "autoencoder" / "config.json").is_file()
        if not is_saved and (pretrained := pretrained_folder(str(name))) is not None:
            return cls.from_pretrained(pretrained)
        if folder.is_dir() and not is_saved:
            raise ValueError(
                f"{name} does not contain a trained model: expected model/autoencoder in a run "
                "folder (repeat `vqvae2 train` until the autoencoder is trained), or autoencoder "
                "in a folder of `save_pretrained`."
            )
        return cls.from_pretrained(name)

    @classmethod
    def from_pretrained(cls, name: str | Path) -> Self:
        """A folder written by `save_pretrained`, or a model of the hub."""
        folder = Path(name)
        if not folder.is_dir():
            models = ", ".join(pretrained_names()) or "none yet"
            folder = download(
                str(name),
                "a run folder of `vqvae2 train`, a folder of `save_pretrained`, a model of this "
                f"package ({models})",
            )
        config = PipelineConfig.load(folder)
        autoencoder = load_autoencoder(folder / "autoencoder")
        expected = code_fingerprint(autoencoder)
        priors: list[Prior] = []
        # Coarsest first, up to the first that is missing: a prior needs all coarser ones.
        while (path := folder / "priors" / str(len(priors)) / "config.json").is_file():
            priors.append(load_prior(path.parent, expected))
        pipeline = cls(autoencoder, config, priors)
        if (folder / "decoder" / "config.json").is_file() and isinstance(autoencoder, VQVAE):
            pipeline.sharp_decoder = load_decoder(folder / "decoder", autoencoder)
        return pipeline

    def save_pretrained(self, folder: str | Path, *, half_precision: bool = False) -> None:
        """Writes the hub's layout into `folder`.

        Arguments:
            folder: is made.
            half_precision: write weights in float16, half as many bytes. Some codes in a
                thousand become others, so the models have a code fingerprint of their own.
        """
        folder, half = Path(folder), half_precision
        autoencoder = rounded_to_half(self.autoencoder) if half else self.autoencoder
        digest = code_fingerprint(autoencoder)
        save_autoencoder(folder / "autoencoder", autoencoder, half)
        if self.sharp_decoder is not None:
            save_decoder(folder / "decoder", self.sharp_decoder, digest, half)
        else:  # one of an earlier pipeline in this folder would not fit this autoencoder
            (folder / "decoder" / "config.json").unlink(missing_ok=True)
        for level, prior in enumerate(self.priors):
            save_prior(folder / "priors" / str(level), prior, digest, half)
        for level in range(len(self.priors), self.autoencoder.config.num_levels):
            # Left by an earlier pipeline in this folder; it would not fit this autoencoder.
            (folder / "priors" / str(level) / "config.json").unlink(missing_ok=True)
        self.config.save(folder)

    def push_to_hub(
        self, name: str, *, private: bool = False, half_precision: bool = False
    ) -> str:
        """Uploads the models to the hub; arguments as of `upload` and `save_pretrained`.

        Returns:
            The address of the commit.
        """

        def save(folder: Path) -> None:
            self.save_pretrained(folder, half_precision=half_precision)

        return upload(save, name, private)

    def to(self, device: str | torch.device) -> Self:
        """Moves all models."""
        for module in self.models:
            module.to(device)
        return self

    @property
    def models(self) -> list[nn.Module]:
        """The autoencoder, the sharp decoder if there is one, and the priors."""
        sharp = [] if self.sharp_decoder is None else [self.sharp_decoder]
        return [self.autoencoder, *sharp, *self.priors]

    @property
    def device(self) -> torch.device:
        """The device of the models."""
        devices = (weight.device for model in self.models for weight in model.parameters())
        return next(devices, torch.device("cpu"))

    @property
    def num_classes(self) -> int:
        """Labels are in [0, num_classes); 1 for a model without classes."""
        if self.config.class_names:
            return len(self.config.class_names)
        return self.priors[0].domain.num_classes if self.priors else 1

    @torch.no_grad()
    def encode_batch(self, images: Tensor) -> list[Tensor]:
        """Codes (B, H, W) int64 per level, coarsest first, of images (B, C, ., .) in [0, 1]."""
        with exactly(self.device):
            return self.autoencoder.encode(to_device(images, self.device))

    @torch.no_grad()
    def decode(
        self,
        codes: Sequence[Tensor],
        levels: Sequence[int] | None = None,
        decoder: DecoderName = "",
    ) -> Tensor:
        """Images in [0, 1] from codes.

        Arguments:
            codes: (B, H, W) int64 per level, coarsest first.
            levels: those that the decoder reads, all by default; some of them alone need the plain
                decoder, which learns to do without the others.
            decoder: "plain" or "sharp"; the pipeline's own choice by default.
        """
        codes = [to_device(code, self.device) for code in codes]
        name = self.require_decoder(decoder or self.decoder)
        if levels is not None and {*levels} == {*range(len(codes))}:
            levels = None
        if levels is not None and decoder == "sharp":
            raise ValueError(
                f"The sharp decoder decodes all levels together, got levels {[*levels]}; use the "
                "plain one."
            )
        with exactly(self.device):
            if name == "sharp" and levels is None:
                assert self.sharp_decoder is not None
                assert isinstance(self.autoencoder, VQVAE)
                return self.sharp_decoder.decode(self.autoencoder, codes).clamp(0, 1)
            return self.autoencoder.decode(codes, levels).clamp(0, 1)

    @property
    def decoder_in_use(self) -> DecoderName:
        """The decoder of all images that do not name another: "plain" or "sharp"."""
        return self.require_decoder(self.decoder)

    def require_decoder(self, name: DecoderName) -> DecoderName:
        """The decoder of a name, where "" is the sharp one if there is one.

        Raises:
            ValueError: the pipeline does not have it.
        """
        if name not in ("", "plain", "sharp"):
            raise ValueError(f"A decoder is plain or sharp, got {name!r}.")
        if name == "sharp" and self.sharp_decoder is None:
            raise ValueError(
                "This model has no sharp decoder: train one with a run whose config has a decoder "
                "stage, or use the decoder plain."
            )
        return name or ("plain" if self.sharp_decoder is None else "sharp")

    def reconstruct_batch(self, images: Tensor, decoder: DecoderName = "") -> Tensor:
        """`reconstruct` of images (B, C, ., .) in [0, 1]."""
        return self.decode(self.encode_batch(images), decoder=decoder)

    @property
    def sampling(self) -> tuple[SamplingConfig, ...]:
        """The default sampling of each level, coarsest first."""
        return self.config.sampling or (SamplingConfig(),) * self.autoencoder.config.num_levels

    def sample_batches(
        self,
        labels: Iterable[Label],
        seeds: Iterable[SupportsIndex] | None = None,
        *,
        sampling: Sequence[SamplingConfig] | None = None,
        given: Sequence[Tensor | None] | None = None,
        batch: int = 64,
    ) -> Iterator[Samples]:
        """`sample` of one label per image, in parts of at most `batch` images."""
        self._require_priors()
        ids = self.labels(labels)
        seeds = list(range(len(ids))) if seeds is None else integers(seeds, "Seeds")
        sampling = self.sampling if sampling is None else sampling
        check_request(ids, seeds, given)
        pairs = zip(self.priors, sampling, strict=False)
        batch = max(1, batch // max(rows_per_image(prior.domain, c) for prior, c in pairs))
        for first in range(0, len(ids), batch):
            images = slice(first, first + batch)
            part = None if given is None else [g if g is None else g[images] for g in given]
            *_, samples = self._steps(ids[images], seeds[images], sampling, part, batch)
            assert isinstance(samples, Samples)
            yield samples

    def sample_steps(
        self,
        labels: Iterable[Label],
        seeds: Iterable[SupportsIndex] | None = None,
        *,
        sampling: Sequence[SamplingConfig] | None = None,
        given: Sequence[Tensor | None] | None = None,
    ) -> Iterator[list[Tensor] | Samples]:
        """One batch of `sample`: codes of the levels begun after each position, then `Samples`.

        The codes are those of `iterate_hierarchy`.
        """
        self._require_priors()
        ids = self.labels(labels)
        seeds = list(range(len(ids))) if seeds is None else integers(seeds, "Seeds")
        check_request(ids, seeds, given)
        sampling = self.sampling if sampling is None else sampling
        yield from self._steps(ids, seeds, sampling, given, len(ids))

    def _steps(
        self,
        ids: Tensor,
        seeds: list[int],
        sampling: Sequence[SamplingConfig],
        given: Sequence[Tensor | None] | None,
        batch: int,
    ) -> Iterator[list[Tensor] | Samples]:
        """`sample_steps` of a valid request; `batch` rows at most."""
        precision, count = resolve(self.precision, self.device), len(ids)
        rounded = precision == "bfloat16"
        priors = [bfloat16_copy(prior) for prior in self.priors] if rounded else self.priors
        # Products of another shape may round differently, which shows in bfloat16: batches are
        # filled up, so that an image does not depend on the number of images. On a CPU only
        # products of a single row differ.
        filled = min(batch, 2) if self.device.type == "cpu" else batch
        rows = list(range(count)) + [0] * (filled - count if rounded else 0)
        part = None if given is None else [g if g is None else g[rows] for g in given]
        steps = iterate_hierarchy(priors, ids[rows], [seeds[row] for row in rows], sampling, part)
        maps: list[Tensor] = []
        while True:
            # Not around the `yield`: the caller computes in a precision of its own.
            with float32_products(precision, self.device):
                step = next(steps, None)
            if step is None:
                break
            maps = [level[:count] for level in step]
            yield maps
        settings = {"sampling": to_json(tuple(sampling)), "decoder": self.decoder_in_use}
        yield Samples(self.decode(maps), maps, ids, seeds, self.config.class_names, settings)

    @torch.no_grad()
    def log_prob_batch(self, images: Tensor, labels: Tensor) -> list[Tensor]:
        """`log_prob` of images (B, C, S, S) in [0, 1] with labels (B,)."""
        self._require_priors()
        codes, ids = self.encode_batch(images), to_device(labels, self.device)
        shape, expected = tuple(codes[-1].shape[1:3]), self.priors[-1].domain.grid.shape
        if shape != expected:
            size = self.config.image_size
            raise ValueError(
                f"The priors model images of {size}x{size} (codes {expected}), got codes {shape}."
            )
        with computing(self.precision, self.device):
            return [
                prior.log_prob(codes[level], ids, codes[:level])
                for level, prior in enumerate(self.priors)
            ]

    def labels(self, names: Iterable[Label]) -> Tensor:
        """Labels (B,) int64 from integers of any type, or class names."""
        if isinstance(names, str):
            raise ValueError(f"Expected a list of one label per image, got the string {names!r}.")
        if isinstance(names, Tensor):
            names = names.tolist()
        numbers = [self._label(name) if isinstance(name, str) else name for name in names]
        ids = integers(numbers, "Labels (integers or class names)")
        invalid = next((label for label in ids if not 0 <= label < self.num_classes), None)
        if invalid is not None:
            raise ValueError(f"Labels must be in [0, {self.num_classes}), got {invalid}.")
        return torch.tensor(ids, dtype=torch.int64)

    def _label(self, name: str) -> int:
        """The label of a class name, or of an integer in decimal."""
        classes = self.config.class_names
        if name in classes:
            return classes.index(name)
        if name.isdecimal():
            return int(name)
        if classes:
            raise ValueError(f"Unknown class {name!r}; {did_you_mean(name, classes)}")
        raise ValueError(
            f"Unknown class {name!r}: this model has no class names; give integers in "
            f"[0, {self.num_classes})."
        )

    def _require_priors(self) -> None:
        levels = self.autoencoder.config.num_levels
        if len(self.priors) != levels:
            raise ValueError(
                f"Needs the priors of all {levels} levels, {len(self.priors)} are trained; repeat "
                "`vqvae2 train` on this run to train the rest."
            )


def check_request(
    labels: Tensor, seeds: Sequence[int], given: Sequence[Tensor | None] | None
) -> None:
    """Raises ValueError unless there is at least one image, with one seed and its given maps."""
    if len(seeds) != len(labels):
        raise ValueError(
            f"Expected one seed per image, got {len(seeds)} seeds for {len(labels)} images."
        )
    for level, maps in enumerate(given or ()):
        if maps is not None and len(maps) != len(labels):
            raise ValueError(
                f"Expected a given map of level {level} for each of {len(labels)} images, got "
                f"{len(maps)}."
            )
    if not seeds:
        raise ValueError("Expected at least one image to sample, got none.")
