"""Two processes against one, over gloo, with the same joint batch.

A failing assertion of any process fails the test: `spawn` raises it again.
"""

import os
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from accelerate import Accelerator
from builders import save_network
from gloo import free_port, join_group, leave_group
from PIL import Image, ImageChops
from small_runs import SHARP, small_run, train, with_training
from torch.nn.utils import parameters_to_vector

from vqvae2.autoencoder.codebook import Codebook, CodebookConfig
from vqvae2.autoencoder.discriminator import Discriminator
from vqvae2.autoencoder.sharp_decoder import SharpDecoder
from vqvae2.autoencoder.vqvae import VQVAE
from vqvae2.cli.main import run as run_command
from vqvae2.configuration import to_dict
from vqvae2.data import extraction
from vqvae2.data.codes import CodesInfo, CodesInMemory
from vqvae2.data.images import open_images
from vqvae2.distributed import World
from vqvae2.pipeline import Pipeline
from vqvae2.priors import Prior
from vqvae2.randomness import seeded_weights
from vqvae2.runs.config import AutoencoderStageConfig, LevelConfig
from vqvae2.runs.folder import RunFolder
from vqvae2.runs.training import TrainingConfig
from vqvae2.training.autoencoder import AutoencoderTask
from vqvae2.training.decoder import DecoderModels, DecoderTask
from vqvae2.training.fit import means_over_world, require_equal_weights, require_same_progress
from vqvae2.training.loop import new_state
from vqvae2.training.loop import train as train_loop
from vqvae2.training.prior import PriorTask
from vqvae2.training.session import Stopped, TrainingSession, new_accelerator
from vqvae2.training.stages import train_run


def inputs() -> torch.Tensor:
    return torch.randn(6, 8, 5, 4, 4, generator=torch.Generator().manual_seed(0)).double()


def fit(codebook: Codebook, steps: torch.Tensor) -> Codebook:
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
    codebook = fit(new_codebook(), inputs().chunk(2, dim=1)[rank])
    torch.save(codebook.state_dict(), Path(folder) / f"{rank}.pt")
    leave_group()


def test_two_processes_end_with_bit_equal_codebooks_equal_to_one(tmp_path):
    multiprocessing.spawn(one_rank, (free_port(), str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    alone = fit(new_codebook(), inputs()).state_dict()
    for name in alone:
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], alone[name])


def without_dropout(level: LevelConfig) -> LevelConfig:
    return replace(level, prior=replace(level.prior, dropout=0.0))


def train_on(rank: int, world: int, port: int, folder: str, shard: bool = False) -> None:
    """A whole small run; with `world` 2 as one of two ranks, a shard of codes in turn."""
    join_group(rank, world, port)
    extraction.IMAGES_PER_SHARD = 16
    run = small_run()
    # Dropout is each rank's own noise; without it the ranks do what one does.
    run = replace(run, levels=tuple(without_dropout(level) for level in run.levels))
    for level in (None, *range(len(run.levels))) if shard else ():
        run = with_training(run, level, shard_optimizer=True, recompute=True)
    target, last_done = RunFolder(Path(folder)), {}
    asked = iter(range(1000))
    # Half-way through the last prior all processes stop, then resume.
    for stops in (lambda: shard and next(asked) == 26, lambda: False):
        accelerator = new_accelerator(run, target)
        session = TrainingSession(target, run, open_images(run.data), accelerator, stops)
        with suppress(Stopped):
            for event in train_run(session):
                last_done[event.stage] = event.done
    torch.save(last_done, Path(folder) / f"done-{rank}.pt")
    del accelerator, session
    leave_group()


