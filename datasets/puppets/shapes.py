"""Shapes as signed distance functions, which are evaluated at all pixels of a box at once.

Lengths are in the figure's units, and y points down. Distances are negative inside, and exact to
first order at the edge. So edges are crisp and outlines evenly wide without supersampling.
"""

import math
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.floating]  # h x w, one value per pixel; functions of float32 return float32

_TINY = 1e-9  # keeps divisions finite in the very centre of a shape


def saturate(values: Field) -> Field:
    """Clip to [0, 1]; much faster than np.clip on small arrays."""
    return np.minimum(np.maximum(values, 0), 1)


def triangle_wave(values: Field) -> Field:
    """A wave of period 1 from -0.25 to 0.25 with slope +-1: signed distance to edges of stripes."""
    return np.abs(values - np.floor(values) - 0.5) - 0.25


class Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float


class Surface(NamedTuple):
    """The values of a shape at every pixel."""

    distance: Field  # to the edge, negative inside
    normal_x: Field  # direction in which the surface faces, from about -1 (left) to 1 (right)
    normal_y: Field
    across: Field  # coordinate of the texture across the body or limb
    along: Field  # coordinate of the texture down the body or along the limb


class Shape(Protocol):
    """A shape that `Canvas` can paint."""

    @property
    def box(self) -> Box:
        """A rectangle that contains the shape."""
        ...

    def surface(self, x: Field, y: Field) -> Surface:
        """The shape at the points (x, y)."""
        ...


class Ellipse(NamedTuple):
    """|x / width|^power + |y / height|^power <= 1: an ellipse for power 2, squarer above."""

    width: float  # half axes
    height: float
    power: float = 2.0

    @property
    def box(self) -> Box:
        return Box(-self.width, -self.height, self.width, self.height)

    def surface(self, x: Field, y: Field) -> Surface:
        # With level = (|X|^n + |Y|^n)^(1/n), the distance is (level - 1) / |gradient of level|.
        normal_x, normal_y = x / self.width, y / self.height
        size_x, size_y = np.abs(normal_x), np.abs(normal_y)
        steep_x, steep_y = size_x ** (self.power - 1), size_y ** (self.power - 1)
        level = (steep_x * size_x + steep_y * size_y) ** (1 / self.power)
        gradient = _length(steep_x / self.width, steep_y / self.height)
        distance = (level - 1) * level ** (self.power - 1) / (gradient + _TINY)
        return Surface(distance, normal_x, normal_y, x, y)


class Cap(NamedTuple):
    """The part of an ellipse above a brim, which is at `brim` and sags by `sag` at the sides."""

    ellipse: Ellipse
    brim: float
    sag: float

    @property
    def box(self) -> Box:
        left, top, right, bottom = self.ellipse.box
        return Box(left, top, right, min(bottom, self.brim + max(self.sag, 0.0)))

    def surface(self, x: Field, y: Field) -> Surface:
        whole = self.ellipse.surface(x, y)
        below = y - self.brim - self.sag * whole.normal_x * whole.normal_x
        return whole._replace(distance=np.maximum(whole.distance, below))


class Trapezoid(NamedTuple):
    """A symmetric trapezoid about the origin, enlarged by `radius`, which rounds its corners."""

    top: float  # half widths and half height, before the enlargement
    bottom: float
    height: float
    radius: float

    @property
    def box(self) -> Box:
        width, height = max(self.top, self.bottom) + self.radius, self.height + self.radius
        return Box(-width, -height, width, height)

    def surface(self, x: Field, y: Field) -> Surface:
        # The nearer edge counts: a flat one, or the slanted one from (bottom, h) to (top, -h).
        side = np.abs(x)
        flat_x = np.maximum(np.where(y < 0, side - self.top, side - self.bottom), 0)
        flat_y = np.abs(y) - self.height
        step_x, step_y = self.top - self.bottom, -2 * self.height
        from_x, from_y = side - self.bottom, y - self.height
        squared = step_x**2 + step_y**2
        along = saturate(from_x * (step_x / squared) + from_y * (step_y / squared))
        slant_x, slant_y = from_x - along * step_x, from_y - along * step_y
        nearest = np.minimum(_length(flat_x, flat_y), _length(slant_x, slant_y))
        inside = (slant_x < 0) & (flat_y < 0)
        distance = np.where(inside, -nearest, nearest) - self.radius
        box = self.box
        return Surface(distance, x / box.right, y / box.bottom, x, y)


class Limb(NamedTuple):
    """Two bones, from `root` to `joint` and from there to `tip`, with a radius at each point."""

    root: tuple[float, float]
    joint: tuple[float, float]
    tip: tuple[float, float]
    root_radius: float
    joint_radius: float
    tip_radius: float

    @property
    def box(self) -> Box:
        radius = max(self.root_radius, self.joint_radius, self.tip_radius)
        xs, ys = zip(self.root, self.joint, self.tip, strict=True)
        return Box(min(xs) - radius, min(ys) - radius, max(xs) + radius, max(ys) + radius)

    def surface(self, x: Field, y: Field) -> Surface:
        upper = _bone(x, y, self.root, self.joint, self.root_radius, self.joint_radius, 0.0)
        length = math.dist(self.root, self.joint)
        lower = _bone(x, y, self.joint, self.tip, self.joint_radius, self.tip_radius, length)
        nearer = lower.distance < upper.distance
        return Surface(*(np.where(nearer, *fields) for fields in zip(lower, upper, strict=True)))


class Smile(NamedTuple):
    """An arc about the origin, of `opening` radians on each side of straight down."""

    radius: float
    opening: float
    thickness: float  # half of the line's width

    @property
    def box(self) -> Box:
        end_x, end_y = self._end
        width, line = self.radius if self.opening > math.pi / 2 else end_x, self.thickness
        return Box(-width - line, end_y - line, width + line, self.radius + line)

    @property
    def _end(self) -> tuple[float, float]:
        return self.radius * math.sin(self.opening), self.radius * math.cos(self.opening)

    def surface(self, x: Field, y: Field) -> Surface:
        side = np.abs(x)
        end_x, end_y = self._end
        on_arc = side * end_y < y * end_x
        to_arc = np.abs(_length(x, y) - self.radius)
        to_end = _length(side - end_x, y - end_y)
        distance = np.where(on_arc, to_arc, to_end) - self.thickness
        return Surface(distance, x, y, x, y)


def _bone(
    x: Field,
    y: Field,
    start: tuple[float, float],
    end: tuple[float, float],
    start_radius: float,
    end_radius: float,
    offset: float,
) -> Surface:
    """A capsule whose radius changes from end to end; its `along` starts at `offset`."""
    length = math.dist(start, end)
    bone_x, bone_y = (end[0] - start[0]) / length, (end[1] - start[1]) / length
    x, y = x - start[0], y - start[1]
    along = x * bone_x + y * bone_y
    nearest = np.minimum(np.maximum(along, 0), length)
    x, y = x - nearest * bone_x, y - nearest * bone_y
    radius = start_radius + nearest * ((end_radius - start_radius) / length)
    across = x * bone_y - y * bone_x
    return Surface(_length(x, y) - radius, x / radius, y / radius, across, nearest + offset)


def _length(x: Field, y: Field) -> Field:
    return np.sqrt(x * x + y * y)
