"""What every test runs with: no hub, a cache of its own, one thread."""

import os
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Nothing of a user's cache is read or written.
os.environ["VQVAE2_CACHE"] = tempfile.mkdtemp(prefix="vqvae2-tests-")

import pytest
from builders import FACTORS


@pytest.fixture(params=FACTORS, ids=["1-level", "2-levels", "3-levels"])
def factors(request: pytest.FixtureRequest) -> tuple[int, ...]:
    return request.param
