"""Paints shapes on a transparent canvas, with patterns, light, outline and shadow."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from datasets.puppets.colour import Colour, column
from datasets.puppets.identity import Fabric
from datasets.puppets.shapes import Box, Field, Shape, Surface, saturate, triangle_wave

_LIGHT = (-0.5, -0.85)  # direction (x, y) in the picture from which the light comes
_LIGHT_STRENGTH = 0.16
_OUTLINE_WIDTH = 0.016  # figure heights
_OUTLINE_STRENGTH = 0.55
_SHADOW_REACH = 0.07  # figure heights
_SHADOW_STRENGTH = 0.32


class Place(NamedTuple):
    """A rotated and scaled coordinate system in the picture."""

    x: float  # position of the origin in the picture, in pixels
    y: float
    cos: float  # of the angle by which it is turned
    sin: float
    scale: float  # pixels per unit

    def at(self, x: float, y: float, angle: float = 0.0) -> "Place":
        """Return a system with its origin at this one's (x, y), turned clockwise by `angle`.

        The angle is in radians.
        """
        cos, sin = math.cos(angle), math.sin(angle)
        return Place(
            *self.pixel(x, y),
            self.cos * cos - self.sin * sin,
            self.sin * cos + self.cos * sin,
            self.scale,
        )

    def pixel(self, x: float, y: float) -> tuple[float, float]:
        """Return the position of a point of this system in the picture, (x, y) in pixels."""
        return (
            self.x + self.scale * (self.cos * x - self.sin * y),
            self.y + self.scale * (self.sin * x + self.cos * y),
        )


class Canvas:
    """A picture with premultiplied colour and coverage; new shapes cover earlier ones."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self.colour: NDArray[np.float32] = np.zeros((3, *size), np.float32)
        self.coverage: Field = np.zeros(size, np.float32)

    def paint(
        self,
        place: Place,
        shape: Shape,
        fabric: Fabric,
        hem: float = math.inf,
        below: Fabric | None = None,
    ) -> None:
        """Paint a solid part, lit and outlined, with a soft shadow on the parts behind it.

        hem: where the texture's `along` coordinate is larger, the fabric `below` is painted.
        """
        reach = _SHADOW_REACH * place.scale
        window = self.window(place, shape.box, reach)
        if window is None:
            return
        surface, pixels = evaluate(place, shape, window)
        cover = saturate(0.5 - pixels)
        colour = _texture(fabric, surface, place.scale)
        if below is not None:
            past = saturate((surface.along - hem) * place.scale + 0.5)
            colour = colour + past * (_texture(below, surface, place.scale) - colour)
        light_x = _LIGHT_STRENGTH * (place.cos * _LIGHT[0] + place.sin * _LIGHT[1])
        light_y = _LIGHT_STRENGTH * (place.cos * _LIGHT[1] - place.sin * _LIGHT[0])
        shade = 1 + light_x * surface.normal_x + light_y * surface.normal_y
        line = saturate(pixels + (_OUTLINE_WIDTH * place.scale + 0.5))
        shade *= 1 - _OUTLINE_STRENGTH * line
        # The shadow darkens the figure only, since it scales colour premultiplied by coverage.
        nearness = saturate(1 - pixels * (1 / reach))
        shadow = 1 - _SHADOW_STRENGTH * nearness * nearness
        rows, columns = window
        target = self.colour[:, rows, columns]
        target *= shadow
        target += cover * (np.minimum(colour * shade, 1) - target)
        coverage = self.coverage[rows, columns]
        coverage += cover * (1 - coverage)

    def draw(self, place: Place, shape: Shape, colour: Colour, opacity: float = 1.0) -> None:
        """Draw a flat mark on the figure, without light, outline and coverage of its own."""
        window = self.window(place, shape.box, 0.0)
        if window is None:
            return
        _, pixels = evaluate(place, shape, window)
        rows, columns = window
        cover = opacity * saturate(0.5 - pixels)
        coverage = self.coverage[rows, columns]
        target = self.colour[:, rows, columns]
        target += cover * (column(colour) * coverage - target)

    def window(self, place: Place, box: Box, margin: float) -> tuple[slice, slice] | None:
        """Rows and columns of the pixels that a box may touch; None if it is outside."""
        corners = [place.pixel(x, y) for x in (box.left, box.right) for y in (box.top, box.bottom)]
        height, width = self.coverage.shape
        columns = _span([x for x, _ in corners], margin, width)
        rows = _span([y for _, y in corners], margin, height)
        return None if rows is None or columns is None else (rows, columns)


def _span(values: list[float], margin: float, size: int) -> slice | None:
    margin += 1.0  # half a pixel of soft edge, and rounding
    start = max(math.floor(min(values) - margin), 0)
    stop = min(math.ceil(max(values) + margin), size)
    return slice(start, stop) if start < stop else None


def evaluate(place: Place, shape: Shape, window: tuple[slice, slice]) -> tuple[Surface, Field]:
    """Evaluate a shape at the pixels of a window: its surface, and its distance in pixels."""
    rows, columns = window
    x = np.arange(columns.start, columns.stop, dtype=np.float32) + (0.5 - place.x)
    y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + (0.5 - place.y)
    cos, sin = place.cos / place.scale, place.sin / place.scale
    surface = shape.surface(x * cos + y * sin, y * cos - x * sin)
    return surface, surface.distance * place.scale


def _texture(fabric: Fabric, surface: Surface, scale: float) -> NDArray[np.float32]:
    """Colours of a fabric on a surface: 3 x h x w, or 3 x 1 x 1 if they are the same everywhere."""
    base = column(fabric.colour)
    if fabric.pattern == "plain":
        return base
    pixels = fabric.period * scale  # in one period
    across = surface.across * (1 / fabric.period)
    along = surface.along * (1 / fabric.period)
    if fabric.pattern == "stripes":
        weight = saturate(triangle_wave(along) * pixels + 0.5)
    elif fabric.pattern == "zigzag":
        weight = saturate(triangle_wave(along + triangle_wave(across)) * (0.7 * pixels) + 0.5)
    elif fabric.pattern == "dots":
        across = across + 0.5 * (np.floor(along) % 2)  # every other row is shifted
        x, y = across - np.floor(across) - 0.5, along - np.floor(along) - 0.5
        weight = saturate((0.3 - np.sqrt(x * x + y * y)) * pixels + 0.5)
    else:
        first = saturate(triangle_wave(across) * pixels + 0.5)
        second = saturate(triangle_wave(along) * pixels + 0.5)
        if fabric.pattern == "checks":
            weight = first + second - 2 * first * second
        else:  # gingham
            weight = 0.5 * (first + second)
    return base + weight * (column(fabric.accent) - base)
