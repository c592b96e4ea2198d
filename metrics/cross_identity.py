"""How one person's motion was put on another, where no true picture exists to compare with."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from media.frames import Frame, Frames
from metrics.detectors.detector import Detector, IdentityEncoder, LandmarkDetector, Points


class CrossIdentity:
    """Figures of one animation, frame by frame; `figures` takes the mean.

    They are about the animated source, before another background is put behind it.

    identity_distance: Euclidean distance of the embeddings of the moved source and the source:
        who it is.
    pose_distance: mean distance in pixels of the landmarks of result and driving frame, once place
        and size of the figure are taken out: what it does. The published AKD compares pictures of
        one person, so it is another number.
    found: share of the frames in which the detector found the figure.

    Beside them `driving_identity_distance` and `source_pose_distance`: what copying the driving
    frame and repeating the source would get. A figure is left out that the detector cannot tell.
    """

    def __init__(self, detector: Detector, source: Frame) -> None:
        self._detector = detector
        self._source_points = self._landmarks(source)
        self._source_embedding = self._embedding(source)
        self._collected: list[dict[str, float]] = []

    def add(self, driving: Frames, animated: Frames) -> None:
        """B driving frames and the source moved by them, uint8 B x H x W x 3."""
        for driving_frame, frame in zip(driving, animated, strict=True):
            figures: dict[str, float] = {}
            # Both of one frame at once: a detector that searches for a face does so once.
            points, embedding = self._landmarks(frame), self._embedding(frame)
            wanted, other = self._landmarks(driving_frame), self._embedding(driving_frame)
            if points is not None and wanted is not None and self._source_points is not None:
                figures["pose_distance"] = pose_distance(points, wanted)
                figures["source_pose_distance"] = pose_distance(self._source_points, wanted)
                figures["found"] = float(not np.isnan(points).all())
            if embedding is not None and other is not None and self._source_embedding is not None:
                figures["identity_distance"] = _distance(embedding, self._source_embedding)
                figures["driving_identity_distance"] = _distance(other, self._source_embedding)
            self._collected.append(figures)

    def figures(self) -> Mapping[str, float]:
        """Means over the frames where a figure is defined; NaN where it is in none."""
        names = self._collected[0] if self._collected else {}
        means = {}
        for name in names:
            values = np.array([figures[name] for figures in self._collected])
            defined = values[~np.isnan(values)]
            means[name] = float(defined.mean()) if len(defined) else float("nan")
        return means

    def _landmarks(self, frame: Frame) -> Points | None:
        if isinstance(self._detector, LandmarkDetector):
            return self._detector.landmarks(frame)
        return None

    def _embedding(self, frame: Frame) -> NDArray[np.float64] | None:
        if isinstance(self._detector, IdentityEncoder):
            return self._detector.embedding(frame)
        return None


def pose_distance(points: Points, wanted: Points) -> float:
    """Mean Euclidean distance in pixels of K x 2 `points` moved and scaled to the place and size
    (root mean square distance from the centre) of `wanted`; NaN where fewer than two are in both.
    """
    common = ~np.isnan(points).any(axis=1) & ~np.isnan(wanted).any(axis=1)
    if common.sum() < 2:
        return float("nan")
    centred, target = (p[common] - p[common].mean(axis=0) for p in (points, wanted))
    size, target_size = (np.sqrt(np.square(p).sum(axis=1).mean()) for p in (centred, target))
    if size == 0:
        return float("nan")
    return float(np.linalg.norm(centred * (target_size / size) - target, axis=1).mean())


def _distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(a - b))
