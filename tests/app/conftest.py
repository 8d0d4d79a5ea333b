"""Saved pipelines, opened as an app does."""

from collections.abc import Callable

import pytest
from builders import synthetic_images
from PIL import Image
from tiny_pipelines import KINDS

from vqvae2.app.models import Catalogue
from vqvae2.imaging.convert import to_pil


@pytest.fixture
def catalogue(tmp_path) -> Callable[..., Catalogue]:
    """Saves pipelines of some kinds and opens them as an app does."""

    def make(*kinds: str) -> Catalogue:
        for kind in kinds:
            KINDS[kind]().save_pretrained(tmp_path / kind)
        return Catalogue([str(tmp_path / kind) for kind in kinds])

    return make


@pytest.fixture
def picture() -> Image.Image:
    """An image of a user, larger than a model takes, and not square."""
    return to_pil(synthetic_images(1, 48)[0]).crop((0, 0, 48, 40))
