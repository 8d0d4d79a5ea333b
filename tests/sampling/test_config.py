import pytest

from vqvae2.sampling import SamplingConfig


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature must be at least 0, got -1.0; 0 takes"),
        ({"temperature": float("nan")}, "temperature must be at least 0, got nan"),
        ({"top_k": 0}, "top_k must be at least 1, got 0; leave it out"),
        ({"top_p": 0.0}, r"in \(0, 1\], got 0.0"),
        ({"top_p": 1.5}, r"in \(0, 1\], got 1.5"),
    ],
)
def test_invalid_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SamplingConfig(**options)
