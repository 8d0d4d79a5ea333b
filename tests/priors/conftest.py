"""Fixtures: every domain, every architecture, and every prior made of the two."""

import pytest
from prior_cases import CONFIGS, DOMAINS, make

from vqvae2.priors import Prior


@pytest.fixture(params=list(DOMAINS))
def domain(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=list(CONFIGS))
def architecture(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def prior(domain: str, architecture: str) -> Prior:
    return make(domain, architecture)
