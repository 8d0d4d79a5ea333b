"""Random numbers as functions of a key, such as (seed, step, rank): none of it is saved."""

import hashlib

import torch


def generator(*key: int | str) -> torch.Generator:
    """A CPU generator whose state depends on `key` alone; other keys give independent streams."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
