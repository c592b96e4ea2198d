"""Converts the values of the page's controls to a job; says what the page's model can do."""

import re
from collections.abc import Collection
from fractions import Fraction
from pathlib import Path
from typing import Literal, NamedTuple

from animation.background_swap import BackgroundType, Compose
from animation.branch_animators import AnimatorName
from animation.inputs import SOURCE, TRANSPARENT
from animation.jobs import Job, JobOptions
from animation.layouts import LayoutName
from animation.settings import Settings
from branches.model import Model
from branches.motion.branch import MotionMode
from common.errors import UserError
from media.excerpt import parse_time

BackgroundKind = Literal["none", "image", "clip", "colour", "source", "transparent"]

OPTION = re.compile(r"(?<!\S)--([a-z]+(?:-[a-z]+)*)")  # an option in a message: --paste-back
_LONGEST_STEM = 40  # characters of an uploaded file's name that the result's name contains
_NUMBER = r"\s*(\d+(?:\.\d*)?)\s*"
RGBA = re.compile(
    rf"rgba?\({_NUMBER},{_NUMBER},{_NUMBER}(?:,{_NUMBER})?\)"
)  # value of a colour picker


class Capabilities(NamedTuple):
    """The capabilities of a model.

    animators: its animators.
    has_cutting: it can put the figure on another background.
    has_painting: it can do so with the networks BGBase and BGRefine.
    modes: ways in which its motion branch moves a source, the default first; empty without one.
    has_keypoints: its motion branch has keypoints, which can be smoothed.
    has_scale: the scale of relative motion can be chosen.
    notes: one line for each thing that it cannot do, with the reason.
    """

    animators: tuple[AnimatorName, ...]
    has_cutting: bool
    has_painting: bool
    modes: tuple[MotionMode, ...]
    has_keypoints: bool
    has_scale: bool
    notes: tuple[str, ...]


class FormValues(NamedTuple):
    """Values of the page's controls. Fields with the name of an option of animate.py mean the same.

    source, driving, background_image, background_clip: paths of uploaded files.
    background: the kind of background.
    background_color: `#00ff00` or `rgba(0, 255, 0, 1)`.
    start, end: as typed; empty for the whole clip.
    """

    source: str | None
    driving: str | None
    background: BackgroundKind
    background_image: str | None
    background_clip: str | None
    background_color: str
    background_type: BackgroundType
    compose: Compose
    animator: AnimatorName
    motion: MotionMode | None
    reference_frame: Literal["first", "auto"]
    adapt_scale: bool
    smooth: bool
    crop: Literal["auto", "none"]
    paste_back: bool
    start: str
    end: str
    sound: bool
    layout: LayoutName


class Controls(NamedTuple):
    """Which controls of motion have an effect, for an animator and a mode of motion."""

    motion: bool
    reference_frame: bool
    adapt_scale: bool
    smooth: bool


def find_capabilities(model: Model, untrained: Collection[str], age: str) -> Capabilities:
    """Find out what a model can do.

    Args:
        untrained: parts whose training has not started; see `Checkpoint.untrained`.
        age: how long the model was trained, in words.

    Raises:
        UserError: the model cannot animate at all.
    """
    notes = []
    branches, motion = model.branches, model.motion
    animators: list[AnimatorName] = ["motion"] if motion is not None else []
    has_cutting = "masks" in branches
    has_painting = "background" in branches and "background" not in untrained
    if has_cutting and "masks.refinement" not in untrained:
        animators.append("masks")
    elif has_cutting:
        notes.append(f"No animator masks: at {age} the refinement has not started.")
    if not animators:
        raise UserError(
            f"--checkpoint: at {age} the refinement has not started, so nothing can be animated; "
            "train on"
        )
    if motion is not None and not motion.has_keypoints:
        notes.append(f"No relative motion: a motion model of kind {motion.kind} has no keypoints.")
    if not has_cutting:
        notes.append("No other background: the checkpoint was trained without the mask branch.")
    elif "background" not in branches:
        notes.append(
            "Another background is laid under the figure, not painted: the checkpoint was trained "
            "without the background branch."
        )
    elif not has_painting:
        notes.append(
            "Another background is laid under the figure, not painted: at "
            f"{age} the background branch has not started."
        )
    return Capabilities(
        tuple(animators),
        has_cutting,
        has_painting,
        () if motion is None else motion.modes,
        motion is not None and motion.has_keypoints,
        motion is not None and not motion.always_adapts_scale,
        tuple(notes),
    )


