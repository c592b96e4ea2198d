"""Colours of the synthetic data set in OKLCH, in which equal lightness looks equally light."""

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Colour = tuple[float, float, float]  # sRGB in [0, 1]
Option = TypeVar("Option")


def oklch(lightness: float, chroma: float, hue: float) -> Colour:
    """Convert OKLCH (Ottosson, 2020) to sRGB, clipped to the gamut.

    `lightness` is in [0, 1], `chroma` from 0 (grey) to about 0.3, `hue` in turns.
    """
    a = chroma * math.cos(math.tau * hue)
    b = chroma * math.sin(math.tau * hue)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    return (
        _gamma(4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short),
        _gamma(-1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short),
        _gamma(-0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short),
    )


def mix(first: Colour, second: Colour, weight: float) -> Colour:
    """Mix two colours: weight 0 gives `first`, 1 gives `second`."""
    red, green, blue = (p + weight * (q - p) for p, q in zip(first, second, strict=True))
    return red, green, blue


def column(colour: Colour) -> NDArray[np.float32]:
    """Return the colour as 3 x 1 x 1, to broadcast over the pixels of a 3 x H x W picture."""
    return np.array(colour, np.float32)[:, None, None]


def uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a Python float; NumPy's own type would turn float32 pictures into float64."""
    return float(rng.uniform(low, high))


def choose(rng: np.random.Generator, options: Sequence[Option]) -> Option:
    """Draw one of the options, all equally likely; one that is listed twice is twice as likely."""
    return options[int(rng.integers(len(options)))]


def _gamma(linear: float) -> float:
    linear = min(max(linear, 0.0), 1.0)
    return 12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055
