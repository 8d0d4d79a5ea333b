"""The built-in data set: images of one textured object, labelled and of any size.

A image is drawn from known factors: shape, texture, the hues of object and background,
position, scale, rotation and the light that falls across the scene. Its class is the pair
(shape, texture), which gives 12 classes such as "striped-disc".

Every factor is a hash of (seed, index, factor), so that a image is the same in any batch and
nothing needs to be stored. Edges are drawn from signed distances, blended over one pixel, so that
the same image looks the same at 16 and at 256 pixels.

Scene coordinates run from -1 to 1 along both sides, x to the right and y down.
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

RADII = (0.56, 0.7)  # of the object, scene units: its diameter is 56 to 70 % of the side
PERIOD = 0.9  # of stripes and checks, in radii: two or three show on every object
MAX_ANGLE = math.pi / 9  # radians either way; a square never passes for another shape
PIXELS_AT_ONCE = 1 << 18  # bounds the memory of drawing to some 20 MB


@dataclass(frozen=True, kw_only=True)
class Factors:
    """What a batch of images was drawn from, one entry a image, each with shape (B,).

    Arguments:
        shape_id: Index into `SHAPES`, int64.
        texture_id: Index into `TEXTURES`, int64.
        hue: Hue of the object in [0, 1).
        background_hue: Hue of the background in [0, 1), at least a quarter turn away.
        x: Centre of the object, scene units.
        y: Centre of the object, scene units.
        scale: Radius of the object, scene units.
        angle: Rotation of the object, radians.
        light_angle: Direction the light comes from, radians.
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
    """Images, their classes and the factors they were drawn from.

    Arguments:
        images: Images, with shape (B, 3, S, S), uint8.
        labels: Index into `CLASS_NAMES`, with shape (B,), int64.
        factors: The factors of each image.
    """

    images: Tensor
    labels: Tensor
    factors: Factors


