"""The hierarchical autoencoder of VQ-VAE-2 (Sec. 3.1, Fig. 2a), for any number of levels.

Encoders run from the image to the coarsest grid. Quantisation runs back: the coarsest level
first, each finer one from its encoder's features and the coarser codes. One decoder reads all
levels. One level is VQ-VAE (arXiv 1711.00937), two are the paper's ImageNet model, three its FFHQ
model.

Legend: `B` batch, `C` image channels, `D` code size, `H W` image sides or grid. Levels are lists,
coarsest first.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Literal, TypedDict, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae2.autoencoder.codebook import Codebook, CodebookConfig, Quantized
from vqvae2.autoencoder.perturbation import perturbed
from vqvae2.code_grid import CodeGrid
from vqvae2.configuration import (
    AtLeast0,
    AtLeast1,
    Interval,
    JsonObject,
    from_dict,
    per_level,
    require_ranges,
    to_dict,
    to_json,
)
from vqvae2.nn.modules import Modules
from vqvae2.nn.residual import Decoder, Encoder, Projection, Upsample, log2_exact, merge
from vqvae2.saving import download, load_module, read_config, save_module, upload
from vqvae2.transfers import to_device

AUTOENCODER = "vqvae2-autoencoder"
"""The format of saved autoencoders."""


@dataclass(frozen=True, kw_only=True)
class VQVAEConfig:
    """An autoencoder; the defaults are the paper's ImageNet model.

    Arguments:
        factors: by how much each level's grid is smaller than the next finer one (the last: than
            the image), coarsest first; powers of two.
        image_channels: C.
        channels: width of encoders and decoders.
        residual_channels: hidden width of the residual blocks.
        num_residual_blocks: blocks in each encoder and decoder.
        commitment_weight: beta of the loss.
        pixel_mean, pixel_std: images enter as (x - mean) / std and the loss is measured there:
            0.5 and 0.25 divide the squared error by about the variance of natural images.
        codebooks: one per level, coarsest first. If all entries are equal, such as a single one,
            they are used for every level, so `config.codebooks` always has one entry per level.
    """

    kind: Literal["vqvae"] = "vqvae"
    factors: tuple[int, ...] = (2, 4)
    image_channels: AtLeast1 = 3
    channels: AtLeast1 = 128
    residual_channels: AtLeast1 = 64
    num_residual_blocks: AtLeast0 = 2
    commitment_weight: Annotated[float, Interval("[0, inf)")] = 0.25
    pixel_mean: Annotated[float, Interval("(-inf, inf)")] = 0.5
    pixel_std: Annotated[float, Interval("(0, inf)")] = 0.25
    codebooks: tuple[CodebookConfig, ...] = (CodebookConfig(),)

    def __post_init__(self) -> None:
        """Validates the configuration and resolves `codebooks` to one per level."""
        if not self.factors:
            raise ValueError("An autoencoder needs at least one level: factors=(4,) makes one.")
        for factor in self.factors:
            log2_exact(factor)
        require_ranges("An autoencoder's ", self)
        if len(set(self.codebooks)) == 1:
            # So a configuration that is already resolved can be changed to other factors.
            object.__setattr__(self, "codebooks", self.codebooks[:1] * self.num_levels)
        if len(self.codebooks) != self.num_levels:
            raise ValueError(
                f"Expected one codebook for all levels or one for each of {self.num_levels}, got "
                f"{len(self.codebooks)}."
            )

    @property
    def num_levels(self) -> int:
        """Number of code maps per image."""
        return len(self.factors)

    @property
    def strides(self) -> tuple[int, ...]:
        """Image pixels per code along one side, per level."""
        return tuple(accumulate(reversed(self.factors), lambda a, b: a * b))[::-1]

    def grids(self, height: int, width: int) -> list[CodeGrid]:
        """Each level's codes for an image of `height` x `width` pixels."""
        coarsest = self.strides[0]
        if height % coarsest or width % coarsest or not height or not width:
            near = tuple(max(1, side // coarsest) * coarsest for side in (height, width))
            raise ValueError(
                f"Image sides must be multiples of {coarsest} (strides {self.strides}), got "
                f"{height}x{width}; crop or resize to {near[0]}x{near[1]}."
            )
        return [
            CodeGrid(codebook.num_codes, height // stride, width // stride)
            for codebook, stride in zip(self.codebooks, self.strides, strict=True)
        ]

    def code_settings(self) -> JsonObject:
        """The fields that decide codes beyond the names and shapes of weights."""
        return {
            "kind": self.kind,
            "factors": list(self.factors),
            "pixel_mean": self.pixel_mean,
            "pixel_std": self.pixel_std,
        }

    def build(self) -> "VQVAE":
        """A new model with random weights."""
        return VQVAE(self)


@dataclass(frozen=True, kw_only=True)
class SavedVQVAE:
    """The config.json of an autoencoder."""

    config: VQVAEConfig


class VQVAEOptions(TypedDict, total=False):
    """What `VQVAE` takes in place of a config."""

    factors: tuple[int, ...]
    num_codes: int | Sequence[int]
    code_size: int | Sequence[int]
    image_channels: int
    channels: int
    residual_channels: int
    num_residual_blocks: int
    commitment_weight: float


def config_of(options: VQVAEOptions) -> VQVAEConfig:
    """The config that options stand for."""
    num_levels = len(options.get("factors", VQVAEConfig.factors))
    numbers = per_level("num_codes", options.pop("num_codes", 512), num_levels)
    sizes = per_level("code_size", options.pop("code_size", 64), num_levels)
    codebooks = [{"num_codes": n, "code_size": d} for n, d in zip(numbers, sizes, strict=True)]
    return from_dict(VQVAEConfig, to_json({**options, "codebooks": codebooks}), "VQVAE")


@dataclass(frozen=True)
class Reconstruction:
    """The result of `VQVAE.forward`.

    Arguments:
        images: (B, C, H, W) on the [0, 1] scale, not clamped.
        levels: the result of each codebook, coarsest first.
        error: mean squared error of normalised pixels, a scalar.
        loss: the training objective, a scalar: error + beta commitment (+ codebook loss).
    """

    images: Tensor
    levels: list[Quantized]
    error: Tensor
    loss: Tensor

    @property
    def codes(self) -> list[Tensor]:
        """(B, H, W) int64 per level."""
        return [level.codes for level in self.levels]


class VQVAE(nn.Module):
    """Encodes images to codes and decodes codes to images.

        model = VQVAE(factors=(2, 4), num_codes=512)
        output = model(images)
        output.loss.backward()
        optimizer.step()
        model.update_codebooks(output)

    Images are (B, C, H, W) floats in [0, 1]; codes are a list, coarsest first.

    Arguments:
        config: a complete config, or None.
        options: without a config, the fields of `VQVAEConfig` that differ from their defaults, and
            `num_codes` and `code_size`, each one number for all levels or one per level.
    """

    def __init__(self, config: VQVAEConfig | None = None, **options: Unpack[VQVAEOptions]) -> None:
        super().__init__()
        config = config or config_of(options)
        self.config = config
        width, sizes = config.channels, [codebook.code_size for codebook in config.codebooks]
        residual = (config.residual_channels, config.num_residual_blocks)
        inputs = [width] * (config.num_levels - 1) + [config.image_channels]
        self.encoders = Modules(
            Encoder(inputs[level], width, *residual, config.factors[level])
            for level in range(config.num_levels)
        )
        self.codebooks = Modules(Codebook(codebook) for codebook in config.codebooks)
        projections, conditioners, upsamplers = [], [], []
        merged = sizes[0]  # channels of `_merge` over the levels so far
        for level, factor in enumerate((1, *config.factors[:-1])):
            projections.append(Projection(width * (1 + (level > 0)), sizes[level]))
            if level:
                conditioners.append(Decoder(merged, width, width, *residual, factor))
                upsamplers.append(Upsample(merged, sizes[level - 1], factor))
                merged = sizes[level - 1] + sizes[level]
        self.projections, self.conditioners = Modules(projections), Modules(conditioners)
        self.upsamplers = Modules(upsamplers)
        self.decoder = Decoder(merged, width, config.image_channels, *residual, config.factors[-1])

    def forward(
        self,
        images: Tensor,
        *,
        keep: Tensor | None = None,
        quantize: bool = True,
        neighbours: Sequence[Tensor] = (),
    ) -> Reconstruction:
        """Encodes, quantises and decodes.

        Arguments:
            images: (B, C, H, W) in [0, 1].
            keep: (B, levels) booleans; the decoder reads zeros where False (level dropout, see
                `vqvae2.training.autoencoder`). None keeps all levels.
            quantize: False decodes the encoder's vectors without quantisation, for the first
                training steps.
            neighbours: (B, H, W) int64 per level: n > 0 replaces a code by the n-th nearest one
                for what reads it, 0 keeps it (latent perturbation, arXiv 2509.12474). The results
                of the codebooks are those without. () keeps all codes.
        """
        pixels = self._normalize(images)
        levels, vectors = self._encode(pixels, quantize, neighbours)
        if keep is not None:
            vectors = [
                torch.where(keep[:, level, None, None, None], x, 0)
                for level, x in enumerate(vectors)
            ]
        output = self.decoder(self._merge(vectors))
        error = F.mse_loss(output, pixels)
        commitment = sum(level.commitment for level in levels) * self.config.commitment_weight
        codebook_loss = sum(level.codebook_loss for level in levels)
        # Times 0, so that every parameter is in every loss: processes wait for all gradients.
        loss = error + (commitment + codebook_loss if quantize else 0 * codebook_loss)
        return Reconstruction(self._denormalize(output), levels, error, loss)

    def encode(self, images: Tensor) -> list[Tensor]:
        """Codes of images (B, C, H, W) in [0, 1]: (B, H, W) int64 per level, coarsest first."""
        levels, _ = self._encode(self._normalize(images))
        return [level.codes for level in levels]

    def decode(self, codes: Sequence[Tensor], levels: Collection[int] | None = None) -> Tensor:
        """Images (B, C, H, W), near [0, 1] but not clamped, from codes, coarsest first.

        Arguments:
            codes: (B, H, W) int64 per level.
            levels: the levels that the decoder reads; the others are zeros, which shows what each
                level contributes. None reads all.
        """
        return self._denormalize(self.decoder(self._merge(self.embed(codes, levels))))

    def embed(
        self, codes: Sequence[Tensor], levels: Collection[int] | None = None
    ) -> list[Tensor]:
        """The vectors (B, D, H, W) of codes per level; arguments as of `decode`."""
        if len(codes) != self.config.num_levels:
            raise ValueError(
                f"Expected codes of {self.config.num_levels} levels, coarsest first, got "
                f"{len(codes)}."
            )
        visible_levels = range(len(codes)) if levels is None else levels
        return [
            codebook.embed(code) * (level in visible_levels)
            for level, (codebook, code) in enumerate(zip(self.codebooks, codes, strict=True))
        ]

    @torch.no_grad()
    def start_codebooks(
        self, images: Tensor, generator: torch.Generator, batch_size: int | None = None
    ) -> None:
        """Starts every codebook from the vectors of images, coarsest first.

        Arguments:
            images: (B, C, H, W) in [0, 1], on any device.
            generator: of k-means; a CPU generator.
            batch_size: images that are encoded at a time, to save memory; None for all of them.
        """
        device = next(self.parameters()).device
        parts = images.split(batch_size or len(images))
        for level, codebook in enumerate(self.codebooks):
            # Once per level: keeping the features of all levels would need more memory.
            inputs = [self._codebook_input(to_device(part, device), level) for part in parts]
            codebook.start(torch.cat(inputs), generator)

    def update_codebooks(
        self,
        output: Reconstruction | Sequence[Quantized],
        generator: torch.Generator | None = None,
    ) -> None:
        """Updates every codebook; part of a training step, after the optimizer's.

        Arguments:
            output: of `forward`, or its `levels`.
            generator: chooses the vectors at which dead codes restart, see `Codebook.update`.
        """
        levels = output.levels if isinstance(output, Reconstruction) else output
        for codebook, level in zip(self.codebooks, levels, strict=True):
            codebook.update(level, generator)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes config.json and model.safetensors into a folder."""
        save_module(Path(folder), AUTOENCODER, to_dict(SavedVQVAE(config=self.config)), self)

    @classmethod
    def from_pretrained(cls, name: str | Path) -> "VQVAE":
        """The autoencoder of a folder of `save_pretrained`, or of the hub, in eval mode."""
        folder = Path(name) if Path(name).is_dir() else download(str(name))
        saved = read_config(folder, AUTOENCODER, SavedVQVAE)
        return load_module(folder, saved.config.build, saved)

    def push_to_hub(self, name: str, *, private: bool = False) -> str:
        """Uploads the autoencoder to the hub as owner/model; returns the address."""
        return upload(self.save_pretrained, name, private)

    def code_state(self) -> dict[str, Tensor]:
        """The part of `state_dict` that decides codes.

        Without the decoder, the last upsampler, which only the decoder uses, and the moving
        averages of the codebooks.
        """
        last = f"upsamplers.{self.config.num_levels - 2}."
        return {
            name: tensor
            for name, tensor in self.state_dict().items()
            if not name.startswith(("decoder.", last)) and not name.endswith((".counts", ".sums"))
        }

    def _encode(
        self, pixels: Tensor, quantize: bool = True, neighbours: Sequence[Tensor] = ()
    ) -> tuple[list[Quantized], list[Tensor]]:
        """Each level's `Quantized`, and the vectors that finer levels and the decoder read."""
        features = self._features(pixels)
        levels: list[Quantized] = []
        vectors: list[Tensor] = []
        for level, codebook in enumerate(self.codebooks):
            x = self._project(features, vectors)
            levels.append(codebook(x) if quantize else codebook.quantize(x))
            if quantize and neighbours:
                vectors.append(perturbed(codebook, levels[-1], neighbours[level]))
            else:
                vectors.append(levels[-1].vectors if quantize else x)
        return levels, vectors

    def _codebook_input(self, images: Tensor, level: int) -> Tensor:
        """What the codebook of a level quantises, (B, D, H, W), given the coarser codebooks."""
        features = self._features(self._normalize(images))
        vectors: list[Tensor] = []
        for codebook in list(self.codebooks)[:level]:
            vectors.append(codebook.quantize(self._project(features, vectors)).vectors)
        return self._project(features, vectors)

    def _project(self, features: Sequence[Tensor], coarser: Sequence[Tensor]) -> Tensor:
        """What the next codebook quantises, from the vectors of all coarser levels."""
        level = len(coarser)
        maps = [features[level]]
        if level:
            maps.append(self.conditioners[level - 1](self._merge(coarser)))
        return self.projections[level](*maps)

    def _features(self, pixels: Tensor) -> list[Tensor]:
        """Encoder features per level, coarsest first; computed finest first."""
        features, x = [], pixels
        for encoder in reversed(self.encoders):
            x = encoder(x)
            features.append(x)
        return features[::-1]

    def _merge(self, vectors: Sequence[Tensor]) -> Tensor:
        """The vectors (B, D, H, W) of all levels, concatenated on the grid of the finest."""
        return merge(self.upsamplers, vectors)

    def _normalize(self, images: Tensor) -> Tensor:
        """Validates images (B, C, H, W) in [0, 1] and returns their normalised pixels."""
        if not images.is_floating_point():
            raise ValueError(
                f"Images must be floats in [0, 1], got {images.dtype}; divide bytes by 255."
            )
        self.config.grids(*images.shape[-2:])
        return (images - self.config.pixel_mean) / self.config.pixel_std

    def _denormalize(self, x: Tensor) -> Tensor:
        return x * self.config.pixel_std + self.config.pixel_mean
