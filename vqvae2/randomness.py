"""Random numbers as functions of a key, such as (seed, step, rank): none of it is saved."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def generator(*key: int | str) -> torch.Generator:
    """A CPU generator whose state depends on `key` alone; other keys give independent streams."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


@contextmanager
def seeded_weights(seed: int, name: str) -> Iterator[None]:
    """Makes the first weights of a model a function of (seed, name).

    Layers draw from torch's global generator, which is as before afterwards.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator("weights", seed, name).initial_seed())
        yield
