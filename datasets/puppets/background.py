"""Paints static backgrounds: smooth and busy procedural ones, and crops of photographs."""

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import skimage.data
from numpy.typing import NDArray
from PIL import Image

from common.seeding import numpy_rng
from datasets.puppets.colour import Colour, choose, column, mix, oklch, uniform
from datasets.puppets.shapes import Field, saturate, triangle_wave

Picture = NDArray[np.float32]  # H x W x 3 in [0, 1]

# Photographs inside scikit-image's wheel; its other pictures would be downloaded.
_PHOTOS = {
    "train": ("brick", "chelsea", "grass", "hubble_deep_field", "stereo_motorcycle"),
    "test": ("coffee", "gravel", "rocket"),
}


class Background(NamedTuple):
    """Description of a background, which can be painted at any size.

    The seed determines the details that the other fields leave open.
    """

    kind: str  # a key of _PAINTERS, or "photo"
    colours: tuple[Colour, Colour, Colour]
    photo: str | None  # name of a picture in skimage.data
    seed: int


def sample_background(rng: np.random.Generator, split: str) -> Background:
    """Draw a random background; two thirds are smooth, and the splits share no photograph."""
    busy = rng.random() < 0.35
    kind = choose(rng, _BUSY if busy else _SMOOTH)
    pastel = rng.random() < 0.7
    hue = uniform(rng, 0, 1) if pastel else uniform(rng, 0.4, 1)  # no dark yellow, a muddy colour
    light = uniform(rng, 0.8, 0.93) if pastel else uniform(rng, 0.35, 0.5)
    step = -0.1 if pastel else 0.1
    chroma = uniform(rng, 0.05, 0.09)
    turn = choose(rng, (-1, 1)) * uniform(rng, 0.12, 0.3)
    return Background(
        kind=kind,
        colours=(
            oklch(light, chroma, hue),
            oklch(light + step, chroma, hue + uniform(rng, -0.08, 0.08)),
            oklch(light + 0.5 * step, chroma + 0.02, hue + turn),
        ),
        photo=choose(rng, _PHOTOS[split]) if kind == "photo" else None,
        seed=int(rng.integers(2**31)),
    )


def paint_background(background: Background, size: tuple[int, int]) -> Picture:
    """Paint a background at `size` (height, width); a larger size shows the same in more detail."""
    rng = numpy_rng("background picture", background.seed)
    if background.photo is not None:
        return _photo_crop(rng, background, size)
    height, width = size
    side = min(size)
    x = (np.arange(width, dtype=np.float32)[None] + (0.5 - width / 2)) / side
    y = (np.arange(height, dtype=np.float32)[:, None] + (0.5 - height / 2)) / side
    canvas = _Layers(background.colours, x + 0 * y, y + 0 * x, side)
    _PAINTERS[background.kind](canvas, rng)
    return np.ascontiguousarray(canvas.colour.transpose(1, 2, 0))


class _Layers:
    """Flat layers of colour, painted over each other.

    Coordinates are relative to the middle, in units of the picture's shorter side.
    """

    def __init__(self, colours: tuple[Colour, ...], x: Field, y: Field, side: int) -> None:
        self.first, self.second, self.third = colours
        self.x, self.y = x, y
        self.side = side
        self.colour = np.empty((3, *x.shape), np.float32)
        self.colour[:] = column(self.first)

    def cover(self, colour: Colour, weight: Field) -> None:
        self.colour += weight * (column(colour) - self.colour)

    def inside(self, distance: Field) -> Field:
        """Anti-aliased weights: 1 where a distance, in shorter sides, is negative, and else 0."""
        return saturate(0.5 - distance * self.side)


_LATTICE = (
    16,
    16,
)  # shape of a lattice of random numbers; so large that no frame shows it repeat


def _gradient(canvas: _Layers, rng: np.random.Generator) -> None:
    canvas.cover(canvas.second, saturate(_rotated(canvas, rng)[0] + 0.5))
    x, y = rng.uniform(-0.4, 0.4, 2).tolist()
    canvas.cover(canvas.third, 0.7 * _glow(canvas, x, y, 0.35))