def test_two_processes_train_what_one_trains(tmp_path):
    multiprocessing.spawn(train_on, (2, free_port(), str(tmp_path / "two")), nprocs=2)
    multiprocessing.spawn(train_on, (1, 0, str(tmp_path / "one")), nprocs=1)
    sharded = (2, free_port(), str(tmp_path / "sharded"), True)
    multiprocessing.spawn(train_on, sharded, nprocs=2)
    # Both extract: their shards are those of one process with the same autoencoder.
    again = tmp_path / "again"
    shutil.copytree(tmp_path / "two", again, ignore=shutil.ignore_patterns("codes"))
    multiprocessing.spawn(train_on, (1, 0, str(again)), nprocs=1)
    shards = sorted((again / "codes").iterdir())
    assert len(shards) == 5
    for path in shards:
        assert path.read_bytes() == (tmp_path / "two" / "codes" / path.name).read_bytes()
    logs = [RunFolder(tmp_path / name).log("autoencoder").read("train") for name in ("one", "two")]
    for one, two in zip(*logs, strict=True):
        assert one["mse"] == pytest.approx(two["mse"], rel=1e-3)
    for path in (tmp_path / "two" / "model").rglob("*.safetensors"):
        same = tmp_path / "sharded" / path.relative_to(tmp_path / "two")
        assert path.read_bytes() == same.read_bytes(), path
    for rank in range(2):
        assert torch.load(tmp_path / "two" / f"done-{rank}.pt")["prior1"] == 10
    one, two = (Pipeline.open(tmp_path / name) for name in ("one", "two"))
    # Adam makes much of gradients that are nothing but rounding, so not weight by weight; and
    # priors learn codes of which rounding has flipped a few.
    for a, b in zip((one.autoencoder, *one.priors), (two.autoencoder, *two.priors), strict=True):
        a, b = (parameters_to_vector(module.parameters()) for module in (a, b))
        assert (a - b).norm() < 1e-2 * a.norm()


def command_on(rank: int, world: int, port: int, commands: list[list[str]]) -> None:
    """Command lines, as one of `world` processes."""
    join_group(rank, world, port)
    for command in commands:
        assert run_command(command) == 0
    leave_group()


def test_two_processes_sample_and_measure_what_one_does(tmp_path):
    run = small_run()
    many = replace(run.data, synthetic_images=140, validation_fraction=0.4)
    train(tmp_path / "one", replace(run, data=many))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    network = tmp_path / "network.pt"
    save_network(network, 12)
    for world, name in [(1, "one"), (2, "two")]:
        run = str(tmp_path / name)
        score = ["--score.depth", "8", "--score.steps", "2", "--score.batch", "8"]
        commands = [
            ["sample", run, "--count", "3", "--classes", "0", "1", "2", "--device", "cpu"],
            ["sample", run, "--count", "3", "--classes", "4", "5", "--keep", "0.5",
             "--judge", str(network), "--out", f"{run}/best", "--device", "cpu"],
            ["evaluate", run, "--limit", "1", "--device", "cpu"],
            ["evaluate", run, "--samples", "48", "--keep", "1", "0.5", "--cas", "70", *score,
             "--extractor", str(network), "--outside", f"{run}/samples", "--device", "cpu"],
        ]  # fmt: skip
        multiprocessing.spawn(command_on, (world, free_port(), commands), nprocs=world)
    one, two = (RunFolder(tmp_path / name) for name in ("one", "two"))
    for pattern, count in [("samples/*.png", 9), ("best/*.png", 6), ("*-grid.png", 2)]:
        images = {path.name: path for path in one.path.glob(pattern)}
        assert len(images) == count
        assert {path.name for path in two.path.glob(pattern)} == set(images)
        for name, path in images.items():
            pairs = (Image.open(p) for p in (path, two.path / path.relative_to(one.path)))
            assert ImageChops.difference(*pairs).getbbox() is None, name
    assert_alike(*(to_dict(folder.read_metrics()) for folder in (one, two)))


def assert_alike(one: object, two: object, where: str = "") -> None:
    """Equal but for rounding; folders may differ."""
    if isinstance(one, dict):
        names = [{name.replace("/two", "/one") for name in part} for part in (one, two)]
        assert names[0] == names[1], where
        for (name, value), other in zip(sorted(one.items()), sorted_values(two), strict=True):
            assert_alike(value, other, f"{where}.{name}")
    elif isinstance(one, list):
        for place, (value, other) in enumerate(zip(one, two, strict=True)):
            assert_alike(value, other, f"{where}[{place}]")
    elif isinstance(one, float):
        assert one == pytest.approx(two, rel=1e-4, abs=1e-7), where
    else:
        assert one == two, where


def sorted_values(values: dict[str, object]) -> list[object]:
    return [value for _, value in sorted(values.items())]


