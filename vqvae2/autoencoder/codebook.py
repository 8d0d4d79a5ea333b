"""A codebook: search for the nearest code, and the update of the codes from data.

The codes follow the encoder by exponential moving averages (VQ-VAE-2, Sec. 2.1; VQ-VAE,
Appendix A.1):

    N_i <- g N_i + (1 - g) n_i      m_i <- g m_i + (1 - g) sum_j x_ij      e_i = m_i / N_i

Counts are in units of the fair share (number of vectors / K), so their mean is 1.

Codebook updates are explicit: `forward` changes no code, and a training step calls `update` with
the result of `forward`. So `eval`, `encode` and a loaded model leave the codebook unchanged; a
training that forgets to update is told so.

Inputs may be vectors, tokens, or maps of 1 to 3 dimensions, see `Codebook.forward`; inside, all of
them are maps (B, D, H, W).

Legend: `B` batch, `D` code size, `K` codes, `H W` grid, `S` any sides, `N = B H W` vectors.
"""

import warnings
from dataclasses import dataclass, replace
from typing import Literal, TypedDict, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae2.autoencoder.straight_through import image_chunks, pass_gradient, squared_distance
from vqvae2.configuration import AtLeast1, Probability, require_ranges
from vqvae2.distributed import World, all_reduce_, broadcast_
from vqvae2.transfers import to_device

SCORES_PER_CHUNK = {"cpu": 1 << 22, "cuda": 1 << 27}
"""Scores that the search computes at a time, by device: 16 MiB of float32 on a CPU, whose caches
they should fit, and 512 MiB on a GPU, where every operation costs a launch."""

FORGOTTEN_AFTER = 50
"""Training steps, or parts of them, without an update that look like a mistake."""

LLOYD_STEPS = 10
"""Steps of k-means at the start; more did not change any metric (docs/log.md)."""


@dataclass(frozen=True, kw_only=True)
class CodebookConfig:
    """The codebook of one level.

    Arguments:
        num_codes: K.
        code_size: D.
        decay: g of the moving averages.
        learn_by: "ema" as VQ-VAE-2; "gradient" is the codebook loss |sg[x] - e|^2 of VQ-VAE 2017
            (Eq. 3), for comparison, or where an optimizer should own all parameters.
        gradient: "straight" copies the gradient at the code to the input (VQ-VAE, Sec. 3.2);
            "rotate" turns it with the rotation from the input to its code (arXiv 2410.06424),
            which preserves angles within a code's cell and separates inputs where codes are dense.
        revive_below: a code used less than this fraction of its fair share (number of vectors / K)
            is dead and restarts at a vector of the batch; 0 is the paper's plain form.
    """

    num_codes: AtLeast1 = 512
    code_size: AtLeast1 = 64
    decay: Probability = 0.99
    learn_by: Literal["ema", "gradient"] = "ema"
    gradient: Literal["straight", "rotate"] = "straight"
    revive_below: Probability = 0.1

    def __post_init__(self) -> None:
        """Validates the configuration."""
        require_ranges("A codebook's ", self)


class ForgottenUpdate(UserWarning):
    """A training never updates its codebook."""


class CodebookOptions(TypedDict, total=False):
    """The further fields of `CodebookConfig`."""

    decay: float
    learn_by: Literal["ema", "gradient"]
    gradient: Literal["straight", "rotate"]
    revive_below: float


@dataclass(frozen=True)
class Quantized:
    """The result of quantising an encoder output.

    Arguments:
        vectors: of the shape of the input, values of the codes; gradients reach the input.
        codes: (B, *S), int64 in [0, K); (B, H, W) for maps.
        commitment: mean squared distance per element, a scalar whose gradient moves the encoder.
        codebook_loss: the same distance, whose gradient moves the codes; 0 for codes learnt by
            moving averages.
        inputs: (B, D, H, W), the input, detached; `Codebook.update` learns from it.
    """

    vectors: Tensor
    codes: Tensor
    commitment: Tensor
    codebook_loss: Tensor
    inputs: Tensor


