"""Guidance: its limits, its formula on every architecture, and Bayes' rule."""

import math
from dataclasses import replace

import pytest
import torch
from prior_cases import CONFIGS, DOMAINS
from torch import Tensor

from vqvae2.code_grid import CodeGrid
from vqvae2.precision import in_bfloat16
from vqvae2.priors import Domain, GatedPixelCNNConfig, Prior
from vqvae2.sampling import SamplingConfig, sample_codes, sample_hierarchy, sample_level, uniforms
from vqvae2.sampling.guidance import (
    Guide,
    guidance_weights,
    guided_context,
    log_posterior,
    mixture_of,
)

NULL, BAYES = SamplingConfig(guidance=3), SamplingConfig(guidance=3, unconditional="bayes")
LABELS = torch.tensor([0, 2, 1])


def make(architecture: str, domain: Domain, dtype: torch.dtype = torch.float64) -> Prior:
    torch.manual_seed(0)
    return Prior(CONFIGS[architecture], domain).to(dtype).eval()


def coarser_codes(prior: Prior) -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randint(grid.num_codes, (3, *grid.shape)) for grid in prior.domain.coarser]


def with_null(name: str) -> Domain:
    return replace(DOMAINS[name], null_label=True)


@torch.no_grad()
def sample(prior: Prior, config: SamplingConfig, labels: Tensor = LABELS) -> Tensor:
    coarser = coarser_codes(prior)
    context = prior.embed_context(labels, coarser)
    mixture = mixture_of([prior], coarser, config, 3)
    noise = uniforms([1, 2, 3], prior.domain.num_values, 0)
    *_, codes = sample_level(prior, context, noise, config, None, mixture)
    return codes


@pytest.mark.parametrize("architecture", list(CONFIGS))
def test_guidance_1_changes_no_bit(architecture):
    prior = make(architecture, with_null("2-levels"), torch.float32)
    config = SamplingConfig(guidance=1, guidance_schedule="linear", unconditional="bayes")
    assert torch.equal(sample(prior, config), sample(prior, SamplingConfig()))


@pytest.mark.parametrize("architecture", list(CONFIGS))
def test_guidance_0_is_sampling_without_a_label(architecture):
    prior = make(architecture, with_null("2-levels"))
    without = sample(prior, SamplingConfig(), torch.full((3,), prior.domain.null))
    assert torch.equal(sample(prior, SamplingConfig(guidance=0)), without)


@pytest.mark.parametrize(
    ("architecture", "domain"),
    [
        *((architecture, "2-levels") for architecture in CONFIGS),
        ("plain", "1-level"),
        ("plain", "softmax"),
        ("plain", "mixture"),
    ],
)
@torch.no_grad()
def test_guided_steps_equal_guided_complete_passes(architecture, domain):
    prior = make(architecture, with_null(domain))
    config = replace(NULL, guidance_schedule="cosine", temperature=0.9)
    fast, coarser = sample(prior, config), coarser_codes(prior)
    count = prior.domain.num_values
    noise, weights = uniforms([1, 2, 3], count, 0), guidance_weights(config, count)
    contexts = [
        prior.embed_context(labels, coarser)
        for labels in (LABELS, torch.full((3,), prior.domain.null))
    ]
    for k in range(count):
        # The sampled values before k decide; those after it do not matter.
        conditional, unconditional = (logits_at(prior, fast, context, k) for context in contexts)
        guided = unconditional + weights[k] * (conditional - unconditional)
        assert torch.equal(sample_codes(guided, noise[:, k], config), fast.view(3, -1)[:, k])


def logits_at(prior: Prior, values: Tensor, context: Tensor, k: int) -> Tensor:
    """Normalised logits (B, K) of value k, from complete passes."""
    candidates = []
    for code in range(prior.domain.grid.num_codes):
        changed = values.clone()
        changed.view(len(values), -1)[:, k] = code
        nats = prior.head.log_prob(prior(changed, context), changed)
        candidates.append(nats.reshape(len(values), -1)[:, k])
    return torch.stack(candidates, dim=1)


