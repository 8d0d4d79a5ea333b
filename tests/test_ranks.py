"""Two processes against one, over gloo, with the same joint batch."""

import os
import socket
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from test_runs import small_run
from torch.nn.utils import parameters_to_vector

from vqvae2.codebook import Codebook, CodebookConfig
from vqvae2.data.images import open_pictures
from vqvae2.pipeline import Pipeline
from vqvae2.training.job import Job, new_accelerator
from vqvae2.training.run import RunFolder


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


def train_on(rank: int, world: int, port: int, folder: str) -> None:
    """A whole small run; with `world` 2 as one of two ranks."""
    torch.set_num_threads(1)
    if world > 1:
        os.environ |= {
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world),
            "RANK": str(rank), "LOCAL_RANK": str(rank), "ACCELERATE_USE_CPU": "true",
        }  # fmt: skip
    run = small_run()
    # Dropout is each rank's own noise; without it the ranks do what one does.
    run = replace(run, priors=tuple(replace(config, dropout=0.0) for config in run.priors))
    target = RunFolder(Path(folder))
    job = Job(target, run, open_pictures(run.data), new_accelerator(run, target))
    seen = {}
    for event in job.train():
        seen[event.stage] = event.done
    torch.save(seen, Path(folder) / f"seen-{rank}.pt")
    if world > 1:
        dist.destroy_process_group()


def test_two_ranks_train_what_one_rank_trains(tmp_path):
    multiprocessing.spawn(train_on, (2, free_port(), str(tmp_path / "two")), nprocs=2)
    multiprocessing.spawn(train_on, (1, 0, str(tmp_path / "one")), nprocs=1)
    for rank in range(2):
        assert torch.load(tmp_path / "two" / f"seen-{rank}.pt")["prior1"] == 10
    one, two = (Pipeline.load(tmp_path / name) for name in ("one", "two"))
    # Adam makes much of gradients that are nothing but rounding, so not weight by weight; and
    # priors learn codes of which rounding has flipped a few.
    for a, b in zip((one.autoencoder, *one.priors), (two.autoencoder, *two.priors), strict=True):
        a, b = (parameters_to_vector(module.parameters()) for module in (a, b))
        assert (a - b).norm() < 1e-2 * a.norm()
