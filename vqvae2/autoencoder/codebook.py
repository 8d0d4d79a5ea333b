"""A codebook: nearest code, gradients through it, its update from data.

The codes follow the encoder by exponential moving averages (VQ-VAE-2, Sec. 2.1; VQ-VAE,
Appendix A.1):

    N_i <- g N_i + (1 - g) n_i      m_i <- g m_i + (1 - g) sum_j x_ij      e_i = m_i / N_i

Counts are kept in units of the fair share (all uses / K), so their mean is 1.

`forward` never moves them: a training step calls `update` with what `forward` returned. So `eval`,
`encode` and a loaded model leave the codebook as it is.

Legend: `B` batch, `D` code size, `K` codes, `H W` grid, `N = B H W` vectors.
"""

from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

SCORES_AT_ONCE = 1 << 22
"""Scores held at a time by the search: 16 MiB of float32, whatever N is."""

VECTORS_AT_ONCE = 1 << 14
"""Vectors that are laid out as rows at a time."""

LLOYD_STEPS = 10
"""Steps of k-means at the start; more moved no figure (docs/log.md)."""


@dataclass(frozen=True, kw_only=True)
class CodebookConfig:
    """What a codebook is.

    Arguments:
        num_codes: K.
        code_size: D.
        decay: g of the moving averages.
        learn_by: "ema" as VQ-VAE-2; "gradient" is the codebook loss |sg[x] - e|^2 of VQ-VAE 2017
            (Eq. 3), for comparison, or where an optimizer should own all parameters.
        gradient: "straight" copies the gradient at the code to the input (VQ-VAE, Sec. 3.2);
            "rotate" turns it with the rotation from the input to its code (arXiv 2410.06424),
            which keeps angles inside a code's cell and pushes inputs apart where codes crowd.
        revive_below: a code used less than this part of its fair share (all uses / K) is dead and
            restarts at a vector of the batch; 0 is the paper's plain form.
    """

    num_codes: int = 512
    code_size: int = 64
    decay: float = 0.99
    learn_by: Literal["ema", "gradient"] = "ema"
    gradient: Literal["straight", "rotate"] = "straight"
    revive_below: float = 0.1


@dataclass(frozen=True)
class Quantized:
    """What a codebook made of an encoder output.

    Arguments:
        vectors: (B, D, H, W), values of the codes; gradients reach the encoder output.
        codes: (B, H, W), int64 in [0, K).
        commitment: mean squared distance per element, pulling the encoder to its codes, a scalar.
        codebook_loss: the same distance, pulling codes to the encoder; 0 when learnt by EMA.
        inputs: (B, D, H, W), the encoder output, detached: what `Codebook.update` learns from.
    """

    vectors: Tensor
    codes: Tensor
    commitment: Tensor
    codebook_loss: Tensor
    inputs: Tensor


