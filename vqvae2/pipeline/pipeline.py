"""The object that a user holds: images to codes and back, labels to images, likelihoods.

Its methods take images in any form of `vqvae2.imaging.inputs`.

Legend: `B` batch, `C` image channels, `S` image side, `H W` code grid.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import SupportsIndex, Unpack

import torch
from torch import Tensor

from vqvae2.imaging.inputs import Images, as_batch
from vqvae2.pipeline.models import DecoderName, Label, Models
from vqvae2.pipeline.samples import Samples
from vqvae2.sampling import Box, SamplingConfig, erase, paint_over
from vqvae2.sampling.config import SamplingControls, changed
from vqvae2.sampling.inpaint import erase_masked, paint_over_mask
from vqvae2.transfers import to_device

LOWER_HALF: Box = (0, 0.5, 1, 1)

Labels = Label | Iterable[Label]
"""One class for all images, or one per image."""

Progress = Callable[[int, int], None]
"""Called with the number of images done and their total."""


class SampleOptions(SamplingControls, total=False):
    """How samples are drawn, whatever they are of.

    `sampling` is one config per level, coarsest first, by default the model's own; the controls
    change it: each one value for all levels or one per level. `batch` images are drawn at a time,
    fewer with guidance, which needs several rows per image; it bounds the memory and changes no
    image. `progress` is called after each batch.
    """

    sampling: Sequence[SamplingConfig]
    batch: int
    progress: Progress


class Pipeline(Models):
    """An autoencoder with the priors over its codes; before training `priors` is empty.

        pipeline = Pipeline.open("runs/mine")
        codes = pipeline.encode(images)
        samples = pipeline.sample("cat", num_images=16, guidance=2)

    Its fields are those of `Models`.
    """

    def batch_of(self, images: Images) -> Tensor:
        """Images in any form as a float tensor (B, C, ., .) on the device of the models.

        Raises:
            ValueError: they cannot be images of this model.
        """
        channels = self.autoencoder.config.image_channels
        return to_device(as_batch(images, channels, self.config.image_size), self.device)

    def encode(self, images: Images, *, batch: int = 64) -> list[Tensor]:
        """Codes (B, H, W) int64 per level, coarsest first, `batch` images at a time."""
        parts = [self.encode_batch(part) for part in self.batch_of(images).split(batch)]
        return [torch.cat(maps) for maps in zip(*parts, strict=True)]

    def reconstruct(self, images: Images, decoder: DecoderName = "", *, batch: int = 64) -> Tensor:
        """Images that were encoded and decoded, (B, C, ., .) in [0, 1]; `decoder` as of `decode`.

        Arguments:
            images: in any form.
            decoder: plain or sharp.
            batch: images at a time.
        """
        parts = self.batch_of(images).split(batch)
        return torch.cat([self.reconstruct_batch(part, decoder) for part in parts])

    def sample(
        self,
        labels: Labels | None = None,
        seeds: Iterable[SupportsIndex] | None = None,
        *,
        num_images: int | None = None,
        seed: int = 0,
        given: Sequence[Tensor | None] | None = None,
        **options: Unpack[SampleOptions],
    ) -> Samples:
        """Samples images of the given classes.

            pipeline.sample("cat", num_images=16, temperature=0.9, guidance=2)
            pipeline.sample(["cat", "dog", 3], seeds=[7, 7, 8])

        Arguments:
            labels: a class of all images, by its name or number, or one per image. Without them
                `num_images` images are spread evenly over the classes.
            seeds: one per image, integers of any type. The same seed and label give the same image
                in any batch.
            num_images: of one class, 1 by default.
            seed: of the first image where no seeds are given; the next images have the next seeds.
            given: one map of codes to keep per level, or None; see `sampling.sample_level`.
            options: see `SampleOptions`: temperature, top_k, top_p, guidance, sampling, batch, ...
        """
        if labels is None and num_images is not None:
            labels = [n * self.num_classes // num_images for n in range(num_images)]
        ids = self.labels_for(labels, num_images)
        seeds = range(seed, seed + len(ids)) if seeds is None else seeds
        batch = options.pop("batch", 64)
        progress = options.pop("progress", lambda done, total: None)
        sampling = changed(options.pop("sampling", self.sampling), options)
        parts: list[Samples] = []
        for part in self.sample_batches(ids, seeds, sampling=sampling, given=given, batch=batch):
            parts.append(part)
            progress(sum(map(len, parts)), len(ids))
        return Samples.joined(parts)

    def inpaint(
        self,
        images: Images,
        labels: Labels | None = None,
        seeds: Iterable[SupportsIndex] | None = None,
        *,
        box: Box = LOWER_HALF,
        mask: Tensor | None = None,
        keep_levels: int = 0,
        num_images: int | None = None,
        seed: int = 0,
        **options: Unpack[SampleOptions],
    ) -> Samples:
        """Samples a part of images anew and keeps the codes of the rest.

        New codes depend on the kept codes before them in raster order, and on all of the kept
        levels; so a lower half continues its upper half, and a box in the middle fits the codes
        above it. The encoder reads a neighbourhood of each code: where no level is kept
        completely, the part is painted over before the rest is encoded, so that the rest contains
        no information about it.

        Arguments:
            images: of the side that the priors were trained on, in any form.
            labels, seeds, seed, options: as of `sample`.
            box: the part; the lower half by default.
            mask: the part in place of a box, of any shape: (H, W) bool, of the image or of a grid.
            keep_levels: number of coarsest levels that are kept everywhere. 1 with the box
                (0, 0, 1, 1) gives variations: the same layout with other details.
            num_images: versions of a single image.
        """
        self._require_priors()
        originals = self.batch_of(images)
        if num_images is not None and len(originals) == 1:
            originals = originals.expand(num_images, -1, -1, -1)
        ids = self.labels_for(labels, len(originals))
        if num_images not in (None, len(originals)) or len(ids) != len(originals):
            raise ValueError(
                f"Expected one label for each of {len(originals)} images, and num_images only for "
                f"a single one; got {len(ids)} labels and num_images {num_images}."
            )
        batch = options.get("batch", 64)
        given = self.preserved_codes(
            originals, box=box, mask=mask, keep_levels=keep_levels, batch=batch
        )
        return self.sample(ids, seeds, seed=seed, given=given, **options)

    def preserved_codes(
        self,
        images: Images,
        *,
        box: Box = LOWER_HALF,
        mask: Tensor | None = None,
        keep_levels: int = 0,
        batch: int = 64,
    ) -> list[Tensor]:
        """The codes of images that `inpaint` keeps, (B, H, W) per level, and `UNKNOWN` elsewhere.

        Arguments as of `inpaint`.
        """
        require_unkept(keep_levels, self.autoencoder.config.num_levels)
        originals = self.batch_of(images)
        visible = originals
        if not keep_levels:
            visible = (
                paint_over(originals, box) if mask is None else paint_over_mask(originals, mask)
            )
        codes = self.encode(visible, batch=batch)
        erased = [
            erase(maps, box) if mask is None else erase_masked(maps, mask)
            for maps in codes[keep_levels:]
        ]
        return [*codes[:keep_levels], *erased]

    def surprise(self, images: Images, labels: Labels | None = None) -> list[Tensor]:
        """How improbable each code of images is: its nats, (B, H, W) float64 per level on the CPU.

        For a prior over pixels the nats of the channels of a pixel are summed. Arguments as of
        `log_prob`.
        """
        log_probs = self.log_prob(images, labels)
        return [-(maps.sum(-1) if maps.ndim == 4 else maps).cpu().double() for maps in log_probs]

    def log_prob(self, images: Images, labels: Labels | None = None) -> list[Tensor]:
        """Log-probability in nats of each code of images, (B, H, W) per level.

        Their sum is log p(codes), not log p(image): see `docs/glossary.md`. For a prior over
        pixels there is one per channel, (B, H, W, 3), and the sum is log p(image).

        Arguments:
            images: in any form.
            labels: as of `sample`.
        """
        originals = self.batch_of(images)
        return self.log_prob_batch(originals, self.labels_for(labels, len(originals)))

    def labels_for(self, labels: Labels | None, num_images: int | None = None) -> Tensor:
        """Labels (B,) int64 of the images of a call.

        Arguments:
            labels: one for all images, or one per image; None for a model without classes.
            num_images: how many images of one class, 1 by default.
        """
        if labels is None:
            if self.num_classes > 1:
                names = self.config.class_names or range(self.num_classes)
                raise ValueError(
                    f"This model has classes: name one, such as {names[0]!r}, or one per image."
                )
            labels = 0
        if isinstance(labels, str) or not isinstance(labels, Iterable):
            return self.labels([labels]).expand(1 if num_images is None else num_images)
        ids = self.labels(labels)
        if num_images not in (None, len(ids)):
            raise ValueError(
                f"num_images is for images of one class, got {num_images} and {len(ids)} labels; "
                "leave it out."
            )
        return ids


def require_unkept(keep_levels: int, num_levels: int) -> None:
    """Raises ValueError unless a level is left to sample."""
    if not 0 <= keep_levels < num_levels:
        raise ValueError(
            f"keep_levels must be in [0, {num_levels}), or nothing is left to sample; got "
            f"{keep_levels}."
        )