def diverge(rank: int, port: int) -> None:
    join_group(rank, 2, port)
    Accelerator(cpu=True)
    world = World.current()
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 2))
    for parameter in module.parameters():
        torch.nn.init.constant_(parameter, 0.1)
    require_equal_weights(module, world)
    if rank:
        module[1].bias.data[0] = 0.1000001
    with pytest.raises(ValueError, match=r"diverged: 1 tensor, beginning with 1.bias"):
        require_equal_weights(module, world)
    leave_group()


def sum_on(rank: int, port: int) -> None:
    """Means are over the sums and counts of all processes; other folders are an error."""
    join_group(rank, 2, port)
    Accelerator(cpu=True)
    world = World.current()
    sums = {"mse": (torch.tensor(float(6 * rank)), torch.tensor(3 * rank))}
    assert means_over_world(sums, world) == {"mse": 2.0}
    require_same_progress([7, 1], world)
    with pytest.raises(ValueError, match="read different run folders"):
        require_same_progress([7, rank], world)
    leave_group()


def test_metrics_add_up_over_processes_and_different_folders_are_an_error():
    multiprocessing.spawn(sum_on, (free_port(),), nprocs=2)


def test_processes_whose_weights_diverged_are_an_error():
    multiprocessing.spawn(diverge, (free_port(),), nprocs=2)


def fifty_steps(rank: int, world: int, port: int, folder: str) -> None:
    """Every task in float64 through the real loop; with `world` 2 as one of two ranks."""
    join_group(rank, world, port)
    run = small_run()
    dataset = open_images(run.data).train
    steps = TrainingConfig(steps=50, batch=8, warmup_steps=2)
    processes = World(rank, world)
    level = replace(without_dropout(run.levels[1]), training=steps)
    with seeded_weights(0, "ranks"):
        autoencoder = VQVAE(run.autoencoder.model).double()
        prior = Prior(level.prior, run.domain(1)).double()
    stage = AutoencoderStageConfig(
        model=run.autoencoder.model, training=steps, continuous_steps=5, level_dropout=0.25
    )
    with mock.patch("vqvae2.training.autoencoder.to_float", lambda images: images.double() / 255):
        weights = after(AutoencoderTask(autoencoder, dataset, stage, 0, processes))
    numbers = torch.Generator().manual_seed(0)
    grids = tuple(run.grids())
    maps = [torch.randint(24, (40, *g.shape), generator=numbers).numpy() for g in grids]
    info = CodesInfo(autoencoder="", dataset="", grids=grids, num_images=40)
    data = CodesInMemory(info, maps, torch.arange(40) % 12)
    weights |= after(PriorTask(prior, 1, data, level, seed=0, world=processes))
    config = replace(SHARP, training=replace(steps, steps=20), perceptual_weight=0.0)
    with seeded_weights(0, "decoder"):
        decoder = SharpDecoder(config.model, autoencoder.config).double()
        models = DecoderModels(autoencoder, decoder, Discriminator(config.discriminator).double())
    with mock.patch("vqvae2.training.decoder.to_float", lambda images: images.double() / 255):
        weights |= after(DecoderTask(models, dataset, config, 0, processes))
    torch.save(weights, Path(folder) / f"{world}-{rank}.pt")
    leave_group()


def after(task: AutoencoderTask | PriorTask | DecoderTask) -> dict[str, torch.Tensor]:
    """All weights and codebooks after the task's steps."""
    for _ in train_loop(task, new_state(task), Accelerator(cpu=True)):
        pass
    return {
        f"{type(task).__name__} {phase.name} {name}": v
        for phase in task.phases
        for name, v in phase.module.state_dict().items()
    }


def test_fifty_steps_of_every_task_on_two_processes_equal_those_on_one(tmp_path):
    multiprocessing.spawn(fifty_steps, (2, free_port(), str(tmp_path)), nprocs=2)
    multiprocessing.spawn(fifty_steps, (1, 0, str(tmp_path)), nprocs=1)
    first, second, alone = (torch.load(tmp_path / f"{n}.pt") for n in ("2-0", "2-1", "1-0"))
    tasks = {"AutoencoderTask", "PriorTask", "DecoderTask"}
    assert {name.split()[0] for name in alone} == tasks
    for name, value in alone.items():
        assert torch.equal(first[name], second[name]), name
        assert (first[name] - value).norm() <= 1e-5 * value.norm(), name
