"""Measures: compute metrics of a predicted clip, frame by frame.

Each metric comes with a baseline, `baseline_...`: the metric of the source repeated as prediction.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.source import ClipSource, HasForeground
from evaluation.regions import Regions
from media.visualization import to_uint8
from metrics.detectors.detector import Detector, IdentityEncoder, LandmarkDetector
from metrics.identity import aed, aed_squared, csim
from metrics.image import l1, masked, psnr, region_l1, region_psnr, region_ssim, ssim
from metrics.keypoints import akd, akd_euclidean, mkr
from metrics.lpips import Lpips
from metrics.temporal import temporal_difference

FrameMetrics = dict[str, Tensor]  # by name, one number per frame; NaN if not defined
Score = Callable[[Tensor, Tensor], FrameMetrics]  # predictions, targets -> metrics; see Measure


class ClipContext(NamedTuple):
    """A clip, as measures know it before its frames come.

    clips, clip_index: the data source and the clip's index in it.
    frames: numbers of the driving frames.
    source: 1 x 3 x H x W in [0, 1].
    """

    clips: ClipSource
    clip_index: int
    frames: Sequence[int]
    source: Tensor


class Measure(Protocol):
    """Computes one or more metrics."""

    def start(self, clip: ClipContext) -> Score:
        """Start a clip.

        Returns:
            A function from predictions and targets, B x 3 x H x W each in [0, 1], to metrics by
            name, with their baselines. It gets the frames in order, all at once or in parts.
        """
        ...


class PixelMeasure:
    """L1, PSNR and SSIM over the whole frame."""

    def start(self, clip: ClipContext) -> Score:
        """See `Measure.start`."""
        return partial(_beside_baseline, pixel_metrics, clip.source)


class FigureMeasure:
    """L1 over the true figure: the pixels that it covers in the source or the driving frame.

    For clips without true foreground masks there are no metrics.
    """

    def start(self, clip: ClipContext) -> Score:
        """See `Measure.start`."""
        in_source = true_foreground(clip.clips, clip.clip_index, clip.frames[:1])
        frames = iter(clip.frames)

        def score(prediction: Tensor, target: Tensor) -> FrameMetrics:
            numbers = [*islice(frames, len(target))]
            in_target = true_foreground(clip.clips, clip.clip_index, numbers)
            if in_source is None or in_target is None:
                return {}
            compare = partial(figure_metrics, region=(in_source | in_target).to(target.device))
            return _beside_baseline(compare, clip.source, prediction, target)

        return score


class SalientMeasure:
    """L1, PSNR and SSIM over the salient region of the real frame, and over the rest."""

    def __init__(self, regions: Regions) -> None:
        self.regions = regions

    def start(self, clip: ClipContext) -> Score:
        """See `Measure.start`."""
        find = self.regions.start(clip.clips.clips[clip.clip_index].name, clip.source)

        def score(prediction: Tensor, target: Tensor) -> FrameMetrics:
            compare = partial(salient_metrics, region=find(target))
            return _beside_baseline(compare, clip.source, prediction, target)

        return score


class TemporalMeasure:
    """Difference between the changes from frame to frame of prediction and truth."""

    def start(self, clip: ClipContext) -> Score:
        """See `Measure.start`."""
        previous: tuple[Tensor, Tensor] | None = None

        def score(prediction: Tensor, target: Tensor) -> FrameMetrics:
            nonlocal previous
            repeated = clip.source.expand_as(target)
            before = None if previous is None else (clip.source[0], previous[1])
            metrics = {
                "temporal": temporal_difference(prediction, target, previous),
                "baseline_temporal": temporal_difference(repeated, target, before),
            }
            previous = prediction[-1], target[-1]
            return metrics

        return score


class LpipsMeasure:
    """LPIPS over the whole frame."""

    def __init__(self, lpips: Lpips) -> None:
        self.lpips = lpips

    def start(self, clip: ClipContext) -> Score:
        """See `Measure.start`."""
        return partial(
            _beside_baseline, lambda found, truth: {"lpips": self.lpips(found, truth)}, clip.source
        )


class DetectorMeasure:
    """Compares what a detector finds in predicted and real frames.

    From keypoints: AKD (as published, and with Euclidean distances) and MKR. From identity
    embeddings: AED (Euclidean, and squared as in FOMM's published script) and CSIM. Metrics that
    need what the detector cannot find are missing.
    """

    def __init__(self, detector: Detector) -> None:
        self._detector = detector

    def start(self, clip: ClipContext) -> Score:
        """See `Measure.start`."""
        in_source = self._find(clip.source)

        def score(prediction: Tensor, target: Tensor) -> FrameMetrics:
            found, truth = self._find(prediction), self._find(target)
            metrics: FrameMetrics = {}
            for name, compare in _COMPARISONS.items():
                if name in truth:
                    metrics |= _beside_baseline(compare, in_source[name], found[name], truth[name])
            return metrics

        return score

    def _find(self, images: Tensor) -> dict[str, Tensor]:
        """Detect `keypoints`, B x K x 2, and `embeddings`, B x D; NaN where nothing was found."""
        found: dict[str, list[NDArray[np.float64]]] = {}
        # Frame by frame, so that a detector can use the same face for both.
        for frame in to_uint8(images):
            if isinstance(self._detector, LandmarkDetector):
                found.setdefault("keypoints", []).append(self._detector.landmarks(frame))
            if isinstance(self._detector, IdentityEncoder):
                found.setdefault("embeddings", []).append(self._detector.embedding(frame))
        return {name: torch.from_numpy(np.stack(values)) for name, values in found.items()}


# Comparisons of frames


def pixel_metrics(prediction: Tensor, target: Tensor) -> FrameMetrics:
    """L1, PSNR and SSIM of each frame: B x 3 x H x W twice -> B each."""
    return {
        "l1": l1(prediction, target),
        "psnr": psnr(prediction, target),
        "ssim": ssim(prediction, target),
    }


def figure_metrics(prediction: Tensor, target: Tensor, region: Tensor) -> FrameMetrics:
    """L1 of each frame over `region`, B x 1 x H x W bool: B."""
    return {"figure_l1": region_l1(prediction, target, region)}


def salient_metrics(prediction: Tensor, target: Tensor, region: Tensor) -> FrameMetrics:
    """Pixel metrics over the real frame's salient `region` (B x 1 x H x W bool) and over the rest.

    `_salient` and `_non_salient` follow the papers: they are over the whole frame, with both images
    black outside of the region. `_salient_pixels` and `_non_salient_pixels` are over the region's
    own pixels. NaN for a frame whose region is empty.
    """
    metrics = {}
    for name, inside in (("salient", region), ("non_salient", ~region)):
        is_defined = inside.flatten(1).any(dim=1)
        whole = pixel_metrics(masked(prediction, inside), masked(target, inside))
        for metric, values in whole.items():
            metrics[f"{metric}_{name}"] = values.where(is_defined, torch.nan)
        metrics[f"l1_{name}_pixels"] = region_l1(prediction, target, inside)
        metrics[f"psnr_{name}_pixels"] = region_psnr(prediction, target, inside)
        metrics[f"ssim_{name}_pixels"] = region_ssim(prediction, target, inside)
    return metrics


def true_foreground(clips: ClipSource, index: int, frames: Sequence[int]) -> Tensor | None:
    """True masks of the figure, B x 1 x H x W bool; None for clips that have none."""
    if not isinstance(clips, HasForeground):
        return None
    return torch.from_numpy(clips.foreground_masks(index, frames) > 0.5).unsqueeze(1)


def keypoint_metrics(prediction: Tensor, target: Tensor) -> FrameMetrics:
    """AKD and MKR of keypoints found in B frames, B x K x 2."""
    return {
        "akd": akd(prediction, target),
        "akd_euclidean": akd_euclidean(prediction, target),
        "mkr": mkr(prediction, target),
    }


def identity_metrics(prediction: Tensor, target: Tensor) -> FrameMetrics:
    """AED and CSIM of identity embeddings of B frames, B x D."""
    return {
        "aed": aed(prediction, target),
        "aed_squared": aed_squared(prediction, target),
        "csim": csim(prediction, target),
    }


_COMPARISONS: dict[str, Callable[[Tensor, Tensor], FrameMetrics]] = {
    "keypoints": keypoint_metrics,
    "embeddings": identity_metrics,
}


def _beside_baseline(
    compare: Callable[[Tensor, Tensor], FrameMetrics], source: Tensor, found: Tensor, truth: Tensor
) -> FrameMetrics:
    """Compare `found` with `truth`, and as the baseline `source` (1 x ...), repeated, with it."""
    baseline = compare(source.expand_as(truth), truth)
    return compare(found, truth) | {f"baseline_{name}": baseline[name] for name in baseline}
