"""The data configuration validates every number."""

import pytest

from vqvae2.data.config import DataConfig

NAN = float("nan")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": ""}, "source is empty"),
        ({"size": 0}, "size must be at least 1, got 0"),
        ({"validation_fraction": 1.0}, r"in \(0, 1\), got 1.0; 0.1 takes"),
        ({"validation_fraction": NAN}, r"in \(0, 1\), got nan"),
        ({"synthetic_images": 1}, "synthetic_images must be at least 2, got 1"),
        ({"memory_gib": -1.0}, "memory_gib must be at least 0, got -1.0"),
        ({"memory_gib": NAN}, "memory_gib must be at least 0, got nan"),
        ({"window": 0}, "window must be at least 1, got 0"),
    ],
)
def test_invalid_values_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataConfig(**change)  # type: ignore[arg-type]