def _blobs(canvas: _Layers, rng: np.random.Generator) -> None:
    for colour in (canvas.second, canvas.third) * 3:
        x, y = rng.uniform(-0.6, 0.6, 2).tolist()
        canvas.cover(colour, 0.8 * _glow(canvas, x, y, uniform(rng, 0.12, 0.3)))


def _bokeh(canvas: _Layers, rng: np.random.Generator) -> None:
    canvas.cover(canvas.second, saturate(canvas.y + 0.5))
    for colour in (canvas.third, mix(canvas.second, (1.0, 1.0, 1.0), 0.5)) * 6:
        x, y = rng.uniform(-0.6, 0.6, 2).tolist()
        distance = np.hypot(canvas.x - x, canvas.y - y) - uniform(rng, 0.05, 0.16)
        canvas.cover(colour, 0.4 * saturate(0.5 - distance / 0.03))


def _hills(canvas: _Layers, rng: np.random.Generator) -> None:
    white = (1.0, 1.0, 1.0)
    canvas.cover(mix(canvas.first, white, 0.5), saturate(canvas.y + 0.6))
    sun = np.hypot(canvas.x - uniform(rng, -0.4, 0.4), canvas.y + uniform(rng, 0.2, 0.4))
    canvas.cover(mix(canvas.third, white, 0.6), canvas.inside(sun - uniform(rng, 0.06, 0.12)))
    for layer in range(3):
        phase, other_phase = rng.uniform(0, math.tau, 2).tolist()
        ridge = 0.05 * np.sin(uniform(rng, 3, 7) * canvas.x + phase)
        ridge += 0.025 * np.sin(uniform(rng, 8, 14) * canvas.x + other_phase)
        land = mix(canvas.second, canvas.third, 0.5 * layer)
        canvas.cover(land, canvas.inside(ridge + (0.02 + 0.15 * layer) - canvas.y))


def _clouds(canvas: _Layers, rng: np.random.Generator) -> None:
    canvas.cover(canvas.second, _noise(canvas, rng, uniform(rng, 2, 3.5)))
    canvas.cover(canvas.third, 0.7 * _noise(canvas, rng, uniform(rng, 3, 5)))


def _rays(canvas: _Layers, rng: np.random.Generator) -> None:
    x, y = canvas.x - uniform(rng, -0.2, 0.2), canvas.y - uniform(rng, -0.2, 0.2)
    count = int(rng.integers(7, 13))
    turns = np.arctan2(y, x) * (count / math.tau) + uniform(rng, 0, 1)
    radius = np.hypot(x, y)
    canvas.cover(canvas.second, canvas.inside(triangle_wave(turns) * radius * (math.tau / count)))
    canvas.cover(canvas.third, 0.5 * _glow(canvas, 0, 0, 0.3))


def _stripes(canvas: _Layers, rng: np.random.Generator) -> None:
    across, _ = _rotated(canvas, rng)
    period = uniform(rng, 0.14, 0.26)
    canvas.cover(canvas.second, canvas.inside(triangle_wave(across / period) * period))
    thin = np.abs(across / period - np.floor(across / period) - 0.25) * period
    canvas.cover(canvas.third, canvas.inside(thin - 0.02))


def _tiles(canvas: _Layers, rng: np.random.Generator) -> None:
    period = uniform(rng, 0.14, 0.24)
    x, y = (field / period for field in _rotated(canvas, rng))
    odd = (np.floor(x) + np.floor(y)) % 2
    canvas.cover(canvas.second, odd)
    random = _pick(rng.random(_LATTICE, np.float32), np.floor(x), np.floor(y))
    canvas.cover(canvas.third, 0.6 * random)
    edge = np.maximum(np.abs(x - np.floor(x) - 0.5), np.abs(y - np.floor(y) - 0.5))
    joint = (0.5 - edge) * period - 0.009
    canvas.cover(mix(canvas.first, (1.0, 1.0, 1.0), 0.5), canvas.inside(joint))


