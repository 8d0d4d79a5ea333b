from dataclasses import replace

import pytest
import torch
from prior_cases import CODES, inputs, make

from vqvae2.code_grid import CodeGrid
from vqvae2.priors import Domain


def test_invalid_conditioning_is_one_clear_line():
    prior = make("2-levels", "plain")
    _, labels, coarser = inputs(prior)
    with pytest.raises(ValueError, match=r"conditioned on codes of grids \(\(2, 4\),\)"):
        prior.domain.check(labels, [])
    with pytest.raises(ValueError, match=r"^Labels must be in \[0, 3\), got 0 to 3\.$"):
        prior.domain.check(torch.tensor([0, 3, 1]), coarser)
    with pytest.raises(ValueError, match=r"^Coarser codes must be in \[0, 5\), got"):
        prior.domain.check(labels, [coarser[0] + 5])


def test_the_null_label_is_accepted_only_by_a_domain_that_has_one():
    codes = [torch.zeros(1, 2, 4, dtype=torch.int64)]
    domain = replace(CODES["2-levels"], null_label=True)
    domain.check(torch.tensor([domain.null]), codes)
    message = r"^Labels must be in \[0, 4\) \(3 means no class\), got 4 to 4\.$"
    with pytest.raises(ValueError, match=message):
        domain.check(torch.tensor([4]), codes)
    with pytest.raises(ValueError, match="no null label"):
        _ = CODES["2-levels"].null


def test_a_mixture_of_logistics_needs_ordered_values():
    with pytest.raises(ValueError, match="ordered values; codes have no order"):
        Domain(grid=CodeGrid(3, 2, 2), num_mixtures=4)
