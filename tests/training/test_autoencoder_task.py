"""The order of images, level dropout and accumulation in stage 1."""

from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch
import torch.multiprocessing as multiprocessing
from gloo import free_port, join_group, leave_group
from small_runs import session, small_run, with_training
from torch import Tensor

from vqvae2.autoencoder.perturbation import NUM_NEIGHBOURS
from vqvae2.autoencoder.vqvae import VQVAE
from vqvae2.data.images import open_images
from vqvae2.data.order import inference_batch_size
from vqvae2.distributed import World
from vqvae2.pipeline import Pipeline
from vqvae2.training.autoencoder import AutoencoderTask
from vqvae2.training.stages import train_run


def test_order_and_noise_are_functions_of_seed_and_step():
    run = small_run()
    dataset = open_images(run.data).train
    tasks = [
        AutoencoderTask(VQVAE(run.autoencoder.model), dataset, run.autoencoder, seed)
        for seed in (0, 0, 1)
    ]
    for _ in range(3):
        tasks[0].batch(2)
    (a, keep_a, _), (b, keep_b, _), (c, _, _) = (task.batch(7)[0] for task in tasks)
    assert torch.equal(a, b)
    assert torch.equal(keep_a, keep_b)
    assert not torch.equal(a, c)


def test_level_dropout_hides_an_exact_fraction_and_never_the_coarsest_level():
    run = small_run((2, 2, 2))
    stage = replace(run.autoencoder, level_dropout=0.25)
    task = AutoencoderTask(VQVAE(stage.model), open_images(run.data).train, stage, 0)
    counts = torch.zeros(3)
    for step in range(200):
        keep = task.visible_levels(step)
        assert int((~keep.all(dim=1)).sum()) == 2
        assert keep[:, 0].all()
        assert (keep[:, 1] | ~keep[:, 2]).all(), "coarse levels stay before finer ones"
        counts += keep.sum(dim=0)
    assert abs(counts[1] / 1600 - 0.875) < 0.03


def test_perturbation_replaces_codes_of_an_exact_number_of_images_by_near_ones():
    run = small_run()
    stage = replace(run.autoencoder, perturbation=0.5)
    task = AutoencoderTask(VQVAE(stage.model), open_images(run.data).train, stage, 0)
    assert [int(n.flatten(1).any(dim=1).sum()) for n in task.neighbours(0)] == [4, 4]
    assert [int(n.flatten(1).any(dim=1).sum()) for n in task.neighbours(9)] == [2, 2], (
        "half at last"
    )
    assert max(int(level.max()) for level in task.neighbours(0)) <= NUM_NEIGHBOURS
    ((*_, neighbours),) = task.batch(0)
    assert all(torch.equal(a, b) for a, b in zip(neighbours, task.neighbours(0), strict=True))
    assert task_without(stage).batch(0)[0][2] == ()


def task_without(stage):
    stage = replace(stage, perturbation=0.0)
    return AutoencoderTask(VQVAE(stage.model), open_images(small_run().data).train, stage, 0)


def test_mirroring_mirrors_an_exact_half_of_the_images():
    stage = replace(small_run().autoencoder, mirror=True)
    task = AutoencoderTask(VQVAE(stage.model), open_images(small_run().data).train, stage, 0)
    ((mirrored, *_),), ((images, *_),) = (
        task.batch(3),
        task_without(replace(stage, mirror=False)).batch(3),
    )
    same = [torch.equal(a, b) for a, b in zip(mirrored, images, strict=True)]
    flipped = [torch.equal(a, b.flip(2)) for a, b in zip(mirrored, images, strict=True)]
    assert (sum(same), sum(flipped)) == (4, 4)


def test_accumulated_parts_train_like_the_complete_batch(tmp_path):
    run = small_run()
    run = replace(run, autoencoder=replace(run.autoencoder, level_dropout=0.0))
    parts = with_training(run, None, accumulate=4)
    for name, each in [("whole", run), ("parts", parts)]:
        only = lambda stage: stage.group == "autoencoder"  # noqa: E731
        for _ in train_run(session(tmp_path / name, each), only):
            pass
    a, b = (Pipeline.open(tmp_path / name).autoencoder.state_dict() for name in ("whole", "parts"))
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=2e-3, rtol=2e-2)


def start(world: World, batch_size: int) -> tuple[dict[str, Tensor], int]:
    """The codebooks after their start, and the number of images in the largest batch."""
    run, sizes = small_run(), []
    torch.manual_seed(0)
    model = VQVAE(run.autoencoder.model)
    model.encoders[-1].register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    dataset = open_images(run.data).train
    task = AutoencoderTask(model, dataset, run.autoencoder, 0, world)
    size = "vqvae2.training.autoencoder.inference_batch_size"
    with mock.patch(size, return_value=batch_size):
        task.before_step(run.autoencoder.continuous_steps)
    assert sum(sizes) == len(task.start_images()) * model.config.num_levels
    return model.codebooks.state_dict(), max(sizes)


def start_on(rank: int, port: int, folder: str) -> None:
    join_group(rank, 2, port)
    torch.distributed.init_process_group("gloo")
    codebooks, largest = start(World(rank, 2), batch_size=5)
    assert largest == 5
    torch.save(codebooks, Path(folder) / f"{rank}.pt")
    leave_group()


def test_codebooks_start_from_few_images_at_a_time_alike_on_every_rank(tmp_path):
    expected, largest = start(World(), batch_size=5)
    assert largest == 5
    assert start(World(), batch_size=1000)[1] > 5
    multiprocessing.spawn(start_on, (free_port(), str(tmp_path)), nprocs=2)
    for rank in range(2):
        codebooks = torch.load(tmp_path / f"{rank}.pt")
        assert all(torch.equal(codebooks[name], expected[name]) for name in expected)


def test_images_of_1024_pixels_start_the_codebooks_one_by_one():
    assert inference_batch_size(1024) == 1
