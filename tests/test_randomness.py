import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vqvae2.randomness import generator, integers


def numbers(*key):
    return torch.rand(3, generator=generator(*key)).tolist()


def test_a_key_gives_the_same_numbers_and_another_key_others():
    assert numbers("codes", 7, 0) == numbers("codes", 7, 0)
    keys = [("codes", 7, 0), ("codes", 0, 7), ("codes", 7, 1), ("noise", 7, 0), ("codes", "7", 0)]
    assert len({tuple(numbers(*key)) for key in keys}) == len(keys)


def test_an_integer_of_any_library_is_the_python_integer_of_its_value():
    for seven in (np.int64(7), np.uint8(7), torch.tensor(7), torch.tensor([7])[0], np.array(7)):
        assert numbers("codes", seven) == numbers("codes", 7)
    assert numbers("codes", True) == numbers("codes", 1)
    with pytest.raises(TypeError):
        generator("codes", 7.0)


@pytest.mark.parametrize("values", [3, [1.0], [[1]], torch.ones(2), np.ones(2), ["a"], [None]])
def test_values_that_are_not_integers_are_refused(values):
    with pytest.raises(ValueError, match="Seeds must be a sequence of integers, got"):
        integers(values, "Seeds")


@given(
    a=st.tuples(st.text(max_size=5), st.integers()),
    b=st.tuples(st.text(max_size=5), st.integers()),
)
@settings(max_examples=50, deadline=None)
def test_equal_keys_give_equal_streams_and_other_keys_give_others(a, b):
    first, again, other = (torch.rand(4, generator=generator(*key)) for key in (a, a, b))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (a == b)
