"""Optimizers of a training phase: Adam, AdamW, or Muon beside AdamW.

AdamW decays matrices and kernels towards 0 and leaves biases and norms as they are. Muon
(https://kellerjordan.github.io/posts/muon/) replaces the momentum of a matrix by a nearly
orthogonal one, so that all directions of a hidden layer learn at the same speed. It is for the
hidden matrices of a network; embeddings, the head and everything else are updated by AdamW. The
updates of a matrix are scaled to the size of AdamW's (arXiv 2502.16982, Sec. 2.2), so that one
learning rate serves both.
"""

import warnings
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from vqvae2.distributed import World
from vqvae2.runs.training import TrainingConfig

MUON_MOMENTUM = 0.95


def new_optimizers(
    module: nn.Module, training: TrainingConfig, hidden: nn.Module | None = None
) -> list[torch.optim.Optimizer]:
    """The optimizers of a module, one or two; together they update every parameter once.

    Arguments:
        module: the trained module.
        training: which optimizer, its rates and weight decay.
        hidden: the part of `module` whose matrices Muon updates.

    Raises:
        ValueError: Muon without matrices.
    """
    betas = (training.beta1, training.beta2)
    if training.optimizer == "adam":
        return [new_adam(module.parameters(), training)]
    matrices = hidden_matrices(module, hidden) if training.optimizer == "muon" else []
    ids = {id(matrix) for matrix in matrices}
    rest = [parameter for parameter in module.parameters() if id(parameter) not in ids]
    groups = decay_groups(rest, training.weight_decay)
    optimizers: list[torch.optim.Optimizer] = []
    if matrices:
        optimizers.append(
            torch.optim.Muon(
                matrices,
                lr=training.learning_rate,
                weight_decay=training.weight_decay,
                momentum=MUON_MOMENTUM,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    optimizers.append(
        torch.optim.AdamW(groups, lr=training.learning_rate, betas=betas, fused=True)
    )
    return optimizers


def new_adam(parameters: Iterable[Tensor], training: TrainingConfig) -> torch.optim.Optimizer:
    """Adam; with `shard_optimizer` each of several processes keeps a part of its state."""
    rate, betas = training.learning_rate, (training.beta1, training.beta2)
    if not training.shard_optimizer or World.current().size == 1:
        return torch.optim.Adam(parameters, lr=rate, fused=True, betas=betas)
    with warnings.catch_warnings():
        # Importing it compiles scripts, which torch itself calls deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        from torch.distributed.optim import ZeroRedundancyOptimizer

    return ZeroRedundancyOptimizer(parameters, torch.optim.Adam, lr=rate, fused=True, betas=betas)


def hidden_matrices(module: nn.Module, hidden: nn.Module | None) -> list[Tensor]:
    """The weights of the linear layers in `hidden`, a part of `module`.

    Raises:
        ValueError: there are none.
    """
    layers = [] if hidden is None else list(hidden.modules())
    matrices = [layer.weight for layer in layers if isinstance(layer, nn.Linear)]
    if not matrices:
        raise ValueError(
            f"The optimizer muon updates the hidden matrices of linear layers, such as those of a "
            f"Transformer; {type(module).__name__} has none. Use the optimizer adamw."
        )
    return matrices


def decay_groups(
    parameters: Sequence[nn.Parameter], weight_decay: float
) -> list[dict[str, object]]:
    """Groups of parameters with and without weight decay: matrices and kernels, vectors."""
    decayed = [parameter for parameter in parameters if parameter.ndim > 1]
    vectors = [parameter for parameter in parameters if parameter.ndim <= 1]
    groups: list[tuple[list[nn.Parameter], float]] = [(decayed, weight_decay), (vectors, 0.0)]
    return [{"params": group, "weight_decay": decay} for group, decay in groups if group]
