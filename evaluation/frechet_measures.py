"""FID and FVD of an evaluation: distances between predicted and real frames of all its clips.

They have no number for a frame or a clip, and so no interval. Beside each is its baseline: the
distance of the source, repeated in place of the predictions.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluation.frechet_results import FrechetResult
from evaluation.measures import ClipContext, FrameMetrics, Score
from metrics.detectors.detector import Description
from metrics.extractors import Extractor
from metrics.frechet import FrechetMetric, Moments, frechet_distance


class FrechetMeasure:
    """Gathers features of predicted and real samples: of frames for FID; for FVD of clips, which
    are consecutive frames without overlap.

    It is a `Measure` without metrics of frames. After each clip that counts, `take_clip` gives its
    features; `add` adds them to the sets, perhaps in another process.

    Args:
        given: the network as the option names it.
        clip_length: frames of a sample; 1 for FID.
    """

    def __init__(
        self, metric: FrechetMetric, extractor: Extractor, given: str, clip_length: int
    ) -> None:
        self.metric: FrechetMetric = metric
        self._extractor, self._given, self._length = extractor, given, clip_length
        self._model, self._real, self._baseline = Moments(), Moments(), Moments()
        self._clip: list[_Features] = []
        self._source: Tensor | None = None

    @property
    def description(self) -> Description:
        """The extractor's description, with what the samples are."""
        found, samples = self._extractor.description, "every frame"
        if self._length > 1:
            samples = f"clips of {self._length} consecutive frames without overlap"
        return found._replace(convention=f"{samples}; {found.convention}")

    @property
    def origin(self) -> str:
        """The network and the hash of its file in one line."""
        return f"{self.metric}: {self._given}, sha256 {self._extractor.sha256}"

    def start(self, clip: ClipContext) -> Score:
        """See `Measure.start`. What an earlier clip gave is dropped unless it was taken."""
        self._clip, self._source = [], clip.source
        predictions: list[Tensor] = []  # frames that do not fill a sample yet
        targets: list[Tensor] = []

        def score(prediction: Tensor, target: Tensor) -> FrameMetrics:
            predictions.extend(_to_bytes(prediction))
            targets.extend(_to_bytes(target))
            while len(targets) >= self._length:
                count = self._length if self._length > 1 else len(targets)
                self._clip.append(
                    _Features(self._features(predictions[:count]), self._features(targets[:count]))
                )
                del predictions[:count], targets[:count]
            return {}

        return score

    def take_clip(self) -> "ClipFeatures":
        """The features of the clip that was measured last."""
        found, self._clip = self._clip, []
        if not found or self._source is None:
            none = np.zeros((0, 0))
            return ClipFeatures([], none, none, none)
        return ClipFeatures(
            [len(features.real) for features in found],
            np.concatenate([features.model for features in found]),
            np.concatenate([features.real for features in found]),
            self._features([*_to_bytes(self._source)] * self._length),
        )

    def add(self, clip: "ClipFeatures") -> None:
        """Add the features of a clip to the sets.

        The last digits of the distances depend on the order of the clips.
        """
        ends = np.cumsum(clip.sizes)[:-1]
        parts = zip(np.split(clip.model, ends), np.split(clip.real, ends), strict=True)
        for model, real in parts if clip.sizes else ():
            self._model.add(model)
            self._real.add(real)
            self._baseline.add(clip.repeated, times=len(real))

    def result(self) -> FrechetResult:
        """The distances over all clips that were added."""
        return FrechetResult(
            _distance(self._model, self._real),
            _distance(self._baseline, self._real),
            self._given,
            self._extractor.sha256,
            self._length,
            num_frames=self._real.count * self._length,
            num_samples=self._real.count,
            num_features=self._real.num_features,
        )

    def _features(self, frames: Sequence[Tensor]) -> NDArray[np.float64]:
        """Features of some frames (FID) or of one clip, uint8 3 x H x W each: N x D or 1 x D."""
        images = torch.stack([*frames])
        return self._extractor(images if self._length == 1 else images.movedim(0, 1)[None])


class ClipFeatures(NamedTuple):
    """Features of the samples of one clip.

    sizes: number of samples of each batch that was computed at once; their sum is N.
    model, real: of predicted and of real samples, N x D each; without samples D is 0.
    repeated: of the source repeated, 1 x D.
    """

    sizes: list[int]
    model: NDArray[np.float64]
    real: NDArray[np.float64]
    repeated: NDArray[np.float64]


class _Features(NamedTuple):
    """Features of predicted and of real samples, N x D each."""

    model: NDArray[np.float64]
    real: NDArray[np.float64]


def _to_bytes(images: Tensor) -> Tensor:
    """B x 3 x H x W in [0, 1] as uint8."""
    return images.mul(255).round().clamp(0, 255).byte()


def _distance(found: Moments, real: Moments) -> float | None:
    a, b = found.gaussian(), real.gaussian()
    return None if a is None or b is None else frechet_distance(a, b)
