"""Settings of an animation: options of animate.py and the Python API, and rules between them."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass

from animation.background_swap import BackgroundType, Compose, Edge
from animation.branch_animators import AnimatorName, choose_mode
from animation.inputs import Picture, is_transparent
from animation.mask_sources import Masks
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
    masks: `model`, `person`, `saliency`, or a file or folder with a mask for each driving frame.
    background_masks: the same for the figure in a background of type `same`.

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
    masks: Masks | None = None
    background_masks: Masks | None = None
    edge: Edge | None = None
    batch_size: PositiveInt = 8


def check_motion(settings: Settings, branch: MotionBranch, has_masks: bool) -> None:
    """Raise UserError if the motion model `branch` cannot do what is asked for; says why.

    Args:
        has_masks: there are masks of the animated frames, which can be smoothed, too.
    """
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
    if settings.smooth and not branch.has_keypoints and not has_masks:
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


def check_background(settings: Settings, has_background: bool, with_masks: bool) -> None:
    """Raise UserError if an option needs a background, or excludes one.

    Args:
        with_masks: the masks of the animated frames are shown or saved, with or without one.
    """
    if has_background and settings.paste_back:
        raise UserError(
            "--paste-back keeps what surrounds the source, --background replaces it; leave one out"
        )
    if has_background:
        return
    options = ["background_type", "background_end", "compose", "background_masks", "edge"]
    if not with_masks:
        options.append("masks")
    for option in options:
        if getattr(settings, option) is not None:
            raise UserError(
                f"{as_typed(option)} says what to do with a --background; give one, or leave it out"
            )


def choose_swap(
    background: Picture, settings: Settings, compose: Compose, background_type: BackgroundType
) -> tuple[BackgroundType, Compose]:
    """Choose the type of background and the way to compose; `compose` and `background_type` are the
    defaults for a picture or a clip.

    Raises:
        UserError: a setting does not apply to this kind of background.
    """
    if is_transparent(background):
        for option in ("background_type", "background_masks"):
            _refuse(settings, option, "a transparent background has no picture")
        if settings.compose == "network":
            _refuse(settings, "compose", "a transparent background has no picture")
        return "other", "alpha"
    if isinstance(background, str) and parse_color(background) is not None:
        reason = f"the colour {background} has no figure to remove"
        _refuse(settings, "background_masks", reason)
        if settings.background_type == "same":
            _refuse(settings, "background_type", reason)
        return "other", settings.compose or "alpha"
    if settings.background_type == "other":
        _refuse(settings, "background_masks", "--background-type other removes no figure")
    return settings.background_type or background_type, settings.compose or compose


def _refuse(settings: Settings, option: str, reason: str) -> None:
    """Raise UserError if the setting `option` is given."""
    value = getattr(settings, option)
    if value is not None:
        raise UserError(f"{as_typed(option)} {value}: {reason}; leave it out")


def as_typed(option: str) -> str:
    """The name of an option as the user types it: paste_back becomes --paste-back."""
    return "--" + option.replace("_", "-")
