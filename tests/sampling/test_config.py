import pytest

from vqvae2.sampling import SamplingConfig


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "Temperature must be 0"),
        ({"temperature": float("nan")}, "Temperature must be 0"),
        ({"top_k": 0}, "at least 1 code, got 0"),
        ({"top_p": 0.0}, r"in \(0, 1\], got 0.0"),
        ({"top_p": 1.5}, r"in \(0, 1\], got 1.5"),
    ],
)
def test_invalid_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SamplingConfig(**options)