class Codebook(nn.Module):
    """K vectors of size D and the moving averages they are made of."""

    vectors: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(self, config: CodebookConfig) -> None:
        super().__init__()
        self.config = config
        vectors_KD = torch.randn(config.num_codes, config.code_size) / config.code_size**0.5
        if config.learn_by == "gradient":
            self.vectors = nn.Parameter(vectors_KD)
        else:
            self.register_buffer("vectors", vectors_KD)
        self.register_buffer("counts", torch.ones(config.num_codes))
        self.register_buffer("sums", vectors_KD.clone())

    def forward(self, x: Tensor) -> Quantized:
        """Replaces each vector by its nearest code (VQ-VAE-2, Eq. 1).

        Arguments:
            x: Encoder output, with shape (B, D, H, W).
        """
        codes = self.nearest(x)
        vectors = self.embed(codes).to(x.dtype)
        commitment = squared_distance(x, vectors.detach())
        learnt = self.config.learn_by == "gradient"
        return Quantized(
            vectors=pass_gradient(x, vectors.detach(), self.config.gradient),
            codes=codes,
            commitment=commitment,
            codebook_loss=squared_distance(vectors, x.detach()) if learnt else x.new_zeros(()),
            inputs=x.detach(),
        )

    def nearest(self, x: Tensor) -> Tensor:
        """The code nearest to each vector of (B, D, H, W), as (B, H, W) int64."""
        found = [nearest_rows(flatten(part), self.vectors) for part in in_parts(x)]
        return torch.cat(found).view(len(x), *x.shape[2:])

    def embed(self, codes: Tensor) -> Tensor:
        """Looks codes (B, H, W) up, as (B, D, H, W)."""
        return F.embedding(codes, self.vectors).movedim(-1, 1)

    @torch.no_grad()
    def start(self, x: Tensor, generator: torch.Generator) -> None:
        """Starts the codes from data: k-means over encoder outputs (B, D, H, W).

        The vectors of rank 0 start the codes of all ranks. Give at least a few vectors a code.
        """
        x_ND = flatten(x).to(self.sums.dtype)
        vectors_KD, counts_K = k_means(x_ND, self.config.num_codes, generator)
        if is_distributed():
            dist.broadcast(vectors_KD, 0)
            dist.broadcast(counts_K, 0)
        self.vectors.copy_(vectors_KD)
        self.counts.copy_(counts_K)
        self.sums.copy_(vectors_KD * counts_K[:, None])

    @torch.no_grad()
    def update(self, quantized: Quantized, generator: torch.Generator) -> None:
        """Moves the codes to the inputs that chose them and revives dead ones; one all-reduce.

        Arguments:
            quantized: what `forward` returned for this rank's part of the batch.
            generator: chooses the vectors at which dead codes restart; a CPU generator in the same
                state on all ranks.
        """
        num_codes, size = self.sums.shape
        sums_KD, codes_N = torch.zeros_like(self.sums), quantized.codes.flatten()
        parts = zip(in_parts(quantized.inputs), in_parts(quantized.codes), strict=True)
        for inputs, codes in parts:
            sums_KD.index_add_(0, codes.flatten(), flatten(inputs).to(self.sums.dtype))
        # Not bincount: on a GPU it reads its result's size back and waits.
        ones_N = sums_KD.new_ones(len(codes_N))
        counts_K = sums_KD.new_zeros(num_codes).index_add_(0, codes_N, ones_N)
        spare_KD = candidates(quantized.inputs, num_codes, generator).to(self.sums.dtype)
        flat = torch.cat([sums_KD, spare_KD, counts_K[:, None]], dim=1)
        if is_distributed():
            dist.all_reduce(flat)
        sums_KD, spare_KD, counts_K1 = flat.split([size, size, 1], dim=1)
        # In units of the fair share, so that thresholds and averages forget the batch size.
        fair_share = counts_K1.sum() / num_codes
        self.counts.lerp_(counts_K1[:, 0] / fair_share, 1 - self.config.decay)
        self.sums.lerp_(sums_KD / fair_share, 1 - self.config.decay)
        if self.config.learn_by == "ema":
            # Laplace smoothing (Sonnet) would pull rare codes to the origin; a code whose count
            # has all but vanished stays where it is instead.
            means_KD = self.sums / self.counts.clamp_min(1e-5)[:, None]
            self.vectors.copy_(torch.where(self.counts[:, None] > 1e-5, means_KD, self.vectors))
        self._revive(spare_KD)

    def _revive(self, spare_KD: Tensor) -> None:
        """Restarts dead codes at `spare_KD`, with all of their state, so that they stay alive."""
        dead_K1 = (self.counts < self.config.revive_below)[:, None]
        self.vectors.copy_(torch.where(dead_K1, spare_KD, self.vectors))
        self.sums.copy_(torch.where(dead_K1, spare_KD, self.sums))
        self.counts.copy_(torch.where(dead_K1[:, 0], 1, self.counts))


