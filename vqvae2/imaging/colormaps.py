"""Code maps and scalar maps as colour images.

Legend: `B` batch, `H W` sides, `K` codes.
"""

import torch
from torch import Tensor


def code_map(codes: Tensor, num_codes: int) -> Tensor:
    """Codes (B, H, W) as images (B, 3, H, W) in [0, 1], with one fixed colour per code."""
    # Hues at the golden ratio: codes with near indices get distant colours.
    hue = torch.arange(num_codes) * 0.61803398875 % 1
    brightness = 0.35 + 0.6 * (torch.arange(num_codes) * 0.3247 % 1)
    phases = torch.tensor([0.0, 1 / 3, 2 / 3])
    colours = 0.5 + 0.5 * torch.cos(2 * torch.pi * (hue[:, None] + phases))
    return (colours * brightness[:, None])[codes.cpu()].movedim(-1, 1)


def heat(values: Tensor) -> Tensor:
    """Values (B, H, W) in [0, 1] as images (B, 3, H, W): black at 0, red, yellow, white at 1."""
    return torch.stack([3 * values, 3 * values - 1, 3 * values - 2], dim=1).clamp(0, 1)


def difference(images: Tensor, others: Tensor) -> Tensor:
    """Where images (B, C, H, W) in [0, 1] differ, as images (B, 3, H, W).

    Black where they are equal, white where the mean of the channels differs by 0.3 or more.
    """
    return heat((images - others).abs().mean(dim=1) / 0.3)
