"""Settings of an animation: options of animate.py and the Python API, and rules between them."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass

from animation.background_swap import BackgroundType, Compose
from animation.branch_animators import AnimatorName
from animation.inputs import TRANSPARENT, Picture
from common.errors import UserError
from media.backgrounds import BackgroundEnd, parse_color
from media.crops import Box

Motion = Literal["relative", "absolute"]
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
    motion: Motion | None = None
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


def check_motion(settings: Settings, animator: AnimatorName) -> None:
    """Raise UserError if an option does not apply to this animator or kind of motion."""
    if animator == "masks":
        given = {
            "--motion": settings.motion is not None,
            "--adapt-scale": settings.adapt_scale,
            "--reference-frame": settings.reference_frame != "first",
        }
        for option, is_given in given.items():
            if is_given:
                raise UserError(
                    f"{option} belongs to the animator motion; leave it out, or use "
                    "--animator motion"
                )
    if settings.motion == "absolute":
        for option, is_given in (
            ("--reference-frame", settings.reference_frame != "first"),
            ("--adapt-scale", settings.adapt_scale),
        ):
            if is_given:
                raise UserError(
                    f"{option} is for relative motion: absolute motion refers to no frame; leave "
                    "one of them out"
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
