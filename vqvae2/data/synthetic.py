"""The built-in data set: images of one textured object, labelled and of any size.

An image is rendered from known factors: shape, texture, the hues of object and background,
position, scale, rotation and lighting. Its class is the pair (shape, texture), which gives 12
classes such as "striped-disc".

Every factor is a hash of (seed, index, factor), so that an image is the same in any batch and
nothing is stored. Edges are rendered from signed distances and blended over one pixel, so that an
image looks the same at 16 and at 256 pixels.

Scene coordinates run from -1 to 1 along both sides, x to the right and y down.

Legend: `B` batch, `S` image side.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float32]

SHAPES = ("disc", "square", "triangle", "cross")
TEXTURES = ("plain", "striped", "checked")
CLASS_NAMES = tuple(f"{texture}-{shape}" for shape in SHAPES for texture in TEXTURES)

RADII = (0.56, 0.7)  # range of the object's radius, scene units
PERIOD = 0.9  # of stripes and checks, in radii: two or three are visible on every object
MAX_ANGLE = math.pi / 9  # radians; a rotated square remains recognisable
PIXELS_PER_PART = 1 << 18  # limits the memory of rendering to about 20 MB


@dataclass(frozen=True, kw_only=True)
class Factors:
    """The factors of a batch of images, (B,) each.

    Arguments:
        shape_id: Index into `SHAPES`, int64.
        texture_id: Index into `TEXTURES`, int64.
        hue: Hue of the object in [0, 1).
        background_hue: Hue of the background in [0, 1), at least 0.25 from the object's.
        x: Centre of the object, scene units.
        y: Centre of the object, scene units.
        scale: Radius of the object, scene units.
        angle: Rotation of the object, radians.
        light_angle: Direction of the light, radians.
        light_strength: Relative change of brightness from the centre to the lit side.
    """

    shape_id: Tensor
    texture_id: Tensor
    hue: Tensor
    background_hue: Tensor
    x: Tensor
    y: Tensor
    scale: Tensor
    angle: Tensor
    light_angle: Tensor
    light_strength: Tensor


@dataclass(frozen=True, kw_only=True)
class SyntheticBatch:
    """Images with their classes and factors.

    Arguments:
        images: (B, 3, S, S) uint8.
        labels: Index into `CLASS_NAMES`, (B,) int64.
        factors: The factors of each image.
    """

    images: Tensor
    labels: Tensor
    factors: Factors


def render(indices: Sequence[int] | Tensor, size: int, seed: int) -> SyntheticBatch:
    """Renders the images of the given indices; each depends on (seed, index) alone.

    Arguments:
        indices: Non-negative integers.
        size: S, pixels.
        seed: Selects the data set.
    """
    if size < 1:
        raise ValueError(f"The side of an image must be at least 1 pixel, got {size}.")
    index = torch.as_tensor(indices, dtype=torch.int64).reshape(-1)
    if len(index) and int(index.min()) < 0:
        raise ValueError(f"Indices must be 0 or more, got {int(index.min())}.")
    factors = factors_of(index, seed)
    images = torch.empty((len(index), 3, size, size), dtype=torch.uint8)
    part_size = max(1, PIXELS_PER_PART // size**2)
    for start in range(0, len(index), part_size):
        part = slice(start, start + part_size)
        images[part] = torch.from_numpy(_render(_columns(factors, part), size))
    labels = factors.shape_id * len(TEXTURES) + factors.texture_id
    return SyntheticBatch(images=images, labels=labels, factors=factors)


def labels_of(indices: Sequence[int] | Tensor, seed: int) -> Tensor:
    """The classes of the given indices, (B,) int64, computed without rendering.

    Every 12 consecutive indices from a multiple of 12 contain each class once, in random order.
    """
    index = torch.as_tensor(indices, dtype=torch.int64).reshape(-1).numpy()
    block, position = index // len(CLASS_NAMES), index % len(CLASS_NAMES)
    turn = (_uniform(block, seed, "class") * len(CLASS_NAMES)).astype(np.int64)
    # 5 and 12 are coprime: steps of 5 visit every class once.
    return torch.from_numpy((position * 5 + turn) % len(CLASS_NAMES))


def factors_of(indices: Tensor, seed: int) -> Factors:
    """The factors of the given indices (B,) int64, computed without rendering."""
    index = indices.numpy()
    labels = labels_of(indices, seed)

    def between(name: str, low: float, high: float) -> Tensor:
        return torch.from_numpy(low + (high - low) * _uniform(index, seed, name)).float()

    hue = between("hue", 0.0, 1.0)
    scale = between("scale", *RADII)
    # No shape extends further along a side than a rotated triangle, 1.32 radii.
    room = 0.97 - scale * 1.32
    return Factors(
        shape_id=labels // len(TEXTURES),
        texture_id=labels % len(TEXTURES),
        hue=hue,
        background_hue=(hue + between("background hue", 0.25, 0.75)) % 1.0,
        x=room * between("x", -1.0, 1.0),
        y=room * between("y", -1.0, 1.0),
        scale=scale,
        angle=between("angle", -MAX_ANGLE, MAX_ANGLE),
        light_angle=between("light angle", -math.pi, math.pi),
        light_strength=between("light strength", 0.1, 0.4),
    )


def _uniform(index: NDArray[np.int64], seed: int, name: str) -> NDArray[np.float64]:
    """One number in [0, 1) per index, by SplitMix64 (Steele et al., 2014)."""
    salt = int.from_bytes(name.encode(), "little") % ((1 << 61) - 1)
    state = np.full(index.shape, seed % (1 << 64), dtype=np.uint64)
    for value in (np.uint64(salt), index.astype(np.uint64)):
        state = _mix(state ^ value)
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def _columns(factors: Factors, part: slice) -> dict[str, Floats]:
    """The factors of a part of the batch, (B, 1, 1) each, to broadcast."""
    return {
        field.name: getattr(factors, field.name)[part, None, None].numpy().astype(np.float32)
        for field in fields(factors)
    }


def _render(factors: dict[str, Floats], size: int) -> NDArray[np.uint8]:
    """Images, (B, 3, S, S)."""
    pixel = np.float32(2.0 / size)
    axis = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * pixel - np.float32(1.0)
    x, y = axis[None, None, :], axis[None, :, None]
    u, v = _object_coordinates(factors, x, y)
    blur = pixel / factors["scale"]  # one pixel in radii of the object
    inside = _coverage(_distance(factors["shape_id"], u, v), blur)
    marked = inside * _marks(factors["texture_id"], u, v, blur)
    light = 1 + factors["light_strength"] * (
        np.cos(factors["light_angle"]) * x + np.sin(factors["light_angle"]) * y
    )
    background = _rgb_of(factors["background_hue"], saturation=0.45, value=0.62)
    body = _rgb_of(factors["hue"], saturation=0.78, value=0.92)
    mark = _rgb_of(factors["hue"], saturation=0.75, value=0.24)
    scene = np.empty((*inside.shape[:1], 3, size, size), dtype=np.float32)
    for channel in range(3):
        base = background[channel] + inside * (body[channel] - background[channel])
        scene[:, channel] = (base + marked * (mark[channel] - body[channel])) * light
    return (np.clip(scene, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)


def _object_coordinates(factors: dict[str, Floats], x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Each pixel in coordinates in which the object is upright, centred and of radius 1."""
    cosine = np.cos(factors["angle"]) / factors["scale"]
    sine = np.sin(factors["angle"]) / factors["scale"]
    right, down = x - factors["x"], y - factors["y"]
    return cosine * right + sine * down, cosine * down - sine * right


