"""Metrics of benchmarks/ablation.py on test clips, over the whole frame and over the foreground."""

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor
from tqdm import tqdm

from animation.branch_animators import BranchAnimator, animate, frames_to_tensor
from datasets.source import ClipSource, HasForeground, HasHiddenPixels
from evaluation.measures import FrameMetrics, figure_metrics, pixel_metrics
from evaluation.reconstruction import spread
from metrics.image import region_l1, region_psnr, ssim

OF_FRAMES: Final = ("l1", "psnr", "ssim", "figure_l1", "figure_psnr", "ssim_masked")
OF_HIDDEN_PIXELS: Final = ("hidden_l1", "hidden_psnr")  # of clips that know these pixels
METRICS: Final = (*OF_FRAMES, *OF_HIDDEN_PIXELS)
# A pixel moves if a colour channel differs from the source frame by more than this; compression
# alone changes less.
_MOTION_THRESHOLD = 0.1

ClipScores = dict[str, list[float | None]]  # by metric: a number for each clip, None if undefined


@torch.inference_mode()
def score_clips(
    animator: BranchAnimator, clips: ClipSource, num_frames: int
) -> tuple[ClipScores, ClipScores]:
    """Reconstruct and measure every clip.

    Returns:
        The scores of `animator`, and those of the baseline that repeats the source frame.
    """
    names = metrics_of(clips)
    scores: ClipScores = {name: [] for name in names}
    baseline: ClipScores = {name: [] for name in names}
    for index in tqdm(range(len(clips.clips)), unit="clip", disable=None):
        frames = spread(clips.num_frames(index), num_frames)
        driving = clips.read(index, frames)
        target = frames_to_tensor(driving, animator.device)
        batches = animate(animator, driving[0], iter(driving))
        prediction = torch.cat([predicted for _, predicted in batches])
        region = foreground_region(clips, index, frames, target)
        hidden = _hidden_pixels(clips, index, frames, target)
        for result, collected in ((prediction, scores), (target[:1].expand_as(target), baseline)):
            for name, values in score_frames(result, target, region, hidden).items():
                mean = float(values.nanmean())
                collected[name].append(None if math.isnan(mean) else mean)
    return scores, baseline


def foreground_region(
    clips: ClipSource, index: int, frames: Sequence[int], target: Tensor
) -> Tensor:
    """Pixels of the true figure or, if the clip does not know it, pixels that move.

    Args:
        target: the `frames` of clip `index`, B x 3 x H x W; the first of them is the source.

    Returns:
        B x 1 x H x W, bool.
    """
    if isinstance(clips, HasForeground):
        inside = torch.from_numpy(clips.foreground_masks(index, frames) > 0.5).unsqueeze(1)
        return (inside[:1] | inside).to(target.device)
    return (target - target[:1]).abs().amax(dim=1, keepdim=True) > _MOTION_THRESHOLD


def metrics_of(clips: ClipSource) -> tuple[str, ...]:
    """The metrics that can be measured on these clips."""
    return METRICS if isinstance(clips, HasHiddenPixels) else OF_FRAMES


def _hidden_pixels(
    clips: ClipSource, index: int, frames: Sequence[int], target: Tensor
) -> Tensor | None:
    """Pixels that the first of the frames does not show, B x 1 x H x W; None if nobody knows."""
    if not isinstance(clips, HasHiddenPixels):
        return None
    found = clips.hidden_pixels(index, frames[0], frames)
    return torch.from_numpy(found).unsqueeze(1).to(target.device)


def describe_foreground(clips: ClipSource) -> str:
    """Say which pixels `foreground_region` takes, for the report."""
    if isinstance(clips, HasForeground):
        return "the true figure, in the source or in the driving frame"
    return (
        f"pixels that differ from the source frame by more than {_MOTION_THRESHOLD} in a colour "
        "channel"
    )


def score_frames(
    prediction: Tensor, target: Tensor, region: Tensor, hidden: Tensor | None = None
) -> FrameMetrics:
    """Compute `METRICS` for each frame, B numbers each; NaN if the region is empty.

    Args:
        prediction, target: B x 3 x H x W in [0, 1].
        region: the foreground, B x 1 x H x W, bool.
        hidden: pixels that the source does not show, B x 1 x H x W, bool; without them, their
            metrics are left out.
    """
    masked = ssim(prediction * region, target * region)
    scores = {
        **pixel_metrics(prediction, target),
        **figure_metrics(prediction, target, region),
        "figure_psnr": region_psnr(prediction, target, region),
        "ssim_masked": torch.where(region.flatten(1).any(dim=1), masked, torch.nan),
    }
    if hidden is not None:
        scores["hidden_l1"] = region_l1(prediction, target, hidden)
        scores["hidden_psnr"] = region_psnr(prediction, target, hidden)
    return scores
