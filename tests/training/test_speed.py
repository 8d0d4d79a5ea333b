"""Training faster or smaller without changing what is learnt."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from builders import small_config
from prior_cases import CONFIGS
from small_runs import TRAIN

from vqvae2.autoencoder.vqvae import VQVAE
from vqvae2.code_grid import CodeGrid
from vqvae2.data.codes import PixelCodes
from vqvae2.data.config import DataConfig
from vqvae2.data.images import open_images
from vqvae2.nn.recompute import outermost_blocks
from vqvae2.priors import Domain, Prior
from vqvae2.runs.config import AutoencoderStageConfig, LevelConfig
from vqvae2.training.autoencoder import AutoencoderTask
from vqvae2.training.loop import Loss, Phase, new_state, train
from vqvae2.training.prefetch import use_one_thread
from vqvae2.training.prior import PriorLoss, PriorTask
from vqvae2.training.speed import Speed, matrix_rate, measure_speed


@pytest.fixture(scope="module")
def dataset():
    return open_images(DataConfig(size=16, synthetic_images=40)).train


def autoencoder_task(dataset) -> AutoencoderTask:
    torch.manual_seed(0)
    model = small_config((2, 4))
    stage = AutoencoderStageConfig(model=model, training=TRAIN, continuous_steps=2)
    return AutoencoderTask(VQVAE(model), dataset, stage, seed=0)


def prior_task(dataset, name: str, **changes: object) -> PriorTask:
    torch.manual_seed(0)
    domain = Domain(grid=CodeGrid(256, 16, 16), num_classes=12, channels=3, ordered=True)
    mixed = replace(domain, num_mixtures=3 if name in ("pixelcnnpp", "pixelsnail") else 0)
    prior = Prior(CONFIGS[name], mixed)
    level = LevelConfig(prior=CONFIGS[name], training=replace(TRAIN, **changes))
    return PriorTask(prior, 0, PixelCodes(dataset), level, seed=0)


def weights_after(task, steps: int) -> dict[str, torch.Tensor]:
    """Weights after some steps."""
    state = new_state(task)
    for progress in train(task, state, Accelerator(cpu=True)):
        if progress.step == steps:
            break
    return task.phases[0].module.state_dict()


NAMES = ["plain", "attention", "pixelcnn", "pixelsnail", "transformer"]


@pytest.mark.parametrize("name", NAMES)
def test_recomputing_activations_changes_no_weight(name, dataset):
    expected = weights_after(prior_task(dataset, name), 3)
    task = prior_task(dataset, name, recompute=True)
    weights = weights_after(task, 3)
    assert all(torch.equal(weights[key], expected[key]) for key in expected)
    assert all(block.recomputes for block in outermost_blocks(task.prior))


@pytest.mark.parametrize("name", NAMES)
def test_a_priors_loss_compiles_as_one_graph(name, dataset):
    task = prior_task(dataset, name)
    (codes, labels, _), *_ = task.batch(0)
    module = task.phases[0].module.eval()
    loss = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(
        loss(codes[-1], labels, []), module(codes[-1], labels, []), rtol=1e-4, atol=1e-4
    )
    assert isinstance(module, PriorLoss)


def test_measuring_the_speed_changes_nothing_of_training(dataset):
    whole = weights_after(autoencoder_task(dataset), 4)
    task = autoencoder_task(dataset)
    speed = measure_speed(task, 0, Accelerator(cpu=True))
    counted = weights_after(task, 4)
    assert all(torch.equal(counted[name], whole[name]) for name in whole)
    assert speed.flops > 0
    assert speed.peak > 1e9


def test_model_flops_are_those_of_convolutions_forward_and_backward(dataset):
    task = autoencoder_task(dataset)
    image = dataset.batch([0])
    macs = 0

    def count(module, inputs, output):
        nonlocal macs
        size = output if module.transposed is False else inputs[0]
        macs += size.shape[2] * size.shape[3] * module.weight.numel()

    convolutions = [
        module
        for module in task.model.modules()
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d)
    ]
    hooks = [module.register_forward_hook(count) for module in convolutions]
    task.model(image.float() / 255, quantize=False)
    for hook in hooks:
        hook.remove()
    flops = measure_speed(task, 0, Accelerator(cpu=True)).flops
    # Two backward for each forward; the first has no gradient of the image.
    assert 0.9 * 6 * macs < flops <= 6 * macs


def test_the_fraction_of_the_peak_follows_from_the_rate():
    assert Speed(flops=2e9, peak=1e11).fraction(25.0) == 0.5
    assert matrix_rate("cpu") > 1e8


def test_the_thread_that_prepares_batches_starts_no_further_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with ThreadPoolExecutor(1) as ahead:
            use_one_thread(ahead)
            ahead.submit(torch.randn, 10).result()
            assert ahead.submit(torch.get_num_threads).result() == 1
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_peak_is_measured_on_equal_products():
    a, b = torch.randn(64, 64), torch.randn(64, 64)
    maps, filters = a.T.reshape(1, 64, 2, 32), b.T.reshape(64, 64, 1, 1)
    found = torch.nn.functional.conv2d(maps, filters).reshape(64, 64).T
    torch.testing.assert_close(found, a @ b, rtol=1e-4, atol=1e-4)


def test_measuring_the_speed_leaves_buffers_as_they_were(dataset):
    task = autoencoder_task(dataset)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1), torch.nn.BatchNorm2d(2)).train()

    def loss(module: torch.nn.Module, part: object, step: int) -> Loss[None]:
        return Loss(module(part[0].float()).sum(), {}, None)

    task.phases = [Phase("norm", module, loss, TRAIN)]
    before = [buffer.clone() for buffer in module.buffers()]
    measure_speed(task, 0, Accelerator(cpu=True))
    pairs = zip(before, module.buffers(), strict=True)
    assert all(torch.equal(old, new) for old, new in pairs)
