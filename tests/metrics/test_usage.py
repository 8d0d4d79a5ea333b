import pytest
import torch

from vqvae2.metrics.usage import CodeUsage


def test_usage_and_perplexity_are_counted_over_the_complete_set():
    usage = CodeUsage.of(8)
    for code in range(4):
        usage.add(torch.full((2, 3, 3), code))  # every batch alone has perplexity 1
    assert usage.used == 4
    assert usage.share_used == 0.5
    assert usage.perplexity == pytest.approx(4)
    assert CodeUsage.of(5).perplexity == pytest.approx(1)
