"""Classifier-free guidance of a prior (arXiv 2207.12598).

    log p_w(x | label) = log p(x) + w (log p(x | label) - log p(x)) + constant

Weight w = 1 is the conditional distribution, 0 the unconditional one; above 1, images show their
class more clearly and differ less. The unconditional distribution of a code is a mixture

    p(x_k | x_<k) = sum_r q(r | x_<k) p(x_k | x_<k, r)

over rows r: only the null label, for a prior that was trained with label dropout, or all classes.
The latter is exact for any prior by Bayes' rule, with the posterior q of the classes. Time and
memory of an image grow with its rows: 1 + R, twice as many as without guidance for a null label.

Legend: `B` batch, `R` rows, `C` channels, `H W` grid, `K` codes, `N` values per map.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vqvae2.priors import Domain, Prior
from vqvae2.sampling.config import SamplingConfig
from vqvae2.transfers import to_device


@dataclass(frozen=True)
class Mixture:
    """The rows of the unconditional distribution of one level, given the coarser codes.

    Arguments:
        contexts: (R, B, C, H or 1, W or 1), from `Prior.embed_context`.
        log_weights: log-probability of each row before the first code, (R, B).
    """

    contexts: Tensor
    log_weights: Tensor


@torch.no_grad()
def mixture_of(
    priors: Sequence[Prior], maps: Sequence[Tensor], config: SamplingConfig, batch: int
) -> Mixture | None:
    """What guides the next level; None for guidance 1, which needs nothing.

    Arguments:
        priors: of the coarser levels and of the next level, coarsest first.
        maps: codes (B, H, W) of the coarser levels.
        config: of the next level.
        batch: B.
    """
    if config.guidance == 1:
        return None
    prior = priors[-1]
    if config.unconditional == "null-label":
        labels = torch.full((1, batch), prior.domain.null, device=prior.device)
    else:
        classes = torch.arange(prior.domain.num_classes, device=prior.device)
        labels = classes[:, None].expand(-1, batch)
    contexts = torch.stack([prior.embed_context(row, maps) for row in labels])
    return Mixture(contexts, log_posterior(priors[:-1], maps, labels))


def log_posterior(priors: Sequence[Prior], maps: Sequence[Tensor], labels: Tensor) -> Tensor:
    """Log-probability of labels (R, B) given codes of the coarser levels, (R, B).

    Before any code all labels are equally probable.
    """
    scores = torch.zeros(labels.shape, device=labels.device)
    if len(labels) > 1:
        for level, prior in enumerate(priors):
            nats = [prior.log_prob(maps[level], row, maps[:level]) for row in labels]
            scores = scores + torch.stack(nats).flatten(2).sum(dim=2)
    return scores.log_softmax(dim=0)


def require_guidable(domain: Domain, config: SamplingConfig, level: int) -> None:
    """Raises ValueError where a level cannot be guided as its config says."""
    if config.guidance == 1:
        return
    if domain.num_classes < 2:
        raise ValueError(
            f"Guidance {config.guidance:g} of level {level} needs classes, and this model has "
            "none; use guidance 1."
        )
    if config.unconditional == "null-label" and not domain.null_label:
        raise ValueError(
            f"Guidance {config.guidance:g} of level {level} needs a prior that was trained with "
            f"label dropout, and this one was not: train with --levels.{level}.label-dropout 0.1, "
            f"or sample with --unconditional bayes ({domain.num_classes + 1} times the time), or "
            "with guidance 1."
        )


class Guide:
    """Combines the logits of all rows of each image into those that its code is sampled from.

    Its tensors are updated in place and without waiting for the device.

    Arguments:
        mixture: of the level.
        config: guidance and its schedule.
        domain: of the prior.
    """

    def __init__(self, mixture: Mixture, config: SamplingConfig, domain: Domain) -> None:
        self.log_weights = mixture.log_weights.clone()
        weights = guidance_weights(config, domain.num_values)
        self.weights = to_device(weights, self.log_weights.device)

    @property
    def num_rows(self) -> int:
        """Rows per image: that of its label, and R."""
        return 1 + len(self.log_weights)

    def restart(self, mixture: Mixture) -> None:
        """Returns to the first position, in place."""
        self.log_weights.copy_(mixture.log_weights)

    def combine(self, logits: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Guided logits (B, K), and log-probabilities (R, B, K) for `observe`.

        Arguments:
            logits: ((1 + R) B, K), first those of the labels.
            index: of the value, (1,) int64.
        """
        # Guidance magnifies the difference of two logits, and with it their rounding.
        exact = logits if logits.dtype == torch.float64 else logits.float()
        nats = exact.unflatten(0, (self.num_rows, -1)).log_softmax(dim=2)
        conditional, rows = nats[0], nats[1:]
        unconditional = rows[0]
        if len(rows) > 1:
            unconditional = (rows + self.log_weights[..., None]).logsumexp(dim=0)
        weight = self.weights.index_select(0, index).to(nats.dtype)
        return torch.lerp(unconditional.to(nats.dtype), conditional, weight), rows

    def observe(self, rows: Tensor, codes: Tensor) -> None:
        """Updates the weights of the rows after codes (B,) were sampled."""
        if len(rows) > 1:
            index = codes.expand(len(rows), -1)[..., None]
            scores = self.log_weights + rows.gather(2, index)[..., 0]
            self.log_weights.copy_(scores.log_softmax(dim=0))


def rows_per_image(domain: Domain, config: SamplingConfig) -> int:
    """1 + R rows, which decide the memory of an image; 1 without guidance."""
    if config.guidance == 1:
        return 1
    return 1 + (domain.num_classes if config.unconditional == "bayes" else 1)


def guided_context(context: Tensor, mixture: Mixture | None, batch: int) -> Tensor:
    """The contexts of all rows, ((1 + R) B, C, H or 1, W or 1), first those of the labels."""
    context = context.expand(batch, -1, -1, -1)
    return context if mixture is None else torch.cat([context, *mixture.contexts])


def guidance_weights(config: SamplingConfig, num_values: int) -> Tensor:
    """The weight w at each value, (N,): constant, or rising from 1 to the guidance."""
    place = torch.linspace(0, 1, num_values)
    rise = {
        "constant": torch.ones_like(place),
        "linear": place,
        "cosine": (1 - (math.pi * place).cos()) / 2,
    }[config.guidance_schedule]
    return 1 + (config.guidance - 1) * rise
