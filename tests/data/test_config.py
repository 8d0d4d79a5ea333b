"""The data configuration validates every number."""

import pytest

from vqvae2.data.config import DataConfig

NAN = float("nan")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": ""}, "source is empty"),
        ({"size": 0}, "size must be at least 1 pixel, got 0"),
        ({"validation_fraction": 1.0}, "between 0 and 1, got 1.0"),
        ({"validation_fraction": NAN}, "between 0 and 1, got nan"),
        ({"synthetic_images": 1}, "synthetic_images must be at least 2, got 1"),
        ({"memory_gib": -1.0}, "memory_gib must be at least 0, got -1.0"),
        ({"memory_gib": NAN}, "memory_gib must be at least 0, got nan"),
        ({"window": 0}, "window must be at least 1 image, got 0"),
    ],
)
def test_invalid_values_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataConfig(**change)  # type: ignore[arg-type]
