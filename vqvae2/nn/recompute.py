"""Blocks that compute their activations again in the backward pass instead of storing them.

For the gradient, a network of blocks then stores the inputs of each block, and the activations of
one block at a time (arXiv 1604.06174, Sec. 4). Results and gradients are the same, dropout
included, for one more forward pass.
"""

from collections.abc import Iterator
from typing import Any

from torch import is_grad_enabled, nn
from torch.utils.checkpoint import checkpoint


class Block(nn.Module):
    """A module that can store its inputs alone for the gradient.

    Its activations should need more memory than its inputs, and its inputs should be stored
    anyway, such as the features between two layers of a network.

    Attributes:
        recomputes: whether it does; see `recompute_blocks`.
    """

    recomputes = False

    def __call__(self, *inputs: Any) -> Any:
        """`forward`, with all hooks of a module."""
        if not (self.recomputes and is_grad_enabled()):
            return super().__call__(*inputs)
        return checkpoint(super().__call__, *inputs, use_reentrant=False)


def outermost_blocks(module: nn.Module) -> Iterator[Block]:
    """The blocks in a module that are in no other block."""
    if isinstance(module, Block):
        yield module
        return
    for child in module.children():
        yield from outermost_blocks(child)


def recompute_blocks(module: nn.Module, recomputes: bool = True) -> None:
    """Makes the outermost blocks in a module recompute their activations, or store them again.

    Blocks within blocks do not: they would be computed three times.

    Raises:
        ValueError: the module has no blocks.
    """
    blocks = list(outermost_blocks(module))
    if not blocks:
        raise ValueError(
            f"recompute needs blocks whose activations can be recomputed, got "
            f"{type(module).__name__} without any; leave recompute off."
        )
    for block in blocks:
        block.recomputes = recomputes