def render(indices: Sequence[int] | Tensor, size: int, seed: int) -> SyntheticBatch:
    """Draws the images of the given indices; each depends on (seed, index) alone.

    Arguments:
        indices: Which images, any non-negative integers.
        size: Side of the square images, pixels.
        seed: Selects one of the endlessly many data sets.
    """
    if size < 1:
        raise ValueError(f"The side of a image must be at least 1 pixel, got {size}.")
    index = torch.as_tensor(indices, dtype=torch.int64).reshape(-1)
    if len(index) and int(index.min()) < 0:
        raise ValueError(f"Indices must be 0 or more, got {int(index.min())}.")
    factors = draw_factors(index, seed)
    images = torch.empty((len(index), 3, size, size), dtype=torch.uint8)
    inference_batch_size = max(1, PIXELS_AT_ONCE // size**2)
    for start in range(0, len(index), inference_batch_size):
        part = slice(start, start + inference_batch_size)
        images[part] = torch.from_numpy(_draw(_columns(factors, part), size))
    labels = factors.shape_id * len(TEXTURES) + factors.texture_id
    return SyntheticBatch(images=images, labels=labels, factors=factors)


def labels_of(indices: Sequence[int] | Tensor, seed: int) -> Tensor:
    """Returns the classes of the given indices without drawing them, with shape (B,), int64.

    Every run of 12 indices from a multiple of 12 holds each class once, in an order of its own.
    """
    index = torch.as_tensor(indices, dtype=torch.int64).reshape(-1).numpy()
    block, place = index // len(CLASS_NAMES), index % len(CLASS_NAMES)
    turn = (_uniform(block, seed, "class") * len(CLASS_NAMES)).astype(np.int64)
    # 5 has no factor in common with 12: the steps visit every class before the first returns.
    return torch.from_numpy((place * 5 + turn) % len(CLASS_NAMES))


def draw_factors(indices: Tensor, seed: int) -> Factors:
    """Returns the factors of the given indices, int64 of shape (B,), without drawing them."""
    index = indices.numpy()
    labels = labels_of(indices, seed)

    def between(name: str, low: float, high: float) -> Tensor:
        return torch.from_numpy(low + (high - low) * _uniform(index, seed, name)).float()

    hue = between("hue", 0.0, 1.0)
    scale = between("scale", *RADII)
    # The furthest that any shape reaches along a side is a turned triangle's 1.32 radii.
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
    """Returns one number in [0, 1) for each index, by SplitMix64 (Steele et al., 2014)."""
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
    """Returns the factors of a part of the batch, each with shape (B, 1, 1), to broadcast."""
    return {
        field.name: getattr(factors, field.name)[part, None, None].numpy().astype(np.float32)
        for field in fields(factors)
    }


def _draw(factors: dict[str, Floats], size: int) -> NDArray[np.uint8]:
    """Returns the images, with shape (B, 3, S, S)."""
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
    background = _colour(factors["background_hue"], saturation=0.45, value=0.62)
    body = _colour(factors["hue"], saturation=0.78, value=0.92)
    mark = _colour(factors["hue"], saturation=0.75, value=0.24)
    scene = np.empty((*inside.shape[:1], 3, size, size), dtype=np.float32)
    for channel in range(3):
        base = background[channel] + inside * (body[channel] - background[channel])
        scene[:, channel] = (base + marked * (mark[channel] - body[channel])) * light
    return (np.clip(scene, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)


def _object_coordinates(factors: dict[str, Floats], x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Returns the place of each pixel seen from the object: upright and of radius 1."""
    cosine = np.cos(factors["angle"]) / factors["scale"]
    sine = np.sin(factors["angle"]) / factors["scale"]
    right, down = x - factors["x"], y - factors["y"]
    return cosine * right + sine * down, cosine * down - sine * right


def _distance(shape_id: Floats, u: Floats, v: Floats) -> Floats:
    """Returns the signed distance to the shape's edge in radii, negative inside.

    Outside the corners it is a lower bound, which is all that a blend over one pixel asks for.
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
    # Equilateral with the tip up; lowered so that it sits in the middle of its bounding box.
    v = v - np.float32(0.25)
    slope = np.abs(u) * np.float32(math.sqrt(0.75)) - v * np.float32(0.5)
    return np.maximum(slope, v) - np.float32(0.6)


def _cross(u: Floats, v: Floats) -> Floats:
    u, v = np.abs(u), np.abs(v)
    long, short = np.float32(1.05), np.float32(0.42)
    lying, upright = np.maximum(u - long, v - short), np.maximum(v - long, u - short)
    distance: Floats = np.minimum(lying, upright)
    return distance


def _marks(texture_id: Floats, u: Floats, v: Floats, blur: Floats) -> Floats:
    """Returns how much of each pixel the texture's dark marks cover, in [0, 1]."""
    kind = np.broadcast_to(texture_id, u.shape)
    across, down = _wave(u, blur), _wave(v, blur)
    striped = np.float32(0.5) + np.float32(0.5) * down
    checked = np.float32(0.5) + np.float32(0.5) * across * down
    return np.where(kind == 1, striped, np.where(kind == 2, checked, np.float32(0)))


def _wave(place: Floats, blur: Floats) -> Floats:
    """Returns a square wave of period `PERIOD` in [-1, 1], its edges blended over one pixel."""
    turns = place / np.float32(PERIOD)
    to_edge = np.abs(turns - np.floor(turns) - np.float32(0.5)) - np.float32(0.25)
    return 2 * _coverage(to_edge * np.float32(PERIOD), blur) - 1


def _coverage(distance: Floats, blur: Floats) -> Floats:
    """Returns how much of a pixel lies inside an edge at the given signed distance."""
    covered: Floats = np.clip(np.float32(0.5) - distance / blur, 0, 1)
    return covered


def _colour(hue: Floats, *, saturation: float, value: float) -> list[Floats]:
    """Returns the red, green and blue of a hue (HSV), each with the shape of `hue`."""
    turns = [(hue * 6 + offset) % 6 for offset in (5, 3, 1)]
    return [
        np.float32(value) * (1 - np.float32(saturation) * np.clip(np.minimum(k, 4 - k), 0, 1))
        for k in turns
    ]
