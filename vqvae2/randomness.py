"""Random numbers as functions of a key, such as (seed, step, rank); their state is not saved."""

import hashlib
import operator
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import SupportsIndex

import torch
from torch import Tensor


def generator(*key: SupportsIndex | str) -> torch.Generator:
    """A CPU generator whose state depends on `key` only; other keys give independent streams.

    An integer of any library counts as the Python integer of the same value.
    """
    parts = tuple(part if isinstance(part, str) else int(operator.index(part)) for part in key)
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


@contextmanager
def seeded(*key: SupportsIndex | str) -> Iterator[None]:
    """Makes torch's global CPU generator a function of `key`; afterwards it is as before.

    For code that takes no generator: the initialisation of layers, torchmetrics.
    """
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also seed accelerators, and for good.
        torch.default_generator.manual_seed(generator(*key).initial_seed())
        yield


def seeded_weights(seed: int, name: str) -> AbstractContextManager[None]:
    """Makes the first weights of a model a function of (seed, name)."""
    return seeded("weights", seed, name)


def integers(values: Iterable[SupportsIndex], name: str) -> list[int]:
    """The elements of a list, range, array or tensor as Python integers.

    Raises:
        ValueError: they are not integers; the message starts with `name`.
    """
    try:
        numbers = values.tolist() if isinstance(values, Tensor) else values
        return [int(operator.index(number)) for number in numbers]
    except TypeError:
        message = f"{name} must be a sequence of integers, got {str(values)[:60]}."
        raise ValueError(message) from None