class Codebook(nn.Module):
    """K vectors of size D and the moving averages from which they are computed.

        codebook = Codebook(512, 64)
        quantized = codebook(x)              # then backward through quantized.vectors, and step
        codebook.update(quantized)

    Arguments:
        num_codes: K, or a complete config.
        code_size: D.
        options: the further fields of `CodebookConfig`.
    """

    vectors: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(
        self,
        num_codes: int | CodebookConfig = 512,
        code_size: int = 64,
        **options: Unpack[CodebookOptions],
    ) -> None:
        super().__init__()
        if isinstance(num_codes, CodebookConfig):
            config = num_codes
        else:
            config = CodebookConfig(num_codes=num_codes, code_size=code_size, **options)
        self.config = config
        self.steps_without_update = 0
        vectors_KD = torch.randn(config.num_codes, config.code_size) / config.code_size**0.5
        if config.learn_by == "gradient":
            self.vectors = nn.Parameter(vectors_KD)
        else:
            self.register_buffer("vectors", vectors_KD)
        self.register_buffer("counts", torch.ones(config.num_codes))
        self.register_buffer("sums", vectors_KD.clone())

    def forward(self, x: Tensor, channel_last: bool | None = None) -> Quantized:
        """Replaces each vector by its nearest code (VQ-VAE-2, Eq. 1).

        Arguments:
            x: vectors (B, D), tokens (B, N, D), or maps (B, D, *S) of 1 to 3 dimensions S, also as
                (B, *S, D).
            channel_last: whether D is the last dimension; by default it is the only one of size
                D, and the first one where both are.
        """
        self._expect_update()
        if x.ndim == 4 and x.shape[1] == self.config.code_size and not channel_last:
            return self.quantize(x)
        is_last = is_channel_last(x, self.config.code_size, channel_last)
        maps = x.movedim(-1, 1) if is_last else x
        quantized = self.quantize(as_map(maps))
        vectors = quantized.vectors.reshape(maps.shape)
        return replace(
            quantized,
            vectors=vectors.movedim(1, -1) if is_last else vectors,
            codes=quantized.codes.reshape(len(x), *maps.shape[2:]),
        )

    def quantize(self, x: Tensor) -> Quantized:
        """`forward` of (B, D, H, W), without waiting for an update."""
        codes = self.nearest(x)
        vectors = self.embed(codes).to(x.dtype)
        commitment = squared_distance(x, vectors.detach())
        by_gradient = self.config.learn_by == "gradient"
        return Quantized(
            vectors=pass_gradient(x, vectors.detach(), self.config.gradient),
            codes=codes,
            commitment=commitment,
            codebook_loss=(
                squared_distance(vectors, x.detach()) if by_gradient else x.new_zeros(())
            ),
            inputs=x.detach(),
        )

    def nearest(self, x: Tensor) -> Tensor:
        """The code nearest to each vector of (B, D, H, W), as (B, H, W) int64."""
        codes = [nearest_rows(flatten(part), self.vectors) for part in image_chunks(x)]
        return torch.cat(codes).view(len(x), *x.shape[2:])

    def embed(self, codes: Tensor) -> Tensor:
        """The vectors of codes (B, H, W), as (B, D, H, W)."""
        return F.embedding(codes, self.vectors).movedim(-1, 1)

    def neighbours(self, count: int) -> Tensor:
        """Each code and the `count` codes nearest to it, nearest first, (K, 1 + count) int64."""
        with torch.autocast(self.vectors.device.type, enabled=False), torch.no_grad():
            distance_KK = torch.cdist(self.vectors, self.vectors)
            distance_KK.fill_diagonal_(-1)  # equal codes may be as near as the code itself
            return distance_KK.topk(1 + count, dim=1, largest=False).indices

    @torch.no_grad()
    def start(self, x: Tensor, generator: torch.Generator) -> None:
        """Starts the codes from data: k-means over encoder outputs (B, D, H, W).

        The vectors of the main process start the codes of all processes. Needs several vectors
        per code.
        """
        x_ND = flatten(x).to(self.sums.dtype)
        vectors_KD, counts_K = k_means(x_ND, self.config.num_codes, generator)
        broadcast_(vectors_KD)
        broadcast_(counts_K)
        self.vectors.copy_(vectors_KD)
        self.counts.copy_(counts_K)
        self.sums.copy_(vectors_KD * counts_K[:, None])

    @torch.no_grad()
    def update(self, quantized: Quantized, generator: torch.Generator | None = None) -> None:
        """Moves each code to the mean of its inputs and restarts dead codes; one all-reduce.

        Arguments:
            quantized: the result of `forward` for this process's part of the batch.
            generator: chooses the vectors at which dead codes restart; a CPU generator in the same
                state on all processes. By default torch's own.
        """
        self.steps_without_update = 0
        num_codes, size = self.sums.shape
        sums_KD, codes_N = torch.zeros_like(self.sums), quantized.codes.flatten()
        codes_BHW = quantized.codes.reshape(-1, *quantized.inputs.shape[2:])
        chunks = zip(image_chunks(quantized.inputs), image_chunks(codes_BHW), strict=True)
        for inputs, codes in chunks:
            sums_KD.index_add_(0, codes.flatten(), flatten(inputs).to(self.sums.dtype))
        counts_K = count_codes(codes_N, sums_KD)
        spare_KD = spare_vectors(quantized.inputs, num_codes, generator).to(self.sums.dtype)
        joint = torch.cat([sums_KD, spare_KD, counts_K[:, None]], dim=1)
        all_reduce_(joint)
        sums_KD, spare_KD, counts_K1 = joint.split([size, size, 1], dim=1)
        # In units of the fair share, so that thresholds and averages do not depend on the batch.
        fair_share = counts_K1.sum() / num_codes
        self.counts.lerp_(counts_K1[:, 0] / fair_share, 1 - self.config.decay)
        self.sums.lerp_(sums_KD / fair_share, 1 - self.config.decay)
        if self.config.learn_by == "ema":
            # Laplace smoothing (Sonnet) would pull rare codes to the origin; a code whose count
            # is almost 0 stays unchanged instead.
            means_KD = self.sums / self.counts.clamp_min(1e-5)[:, None]
            self.vectors.copy_(torch.where(self.counts[:, None] > 1e-5, means_KD, self.vectors))
        self._restart_dead_codes(spare_KD)

    def _expect_update(self) -> None:
        """Counts a training step; warns where the codes were never updated."""
        waits = self.training and self.config.learn_by == "ema" and torch.is_grad_enabled()
        if not waits or torch.compiler.is_compiling():
            return
        self.steps_without_update += 1
        if self.steps_without_update == FORGOTTEN_AFTER:
            warnings.warn(
                f"The codebook was used in {FORGOTTEN_AFTER} training steps and never updated, so "
                "its codes do not learn: after optimizer.step() call "
                "model.update_codebooks(output), or codebook.update(quantized).",
                ForgottenUpdate,
                stacklevel=3,
            )

    def _restart_dead_codes(self, spare_KD: Tensor) -> None:
        """Restarts dead codes at `spare_KD` with all of their state, so that they stay in use."""
        dead_K1 = (self.counts < self.config.revive_below)[:, None]
        self.vectors.copy_(torch.where(dead_K1, spare_KD, self.vectors))
        self.sums.copy_(torch.where(dead_K1, spare_KD, self.sums))
        self.counts.copy_(torch.where(dead_K1[:, 0], 1, self.counts))


