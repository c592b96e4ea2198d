"""From the options of reconstruct.py to what is measured."""

from pathlib import Path
from typing import NamedTuple

import torch

from animation.branch_animators import AnimatorName
from branches.model import Model
from common.errors import UserError
from common.limits import LIMITS, Limits
from datasets.source import ClipSource
from evaluation.measures import (
    Detected,
    Figure,
    Measure,
    Perceived,
    Pixels,
    Salient,
    Temporal,
)
from evaluation.metric_names import Convention
from evaluation.regions import FoundRegions, GivenRegions, MaskRegions, MotionRegions, Regions
from media.images import Fit
from metrics.detectors.build import REGION_FINDERS, build_detector, build_region_finder
from metrics.detectors.detector import Description, IdentityEncoder
from metrics.lpips import Lpips, LpipsNet

MODEL_REGION = "model"
SMALLEST_FOR_LPIPS = 32  # pixels; below, nothing is left of the frame after the last pooling


class Plan(NamedTuple):
    """measures: what to measure. conventions: by whom, where somebody found what is compared.
    left_out: a line for each metric that was asked for and cannot be measured here.
    """

    measures: list[Measure]
    conventions: dict[Convention, Description]
    left_out: list[str]


def build_plan(
    *,
    detector: str | None,
    salient: str | None,
    lpips: LpipsNet | None,
    model: Model,
    origin: str,
    animator: AnimatorName,
    clips: ClipSource,
    fit: Fit,
    limits: Limits = LIMITS,
    device: torch.device,
) -> Plan:
    """What the options ask for; without any, what needs nothing but the frames.

    Args:
        origin: where the model's weights come from: its own regions are those of no other.
        fit: how the clips' frames are brought to the image size; given masks go the same way.
        limits: of given masks.

    Raises:
        UserError: given masks do not fit the clips, or the frames are too small.
    """
    plan = Plan([Pixels(), Figure(), Temporal()], {}, [])
    if lpips is not None:
        _add_lpips(plan, lpips, clips, device)
    if detector is not None:
        _add_detector(plan, detector, device)
    if salient is None:
        return plan
    regions: Regions
    if salient in REGION_FINDERS:
        try:
            regions = FoundRegions(build_region_finder(salient))
        except UserError as error:
            plan.left_out.append(f"no salient metrics: {error}")
            return plan
    elif salient == MODEL_REGION:
        regions = _model_regions(model, animator, origin)
    else:
        regions = GivenRegions(Path(salient), clips, fit, limits)
    plan.measures.append(Salient(regions))
    plan.conventions["salient"] = regions.description
    return plan


def _add_lpips(plan: Plan, net: LpipsNet, clips: ClipSource, device: torch.device) -> None:
    if min(clips.image_size) < SMALLEST_FOR_LPIPS:
        height, width = clips.image_size
        raise UserError(
            f"--lpips: frames of {width} x {height} pixels; it needs {SMALLEST_FOR_LPIPS} each way"
        )
    try:
        network = Lpips(net).to(device)
    except UserError as error:
        plan.left_out.append(f"no lpips: {error}")
        return
    plan.measures.append(Perceived(network))
    plan.conventions["lpips"] = network.description


def _add_detector(plan: Plan, name: str, device: torch.device) -> None:
    try:
        detector = build_detector(name, device)
    except UserError as error:
        plan.left_out.append(f"no akd, mkr, aed: {error}")
        return
    plan.conventions["detector"] = detector.description
    plan.measures.append(Detected(detector))
    if not isinstance(detector, IdentityEncoder):
        plan.left_out.append(f"no aed: {name} does not tell people apart; --detector dlib does")


def _model_regions(model: Model, animator: AnimatorName, origin: str) -> Regions:
    if animator == "motion":
        assert model.motion is not None, "it animates"
        return MotionRegions(model.motion, origin)
    assert model.masks is not None, "it animates"
    return MaskRegions(model.masks, model.mask_threshold, origin)
