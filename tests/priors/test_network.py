"""Configurations of the architectures."""

import pytest
import torch
from prior_cases import CONFIGS, inputs, make

from vqvae2.code_grid import CodeGrid
from vqvae2.configuration import from_dict, to_dict
from vqvae2.priors import (
    Domain,
    GatedPixelCNNConfig,
    PixelCNNConfig,
    PixelCNNPPConfig,
    Prior,
    PriorConfig,
    RowLSTMConfig,
    TransformerConfig,
)


def test_a_configuration_is_read_back_as_its_own_architecture(architecture):
    config = CONFIGS[architecture]
    assert from_dict(PriorConfig, to_dict(config)) == config
    with pytest.raises(ValueError, match=r"kind must be one of .*transformer.*, got 'unknown'"):
        from_dict(PriorConfig, to_dict(config) | {"kind": "unknown"})


def test_invalid_grids_heads_and_kernels_are_one_clear_line():
    with pytest.raises(ValueError, match="sides that are multiples of 4, got 4x6"):
        Prior(CONFIGS["pixelcnnpp"], Domain(grid=CodeGrid(3, 4, 6)))
    with pytest.raises(ValueError, match="multiple of 4 channels, got 12 channels in 2 heads"):
        TransformerConfig(channels=12, num_heads=2)
    for config in (GatedPixelCNNConfig, PixelCNNConfig, RowLSTMConfig):
        with pytest.raises(ValueError, match="must be odd, got 4"):
            config(kernel=4)
    with pytest.raises(ValueError, match="num_scales must be at least 1, got 0"):
        PixelCNNPPConfig(num_scales=0)
    with pytest.raises(ValueError, match="8 channels and 3 heads; use 6 channels"):
        GatedPixelCNNConfig(channels=8, attention_every=1, num_heads=3)


def test_attention_logits_are_dropped_in_training_only():
    prior = make("1-level", "attention")
    values, labels, coarser = inputs(prior)
    for module in prior.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    expected = prior.log_prob(values, labels, coarser)
    prior.train()
    assert not torch.allclose(prior.log_prob(values, labels, coarser), expected)
    prior.eval()
    torch.testing.assert_close(prior.log_prob(values, labels, coarser), expected)