def find_controls(
    capabilities: Capabilities, animator: AnimatorName, motion: MotionMode | None
) -> Controls:
    """Find out which controls of motion have an effect; the page shows only these."""
    is_motion = animator == "motion"
    is_relative = is_motion and motion == "relative"
    return Controls(
        motion=is_motion and len(capabilities.modes) > 1,
        reference_frame=is_relative,
        adapt_scale=is_relative and capabilities.has_scale,
        smooth=not is_motion or capabilities.has_keypoints,
    )


def read_job(form: FormValues, folder: Path) -> Job:
    """The job for the values of the form; its result goes to `folder`.

    Raises:
        UserError: a file is missing.
    """
    if form.source is None:
        raise UserError("There is no source yet: drop an image there.")
    if form.driving is None:
        raise UserError("There is no driving clip yet: drop a video there.")
    background = read_background(form)
    suffix = ".webm" if background == TRANSPARENT else ".mp4"
    stems = [Path(path).stem[:_LONGEST_STEM] for path in (form.source, form.driving)]
    name = f"{'--'.join(stems)}{suffix}"
    return Job(form.source, form.driving, background, folder / name)


def read_background(form: FormValues) -> str | None:
    """The value of animate.py's --background for the values of the form."""
    match form.background:
        case "image" | "clip" as kind:
            path = form.background_image if kind == "image" else form.background_clip
            if path is None:
                raise UserError(f"There is no {kind} for the background yet: drop one there.")
            return path
        case "colour":
            return read_color(form.background_color)
        case "source":
            return SOURCE
        case "transparent":
            return TRANSPARENT
        case "none":
            return None


def read_color(text: str) -> str:
    """Convert a colour picker's value to `#rrggbb`."""
    match = RGBA.fullmatch(text)
    if match is None:
        # With the # it is always taken for a colour, never for the name of a file.
        return f"#{text.removeprefix('#')}"
    return "#" + "".join(f"{min(round(float(part)), 255):02x}" for part in match.groups()[:3])


def read_options(
    form: FormValues, capabilities: Capabilities, max_frames: int | None = None
) -> JobOptions:
    """The job options for the values of the form. Hidden controls have no effect.

    Args:
        max_frames: limit for the frames of the driving clip.
    """
    shown = find_controls(capabilities, form.animator, form.motion)
    has_picture = form.background in ("image", "clip", "source")
    background_type, compose = form.background_type, form.compose
    if not capabilities.has_painting:
        background_type, compose = "other", "alpha"
    return JobOptions(
        Settings(
            animator=form.animator,
            motion=form.motion if shown.motion else None,
            adapt_scale=shown.adapt_scale and form.adapt_scale,
            reference_frame=form.reference_frame if shown.reference_frame else "first",
            smooth=shown.smooth and form.smooth,
            crop_source=form.crop,
            crop_driving=form.crop,
            paste_back=form.paste_back,
            background_type=background_type if has_picture else None,
            compose=compose if has_picture else None,
        ),
        layout=form.layout,
        audio="copy" if form.sound else "none",
        start=read_time("--start", form.start),
        end=read_time("--end", form.end),
        max_frames=max_frames,
    )


def read_time(option: str, text: str) -> Fraction | None:
    """The time in seconds; None if nothing was typed. Errors name `option`."""
    if not text.strip():
        return None
    try:
        return parse_time(text)
    except UserError as error:
        raise UserError(f"{option} {error}") from None


def explain(message: str, job: Job | None) -> str:
    """Adapt a message of animate.py to the page: uploaded files are named without their folder, and
    options like the page's controls.
    """
    for path in (job.source, job.driving, job.background) if job is not None else ():
        if path is not None:
            message = message.replace(path, Path(path).name)
    return OPTION.sub(lambda option: option[1].replace("-", " "), message)
