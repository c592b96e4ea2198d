"""Metrics of cross-identity animation: one figure moves another, and no true picture exists."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from media.frames import Frame, Frames
from metrics.detectors.detector import Detector, IdentityEncoder, LandmarkDetector, Points
from metrics.identity import csim


class CrossIdentity:
    """Collects the metrics of one animation frame by frame; `means` returns their means.

    The frames are those of the animated source, before its background is replaced.

    identity_distance: Euclidean distance between the embeddings of the animated frame and the
        source; small if the source's identity is kept.
    csim: cosine similarity of these embeddings; near 1 if the source's identity is kept.
    pose_distance: mean distance in pixels between the landmarks of animated and driving frame,
        after position and size are aligned; small if the poses match. It cannot be compared with
        published AKD, which is between pictures of one person.
    found: share of the frames in which the detector found the figure.
    driving_identity_distance, driving_csim: the same of the driving frames themselves.
    source_pose_distance: pose_distance of the source itself.

    Metrics that need landmarks or embeddings are missing if the detector has none.
    """

    def __init__(self, detector: Detector, source: Frame) -> None:
        self._detector = detector
        self._source_points = self._landmarks(source)
        self._source_embedding = self._embedding(source)
        self._collected: list[dict[str, float]] = []

    def add(self, driving: Frames, animated: Frames) -> None:
        """Measure B driving frames and the source animated by them, uint8 B x H x W x 3 each."""
        for driving_frame, frame in zip(driving, animated, strict=True):
            metrics: dict[str, float] = {}
            # Both directly after each other: then the detector searches the frame for a face once.
            points, embedding = self._landmarks(frame), self._embedding(frame)
            target, other = self._landmarks(driving_frame), self._embedding(driving_frame)
            if points is not None and target is not None and self._source_points is not None:
                metrics["pose_distance"] = pose_distance(points, target)
                metrics["source_pose_distance"] = pose_distance(self._source_points, target)
                metrics["found"] = float(not np.isnan(points).all())
            if embedding is not None and other is not None and self._source_embedding is not None:
                metrics["identity_distance"] = _distance(embedding, self._source_embedding)
                metrics["csim"] = _similarity(embedding, self._source_embedding)
                metrics["driving_identity_distance"] = _distance(other, self._source_embedding)
                metrics["driving_csim"] = _similarity(other, self._source_embedding)
            self._collected.append(metrics)

    def means(self) -> Mapping[str, float]:
        """Mean of each metric over the frames where it is defined; NaN if there are none."""
        names = self._collected[0] if self._collected else {}
        means = {}
        for name in names:
            values = np.array([metrics[name] for metrics in self._collected])
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


def pose_distance(points: Points, target: Points) -> float:
    """Mean Euclidean distance in pixels between two sets of K x 2 landmarks, after `points` are
    moved and scaled to the centre and size (root mean square distance from the centre) of `target`.

    NaN if fewer than two landmarks are found in both.
    """
    common = ~np.isnan(points).any(axis=1) & ~np.isnan(target).any(axis=1)
    if common.sum() < 2:
        return float("nan")
    centred, aim = (p[common] - p[common].mean(axis=0) for p in (points, target))
    size, target_size = (np.sqrt(np.square(p).sum(axis=1).mean()) for p in (centred, aim))
    if size == 0:
        return float("nan")
    return float(np.linalg.norm(centred * (target_size / size) - aim, axis=1).mean())


def _distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(a - b))


def _similarity(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(csim(torch.from_numpy(a), torch.from_numpy(b)))
