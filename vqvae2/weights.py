"""Models on disk, in the hub's layout: a folder with `config.json` and `model.safetensors`.

Codes and priors are valid for one autoencoder only. They carry its code fingerprint, a digest of
everything that decides codes; the decoder is not part of it and may change.
"""

import copy
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from vqvae2.autoencoder import VQVAE, Autoencoder, AutoencoderConfig
from vqvae2.autoencoder.sharp_decoder import SharpDecoder, SharpDecoderConfig
from vqvae2.autoencoder.vqvae import AUTOENCODER
from vqvae2.configuration import AtLeast1, from_dict, require_ranges, to_dict
from vqvae2.files import read_json, write_json
from vqvae2.priors import Domain, Prior, PriorConfig
from vqvae2.sampling import SamplingConfig
from vqvae2.saving import load_module, read_config, save_module

PRIOR, DECODER = "vqvae2-prior", "vqvae2-decoder"
PIPELINE, PIPELINE_VERSION = "vqvae2-pipeline", 2
REMEDY = "use the version of vqvae2 that wrote it, or train again"

PRETRAINED = Path(__file__).parent / "pretrained"
"""A folder per trained model of the package."""


@dataclass(frozen=True, kw_only=True)
class SavedAutoencoder:
    """The config.json of an autoencoder."""

    config: AutoencoderConfig


@dataclass(frozen=True, kw_only=True)
class SavedPrior:
    """The config.json of a prior.

    Arguments:
        config: the architecture.
        domain: shape and range of its values.
        code_fingerprint: of the autoencoder whose codes it models.
    """

    config: PriorConfig
    domain: Domain
    code_fingerprint: str


@dataclass(frozen=True, kw_only=True)
class SavedDecoder:
    """The config.json of a sharp decoder.

    Arguments:
        config: its size.
        code_fingerprint: of the autoencoder whose codes it decodes.
        perceptual_network: of the decoder.
    """

    config: SharpDecoderConfig
    code_fingerprint: str
    perceptual_network: str = ""


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """The properties of a pipeline that are not those of one of its models.

    Arguments:
        image_size: S, the side of the images that the priors were trained on.
        class_names: in the order of the labels; () for a model without class names.
        sampling: the default per level, coarsest first; () leaves the distributions unchanged.
    """

    image_size: AtLeast1
    class_names: tuple[str, ...] = ()
    sampling: tuple[SamplingConfig, ...] = ()

    def __post_init__(self) -> None:
        """Validates the configuration."""
        require_ranges("A pipeline's ", self)

    def save(self, folder: Path) -> None:
        """Writes the config.json of a pipeline."""
        write_json(folder / "config.json", PIPELINE, PIPELINE_VERSION, to_dict(self))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Reads the config.json of a pipeline."""
        path = folder / "config.json"
        if not path.is_file():
            raise ValueError(f"{folder} does not contain a pipeline: config.json is missing.")
        return from_dict(cls, read_json(path, PIPELINE, PIPELINE_VERSION, REMEDY))


def save_autoencoder(folder: Path, autoencoder: Autoencoder, half_precision: bool = False) -> None:
    """Writes an autoencoder into `folder`; in half precision the codebooks stay exact."""
    saved = SavedAutoencoder(config=autoencoder.config)
    exact = dict(autoencoder.named_buffers()) if half_precision else None
    save_module(folder, AUTOENCODER, to_dict(saved), autoencoder, exact)


def rounded_to_half(autoencoder: Autoencoder) -> Autoencoder:
    """A copy whose parameters are numbers of float16: what `save_autoencoder` would read back."""
    copied = copy.deepcopy(autoencoder)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.copy_(parameter.half())
    return copied


def load_autoencoder(folder: Path) -> Autoencoder:
    """The autoencoder that `save_autoencoder` wrote, in eval mode."""
    saved = read_config(folder, AUTOENCODER, SavedAutoencoder)
    build: Callable[[], Autoencoder] = saved.config.build
    return load_module(folder, build, saved)


def save_prior(
    folder: Path, prior: Prior, code_fingerprint: str, half_precision: bool = False
) -> None:
    """Writes a prior into `folder`, with the code fingerprint of its autoencoder."""
    saved = SavedPrior(config=prior.config, domain=prior.domain, code_fingerprint=code_fingerprint)
    save_module(folder, PRIOR, to_dict(saved), prior, () if half_precision else None)


def load_prior(folder: Path, code_fingerprint: str) -> Prior:
    """The prior that `save_prior` wrote, in eval mode.

    Raises:
        ValueError: it models the codes of another autoencoder, or the files are invalid.
    """
    saved = read_config(folder, PRIOR, SavedPrior)
    if saved.code_fingerprint != code_fingerprint:
        raise ValueError(
            f"The prior in {folder} was trained on the codes of an autoencoder with code "
            f"fingerprint {saved.code_fingerprint}, but this one has {code_fingerprint}; train "
            "the prior again."
        )
    return load_module(folder, partial(Prior, saved.config, saved.domain), saved)


def save_decoder(
    folder: Path, decoder: SharpDecoder, code_fingerprint: str, half_precision: bool = False
) -> None:
    """Writes a sharp decoder into `folder`, with the code fingerprint of its autoencoder."""
    saved = SavedDecoder(
        config=decoder.config,
        code_fingerprint=code_fingerprint,
        perceptual_network=decoder.perceptual_network,
    )
    save_module(folder, DECODER, to_dict(saved), decoder, () if half_precision else None)


def load_decoder(folder: Path, autoencoder: VQVAE) -> SharpDecoder:
    """The sharp decoder that `save_decoder` wrote, in eval mode.

    Raises:
        ValueError: it decodes the codes of another autoencoder, or the files are invalid.
    """
    saved = read_config(folder, DECODER, SavedDecoder)
    expected = code_fingerprint(autoencoder)
    if saved.code_fingerprint != expected:
        raise ValueError(
            f"The decoder in {folder} was trained on the codes of an autoencoder with code "
            f"fingerprint {saved.code_fingerprint}, but this one has {expected}; train the "
            "decoder again."
        )
    build = partial(SharpDecoder, saved.config, autoencoder.config)
    decoder = load_module(folder, build, saved)
    decoder.perceptual_network = saved.perceptual_network
    return decoder


def code_fingerprint(autoencoder: Autoencoder) -> str:
    """A short hex digest of everything that decides codes; equal digests, equal codes.

    Covers encoders, projections, conditioners, the upsamplers before the last quantisation, the
    codebooks' vectors and the pixel scale, but not the decoder.
    """
    settings = json.dumps(autoencoder.config.code_settings()).encode()
    return tensor_digest(autoencoder.code_state(), settings)


def fingerprint(module: nn.Module) -> str:
    """A short hex digest of all weights and buffers; equal weights, equal digest."""
    return tensor_digest(module.state_dict())


def tensor_digest(tensors: Mapping[str, Tensor], prefix: bytes = b"") -> str:
    """A short hex digest of names, types, shapes and values, in the order of the names."""
    digest = hashlib.blake2b(prefix, digest_size=8)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def tensor_bytes(tensor: Tensor) -> bytes:
    """The values of a tensor of any dtype, in row-major order."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()


def pretrained_folder(name: str) -> Path | None:
    """The folder of a trained model that the package contains; None for other names."""
    return PRETRAINED / name if name in pretrained_names() else None


def pretrained_names() -> list[str]:
    """The trained models that the package contains."""
    return sorted(path.parent.name for path in PRETRAINED.glob("*/config.json"))
