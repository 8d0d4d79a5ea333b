"""A list of modules whose element type is known to type checkers."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


class Modules(nn.ModuleList, Generic[M]):
    """An `nn.ModuleList` of modules of one type.

    Arguments:
        modules: the elements; their parameters are named by their index, as in `nn.ModuleList`.
    """

    def __init__(self, modules: Iterable[M]) -> None:
        super().__init__(modules)

    if TYPE_CHECKING:

        def __iter__(self) -> Iterator[M]: ...
        def __getitem__(self, index: int) -> M: ...  # type: ignore[override]
