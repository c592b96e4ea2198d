"""What a detector is: a trained network that finds things in single frames, from elsewhere."""

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from media.frames import Frame

Points = NDArray[np.float64]  # K x 2, (x, y) in pixels, the centre of the first pixel at (0, 0)
Embedding = NDArray[np.float64]  # D


class Description(NamedTuple):
    """What a result that a detector measured has to name.

    weights: where the trained weights come from. convention: what is found, and how numbers made
    of it compare. licence: of the weights.
    """

    name: str
    weights: str
    convention: str
    licence: str


class Detector(Protocol):
    """Every detector; what it can find, its class says by the protocols below."""

    description: Description


@runtime_checkable
class LandmarkDetector(Detector, Protocol):
    """Finds the keypoints of a face or a body."""

    def landmarks(self, frame: Frame) -> Points:
        """K x 2; a row of NaN for each point that was not found."""
        ...


@runtime_checkable
class IdentityEncoder(Detector, Protocol):
    """Tells people apart."""

    def embedding(self, frame: Frame) -> Embedding:
        """D numbers; all NaN where nobody was found."""
        ...


@runtime_checkable
class RegionFinder(Detector, Protocol):
    """Finds the salient region: the person, or what draws the eye."""

    def region(self, frame: Frame) -> NDArray[np.bool_]:
        """H x W, true = salient."""
        ...
