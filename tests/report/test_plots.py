import re

import pytest
import torch

from vqvae2.metrics.usage import CodeUsage
from vqvae2.report import plots


@pytest.mark.parametrize("counts", [[0] * 8, [5] + [0] * 7, [1] * 8, list(range(8))])
def test_any_codebook_is_drawn_in_the_colours_of_the_page(counts):
    plot = plots.codebook_plot(CodeUsage(torch.tensor(counts)), 0)
    assert plot.startswith("<svg")
    assert not re.search("#[0-9a-f]{6}", plot)


def test_levels_with_different_numbers_of_codes_share_a_plot_of_perplexity():
    lines = [{"step": 1.0, "perplexity.0": 3.0, "perplexity.1": 9.0}]
    plot = plots.usage_plot(lines, [4, 16])
    assert "K = 4" in plot
    assert "K = 16" in plot
