"""One object that a user holds: images to codes and back, labels to images, likelihoods.

On disk it is the hub's layout, every file a name and a version, nothing pickled:

    config.json              class names, image size, how to draw
    autoencoder/             config.json, model.safetensors
    priors/0/ priors/1/ ...  coarsest first, the same two files each

Legend: `B` batch, `C` image channels, `S` side of a image, `H W` code grid.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from vqvae2.autoencoder import Autoencoder, AutoencoderConfig
from vqvae2.configuration import from_dict, to_dict
from vqvae2.files import read_json, write_json
from vqvae2.messages import did_you_mean
from vqvae2.priors import Domain, Prior, PriorConfig
from vqvae2.sampling import Box, SamplingConfig, erase, paint_over, sample_hierarchy
from vqvae2.weights import fingerprint, load_module, read_config, save_module

FORMAT = "vqvae2-pipeline"


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """What a pipeline knows beside its models.

    Arguments:
        image_size: S, the side of the images that the priors were trained on.
        class_names: in the order of the labels; () for a model without classes.
        draws: how each level is drawn unless the caller says otherwise, coarsest first.
    """

    image_size: int
    class_names: tuple[str, ...] = ()
    sampling: tuple[SamplingConfig, ...] = ()


@dataclass(frozen=True, kw_only=True)
class AutoencoderCard:
    """What an autoencoder's config.json holds."""

    config: AutoencoderConfig


@dataclass(frozen=True, kw_only=True)
class PriorCard:
    """What a prior's config.json holds.

    Arguments:
        config: its architecture.
        domain: what it is a distribution over.
        autoencoder: fingerprint of the autoencoder whose codes it knows.
    """

    config: PriorConfig
    domain: Domain
    autoencoder: str


@dataclass(frozen=True)
class Samples:
    """Images drawn by `Pipeline.sample`.

    Arguments:
        images: (B, C, S, S) in [0, 1].
        codes: (B, H, W) int64 a level, coarsest first.
        labels: (B,) int64.
        seeds: one a image.
    """

    images: Tensor
    codes: list[Tensor]
    labels: Tensor
    seeds: list[int]