def _distance(shape_id: Floats, u: Floats, v: Floats) -> Floats:
    """The signed distance to the edge of the shape in radii, negative inside.

    Outside of corners it is a lower bound, which is enough to blend over one pixel.
    """
    distance = np.empty(u.shape, dtype=np.float32)
    for number, shape in enumerate((_disc, _square, _triangle, _cross)):
        rows = shape_id[:, 0, 0] == number
        distance[rows] = shape(u[rows], v[rows])
    return distance


def _disc(u: Floats, v: Floats) -> Floats:
    return np.sqrt(u * u + v * v) - np.float32(1)


def _square(u: Floats, v: Floats) -> Floats:
    return np.maximum(np.abs(u), np.abs(v)) - np.float32(0.88)


def _triangle(u: Floats, v: Floats) -> Floats:
    # Equilateral with the tip up; shifted to the middle of its bounding box.
    v = v - np.float32(0.25)
    slope = np.abs(u) * np.float32(math.sqrt(0.75)) - v * np.float32(0.5)
    return np.maximum(slope, v) - np.float32(0.6)


def _cross(u: Floats, v: Floats) -> Floats:
    u, v = np.abs(u), np.abs(v)
    long, short = np.float32(1.05), np.float32(0.42)
    horizontal, vertical = np.maximum(u - long, v - short), np.maximum(v - long, u - short)
    return np.minimum(horizontal, vertical)


def _marks(texture_id: Floats, u: Floats, v: Floats, blur: Floats) -> Floats:
    """The fraction of each pixel that the dark marks of the texture cover."""
    kind = np.broadcast_to(texture_id, u.shape)
    across, down = _wave(u, blur), _wave(v, blur)
    striped = np.float32(0.5) + np.float32(0.5) * down
    checked = np.float32(0.5) + np.float32(0.5) * across * down
    return np.where(kind == 1, striped, np.where(kind == 2, checked, np.float32(0)))


def _wave(position: Floats, blur: Floats) -> Floats:
    """A square wave of period `PERIOD` in [-1, 1], with edges blended over one pixel."""
    turns = position / np.float32(PERIOD)
    to_edge = np.abs(turns - np.floor(turns) - np.float32(0.5)) - np.float32(0.25)
    return 2 * _coverage(to_edge * np.float32(PERIOD), blur) - 1


def _coverage(distance: Floats, blur: Floats) -> Floats:
    """The fraction of a pixel that is inside an edge at the given signed distance."""
    return np.clip(np.float32(0.5) - distance / blur, 0, 1)


def _rgb_of(hue: Floats, *, saturation: float, value: float) -> list[Floats]:
    """Red, green and blue of a hue (HSV), each with the shape of `hue`."""
    turns = [(hue * 6 + offset) % 6 for offset in (5, 3, 1)]
    return [
        np.float32(value) * (1 - np.float32(saturation) * np.clip(np.minimum(k, 4 - k), 0, 1))
        for k in turns
    ]
