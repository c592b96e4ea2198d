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

    It is a `Measure` without metrics of frames. Call `keep_clip` after each clip that counts.

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
        """See `Measure.start`. What an earlier clip gave is dropped unless it was kept."""
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

    def keep_clip(self) -> None:
        """Add the clip that was measured last to the sets."""
        if self._clip and self._source is not None:
            repeated = self._features([*_to_bytes(self._source)] * self._length)
            for found in self._clip:
                self._model.add(found.model)
                self._real.add(found.real)
                self._baseline.add(repeated, times=len(found.real))
        self._clip = []

    def result(self) -> FrechetResult:
        """The distances over all clips that were kept."""
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
