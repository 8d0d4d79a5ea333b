"""What a prior is a distribution over, and given what.

Legend: `B` batch, `K` codes, `H W` grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Domain:
    """Maps of codes, (B, H, W), or of pixels, (B, H, W, channels).

    Arguments:
        num_codes: K, of this level and all coarser ones; the intensities of a pixel's colour.
        grid: (H, W) of this level.
        coarser_grids: (H, W) of each coarser level, coarsest first; () for the coarsest.
        num_classes: labels are in [0, num_classes); images without labels are all of class 0.
        channels: values a position, drawn one after the other: 1 for codes, colours for pixels.
        ordered: whether values are intensities, near numbers near colours.
        num_mixtures: logistics a pixel (PixelCNN++, Eq. 2); 0 for a softmax a value, which is all
            that values without an order can have.
    """

    num_codes: int
    grid: tuple[int, int]
    coarser_grids: tuple[tuple[int, int], ...] = ()
    num_classes: int = 1
    channels: int = 1
    ordered: bool = False
    num_mixtures: int = 0

    def __post_init__(self) -> None:
        """Refuses mixtures where there is no order."""
        if self.num_mixtures and not self.ordered:
            raise ValueError("A mixture of logistics needs values with an order; codes have none.")

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one map: (H, W), or (H, W, channels)."""
        return self.grid if self.channels == 1 else (*self.grid, self.channels)

    @property
    def num_values(self) -> int:
        """Values a map, in the order in which they are drawn."""
        return self.grid[0] * self.grid[1] * self.channels

    def check(self, labels: Tensor, coarser: Sequence[Tensor]) -> None:
        """Raises ValueError unless labels (B,) and coarser codes (B, H, W) fit."""
        grids = tuple(tuple(codes.shape[1:]) for codes in coarser)
        if grids != self.coarser_grids:
            raise ValueError(
                f"This prior is conditioned on codes of grids {self.coarser_grids}, coarsest "
                f"first, got {grids}."
            )
        for name, values, limit in [
            ("Labels", labels, self.num_classes),
            *(("Coarser codes", codes, self.num_codes) for codes in coarser),
        ]:
            if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < limit:
                raise ValueError(
                    f"{name} must be in [0, {limit}), got {int(values.min())} to "
                    f"{int(values.max())}."
                )