@dataclass
class Pipeline:
    """An autoencoder with the priors over its codes; before training `priors` is empty."""

    autoencoder: Autoencoder
    config: PipelineConfig
    priors: list[Prior] = field(default_factory=list)

    @classmethod
    def open(cls, name: str | Path) -> Self:
        """The models of a run folder, of a saved pipeline, or of the hub."""
        if Path(name).is_dir() and not (Path(name) / "autoencoder").is_dir():
            return cls.load(name)
        return cls.from_pretrained(name)

    @classmethod
    def load(cls, run: str | Path) -> Self:
        """The models of a run folder."""
        folder = Path(run) / "model"
        if not (folder / "autoencoder" / "config.json").is_file():
            raise ValueError(
                f"{run} holds no trained model (no {folder.name}/autoencoder in it); give a run "
                "folder of `vqvae2 train` whose first stage is done."
            )
        return cls.from_pretrained(folder)

    @classmethod
    def from_pretrained(cls, name: str | Path) -> Self:
        """A folder written by `save_pretrained`, or a model on the hub by its name."""
        folder = Path(name)
        if not folder.is_dir():
            folder = download(str(name))
        if not (folder / "config.json").is_file():
            raise ValueError(f"{name} holds no pipeline: config.json is missing.")
        config = from_dict(PipelineConfig, read_json(folder / "config.json", FORMAT, 1))
        autoencoder = load_autoencoder(folder / "autoencoder")
        expected = fingerprint(autoencoder)
        priors: list[Prior] = []
        # Coarsest first, up to the first that is missing: a prior needs all coarser ones.
        while (path := folder / "priors" / str(len(priors)) / "config.json").is_file():
            priors.append(load_prior(path.parent, expected))
        return cls(autoencoder, config, priors)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the hub's layout into `folder`."""
        folder = Path(folder)
        save_autoencoder(folder / "autoencoder", self.autoencoder)
        for level, prior in enumerate(self.priors):
            save_prior(folder / "priors" / str(level), prior, fingerprint(self.autoencoder))
        for level in range(len(self.priors), self.autoencoder.config.num_levels):
            # Of a pipeline that lay here before: it would not fit this autoencoder.
            (folder / "priors" / str(level) / "config.json").unlink(missing_ok=True)
        write_json(folder / "config.json", FORMAT, 1, to_dict(self.config))

    def to(self, device: str | torch.device) -> Self:
        """Moves all models."""
        for module in (self.autoencoder, *self.priors):
            module.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """Where the models are."""
        models = (self.autoencoder, *self.priors)
        weights = (weight for model in models for weight in model.parameters())
        first = next(weights, None)
        return torch.device("cpu") if first is None else first.device

    @torch.no_grad()
    def encode(self, images: Tensor) -> list[Tensor]:
        """Codes (B, H, W) int64 a level, coarsest first, of images (B, C, ., .) in [0, 1]."""
        return self.autoencoder.encode(images.to(self.device))

    @torch.no_grad()
    def decode(self, codes: Sequence[Tensor], levels: Sequence[int] | None = None) -> Tensor:
        """Images in [0, 1] from codes; `levels` as in `VQVAE.decode`."""
        codes = [code.to(self.device) for code in codes]
        return self.autoencoder.decode(codes, levels).clamp(0, 1)

    def reconstruct(self, images: Tensor) -> Tensor:
        """Images through the codes and back."""
        return self.decode(self.encode(images))

    def sample(
        self,
        labels: Sequence[int | str] | Tensor,
        seeds: Sequence[int] | None = None,
        *,
        sampling: Sequence[SamplingConfig] | None = None,
        given: Sequence[Tensor | None] | None = None,
        batch: int = 64,
    ) -> Samples:
        """Draws images of the given classes.

        Arguments:
            labels: one a image, numbers or class names.
            seeds: one a image; 0, 1, 2, ... by default. The same seed and label give the same
                image in any batch.
            draws: how to draw each level, coarsest first; the model's own by default.
            given: codes to keep, a map a level or None; see `sampling.draw_level`.
            batch: images at a time, which bounds the memory and nothing else.
        """
        parts = list(
            self.sample_batches(labels, seeds, sampling=sampling, given=given, batch=batch)
        )
        return Samples(
            torch.cat([part.images for part in parts]),
            [torch.cat(maps) for maps in zip(*(part.codes for part in parts), strict=True)],
            torch.cat([part.labels for part in parts]),
            [seed for part in parts for seed in part.seeds],
        )

    def sample_batches(
        self,
        labels: Sequence[int | str] | Tensor,
        seeds: Sequence[int] | None = None,
        *,
        sampling: Sequence[SamplingConfig] | None = None,
        given: Sequence[Tensor | None] | None = None,
        batch: int = 64,
    ) -> Iterator[Samples]:
        """`sample` in parts of at most `batch` images, in bounded memory."""
        self._require_priors()
        numbers = self.labels(labels)
        seeds = list(range(len(numbers))) if seeds is None else list(seeds)
        sampling = self.config.sampling if sampling is None else sampling
        if len(seeds) != len(numbers):
            raise ValueError(
                f"Expected one seed per image, got {len(seeds)} seeds for {len(numbers)} images."
            )
        for level, maps in enumerate(given or ()):
            if maps is not None and len(maps) != len(numbers):
                raise ValueError(
                    f"Expected a given map of level {level} for each of {len(numbers)} images, "
                    f"got {len(maps)}."
                )
        if not seeds:
            raise ValueError("Expected at least one image to draw, got none.")
        for first in range(0, len(numbers), batch):
            part = slice(first, first + batch)
            known = None if given is None else [g if g is None else g[part] for g in given]
            codes = sample_hierarchy(self.priors, numbers[part], seeds[part], sampling, known)
            yield Samples(self.decode(codes), codes, numbers[part], seeds[part])

    def inpaint(
        self,
        images: Tensor,
        labels: Sequence[int | str] | Tensor,
        seeds: Sequence[int] | None = None,
        *,
        box: Box = (0, 0.5, 1, 1),
        keep_levels: int = 0,
        sampling: Sequence[SamplingConfig] | None = None,
        batch: int = 64,
    ) -> Samples:
        """Draws a part of images anew and keeps the codes of the rest.

        What is drawn sees the kept codes before it in raster order, and all of the kept levels;
        so a lower half continues its upper half, and a box in the middle fits what is above it.
        Codes see their surroundings: where no level is kept whole, the part is painted over
        before the rest is encoded, so that nothing of it shows in what is drawn.

        Arguments:
            images: (B, C, S, S) in [0, 1].
            labels, seeds, draws, batch: as of `sample`.
            box: the part; the lower half by default.
            keep_levels: so many of the coarsest levels are kept everywhere. 1 with the box
                (0, 0, 1, 1) gives variations: the same layout in other detail.
        """
        levels = self.autoencoder.config.num_levels
        if not 0 <= keep_levels < levels:
            raise ValueError(
                f"keep_levels must be in [0, {levels}), or nothing is left to draw; got "
                f"{keep_levels}."
            )
        self._require_priors()
        codes = self.encode(images if keep_levels else paint_over(images, box))
        given = [*codes[:keep_levels], *(erase(maps, box) for maps in codes[keep_levels:])]
        return self.sample(labels, seeds, sampling=sampling, given=given, batch=batch)

    @torch.no_grad()
    def log_prob(self, images: Tensor, labels: Sequence[int | str] | Tensor) -> list[Tensor]:
        """Log-probability in nats of each code of images, (B, H, W) a level.

        Their sum is log p(codes), not log p(image): see `docs/glossary.md`. Of a prior on pixels
        it is each colour's, (B, H, W, 3), and the sum is log p(image).
        """
        self._require_priors()
        codes, numbers = self.encode(images), self.labels(labels).to(self.device)
        grid, expected = tuple(codes[-1].shape[1:3]), self.priors[-1].domain.grid.shape
        if grid != expected:
            size = self.config.image_size
            raise ValueError(
                f"The priors know images of {size}x{size} (codes {expected}), got codes {grid}."
            )
        return [
            prior.log_prob(codes[level], numbers, codes[:level])
            for level, prior in enumerate(self.priors)
        ]

    def labels(self, names: Sequence[int | str] | Tensor) -> Tensor:
        """Labels (B,) int64 from numbers or class names; near names are suggested."""
        if isinstance(names, Tensor):
            names = names.tolist()
        return torch.tensor([self._label(name) for name in names], dtype=torch.int64)

    def _label(self, name: int | str) -> int:
        classes = self.config.class_names
        if isinstance(name, str) and name in classes:
            return classes.index(name)
        limit = max(1, len(classes))
        if isinstance(name, int) or name.isdecimal():
            if 0 <= int(name) < limit:
                return int(name)
            raise ValueError(f"A class number must be in [0, {limit}), got {name}.")
        hint = "this model has no classes; leave the class out."
        if classes:
            hint = did_you_mean(name, classes)
        raise ValueError(f"Unknown class {name!r}; {hint}")

    def _require_priors(self) -> None:
        levels = self.autoencoder.config.num_levels
        if len(self.priors) != levels:
            raise ValueError(
                f"Needs the priors of all {levels} levels, {len(self.priors)} are trained; repeat "
                "`vqvae2 train` on this run to train the rest."
            )


