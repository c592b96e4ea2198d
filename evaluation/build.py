"""Builds the measures that the options of reconstruct.py ask for."""

from pathlib import Path
from typing import NamedTuple

import torch

from animation.branch_animators import AnimatorName
from branches.model import Model
from common.errors import UserError
from common.limits import LIMITS, Limits
from datasets.source import ClipSource
from evaluation.frechet_measures import FrechetMeasure
from evaluation.frechet_results import FrechetResults
from evaluation.measures import (
    DetectorMeasure,
    FigureMeasure,
    LpipsMeasure,
    Measure,
    PixelMeasure,
    SalientMeasure,
    TemporalMeasure,
)
from evaluation.metric_names import Tool
from evaluation.regions import DetectedRegions, GivenRegions, MaskRegions, MotionRegions, Regions
from media.images import Fit
from metrics.detectors.build import REGION_FINDERS, build_detector, build_region_finder
from metrics.detectors.detector import Description, IdentityEncoder
from metrics.extractors import SOURCES, TORCHVISION, build_extractor
from metrics.frechet import FrechetMetric
from metrics.lpips import Lpips, LpipsNet

MODEL_REGION = "model"
SMALLEST_FOR_LPIPS = 32  # pixels; smaller frames have no pixel left after the last pooling


class Wanted(NamedTuple):
    """Values of the options of reconstruct.py; None where an option is not given.

    fid, fvd: also empty, where the option names no network.
    fvd_length: frames of a clip of FVD.
    """

    detector: str | None
    salient: str | None
    lpips: LpipsNet | None
    fid: str | None
    fvd: str | None
    fvd_length: int


class Plan(NamedTuple):
    """The plan of an evaluation: its measures, and their tools.

    measures: the measures to compute.
    frechet: those of them that gather FID or FVD.
    measured_with: descriptions of the tools (detector, salient regions, LPIPS network) that the
        measures use; the results name them, since numbers of different tools cannot be compared.
    left_out: one line for each metric that was asked for but cannot be measured here.
    """

    measures: list[Measure]
    measured_with: dict[Tool, Description]
    left_out: list[str]
    frechet: list[FrechetMeasure]

    def frechet_results(self) -> FrechetResults:
        """Compute FID and FVD of the clips that were added so far; takes seconds."""
        return {measure.metric: measure.result() for measure in self.frechet}


def build_plan(
    wanted: Wanted,
    *,
    model: Model,
    origin: str,
    animator: AnimatorName,
    clips: ClipSource,
    fit: Fit,
    limits: Limits = LIMITS,
    device: torch.device,
) -> Plan:
    """Choose the measures for the options; without options, those that need no tool.

    Args:
        origin: description of the model's weights, for salient regions that the model finds.
        fit: how the clips' frames are brought to the image size; given masks are treated alike.
        limits: size limits for given masks.

    Raises:
        UserError: given masks do not fit the clips, the frames are too small, or the file of an
            extractor cannot be used.
    """
    plan = Plan([PixelMeasure(), FigureMeasure(), TemporalMeasure()], {}, [], [])
    if wanted.lpips is not None:
        _add_lpips(plan, wanted.lpips, clips, device)
    if wanted.detector is not None:
        _add_detector(plan, wanted.detector, device)
    if wanted.fid is not None:
        _add_frechet(plan, "fid", wanted.fid, 1, device)
    if wanted.fvd is not None:
        _add_frechet(plan, "fvd", wanted.fvd, wanted.fvd_length, device)
    salient = wanted.salient
    if salient is None:
        return plan
    regions: Regions
    if salient in REGION_FINDERS:
        try:
            regions = DetectedRegions(build_region_finder(salient))
        except UserError as error:
            plan.left_out.append(f"no salient metrics: {error}")
            return plan
    elif salient == MODEL_REGION:
        if animator == "motion" and model.motion is not None and not model.motion.has_background:
            plan.left_out.append(
                f"no salient metrics: a motion model of kind {model.motion.kind} has no background "
                "weight; --salient person or saliency finds the figure"
            )
            return plan
        regions = _model_regions(model, animator, origin)
    else:
        regions = GivenRegions(Path(salient), clips, fit, limits)
    plan.measures.append(SalientMeasure(regions))
    plan.measured_with["salient"] = regions.description
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
    plan.measures.append(LpipsMeasure(network))
    plan.measured_with["lpips"] = network.description


def _add_detector(plan: Plan, name: str, device: torch.device) -> None:
    try:
        detector = build_detector(name, device)
    except UserError as error:
        plan.left_out.append(f"no akd, mkr, aed, csim: {error}")
        return
    plan.measured_with["detector"] = detector.description
    plan.measures.append(DetectorMeasure(detector))
    if not isinstance(detector, IdentityEncoder):
        plan.left_out.append(
            f"no aed, csim: {name} does not tell people apart; --detector dlib does"
        )


def _add_frechet(
    plan: Plan, metric: FrechetMetric, given: str, clip_length: int, device: torch.device
) -> None:
    if not given:
        plan.left_out.append(f"no {metric}: --{metric} without a network: {SOURCES[metric]}")
        return
    try:
        extractor = build_extractor(given, metric, device)
    except UserError as error:
        if given not in TORCHVISION[metric]:  # a file that was named must not be left out
            raise
        plan.left_out.append(f"no {metric}: {error}")
        return
    measure = FrechetMeasure(metric, extractor, given, clip_length)
    plan.measures.append(measure)
    plan.frechet.append(measure)
    plan.measured_with[metric] = measure.description


def _model_regions(model: Model, animator: AnimatorName, origin: str) -> Regions:
    if animator == "motion":
        assert model.motion is not None, "its animator was found"
        return MotionRegions(model.motion, origin)
    assert model.masks is not None, "its animator was found"
    return MaskRegions(model.masks, model.mask_threshold, origin)
