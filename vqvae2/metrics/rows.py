"""The rows of many batches, collected in one tensor.

A list of the batches' own tensors would leave small blocks of memory in the gaps that each batch's
large temporary tensors need again. Where such a gap becomes too small, the next batch takes new
memory: a process can grow by the size of the temporary tensors with every batch, at times.

Legend: `B` rows of a batch, `N` rows.
"""

import torch
from torch import Tensor


class Rows:
    """Rows on the CPU, appended batch by batch; the memory doubles where it is too small."""

    def __init__(self) -> None:
        self.buffer: Tensor | None = None
        self.count = 0

    def append(self, rows: Tensor) -> None:
        """Copies rows (B, ...) of one shape and type; what held them may be freed."""
        end = self.count + len(rows)
        if self.buffer is None:
            self.buffer = torch.empty_like(rows, requires_grad=False)
        if end > len(self.buffer):
            larger = rows.new_empty(max(end, 2 * len(self.buffer)), *rows.shape[1:])
            larger[: self.count] = self.buffer[: self.count]
            self.buffer = larger
        self.buffer[self.count : end] = rows
        self.count = end

    def tensor(self) -> Tensor:
        """All rows, (N, ...), with no memory beyond them.

        Raises:
            ValueError: nothing was appended.
        """
        if self.buffer is None:
            raise ValueError("Expected at least one batch of rows, got none.")
        return self.buffer[: self.count].clone()