def download(name: str) -> Path:
    """A model's folder from the hub, cached; one line when there is none."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors"]))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"{name} is neither a folder nor a model that the hub gave us ({reason})"
        ) from None


def save_autoencoder(folder: Path, autoencoder: Autoencoder) -> None:
    """Writes one autoencoder."""
    card = AutoencoderCard(config=autoencoder.config)
    save_module(folder, "vqvae2-autoencoder", to_dict(card), autoencoder)


def load_autoencoder(folder: Path) -> Autoencoder:
    """What `save_autoencoder` wrote, in eval mode."""
    card = from_dict(AutoencoderCard, read_config(folder, "vqvae2-autoencoder"), str(folder))
    build: Callable[[], Autoencoder] = card.config.build
    return load_module(folder, build, card.config)


def save_prior(folder: Path, prior: Prior, autoencoder: str) -> None:
    """Writes one prior with the fingerprint of the autoencoder whose codes it knows."""
    card = PriorCard(config=prior.config, domain=prior.domain, autoencoder=autoencoder)
    save_module(folder, "vqvae2-prior", to_dict(card), prior)


def load_prior(folder: Path, autoencoder: str) -> Prior:
    """What `save_prior` wrote, in eval mode, unless it knows codes of another autoencoder."""
    card = from_dict(PriorCard, read_config(folder, "vqvae2-prior"), str(folder))
    if card.autoencoder != autoencoder:
        raise ValueError(
            f"The prior in {folder} was trained on codes of autoencoder {card.autoencoder}, "
            f"this one is {autoencoder}; train the prior again."
        )
    return load_module(folder, lambda: Prior(card.config, card.domain), card)
