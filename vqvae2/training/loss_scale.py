"""The loss scale of training in float16 (Mixed Precision Training, arXiv 1710.03740, Sec. 3.2).

float16 ends at 65504 and loses what is below 6e-8, where most gradients are. So the loss is
multiplied by a scale before the backward pass and the gradients are divided by it afterwards. A
step whose gradients overflow is skipped and halves the scale; `GROWTH_INTERVAL` steps without
overflow double it. These are the numbers of `torch.amp.GradScaler`, which reads the device to
decide about a step; here the device decides, and the host never waits.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

INITIAL_SCALE = 2.0**16
GROWTH_INTERVAL = 2000


class LossScale:
    """The scale of one phase's loss; all of its state is on the device.

    Arguments:
        device: of the phase's module.
    """

    def __init__(self, device: torch.device) -> None:
        self.scale = torch.full((), INITIAL_SCALE, device=device)
        self.good_steps = torch.zeros((), dtype=torch.int32, device=device)
        self.skipped = torch.zeros((), dtype=torch.int32, device=device)

    def tensors(self) -> dict[str, Tensor]:
        """The state by name: scale, steps since it changed, and the number of skipped steps."""
        return {"scale": self.scale, "good_steps": self.good_steps, "skipped": self.skipped}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Replaces the state by one of `tensors`."""
        for name, tensor in self.tensors().items():
            tensor.copy_(tensors[name])

    def metrics(self, phase: str, norm: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """What a step adds to the log, as sums and counts; an infinite norm counts as none."""
        one, is_finite = torch.ones_like(norm), norm.isfinite()
        return {
            f"gradient_norm.{phase}": (torch.where(is_finite, norm, 0), is_finite),
            f"loss_scale.{phase}": (self.scale.clone(), one),
            f"skipped_steps.{phase}": (self.skipped.float(), one),
        }

    def unscale(self, parameters: Iterable[nn.Parameter]) -> None:
        """Divides gradients by the scale, in place."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        torch._foreach_mul_(gradients, self.scale.reciprocal())

    def step(
        self, optimizers: Sequence[torch.optim.Optimizer], norm: Tensor, earlier: Tensor
    ) -> Tensor:
        """Steps the optimizers and adapts the scale.

        Arguments:
            optimizers: fused ones, which leave everything as it is where a step is skipped.
            norm: of the gradients, a scalar; NaN or infinite where they overflow.
            earlier: whether an earlier phase of this step was skipped, a boolean scalar.

        Returns:
            Whether this phase or an earlier one was skipped, a boolean scalar.
        """
        overflow = ~norm.isfinite()
        skipped = overflow | earlier
        for optimizer in optimizers:
            # A ZeroRedundancyOptimizer holds the fused one.
            fused: Any = getattr(optimizer, "optim", optimizer)
            fused.found_inf = skipped.float()
            optimizer.step()
            del fused.found_inf
        torch._amp_update_scale_(
            self.scale, self.good_steps, overflow.float(), 2.0, 0.5, GROWTH_INTERVAL
        )
        self.skipped += skipped
        return skipped


@torch.no_grad()
def restore_where(skipped: Tensor, tensors: Iterable[Tensor], before: Iterable[Tensor]) -> None:
    """Gives tensors their values of before where a step was skipped, a boolean scalar."""
    for tensor, value in zip(tensors, before, strict=True):
        tensor.copy_(torch.where(skipped, value, tensor))


def tensors_beside_optimizers(module: nn.Module) -> list[Tensor]:
    """The tensors of layers with buffers, such as codebooks: a task may change them itself."""
    return [
        tensor
        for layer in module.modules()
        if next(layer.buffers(recurse=False), None) is not None
        for tensor in (*layer.parameters(recurse=False), *layer.buffers(recurse=False))
    ]
