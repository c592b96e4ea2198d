"""Settings of an animation: options of animate.py and the Python API, and rules between them."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass

from animation.background_swap import BackgroundType, Compose
from animation.branch_animators import AnimatorName, choose_mode
from animation.inputs import TRANSPARENT, Picture
from branches.motion.branch import MotionBranch, MotionMode
from common.errors import UserError
from media.backgrounds import BackgroundEnd, parse_color
from media.crops import Box

ReferenceFrame = Annotated[int, Field(ge=0)] | Literal["first", "auto"]
Crop = Box | Literal["auto", "none"]


@dataclass(frozen=True)
class Settings:
    """Settings of an animation. Each field is an option of animate.py, whose help explains it; None
    means the default that fits the model and the inputs.

    reference_frame: a number counts from 0 in the driving frames as they are given.
    crop_source, crop_driving: `none` fits the whole picture, in the way `data.fit` says.

    Raises:
        ValueError: a field has a value that its type does not allow.
    """

    animator: AnimatorName | None = None
    motion: MotionMode | None = None
    adapt_scale: bool = False
    reference_frame: ReferenceFrame = "first"
    smooth: bool = False
    crop_source: Crop = "none"
    crop_driving: Crop = "none"
    paste_back: bool = False
    background_type: BackgroundType | None = None
    background_end: BackgroundEnd | None = None
    compose: Compose | None = None
    batch_size: PositiveInt = 8


def check_motion(settings: Settings, branch: MotionBranch) -> None:
    """Raise UserError if the motion model `branch` cannot do what is asked for; says why."""
    mode = choose_mode(branch, settings.motion)
    for option, is_given in {
        "--reference-frame": settings.reference_frame != "first",
        "--adapt-scale": settings.adapt_scale,
    }.items():
        if not is_given or mode == "relative":
            continue
        if "relative" not in branch.modes:
            raise UserError(
                f"{option} is for relative motion, which the motion model, of kind {branch.kind}, "
                "does not have, since it has no keypoints; leave it out"
            )
        raise UserError(
            f"{option} is for relative motion: {mode} motion refers to no frame; leave one of them "
            "out"
        )
    if settings.smooth and not branch.has_keypoints:
        raise UserError(
            f"--smooth filters keypoints, and the motion model, of kind {branch.kind}, has none; "
            "leave it out"
        )


def describe_motion(settings: Settings, branch: MotionBranch, num_sources: int) -> list[str]:
    """Notes on what the motion model `branch` does without being asked, and on several sources."""
    notes = []
    if settings.motion is None and branch.modes == ("absolute",):
        notes.append(f"motion absolute: a motion model of kind {branch.kind} has no other")
    if settings.adapt_scale and branch.always_adapts_scale:
        notes.append(f"--adapt-scale: a motion model of kind {branch.kind} always does so")
    if num_sources > 1:
        notes.append(f"{num_sources} sources make one figure, whose pixels move")
    return notes


def check_sources(num_sources: int, branch: MotionBranch | None) -> None:
    """Raise UserError if there are fewer or more sources than can be used.

    Args:
        branch: the motion model that moves them; None if the mask branch does.
    """
    if num_sources == 0:
        raise UserError("source: an empty list; give at least one picture")
    if num_sources == 1 or (branch is not None and branch.takes_several_sources):
        return
    which = "animator masks" if branch is None else f"motion model, of kind {branch.kind},"
    raise UserError(f"--more-sources: the {which} takes one source; leave the others out")


def check_masks(settings: Settings) -> None:
    """Raise UserError if an option does not apply to the animator masks."""
    for option, is_given in {
        "--motion": settings.motion is not None,
        "--adapt-scale": settings.adapt_scale,
        "--reference-frame": settings.reference_frame != "first",
    }.items():
        if is_given:
            raise UserError(
                f"{option} belongs to the animator motion; leave it out, or use --animator motion"
            )


def check_background(settings: Settings, has_background: bool) -> None:
    """Raise UserError if an option needs a background, or excludes one."""
    if has_background and settings.paste_back:
        raise UserError(
            "--paste-back keeps what surrounds the source, --background replaces it; leave one out"
        )
    if has_background:
        return
    for option in ("background_type", "background_end", "compose"):
        if getattr(settings, option) is not None:
            raise UserError(
                f"{as_typed(option)} says what to do with a --background; give one, or leave it out"
            )


def choose_swap(background: Picture, settings: Settings) -> tuple[BackgroundType, Compose]:
    """Choose the type of background and the way to compose; fills in the defaults.

    Raises:
        UserError: they do not apply to this kind of background.
    """
    kind, compose = settings.background_type, settings.compose
    if is_transparent(background):
        if kind is not None or compose == "network":
            option = f"--compose {compose}" if kind is None else f"--background-type {kind}"
            raise UserError(f"{option}: a transparent background has no picture; leave it out")
        return "other", "alpha"
    if isinstance(background, str) and parse_color(background) is not None:
        if kind == "same":
            raise UserError(
                f"--background-type same: the colour {background} has no figure to remove; leave "
                "it out"
            )
        return "other", compose or "alpha"
    return kind or "same", compose or "network"


def is_transparent(background: Picture | None) -> bool:
    """Whether `background` is the keyword `transparent`."""
    return isinstance(background, str | Path) and str(background) == TRANSPARENT


def as_typed(option: str) -> str:
    """The name of an option as the user types it: paste_back becomes --paste-back."""
    return "--" + option.replace("_", "-")
