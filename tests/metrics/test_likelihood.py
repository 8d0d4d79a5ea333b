import math

import pytest

from vqvae2.metrics.likelihood import bits_per_dim


def test_bits_per_dimension_add_up_over_levels():
    bits = bits_per_dim([math.log(512), math.log(512)], [16, 64], (3, 32, 32))
    assert bits == pytest.approx(80 * 9 / 3072)
