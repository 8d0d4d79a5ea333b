"""Which earlier positions reach a position, by the gradient and by the papers' descriptions."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from unittest import mock

import pytest
import torch
from prior_cases import CODES, CONFIGS, DOMAINS, PIXELS, inputs, make
from torch import Tensor

from vqvae2.priors import Prior, PriorConfig


def receptive_field(prior: Prior) -> Tensor:
    """(N, N) booleans: whether the features at position i depend on the value at position j.

    ReLUs are replaced, since in such narrow networks they may be zero at a whole position.
    """
    softplus = torch.nn.functional.softplus
    with mock.patch.object(torch.nn.functional, "relu", lambda x, inplace=False: softplus(x)):
        return dependencies(prior)


def dependencies(prior: Prior) -> Tensor:
    """As `receptive_field`, with the activations of the network, by the gradient."""
    values, labels, coarser = inputs(prior, batch=1)
    context = prior.embed_context(labels, coarser)
    embedded = prior.values(values).detach().requires_grad_()
    features = prior.network(embedded, context)
    weights = torch.randn(features.shape[1], 1, 1, dtype=features.dtype)
    rows = []
    for value in (features[0] * weights).sum(dim=0).flatten():
        (gradient,) = torch.autograd.grad(value, embedded, retain_graph=True)
        rows.append(gradient[0].abs().sum(dim=0).flatten() > 0)
    return torch.stack(rows)


def complete_past(num_positions: int) -> Tensor:
    """(N, N) booleans: whether position j comes before position i."""
    return torch.ones(num_positions, num_positions, dtype=torch.bool).tril(-1)


def test_no_position_depends_on_values_at_it_or_later(prior):
    assert not receptive_field(prior).triu().any()
    torch.manual_seed(0)
    assert not receptive_field(prior.train()).triu().any(), "nor in training, with dropout"


@pytest.mark.parametrize("domain", list(PIXELS))
@torch.no_grad()
def test_no_channel_depends_on_channels_at_it_or_later(architecture, domain):
    """Changing the channels from k on does not change the log-probabilities before k."""
    prior = make(domain, architecture)
    values, labels, coarser = inputs(prior, batch=1)
    before = prior.log_prob(values, labels, coarser).flatten()
    for k in range(0, prior.domain.num_values, 5):
        changed = values.flatten().clone()
        changed[k:] = (changed[k:] + 1) % prior.domain.grid.num_codes
        after = prior.log_prob(changed.view_as(values), labels, coarser).flatten()
        torch.testing.assert_close(after[:k], before[:k], atol=1e-13, rtol=0)


SUFFICIENT_DEPTH: dict[str, Callable[[int], PriorConfig]] = {
    # L layers with 3x3 filters extend the receptive field by L columns on each side.
    "plain": lambda width: replace(CONFIGS["plain"], num_layers=width - 1),
    "attention": lambda width: replace(CONFIGS["attention"], num_layers=1, attention_every=1),
    "diagonal-bilstm": lambda width: replace(CONFIGS["diagonal-bilstm"], num_layers=1),
    # Determined by experiment: fewer layers do not reach the far left of the current row.
    "pixelcnnpp": lambda width: replace(CONFIGS["pixelcnnpp"], num_layers=width // 4),
    "pixelsnail": lambda width: replace(CONFIGS["pixelsnail"], num_blocks=1),
    "transformer": lambda width: replace(CONFIGS["transformer"], num_layers=1),
}


@pytest.mark.parametrize("architecture", list(SUFFICIENT_DEPTH))
@pytest.mark.parametrize("domain", list(CODES))
def test_every_earlier_position_reaches_a_position_at_the_stated_depth(architecture, domain):
    torch.manual_seed(0)
    config = SUFFICIENT_DEPTH[architecture](DOMAINS[domain].grid.width)
    field = receptive_field(Prior(config, DOMAINS[domain]).double().eval())
    assert torch.equal(field, complete_past(len(field)))


def field_of_masks(prior: Prior, sources: Callable, num_layers: int) -> Tensor:
    """The receptive field of a stack of masked layers, computed with sets of positions.

    Arguments:
        prior: gives the grid.
        sources: positions that a layer reads for the output at (row, column).
        num_layers: layers after the first 7x7 convolution with "mask A".
    """
    height, width = prior.domain.grid.shape

    def inside(positions):
        return {(r, c) for r, c in positions if 0 <= r and 0 <= c < width}

    @cache
    def reached(layer, row, column):
        if layer:
            return set().union(*(reached(layer - 1, *p) for p in inside(sources(row, column))))
        above = {(row - i, column + j) for i in (1, 2, 3) for j in range(-3, 4)}
        left = {divmod(row * width + column - i - 1, width) for i in range(min(3, column + 1))}
        return inside(above | left)

    field = torch.zeros(height * width, height * width, dtype=torch.bool)
    for row in range(height):
        for column in range(width):
            for r, c in reached(num_layers, row, column):
                field[row * width + column, r * width + c] = True
    return field


def test_pixelcnn_has_the_blind_spot_of_its_paper_and_no_other():
    """A masked 3x3 filter reaches one column to the right per row up, and nothing flatter."""
    prior = make("3-levels", "pixelcnn")

    def sources(row, column):
        return [(row - 1, column + j) for j in (-1, 0, 1)] + [(row, column - 1), (row, column)]

    expected = field_of_masks(prior, sources, num_layers=3)
    assert torch.equal(receptive_field(prior), expected)
    assert not torch.equal(expected, complete_past(len(expected)))


def test_row_lstm_has_the_triangular_receptive_field_of_its_paper():
    """A state comes from three columns of the row above, whose states come from five, ..."""
    prior = make("3-levels", "row-lstm")

    def sources(row, column):
        return [(row - i, column + j) for i in range(row + 1) for j in range(-i - 1, i + 1)]

    assert torch.equal(receptive_field(prior), field_of_masks(prior, sources, num_layers=2))
