"""Recomputed activations: of every block, with equal results and little more than least memory.

The least is the inputs of all blocks, each tensor once: what they compute their activations from.
"""

import fnmatch
from dataclasses import replace

import prior_cases
import pytest
import torch
from builders import FACTORS, small_config
from prior_cases import NUM_CLASSES, make
from storages import layers_outside_of_blocks, stored_for_the_gradient
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from vqvae2.autoencoder.codebook import CodebookConfig
from vqvae2.autoencoder.vqvae import VQVAE, VQVAEConfig
from vqvae2.code_grid import CodeGrid
from vqvae2.nn.recompute import recompute_blocks
from vqvae2.priors import (
    DiagonalBiLSTMConfig,
    Domain,
    GatedPixelCNNConfig,
    PixelCNNConfig,
    PixelCNNPPConfig,
    PixelSNAILConfig,
    Prior,
    PriorConfig,
    RowLSTMConfig,
    TransformerConfig,
)
from vqvae2.runs.presets import PRESETS
from vqvae2.training.prior import PriorLoss

LIMIT = 1.3
"""Times the least."""

CONFIGS: dict[str, PriorConfig] = {
    "gated-pixelcnn": GatedPixelCNNConfig(
        channels=16, residual_channels=32, num_layers=8, attention_every=4, num_output_blocks=8
    ),
    "pixelcnn": PixelCNNConfig(channels=16),
    "row-lstm": RowLSTMConfig(channels=16, state_channels=16),
    "diagonal-bilstm": DiagonalBiLSTMConfig(channels=16, state_channels=16),
    "pixelcnnpp": PixelCNNPPConfig(channels=16),
    "pixelsnail": PixelSNAILConfig(channels=16, key_size=4, value_size=8),
    "transformer": TransformerConfig(channels=16),
}
"""Each architecture, narrow, with its own number of layers."""

GRID = (16, 20)  # more positions than one chunk of queries

DOMAINS = {
    "codes": Domain(
        grid=CodeGrid(32, *GRID), coarser=(CodeGrid(32, 8, 10),), num_classes=NUM_CLASSES
    ),
    "pixels": Domain(grid=CodeGrid(256, *GRID), num_classes=NUM_CLASSES, channels=3, ordered=True),
}
DOMAINS["mixture"] = replace(DOMAINS["pixels"], num_mixtures=10)

OUTSIDE = {
    "prior.conditioning.labels": "its input is integers",
    "prior.conditioning.codes.*": "its input is integers",
    "prior.values.vectors": "its input is integers",
    "prior.network": "positions, added to the input",
    "prior.network.norm": "one map",
    "prior.network.output.?": "two maps",
    "prior.network.scale.*grow*": "coarser maps",
    "decoder.0": "one map, of the codes",
    "conditioners.?.0": "one map, of the codes",
}
"""Layers that are in no block, and what that costs."""


def prior_loss(architecture: str, domain: str) -> PriorLoss:
    torch.manual_seed(0)
    return PriorLoss(Prior(CONFIGS[architecture], DOMAINS[domain])).train()


def prior_inputs(domain: Domain, batch: int = 2) -> tuple[Tensor, Tensor, list[Tensor]]:
    shapes = [(domain.grid.num_codes, domain.shape)]
    shapes += [(grid.num_codes, grid.shape) for grid in domain.coarser]
    values, *coarser = [torch.randint(codes, (batch, *shape)) for codes, shape in shapes]
    return values, torch.randint(NUM_CLASSES, (batch,)), coarser


def autoencoder(factors: tuple[int, ...]) -> VQVAE:
    """With the widths of the paper, on which the share of the images depends."""
    torch.manual_seed(0)
    codebooks = (CodebookConfig(num_codes=16),)
    return VQVAE(VQVAEConfig(factors=factors, codebooks=codebooks))


class AutoencoderLoss(nn.Module):
    def __init__(self, factors: tuple[int, ...]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = VQVAE(small_config(factors))

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images).loss


