"""Bytes of tensors, each storage once however many views of it there are."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from vqvae2.nn.recompute import outermost_blocks


class Storages:
    """Distinct storages, kept so that no later tensor gets the address of an earlier one."""

    def __init__(self, *values: object) -> None:
        self.by_address: dict[int, torch.UntypedStorage] = {}
        for value in values:
            self.add(value)

    def add(self, value: object) -> None:
        """The tensors in a value."""
        for tensor in tree_leaves(value):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self.by_address[storage._cdata] = storage

    def num_bytes(self, ignored: "Storages") -> int:
        """Bytes of those that are not among the ignored ones."""
        pairs = self.by_address.items()
        return sum(s.nbytes() for address, s in pairs if address not in ignored.by_address)


def stored_for_the_gradient(module: nn.Module, *inputs: object) -> tuple[int, int]:
    """Bytes that a forward pass stores, and bytes of the inputs of the outermost blocks.

    Weights, the pass's own inputs, and what the results of codebooks contain, which their update
    needs, exist anyway and do not count.
    """
    stored, block_inputs, exist = Storages(), Storages(), Storages([*module.parameters()], inputs)
    exist.add([*module.buffers()])
    hooks = [
        block.register_forward_pre_hook(lambda block, inputs: block_inputs.add(inputs))
        for block in outermost_blocks(module)
    ]

    def store(tensor: Tensor) -> Tensor:
        stored.add(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(store, lambda tensor: tensor):
        result = module(*inputs)
    for hook in hooks:
        hook.remove()
    for level in getattr(result, "levels", []):
        exist.add([level.vectors, level.codes, level.inputs])
    return stored.num_bytes(exist), block_inputs.num_bytes(exist)


def layers_outside_of_blocks(module: nn.Module, name: str = "") -> Iterator[str]:
    """The names of modules with parameters that are in no block."""
    blocks = {id(block) for block in outermost_blocks(module)}
    if id(module) in blocks:
        return
    if any(True for _ in module.parameters(recurse=False)):
        yield name
    for child_name, child in module.named_children():
        yield from layers_outside_of_blocks(child, f"{name}.{child_name}".lstrip("."))