def nearest_rows(x_ND: Tensor, vectors_KD: Tensor) -> Tensor:
    """For each row of x the index of the nearest row of vectors, as (N,) int64.

    |x|^2 is the same for all codes: omitting it saves a pass and the cancellation that makes
    float32 distances tie. The search is in float32 whatever the surroundings use, since bfloat16
    picks wrong codes; in chunks, so that memory does not grow with N.
    """
    with torch.autocast(x_ND.device.type, enabled=False), torch.no_grad():
        dtype = torch.promote_types(x_ND.dtype, torch.float32)
        x_ND, vectors_KD = x_ND.to(dtype), vectors_KD.to(dtype)
        half_norms_K = vectors_KD.square().sum(dim=1) / 2
        num_scores = SCORES_PER_CHUNK.get(x_ND.device.type, SCORES_PER_CHUNK["cpu"])
        num_rows = max(1, num_scores // len(vectors_KD))
        chunks = [
            torch.addmm(half_norms_K, part_ND, vectors_KD.T, alpha=-1).argmin(dim=1)
            for part_ND in x_ND.split(num_rows)
        ]
        return torch.cat(chunks)


def spare_vectors(x: Tensor, num_codes: int, generator: torch.Generator | None) -> Tensor:
    """K random vectors of the joint batch of all processes, x (B, D, H, W) being a part of it.

    Returns:
        (K, D): the rows that are in this process's part, zeros for the others. Their sum over all
        processes is what one process with the joint batch would choose.
    """
    world = World.current()
    num_positions = x.shape[2] * x.shape[3]
    count = len(x) * num_positions
    drawn_K = torch.randint(count * world.size, (num_codes,), generator=generator)
    joint_K = to_device(drawn_K, x.device)
    local_K = joint_K - world.rank * count
    is_local_K = (local_K >= 0) & (local_K < count)
    local_K = local_K.clamp(0, count - 1)
    position_K = local_K % num_positions
    row_K, column_K = position_K // x.shape[3], position_K % x.shape[3]
    vectors_KD = x.movedim(1, -1)[local_K // num_positions, row_K, column_K]
    return vectors_KD * is_local_K[:, None]


def k_means(x_ND: Tensor, num_codes: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Centres (K, D) and their counts (K,), in units of the fair share, by Lloyd's algorithm.

    A centre without vectors moves to a random vector. Fewer vectors than codes are repeated.
    """
    centres_KD = random_rows(x_ND, num_codes, generator)
    for _ in range(LLOYD_STEPS):
        codes_N = nearest_rows(x_ND, centres_KD)
        sums_KD = torch.zeros_like(centres_KD).index_add_(0, codes_N, x_ND)
        counts_K = count_codes(codes_N, sums_KD)
        means_KD = sums_KD / counts_K.clamp_min(1)[:, None]
        spare_KD = random_rows(x_ND, num_codes, generator)
        centres_KD = torch.where(counts_K[:, None] > 0, means_KD, spare_KD)
    counts_K = counts_K.clamp_min(1)
    return centres_KD, counts_K / counts_K.mean()


def count_codes(codes_N: Tensor, like_KD: Tensor) -> Tensor:
    """How often each of K codes occurs, (K,), with the dtype of `like_KD`.

    Not by `bincount`, which waits for a GPU to read the size of its result.
    """
    ones_N = like_KD.new_ones(len(codes_N))
    return like_KD.new_zeros(len(like_KD)).index_add_(0, codes_N, ones_N)


def random_rows(x_ND: Tensor, num_rows: int, generator: torch.Generator) -> Tensor:
    """Rows of x in random order, each once before any repeats."""
    count = len(x_ND)
    rounds = range(-(-num_rows // count))
    order = torch.cat([torch.randperm(count, generator=generator) for _ in rounds])
    return x_ND.index_select(0, to_device(order[:num_rows], x_ND.device))


def is_channel_last(x: Tensor, size: int, channel_last: bool | None) -> bool:
    """Whether the vectors of x, of this size, lie along its last dimension.

    Raises:
        ValueError: x has no vectors of this size, or it is unclear which they are.
    """
    if not 2 <= x.ndim <= 5 or size not in (x.shape[1], x.shape[-1]):
        raise ValueError(
            f"A codebook of vectors of size {size} takes (B, {size}), (B, N, {size}) or (B, {size}"
            f", ...) with 1 to 3 further dimensions, got {tuple(x.shape)}."
        )
    if channel_last is None:
        if x.ndim == 3 and x.shape[1] == x.shape[2]:
            raise ValueError(
                f"Tokens (B, N, D) or a map (B, D, N)? Both sides are {size}: give channel_last."
            )
        return x.shape[1] != size
    if x.shape[-1 if channel_last else 1] != size:
        raise ValueError(
            f"channel_last {channel_last} needs vectors of size {size} along dimension "
            f"{-1 if channel_last else 1}, got {tuple(x.shape)}."
        )
    return channel_last and x.ndim > 2


def as_map(x: Tensor) -> Tensor:
    """(B, D, *S) with 0 to 3 dimensions S as (B, D, H, W), a view where the memory allows it."""
    if x.ndim == 5:
        return x.flatten(3)
    return x.reshape(*x.shape, *[1] * (4 - x.ndim))


def flatten(x: Tensor) -> Tensor:
    """(B, D, H, W) as rows (B H W, D)."""
    return x.movedim(1, -1).reshape(-1, x.shape[1])
