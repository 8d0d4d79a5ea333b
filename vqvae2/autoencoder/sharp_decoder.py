"""A second decoder for the codes of a trained autoencoder, trained for sharp images.

The plain decoder minimises the squared error, so it decodes the mean of all images that have the
same codes, which is soft. A decoder that is trained against a discriminator (VQGAN, arXiv
2012.09841) chooses one of them. Encoder and codebooks stay as they are, so codes and priors stay
valid; it may also be wider, since it is trained alone.

Legend: `B` batch, `C` image channels, `D` code size, `H W` grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from vqvae2.autoencoder.vqvae import VQVAE, VQVAEConfig
from vqvae2.configuration import AtLeast0, AtLeast1, require_ranges
from vqvae2.nn.modules import Modules
from vqvae2.nn.residual import Decoder, Upsample, merge
from vqvae2.precision import at_least_float32


@dataclass(frozen=True, kw_only=True)
class SharpDecoderConfig:
    """The size of a sharp decoder.

    Arguments:
        channels: width.
        residual_channels: hidden width of the residual blocks.
        num_residual_blocks: number of residual blocks.
    """

    channels: AtLeast1 = 192
    residual_channels: AtLeast1 = 96
    num_residual_blocks: AtLeast0 = 4

    def __post_init__(self) -> None:
        """Validates the configuration."""
        require_ranges("A sharp decoder's ", self)


class SharpDecoder(nn.Module):
    """Decodes the code vectors of all levels.

    Arguments:
        config: the size.
        autoencoder: whose codes it decodes.

    Attributes:
        perceptual_network: digest of the network of its perceptual loss, which cannot judge its
            images; "" without one.
    """

    def __init__(self, config: SharpDecoderConfig, autoencoder: VQVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.perceptual_network = ""
        self.scale = autoencoder.pixel_mean, autoencoder.pixel_std
        sizes = [codebook.code_size for codebook in autoencoder.codebooks]
        upsamplers, merged = [], sizes[0]
        for level, factor in enumerate(autoencoder.factors[:-1]):
            upsamplers.append(Upsample(merged, sizes[level], factor))
            merged = sizes[level] + sizes[level + 1]
        self.upsamplers = Modules(upsamplers)
        self.decoder = Decoder(
            merged,
            config.channels,
            autoencoder.image_channels,
            config.residual_channels,
            config.num_residual_blocks,
            autoencoder.factors[-1],
        )

    def forward(self, vectors: Sequence[Tensor]) -> Tensor:
        """Images (B, C, ., .), near [0, 1] but not clamped.

        Arguments:
            vectors: of the codes, (B, D, H, W) per level, coarsest first.
        """
        mean, std = self.scale
        pixels: Tensor = self.decoder(merge(self.upsamplers, vectors))
        # In bfloat16 the mean would round pixels more coarsely than the network does.
        return at_least_float32(pixels) * std + mean

    def decode(self, autoencoder: VQVAE, codes: Sequence[Tensor]) -> Tensor:
        """Images from codes (B, H, W) per level, coarsest first."""
        images: Tensor = self(autoencoder.embed(codes))
        return images
