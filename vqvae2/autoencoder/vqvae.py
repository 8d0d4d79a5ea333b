"""The hierarchical autoencoder of VQ-VAE-2 (Sec. 3.1, Fig. 2a), for any number of levels.

Encoders run from the image to the coarsest grid. Quantisation runs back: the coarsest level
first, each finer one from its encoder's features and the codes above it. One decoder sees all.
One level is VQ-VAE (arXiv 1711.00937), two are the paper's ImageNet model, three its FFHQ model.

Legend: `B` batch, `C` image channels, `D` code size, `H W` image sides. Levels are lists,
coarsest first.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae2.autoencoder.codebook import Codebook, CodebookConfig, Quantized
from vqvae2.nn.residual import Decoder, Encoder, Upsample, log2_exact


@dataclass(frozen=True, kw_only=True)
class VQVAEConfig:
    """What an autoencoder is; the defaults are the paper's ImageNet model.

    Arguments:
        factors: how much each level's grid is smaller than the next finer one (the last: than the
            image), coarsest first; powers of two.
        image_channels: C.
        channels: width of encoders and decoders.
        residual_channels: hidden width of the residual blocks.
        num_residual_blocks: blocks in each encoder and decoder.
        commitment_weight: beta of the loss.
        pixel_mean, pixel_std: images enter as (x - mean) / std and the loss is measured there:
            0.5 and 0.25 divide the squared error by about the variance of natural images.
        codebook: the codebook of every level.
    """

    kind: Literal["vqvae"] = "vqvae"
    factors: tuple[int, ...] = (2, 4)
    image_channels: int = 3
    channels: int = 128
    residual_channels: int = 64
    num_residual_blocks: int = 2
    commitment_weight: float = 0.25
    pixel_mean: float = 0.5
    pixel_std: float = 0.25
    codebook: CodebookConfig = field(default_factory=CodebookConfig)

    def __post_init__(self) -> None:
        """Refuses a model without levels, or with factors that no convolutions make."""
        if not self.factors:
            raise ValueError("An autoencoder needs at least one level: factors=(4,) makes one.")
        for factor in self.factors:
            log2_exact(factor)

    @property
    def num_levels(self) -> int:
        """How many code maps a image has."""
        return len(self.factors)

    @property
    def num_codes(self) -> int:
        """K of every level."""
        return self.codebook.num_codes

    @property
    def strides(self) -> tuple[int, ...]:
        """Image pixels per code and side, a level."""
        return tuple(accumulate(reversed(self.factors), lambda a, b: a * b))[::-1]

    def grids(self, height: int, width: int) -> list[tuple[int, int]]:
        """The (H, W) of each level's codes for a image of `height` x `width` pixels."""
        coarsest = self.strides[0]
        if height % coarsest or width % coarsest or not height or not width:
            near = tuple(max(1, side // coarsest) * coarsest for side in (height, width))
            raise ValueError(
                f"Image sides must be multiples of {coarsest} (strides {self.strides}), got "
                f"{height}x{width}; crop or resize to {near[0]}x{near[1]}."
            )
        return [(height // stride, width // stride) for stride in self.strides]


@dataclass(frozen=True)
class Reconstruction:
    """What `VQVAE.forward` returns.

    Arguments:
        images: (B, C, H, W) on the [0, 1] scale, not clamped.
        levels: what each codebook returned, coarsest first.
        error: mean squared error on the model's own pixel scale, a scalar.
        loss: what training minimises, a scalar: error + beta commitment (+ codebook loss).
    """

    images: Tensor
    levels: list[Quantized]
    error: Tensor
    loss: Tensor

    @property
    def codes(self) -> list[Tensor]:
        """(B, H, W) int64 a level."""
        return [level.codes for level in self.levels]


class VQVAE(nn.Module):
    """Images to codes and back.

    Images are (B, C, H, W) floats in [0, 1]; codes are a list, coarsest first.
    """

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        self.config = config
        width, size = config.channels, config.codebook.code_size
        residual = (config.residual_channels, config.num_residual_blocks)
        inputs = [width] * (config.num_levels - 1) + [config.image_channels]
        self.encoders = nn.ModuleList(
            Encoder(inputs[level], width, *residual, config.factors[level])
            for level in range(config.num_levels)
        )
        self.codebooks = nn.ModuleList(Codebook(config.codebook) for _ in config.factors)
        self.projections = nn.ModuleList()
        self.conditioners = nn.ModuleList()
        self.upsamplers = nn.ModuleList()
        for level, factor in enumerate((1, *config.factors[:-1])):
            self.projections.append(nn.Conv2d(width * (1 + (level > 0)), size, 1))
            if level:
                seen = size * (1 + (level > 1))
                self.conditioners.append(Decoder(seen, width, width, *residual, factor))
                self.upsamplers.append(Upsample(seen, size, factor))
        seen = size * (1 + (config.num_levels > 1))
        self.decoder = Decoder(seen, width, config.image_channels, *residual, config.factors[-1])

    def forward(
        self, images: Tensor, *, keep: Tensor | None = None, quantize: bool = True
    ) -> Reconstruction:
        """Encodes, quantises and decodes.

        Arguments:
            images: (B, C, H, W) in [0, 1].
            keep: (B, levels) booleans: the decoder sees zeros for the levels that a image does
                not keep (level dropout, see `vqvae2.training.autoencoder_task`); None keeps all.
            quantize: False lets the encoder's vectors pass unrounded, for the first steps.
        """
        levels, vectors = self._encode(images, lambda codebook, x: codebook(x), quantize)
        if keep is not None:
            vectors = [
                torch.where(keep[:, level, None, None, None], x, 0)
                for level, x in enumerate(vectors)
            ]
        output = self.decoder(self._merge(vectors))
        error = F.mse_loss(output, self._normalize(images))
        pull = sum(level.commitment for level in levels) * self.config.commitment_weight
        codebook_loss = sum(level.codebook_loss for level in levels)
        # Times 0, so that every parameter is in every loss: ranks wait for all gradients.
        loss = error + (pull + codebook_loss if quantize else 0 * codebook_loss)
        return Reconstruction(self._denormalize(output), levels, error, loss)

    def encode(self, images: Tensor) -> list[Tensor]:
        """Codes of images (B, C, H, W) in [0, 1]: (B, H, W) int64 a level, coarsest first."""
        levels, _ = self._encode(images, lambda codebook, x: codebook(x))
        return [level.codes for level in levels]

    def decode(self, codes: Sequence[Tensor], levels: Collection[int] | None = None) -> Tensor:
        """Images (B, C, H, W), near [0, 1] but not clamped, from codes, coarsest first.

        Arguments:
            codes: (B, H, W) int64 a level.
            levels: the levels that the decoder is shown; the others are blank (zeros), which tells
                what each level carries. None shows all.
        """
        if len(codes) != self.config.num_levels:
            raise ValueError(
                f"Expected codes of {self.config.num_levels} levels, coarsest first, got "
                f"{len(codes)}."
            )
        shown = range(len(codes)) if levels is None else levels
        vectors = [
            codebook.embed(code) * (level in shown)
            for level, (codebook, code) in enumerate(zip(self._codebooks(), codes, strict=True))
        ]
        return self._denormalize(self.decoder(self._merge(vectors)))

    @torch.no_grad()
    def start_codebooks(self, images: Tensor, generator: torch.Generator) -> None:
        """Starts every codebook from the vectors of `images` (B, C, H, W), coarsest first."""

        def start(codebook: Codebook, x: Tensor) -> Quantized:
            codebook.start(x, generator)
            return cast(Quantized, codebook(x))

        self._encode(images, start)

    def update_codebooks(self, levels: Sequence[Quantized], generator: torch.Generator) -> None:
        """Moves every codebook to what `forward` returned; part of a training step."""
        for codebook, level in zip(self._codebooks(), levels, strict=True):
            codebook.update(level, generator)

    def _codebooks(self) -> list[Codebook]:
        return cast(list[Codebook], list(self.codebooks))

    def _encode(
        self,
        images: Tensor,
        quantizer: Callable[[Codebook, Tensor], Quantized],
        quantize: bool = True,
    ) -> tuple[list[Quantized], list[Tensor]]:
        """Each level's `Quantized` and the vectors that the levels below it see."""
        if not images.is_floating_point():
            raise ValueError(
                f"Images must be floats in [0, 1], got {images.dtype}; divide bytes by 255."
            )
        self.config.grids(*images.shape[-2:])
        features = self._features(images)
        levels: list[Quantized] = []
        vectors: list[Tensor] = []
        for level, codebook in enumerate(self._codebooks()):
            hidden = features[level]
            if level:
                above = self.conditioners[level - 1](self._merge(vectors))
                hidden = torch.cat([hidden, above], dim=1)
            x = self.projections[level](hidden)
            levels.append(quantizer(codebook, x))
            vectors.append(levels[-1].vectors if quantize else x)
        return levels, vectors

    def _features(self, images: Tensor) -> list[Tensor]:
        """Encoder features a level, coarsest first; computed finest first."""
        features, x = [], self._normalize(images)
        for encoder in reversed(self.encoders):
            x = encoder(x)
            features.append(x)
        return features[::-1]

    def _merge(self, vectors: Sequence[Tensor]) -> Tensor:
        """All levels' vectors (B, D, H, W) on the grid of the finest."""
        merged = vectors[0]
        for upsampler, x in zip(self.upsamplers, vectors[1:], strict=False):
            merged = torch.cat([upsampler(merged), x], dim=1)
        return merged

    def _normalize(self, images: Tensor) -> Tensor:
        return (images - self.config.pixel_mean) / self.config.pixel_std

    def _denormalize(self, x: Tensor) -> Tensor:
        return x * self.config.pixel_std + self.config.pixel_mean
