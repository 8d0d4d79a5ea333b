"""Records the matrix products of a computation, so that they can be run again alone."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


@dataclass(frozen=True)
class Call:
    """A recorded call of a matrix product."""

    run: Callable[..., Any]
    arguments: tuple[Any, ...]
    options: dict[str, Any] = field(default_factory=dict)


class ProductRecorder(TorchDispatchMode):
    """Records the matrix products of everything that runs under it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("mm", "bmm"):
            self.calls.append(Call(func, args))
        elif name in ("addmm", "addmm_", "_addmm_activation"):
            self.calls.append(Call(torch.mm, args[1:3]))
        elif name in ("baddbmm", "baddbmm_"):
            self.calls.append(Call(torch.bmm, args[1:3]))
        elif name in ("convolution", "_mkldnn_convolution", "mkldnn_convolution"):
            self.calls.append(Call(func, args, kwargs or {}))
        elif name.startswith("_scaled_dot_product"):
            queries, keys, values = args[:3]
            logits = queries @ keys.transpose(2, 3)
            self.calls.append(Call(torch.matmul, (queries, keys.transpose(2, 3))))
            self.calls.append(Call(torch.matmul, (logits, values)))
        return func(*args, **(kwargs or {}))


def replay(calls: list[Call]) -> None:
    """Runs recorded products again."""
    for call in calls:
        call.run(*call.arguments, **call.options)