def nearest_rows(x_ND: Tensor, vectors_KD: Tensor) -> Tensor:
    """For each row of x the index of the nearest row of vectors, as (N,) int64.

    |x|^2 is the same for all codes: leaving it out saves a pass and the cancellation that makes
    float32 distances tie. Searched in float32 whatever the surroundings use, since bfloat16 picks
    wrong codes; in chunks, so that memory does not grow with N.
    """
    with torch.autocast(x_ND.device.type, enabled=False), torch.no_grad():
        dtype = torch.promote_types(x_ND.dtype, torch.float32)
        x_ND, vectors_KD = x_ND.to(dtype), vectors_KD.to(dtype)
        half_norms_K = vectors_KD.square().sum(dim=1) / 2
        rows = max(1, SCORES_AT_ONCE // len(vectors_KD))
        chunks = [
            torch.addmm(half_norms_K, part_ND, vectors_KD.T, alpha=-1).argmin(dim=1)
            for part_ND in x_ND.split(rows)
        ]
        return torch.cat(chunks)


class Straight(torch.autograd.Function):
    """The values of the second tensor, whose gradient is the first's; no arithmetic at all."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, vectors: Tensor) -> Tensor:
        """Gives the second back."""
        return vectors.view_as(vectors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Gives the gradient to the first."""
        return gradients[0], None


class SquaredDistance(torch.autograd.Function):
    """Mean squared difference of two tensors, without a tensor of differences."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, constant: Tensor) -> Tensor:
        """A scalar, of some images at a time."""
        ctx.save_for_backward(x, constant)
        total = x.new_zeros((), dtype=torch.promote_types(x.dtype, torch.float32))
        for part, other in zip(in_parts(x), in_parts(constant), strict=True):
            total = total + F.mse_loss(part.to(total), other.to(total), reduction="sum")
        return total / x.numel()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """2 (x - constant) / n."""
        x, constant = ctx.saved_tensors
        return ((x - constant) * (2 / x.numel() * gradients[0])).to(x), None


def squared_distance(x: Tensor, constant: Tensor) -> Tensor:
    """Mean squared difference, whose gradient reaches `x` alone; both (B, D, H, W)."""
    with torch.autocast(x.device.type, enabled=False):
        return cast(Tensor, SquaredDistance.apply(x, constant))  # type: ignore[no-untyped-call]


def in_parts(x: Tensor) -> tuple[Tensor, ...]:
    """(B, ..., H, W) as some images at a time: what is made of them stays small."""
    places = x.shape[-1] * x.shape[-2]
    return cast(tuple[Tensor, ...], x.split(max(1, VECTORS_AT_ONCE // places)))


def pass_gradient(x: Tensor, vectors: Tensor, gradient: Literal["straight", "rotate"]) -> Tensor:
    """The values of `vectors`, with a gradient to `x`; both (B, D, H, W).

    "rotate" is x R |e|/|x| with R the rotation that takes x's direction to e's, held constant
    (arXiv 2410.06424, Eq. 4 and 5).
    """
    if gradient == "straight":
        return cast(Tensor, Straight.apply(x, vectors))  # type: ignore[no-untyped-call]
    x_norm = x.detach().norm(dim=1, keepdim=True).clamp_min(1e-6)
    norm = vectors.norm(dim=1, keepdim=True).clamp_min(1e-6)
    x_unit, unit = x.detach() / x_norm, vectors / norm
    middle = F.normalize(x_unit + unit, dim=1)
    reflected = x - 2 * (x * middle).sum(dim=1, keepdim=True) * middle
    rotated = reflected + 2 * (x * x_unit).sum(dim=1, keepdim=True) * unit
    scaled: Tensor = rotated * (norm / x_norm)
    return vectors + (scaled - scaled.detach())


def candidates(x: Tensor, num_codes: int, generator: torch.Generator) -> Tensor:
    """K vectors (K, D) drawn from the joint batch of all ranks, of which x (B, D, H, W) is a part.

    This rank's rows, zeros for the others'.

    Summed over ranks they are the same K vectors that one rank with the joint batch would draw.
    """
    rank, world = (dist.get_rank(), dist.get_world_size()) if is_distributed() else (0, 1)
    places = x.shape[2] * x.shape[3]
    count = len(x) * places
    drawn_K = torch.randint(count * world, (num_codes,), generator=generator).to(x.device)
    local_K = drawn_K - rank * count
    mine_K = (local_K >= 0) & (local_K < count)
    local_K = local_K.clamp(0, count - 1)
    place_K = local_K % places
    row_K, column_K = place_K // x.shape[3], place_K % x.shape[3]
    chosen_KD = x.movedim(1, -1)[local_K // places, row_K, column_K]
    return chosen_KD * mine_K[:, None]


def k_means(x_ND: Tensor, num_codes: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Centres (K, D) and their counts (K,), in units of the fair share, by Lloyd's algorithm.

    A centre without vectors moves to a random vector. Fewer vectors than codes are repeated.
    """
    centres_KD = random_rows(x_ND, num_codes, generator)
    for _ in range(LLOYD_STEPS):
        codes_N = nearest_rows(x_ND, centres_KD)
        sums_KD = torch.zeros_like(centres_KD).index_add_(0, codes_N, x_ND)
        counts_K = torch.bincount(codes_N, minlength=num_codes).to(x_ND.dtype)
        means_KD = sums_KD / counts_K.clamp_min(1)[:, None]
        spare_KD = random_rows(x_ND, num_codes, generator)
        centres_KD = torch.where(counts_K[:, None] > 0, means_KD, spare_KD)
    counts_K = counts_K.clamp_min(1)
    return centres_KD, counts_K / counts_K.mean()


def random_rows(x_ND: Tensor, num_rows: int, generator: torch.Generator) -> Tensor:
    """Rows of x in random order, each once before any comes twice."""
    count = len(x_ND)
    rounds = range(-(-num_rows // count))
    order = torch.cat([torch.randperm(count, generator=generator) for _ in rounds])
    return x_ND.index_select(0, order[:num_rows].to(x_ND.device))


def flatten(x: Tensor) -> Tensor:
    """(B, D, H, W) as rows (B H W, D)."""
    return x.movedim(1, -1).reshape(-1, x.shape[1])


def is_distributed() -> bool:
    """Whether several ranks train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