def _confetti(canvas: _Layers, rng: np.random.Generator) -> None:
    period = uniform(rng, 0.12, 0.2)
    x, y = (field / period for field in _rotated(canvas, rng))
    x = x + 0.5 * (np.floor(y) % 2)
    random = _pick(rng.random(_LATTICE, np.float32), np.floor(x), np.floor(y))
    dot = np.hypot(x - np.floor(x) - 0.5, y - np.floor(y) - 0.5) - (0.2 + 0.15 * random)
    inside = canvas.inside(dot * period)
    canvas.cover(canvas.second, inside)
    canvas.cover(canvas.third, inside * (random > 0.5))


_PAINTERS: dict[str, Callable[[_Layers, np.random.Generator], None]] = {
    "gradient": _gradient,
    "blobs": _blobs,
    "bokeh": _bokeh,
    "hills": _hills,
    "clouds": _clouds,
    "rays": _rays,
    "stripes": _stripes,
    "tiles": _tiles,
    "confetti": _confetti,
}
_SMOOTH = ("gradient", "blobs", "bokeh", "hills", "clouds")
_BUSY = ("rays", "stripes", "tiles", "confetti", "photo", "photo", "photo")


def _rotated(canvas: _Layers, rng: np.random.Generator) -> tuple[Field, Field]:
    angle = uniform(rng, 0, math.tau)
    cos, sin = math.cos(angle), math.sin(angle)
    return canvas.x * cos + canvas.y * sin, canvas.y * cos - canvas.x * sin


def _glow(canvas: _Layers, x: float, y: float, radius: float) -> Field:
    squared = (canvas.x - x) ** 2 + (canvas.y - y) ** 2
    return np.exp(squared * (-0.5 / radius**2))


def _noise(canvas: _Layers, rng: np.random.Generator, frequency: float) -> Field:
    """Value noise in [0, 1] of two octaves: random numbers on a lattice, smoothly interpolated."""
    total = np.zeros_like(canvas.x)
    for octave, weight in ((1, 0.7), (2, 0.3)):
        lattice = rng.random(_LATTICE, np.float32)
        x, y = canvas.x * (frequency * octave), canvas.y * (frequency * octave)
        left, top = np.floor(x), np.floor(y)
        x, y = _smooth(x - left), _smooth(y - top)
        above = (1 - x) * _pick(lattice, left, top) + x * _pick(lattice, left + 1, top)
        below = (1 - x) * _pick(lattice, left, top + 1) + x * _pick(lattice, left + 1, top + 1)
        total += weight * ((1 - y) * above + y * below)
    return total


def _pick(lattice: Field, x: Field, y: Field) -> Field:
    """Values of the lattice at whole coordinates; the lattice repeats periodically."""
    height, width = lattice.shape
    return lattice[y.astype(np.int64) % height, x.astype(np.int64) % width]


def _smooth(values: Field) -> Field:
    return values * values * (3 - 2 * values)


def _photo_crop(rng: np.random.Generator, background: Background, size: tuple[int, int]) -> Picture:
    """Crop a photo at a random position and zoom, perhaps mirror it; tint it if it is grey."""
    assert background.photo is not None
    photo = _photo(background.photo)
    height, width = size
    zoom = uniform(rng, 0.55, 1.0) * min(photo.width / width, photo.height / height)
    crop_width, crop_height = zoom * width, zoom * height
    left = uniform(rng, 0, 1) * (photo.width - crop_width)
    top = uniform(rng, 0, 1) * (photo.height - crop_height)
    crop = photo.resize(
        (width, height),
        Image.Resampling.BICUBIC,
        box=(left, top, left + crop_width, top + crop_height),
    )
    if rng.random() < 0.5:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = np.asarray(crop, dtype=np.float32) * np.float32(1 / 255)
    if pixels.ndim == 2:
        pixels = pixels[..., None] * np.array(
            mix(background.colours[0], (1, 1, 1), 0.6), np.float32
        )
    return pixels


@cache
def _photo(name: str) -> Image.Image:
    loaded = getattr(skimage.data, name)()
    return Image.fromarray(loaded[0] if isinstance(loaded, tuple) else loaded)