def loss_and_gradients(module: nn.Module, *inputs: object) -> list[Tensor]:
    """Under the same dropout on every call."""
    torch.manual_seed(2)
    module.zero_grad()
    loss = module(*inputs)
    loss.backward()
    gradients = [p.grad.clone() for p in module.parameters() if p.grad is not None]
    return [loss.detach(), *gradients]


def require_equal_results(module: nn.Module, *inputs: object) -> None:
    expected = loss_and_gradients(module, *inputs)
    recompute_blocks(module)
    results = loss_and_gradients(module, *inputs)
    for result, other in zip(results, expected, strict=True):
        assert torch.equal(result, other)


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("architecture", CONFIGS)
def test_a_prior_stores_little_more_than_the_inputs_of_its_blocks(architecture, domain):
    module, inputs = prior_loss(architecture, domain), prior_inputs(DOMAINS[domain])
    complete, _ = stored_for_the_gradient(module, *inputs)
    recompute_blocks(module)
    stored, least = stored_for_the_gradient(module, *inputs)
    assert least <= stored <= LIMIT * least
    assert stored < 0.35 * complete


@pytest.mark.parametrize("factors", [*FACTORS, (2, 2, 8)], ids=str)
def test_an_autoencoder_stores_little_more_than_the_inputs_of_its_blocks(factors):
    model, images = autoencoder(factors), torch.rand(1, 3, 64, 64)
    complete, _ = stored_for_the_gradient(model, images)
    recompute_blocks(model)
    stored, least = stored_for_the_gradient(model, images)
    assert least <= stored <= LIMIT * least
    assert stored < 0.75 * complete


@pytest.mark.parametrize("preset", ["imagenet256", "ffhq1024"])
def test_the_models_of_the_paper_store_little_more_than_the_inputs_of_their_blocks(preset):
    """On tensors without content."""
    run = PRESETS[preset]()
    with FakeTensorMode():
        measured = [(run.autoencoder.model.build(), torch.rand(1, 3, *[run.data.size] * 2))]
        for level, config in enumerate(run.levels):
            domain = run.domain(level)
            module = PriorLoss(Prior(config.prior, domain)).train()
            measured.append((module, *prior_inputs(domain, 1)))
        for module, *inputs in measured:
            recompute_blocks(module)
            stored, least = stored_for_the_gradient(module, *inputs)
            assert least <= stored <= LIMIT * least


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("architecture", CONFIGS)
def test_the_loss_and_gradients_of_a_prior_are_bit_equal_dropout_included(architecture, domain):
    require_equal_results(prior_loss(architecture, domain), *prior_inputs(DOMAINS[domain]))


@pytest.mark.parametrize("factors", FACTORS, ids=str)
def test_the_loss_and_gradients_of_an_autoencoder_are_bit_equal(factors):
    require_equal_results(AutoencoderLoss(factors), torch.rand(2, 3, 16, 16))


def test_layers_outside_of_blocks_are_few_and_known():
    names = {
        name for factors in FACTORS for name in layers_outside_of_blocks(autoencoder(factors))
    }
    for architecture in CONFIGS:
        for domain in DOMAINS:
            names |= {*layers_outside_of_blocks(prior_loss(architecture, domain))}
    known = {name: [n for n in names if fnmatch.fnmatch(n, name)] for name in OUTSIDE}
    assert all(known.values()), "a layer of the list does not exist"
    assert names == {name for matches in known.values() for name in matches}


def test_every_architecture_is_measured():
    assert {*CONFIGS} == {config.kind for config in PriorConfig.__subclasses__()}


# torch warns about an object that its own Dynamo creates.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("part", ["attention", "autoencoder"])
def test_a_compiled_module_recomputes_too_dropout_included(part):
    module, inputs = AutoencoderLoss((2, 4)), (torch.rand(2, 3, 16, 16),)
    if part != "autoencoder":
        module = PriorLoss(make("2-levels", part, torch.float32)).train()
        inputs = prior_cases.inputs(module.prior)
    expected = loss_and_gradients(module, *inputs)
    complete, _ = stored_for_the_gradient(module, *inputs)
    recompute_blocks(module)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(loss_and_gradients(compiled, *inputs), expected)
    stored, _ = stored_for_the_gradient(compiled, *inputs)
    assert stored < 0.7 * complete
