"""Blocks that recompute their activations."""

import pytest
import torch
from torch import Tensor, nn

from vqvae2.nn.recompute import Block, outermost_blocks, recompute_blocks


class Noisy(Block):
    """With dropout, two results, and an input that may be None."""

    def __init__(self, inner: nn.Module | None = None) -> None:
        super().__init__()
        self.linear, self.dropout, self.inner = nn.Linear(6, 6), nn.Dropout(0.5), inner
        self.calls = 0

    def forward(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, int]:
        self.calls += 1
        x = x if self.inner is None else self.inner(x, y)[0]
        hidden = self.dropout(self.linear(x).relu())
        return x + (hidden if y is None else hidden * y.tanh()), 1


class Noises(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList([Noisy(), Noisy(Noisy())])
        self.more = nn.Sequential(nn.Linear(6, 6), nn.Sequential(nn.Tanh()))

    def forward(self, x: Tensor) -> Tensor:
        y = None
        for block in self.blocks:
            x, _ = block(x, y)
            y = x
        return self.more(x)


def gradients(module: nn.Module) -> list[Tensor]:
    torch.manual_seed(1)
    module.zero_grad()
    module(torch.randn(3, 6)).square().sum().backward()
    return [parameter.grad.clone() for parameter in module.parameters()]


def test_gradients_are_bit_equal_with_dropout_and_two_results():
    module = Noises()
    expected = gradients(module)
    recompute_blocks(module)
    for gradient, other in zip(gradients(module), expected, strict=True):
        assert torch.equal(gradient, other)


def test_the_outermost_blocks_run_twice_and_blocks_within_them_no_more():
    module = Noises()
    recompute_blocks(module)
    gradients(module)
    first, second = module.blocks
    assert [first.calls, second.calls, second.inner.calls] == [2, 2, 2]
    assert list(outermost_blocks(module)) == [first, second]


def test_nothing_runs_twice_without_gradients():
    module = Noises()
    recompute_blocks(module)
    with torch.no_grad():
        module(torch.randn(3, 6))
    assert module.blocks[0].calls == 1


def test_hooks_of_blocks_run():
    module, shapes = Noises(), []
    module.blocks[0].register_forward_pre_hook(lambda block, inputs: shapes.append(inputs[0]))
    recompute_blocks(module)
    module(torch.randn(3, 6))
    assert len(shapes) == 1


def test_a_module_without_blocks_cannot_recompute():
    with pytest.raises(ValueError, match="got Sequential without any; leave recompute off"):
        recompute_blocks(nn.Sequential(nn.Linear(2, 2)))
