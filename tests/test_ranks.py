"""Two processes against one, over gloo, with the same joint batch."""

import os
import socket
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from vqvae2.codebook import Codebook, CodebookConfig


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def inputs() -> torch.Tensor:
    return torch.randn(6, 8, 5, 4, 4, generator=torch.Generator().manual_seed(0)).double()


def learn(codebook: Codebook, steps: torch.Tensor) -> Codebook:
    for step, x in enumerate(steps):
        codebook.update(codebook(x), torch.Generator().manual_seed(step))
    return codebook


def new_codebook() -> Codebook:
    torch.manual_seed(0)
    # A threshold this high revives many codes: the choice of vectors is part of what must agree.
    config = CodebookConfig(num_codes=12, code_size=5, revive_below=0.5, decay=0.8)
    codebook = Codebook(config).double()
    codebook.start(inputs()[0], torch.Generator().manual_seed(9))
    return codebook


def one_rank(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    codebook = learn(new_codebook(), inputs().chunk(2, dim=1)[rank])
    torch.save(codebook.state_dict(), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_end_with_bit_equal_codebooks_equal_to_one_rank(tmp_path):
    multiprocessing.spawn(one_rank, (free_port(), str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    alone = learn(new_codebook(), inputs()).state_dict()
    for name in alone:
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], alone[name])