@pytest.mark.parametrize("domain", ["1-level", "3-levels", "softmax"])
@torch.no_grad()
def test_bayes_rule_gives_the_mixture_over_all_classes(domain):
    """The chain rule over guidance 0 gives the log of the mean over classes of p(codes | c)."""
    prior = make("plain", DOMAINS[domain])
    coarser = coarser_codes(prior)
    values = torch.randint(prior.domain.grid.num_codes, (3, *prior.domain.shape))
    config = SamplingConfig(guidance=0, unconditional="bayes")
    mixture = mixture_of([prior], coarser, config, 3)
    guide = Guide(mixture, config, prior.domain)
    contexts = torch.cat([prior.embed_context(LABELS, coarser).expand(3, -1, -1, -1),
                          *mixture.contexts])  # fmt: skip
    cache, total = prior.new_cache(contexts, len(contexts)), torch.zeros(3).double()
    previous = torch.zeros(3, dtype=torch.int64)
    for value in values.flatten(1).unbind(1):
        logits = prior.step(cache, previous.repeat(guide.num_rows))
        unconditional, rows = guide.combine(logits, cache.newest)
        total += unconditional.log_softmax(dim=1).gather(1, value[:, None])[:, 0]
        guide.observe(rows, value)
        previous = value
    by_class = torch.stack(
        [prior.log_prob(values, torch.full((3,), c), coarser).flatten(1).sum(1) for c in range(3)]
    )
    torch.testing.assert_close(total, by_class.logsumexp(0) - math.log(3))
    torch.testing.assert_close(guide.log_weights, by_class.log_softmax(0).to(torch.float32))


@torch.no_grad()
def test_coarser_codes_decide_how_probable_a_class_is():
    coarse = make("plain", Domain(grid=CodeGrid(5, 2, 4), num_classes=3))
    fine = make("plain", DOMAINS["2-levels"])
    codes = torch.randint(5, (3, 2, 4))
    config = SamplingConfig(guidance=2, unconditional="bayes")
    mixture = mixture_of([coarse, fine], [codes], config, 3)
    assert mixture is not None
    rows = [coarse.log_prob(codes, torch.full((3,), c), []).flatten(1).sum(1) for c in range(3)]
    torch.testing.assert_close(mixture.log_weights, torch.stack(rows).log_softmax(0))
    flat = log_posterior([], [], torch.arange(3)[:, None].expand(-1, 2))
    torch.testing.assert_close(flat, torch.full((3, 2), -math.log(3)))


