"""Evaluation by reconstruction: a clip's first frame is the source, all frames are driving."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from animation.branch_animators import AnimatorName, BranchAnimator, Move, animate, frames_to_tensor
from branches.masks import MaskBranch
from common.errors import UserError
from datasets.source import ClipSource
from evaluation.measures import (
    ClipContext,
    FigureMeasure,
    FrameMetrics,
    Measure,
    PixelMeasure,
    true_foreground,
)
from media.frames import Frame, Frames
from metrics.masks import mask_iou
from modules.geometry import resize

ERROR_GAIN = 4  # factor of the last column, where an error of a quarter of the range is white
COLUMNS = ("source", "driving", "prediction", f"{ERROR_GAIN}x error")
# Cheap enough to compute during training.
VALIDATION: tuple[Measure, ...] = (PixelMeasure(), FigureMeasure())


class ReconstructedBatch(NamedTuple):
    """Driving frames, uint8 B x H x W x 3, with their predictions and metrics."""

    driving: Frames
    prediction: Tensor
    metrics: FrameMetrics


def reconstruct_clip(
    animator: BranchAnimator,
    clips: ClipSource,
    index: int,
    frames: Sequence[int] | None = None,
    batch_size: int = 8,
    measures: Sequence[Measure] = VALIDATION,
) -> Iterator[ReconstructedBatch]:
    """Reconstruct and measure `frames` of clip `index`, with the first of them as the source.

    `frames` None means all frames of the clip, which are then streamed.
    """
    if frames is None:
        frames = range(clips.num_frames(index))
        driving = clips.stream(index)
    else:
        driving = iter(clips.read(index, frames))
    source = clips.read(index, frames[:1])[0]
    with torch.inference_mode():
        clip = ClipContext(clips, index, frames, frames_to_tensor(source[None], animator.device))
        scores = [measure.start(clip) for measure in measures]
    for batch, prediction in animate(animator, source, driving, batch_size):
        with torch.inference_mode():
            target = frames_to_tensor(batch, animator.device)
            metrics: FrameMetrics = {}
            for score in scores:
                metrics |= score(prediction, target)
        yield ReconstructedBatch(batch, prediction, metrics)


class EightBit:
    """An animator that rounds the predictions of `animator` to 8 bits.

    So the metrics are those of PNG files, as in published evaluations.
    """

    def __init__(self, animator: BranchAnimator) -> None:
        self.device = animator.device
        self._animator = animator

    def start(self, source: Tensor, reference: Tensor | None = None) -> Move:
        """See `BranchAnimator.start`."""
        move = self._animator.start(source, reference)
        return lambda driving: move(driving).mul(255).round().clamp(0, 255) / 255


def check_finite(prediction: Tensor, clip: str, first: int) -> None:
    """Make sure that `prediction`, B x 3 x H x W, is finite.

    Args:
        first: number of the first of these frames in the clip.

    Raises:
        UserError: it is not; names the clip and the frame.
    """
    is_finite = prediction.isfinite().flatten(1).all(dim=1)
    if not is_finite.all():
        frame = first + int(is_finite.logical_not().nonzero()[0])
        raise UserError(
            f"{clip}: frame {frame} of the prediction is not finite; the checkpoint is damaged or "
            "its training diverged"
        )


def side_by_side(source: Frame, driving: Frame, prediction: Frame) -> Frame:
    """Put the pictures of COLUMNS side by side: H x 4W x 3."""
    error = np.abs(prediction.astype(np.int16) - driving) * ERROR_GAIN
    columns = (source, driving, prediction, error.clip(max=255).astype(np.uint8))
    return np.concatenate(columns, axis=1)


def evaluate(
    animators: Mapping[AnimatorName, BranchAnimator],
    clips: ClipSource,
    *,
    num_clips: int,
    num_frames: int,
    batch_size: int,
) -> dict[str, float]:
    """Mean metrics over `num_clips` clips and `num_frames` frames of each, both spread evenly.

    Metrics of the first animator have their usual names and come with baselines. Metrics of further
    animators have the animator's name in front, such as `masks_l1`, and no baselines.
    """
    means: dict[str, float] = {}
    for name, animator in animators.items():
        collected: list[FrameMetrics] = []
        for index in spread(len(clips.clips), num_clips):
            frames = spread(clips.num_frames(index), num_frames)
            batches = reconstruct_clip(animator, clips, index, frames, batch_size)
            collected += [batch.metrics for batch in batches]
        found = mean_metrics(collected)
        if means:
            found = {
                f"{name}_{metric}": value
                for metric, value in found.items()
                if not metric.startswith("baseline_")
            }
        means |= found
    return means


def evaluate_masks(
    branch: MaskBranch,
    clips: ClipSource,
    device: torch.device,
    *,
    threshold: float,
    num_clips: int,
    num_frames: int,
) -> dict[str, float]:
    """Mean overlap (IoU) of the foreground masks with the true ones, at image size.

    `mask_iou` is of the masks binarized at `threshold`, `mask_iou_all_white` of masks that are all
    foreground. Empty for clips without true masks.
    """
    overlaps = mask_overlaps(branch, clips, device, [threshold], num_clips, num_frames)
    if not overlaps:
        return {}
    means = mean_metrics(overlaps)
    return {"mask_iou": means[str(threshold)], "mask_iou_all_white": means["all_white"]}


@torch.inference_mode()
def mask_overlaps(
    branch: MaskBranch,
    clips: ClipSource,
    device: torch.device,
    thresholds: Sequence[float],
    num_clips: int,
    num_frames: int,
) -> list[FrameMetrics]:
    """IoU per clip and frame, by threshold (as text) and for `all_white`; see `evaluate_masks`."""
    collected: list[FrameMetrics] = []
    for index in spread(len(clips.clips), num_clips):
        frames = spread(clips.num_frames(index), num_frames)
        truth = true_foreground(clips, index, frames)
        if truth is None:
            return []
        truth = truth.to(device)
        masks = branch.mask_generator(frames_to_tensor(clips.read(index, frames), device))
        masks = resize(masks, clips.image_size)
        overlaps = {str(threshold): mask_iou(masks > threshold, truth) for threshold in thresholds}
        overlaps["all_white"] = mask_iou(torch.ones_like(truth), truth)
        collected.append(overlaps)
    return collected


def mean_metrics(collected: Sequence[FrameMetrics]) -> dict[str, float]:
    """Mean of each metric over all frames; frames where it is NaN are left out."""
    return {
        name: float(torch.cat([metrics[name] for metrics in collected]).nanmean())
        for name in collected[0]
    }


def spread(total: int, count: int) -> list[int]:
    """At most `count` indices from 0 to total - 1, spread evenly, with both ends."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int)).tolist()
