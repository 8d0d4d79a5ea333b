"""The values that a prior models, and the values that it is conditioned on.

Legend: `B` batch, `K` number of codes, `H W` grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from vqvae2.code_grid import CodeGrid


@dataclass(frozen=True, kw_only=True)
class Domain:
    """Shape and range of everything that goes into a prior.

    The modelled values are the codes of one level, (B, H, W), or pixels, (B, H, W, channels). The
    prior is conditioned on a label per image and on the codes of all coarser levels.

    Arguments:
        grid: K and (H, W) of the modelled level; for pixels K is the number of intensities.
        coarser: the grid of each coarser level, coarsest first; () for the coarsest level.
        num_classes: labels are in [0, num_classes); images without labels all have label 0.
        null_label: adds one more label, `null`, which means "no class".
        mirror_bit: whether the prior is told which images are mirrored (distribution augmentation,
            Jun et al. 2020): in training a label of a mirrored image is `num_labels` higher.
            Images that are sampled or measured are not mirrored.
        channels: values per position: 1 for codes, the number of image channels for pixels.
        ordered: whether neighbouring values are similar: true for intensities, false for codes.
        num_mixtures: logistic components per pixel (PixelCNN++, Eq. 2); 0 for one softmax per
            value, the only choice for values without an order.
    """

    grid: CodeGrid
    coarser: tuple[CodeGrid, ...] = ()
    num_classes: int = 1
    null_label: bool = False
    mirror_bit: bool = False
    channels: int = 1
    ordered: bool = False
    num_mixtures: int = 0

    def __post_init__(self) -> None:
        """Validates the fields."""
        if self.num_mixtures and not self.ordered:
            raise ValueError("A mixture of logistics needs ordered values; codes have no order.")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one map: (H, W) for codes, (H, W, channels) for pixels."""
        return self.grid.shape if self.channels == 1 else (*self.grid.shape, self.channels)

    @property
    def num_values(self) -> int:
        """Number of values per map, H W channels."""
        return self.grid.num_positions * self.channels

    @property
    def num_labels(self) -> int:
        """Number of labels, the null label included."""
        return self.num_classes + self.null_label

    @property
    def null(self) -> int:
        """The label that means "no class".

        Raises:
            ValueError: the prior has no null label.
        """
        if not self.null_label:
            raise ValueError(
                "This prior has no null label: it was trained without label dropout, so it cannot "
                "be sampled without a class."
            )
        return self.num_classes

    def check(self, labels: Tensor, coarser: Sequence[Tensor]) -> None:
        """Validates the labels and coarser codes of a batch.

        Arguments:
            labels: (B,).
            coarser: codes (B, H, W) of each coarser level, coarsest first.

        Raises:
            ValueError: a shape or a value does not fit.
        """
        shapes = tuple(tuple(codes.shape[1:]) for codes in coarser)
        expected = tuple(grid.shape for grid in self.coarser)
        if shapes != expected:
            raise ValueError(
                f"This prior is conditioned on codes of grids {expected}, coarsest first, "
                f"got {shapes}."
            )
        self.check_labels(labels)
        for grid, codes in zip(self.coarser, coarser, strict=True):
            require_range("Coarser codes", codes, grid.num_codes)

    def check_labels(self, labels: Tensor) -> None:
        """Raises ValueError unless all labels (B,) are in [0, num_labels)."""
        note = f" ({self.null} means no class)" if self.null_label else ""
        require_range("Labels", labels, self.num_labels, note)


def require_range(name: str, values: Tensor, limit: int, note: str = "") -> None:
    """Raises ValueError unless all values are in [0, limit)."""
    if not values.numel():
        return
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= limit:
        raise ValueError(f"{name} must be in [0, {limit}){note}, got {low} to {high}.")
