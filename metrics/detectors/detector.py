"""Interfaces of detectors: trained networks of other projects that find things in frames."""

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from media.frames import Frame

Points = NDArray[np.float64]  # K x 2, (x, y) in pixels, the centre of the first pixel at (0, 0)
Embedding = NDArray[np.float64]  # D


class Description(NamedTuple):
    """Describes a detector; results that it measured include this description.

    weights: where its trained weights come from.
    convention: what it finds, and which published numbers this compares to.
    licence: licence of the weights.
    """

    name: str
    weights: str
    convention: str
    licence: str


class Detector(Protocol):
    """Any detector. The protocols below, which a class may combine, say what it can find."""

    description: Description


@runtime_checkable
class LandmarkDetector(Detector, Protocol):
    """Finds the keypoints of a face or a body."""

    def landmarks(self, frame: Frame) -> Points:
        """Landmarks of the frame, K x 2; a row of NaN for each one that was not found."""
        ...


@runtime_checkable
class IdentityEncoder(Detector, Protocol):
    """Computes embeddings that tell people apart."""

    def embedding(self, frame: Frame) -> Embedding:
        """Identity embedding of the frame, D; all NaN if nobody was found."""
        ...


@runtime_checkable
class RegionFinder(Detector, Protocol):
    """Finds the salient region of a frame: people, or what attracts attention."""

    def region(self, frame: Frame) -> NDArray[np.bool_]:
        """Salient region of the frame, H x W, true = salient."""
        ...


@runtime_checkable
class MatteFinder(RegionFinder, Protocol):
    """Finds the salient region of a frame, with a soft edge."""

    def probability(self, frame: Frame) -> NDArray[np.float32]:
        """How likely each pixel shows the region, H x W in [0, 1]; above one half in `region`."""
        ...
