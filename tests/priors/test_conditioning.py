from dataclasses import replace

import pytest
import torch
from prior_cases import CODES, CONFIGS, NUM_CLASSES, inputs, make

from vqvae2.priors import Prior


@torch.no_grad()
def test_class_and_coarser_codes_change_the_result(prior):
    values, labels, coarser = inputs(prior)
    before = prior.log_prob(values, labels, coarser)
    other_labels = (labels + 1) % NUM_CLASSES
    assert not torch.allclose(prior.log_prob(values, other_labels, coarser), before)
    for level, grid in enumerate(prior.domain.coarser):
        changed = list(coarser)
        changed[level] = (changed[level] + 1) % grid.num_codes
        assert not torch.allclose(prior.log_prob(values, labels, changed), before)


@pytest.mark.parametrize("architecture", ["plain", "attention"])
def test_class_biases_every_gate(prior):
    values, _, coarser = inputs(prior)

    def gate_biases(label: int) -> list[torch.Tensor]:
        biases: list[torch.Tensor] = []
        modules = [
            module
            for layer in prior.network.layers
            for module in (layer.vertical_bias, layer.horizontal_bias)
        ]
        hooks = [
            module.register_forward_hook(lambda m, a, out: biases.append(out.detach()))
            for module in modules
        ]
        prior.log_prob(values, torch.full((3,), label), coarser)
        for hook in hooks:
            hook.remove()
        assert len(biases) == len(modules)
        return biases

    for first, second in zip(gate_biases(0), gate_biases(1), strict=True):
        assert not torch.allclose(first, second)


def test_a_null_label_is_one_more_row_of_the_label_embedding():
    domain = CODES["2-levels"]
    without, with_null = (
        Prior(CONFIGS["plain"], replace(domain, null_label=null)) for null in (False, True)
    )
    assert without.conditioning.labels.num_embeddings == NUM_CLASSES
    assert with_null.conditioning.labels.num_embeddings == NUM_CLASSES + 1
    values, labels, coarser = inputs(with_null)
    null = torch.full_like(labels, with_null.domain.null)
    unconditional = with_null.eval().log_prob(values, null, coarser)
    assert not torch.allclose(with_null.log_prob(values, labels, coarser), unconditional)


@pytest.mark.parametrize("name", ["2-levels", "3-levels"])
def test_each_coarser_level_has_an_embedding_for_its_own_number_of_codes(name):
    prior = make(name, "plain")
    counts = [embedding.num_embeddings for embedding in prior.conditioning.codes]
    assert counts == [grid.num_codes for grid in prior.domain.coarser]
    assert prior.head.logits.out_channels == prior.domain.grid.num_codes