def test_bayes_rule_agrees_with_a_null_label_that_was_trained_on_the_mixture():
    """All maps of a known distribution, weighted: the optimum of the null label is the mixture."""
    torch.manual_seed(0)
    domain = Domain(grid=CodeGrid(3, 1, 2), num_classes=2, null_label=True)
    config = GatedPixelCNNConfig(
        channels=24, residual_channels=24, num_layers=2, kernel=3, num_output_blocks=0, dropout=0
    )
    prior = Prior(config, domain).double()
    maps = torch.cartesian_prod(torch.arange(3), torch.arange(3))[:, None]
    by_class = torch.randn(2, 9).double().mul(1.5).softmax(dim=1)
    targets = torch.cat([by_class, by_class.mean(0, keepdim=True)]).flatten()
    labels, values = torch.arange(3).repeat_interleave(9), maps.repeat(3, 1, 1)
    optimizer = torch.optim.LBFGS(prior.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        nats = prior.log_prob(values, labels, []).flatten(1).sum(1)
        value = -(targets * nats).sum()
        value.backward()
        return value

    optimizer.step(loss)
    prior.eval()
    with torch.no_grad():
        nats = prior.log_prob(values, labels, []).flatten(1).sum(1).view(3, 9)
    trained, bayes = nats[2], nats[:2].logsumexp(0) - math.log(2)
    torch.testing.assert_close(trained, bayes, atol=1e-3, rtol=0)


@pytest.mark.parametrize("config", [NULL, BAYES])
def test_a_guided_image_does_not_depend_on_its_batch(config):
    prior = make("attention", with_null("1-level"))
    together = sample_hierarchy([prior], [0, 2, 1], [1, 2, 3], [config])[0]
    alone = [sample_hierarchy([prior], [c], [s], [config])[0] for c, s in ((0, 1), (2, 2), (1, 3))]
    assert torch.equal(together, torch.cat(alone))


@torch.no_grad()
def test_guidance_makes_the_class_more_probable():
    prior = make("plain", DOMAINS["1-level"])
    torch.nn.init.normal_(prior.conditioning.labels.weight, std=4)
    nats = {}
    for guidance in (1.0, 3.0):
        config = replace(BAYES, guidance=guidance)
        codes = sample_hierarchy([prior], [1] * 50, range(50), [config])[0]
        rows = [
            prior.log_prob(codes, torch.full((50,), c), []).flatten(1).sum(1) for c in range(3)
        ]
        nats[guidance] = torch.stack(rows).log_softmax(0)[1].mean()
    assert nats[3.0] > nats[1.0]


@pytest.mark.parametrize("config", [NULL, BAYES])
@pytest.mark.parametrize("domain", ["1-level", "softmax", "mixture"])
def test_guided_codes_of_bfloat16_weights_are_near_those_of_float32(domain, config):
    prior = make("plain", with_null(domain), torch.float32)
    logits = []
    for one in (prior, in_bfloat16(prior)):
        mixture = mixture_of([one], [], config, 3)
        assert mixture is not None
        guide = Guide(mixture, config, one.domain)
        with torch.no_grad():
            context = guided_context(one.embed_context(LABELS, []), mixture, 3)
            cache = one.new_cache(context, len(context))
            start = torch.zeros(len(context), dtype=torch.int64)
            guided, rows = guide.combine(one.step(cache, start), cache.newest)
        guide.observe(rows, torch.zeros(3, dtype=torch.int64))
        assert guided.dtype == torch.float32
        logits.append(guided.softmax(dim=1))
    torch.testing.assert_close(*logits, atol=0.02, rtol=0)


def test_a_level_that_is_given_needs_no_null_label():
    coarse = make("plain", Domain(grid=CodeGrid(5, 2, 4), num_classes=3))
    fine = make("plain", with_null("2-levels"))
    given = [torch.zeros(1, 2, 4, dtype=torch.int64), None]
    codes = sample_hierarchy([coarse, fine], [1], [0], [NULL, NULL], given)
    assert torch.equal(codes[0], given[0])
    with pytest.raises(ValueError, match="level 0 needs a prior"):
        sample_hierarchy([coarse, fine], [1], [0], [NULL, NULL])


def test_impossible_guidance_names_the_way_out():
    prior = make("plain", DOMAINS["1-level"])
    with pytest.raises(
        ValueError, match=r"label-dropout 0.1.*--unconditional bayes \(4 times.*guidance 1"
    ):
        sample_hierarchy([prior], [0], [0], [NULL])
    classless = make("plain", replace(DOMAINS["1-level"], num_classes=1))
    with pytest.raises(ValueError, match="needs classes"):
        sample_hierarchy([classless], [0], [0], [BAYES])


@pytest.mark.parametrize("guidance", [-1.0, math.inf, math.nan])
def test_invalid_guidance_is_refused(guidance):
    with pytest.raises(ValueError, match="guidance"):
        SamplingConfig(guidance=guidance)


def test_unknown_choices_are_refused_by_name():
    with pytest.raises(ValueError, match="unconditional must be one of null-label, bayes"):
        SamplingConfig(unconditional="none")
    with pytest.raises(ValueError, match="guidance_schedule must be one of"):
        SamplingConfig(guidance_schedule="step")
