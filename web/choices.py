"""From the controls of the page to what `run_job` takes; what its model can do."""

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
from animation.settings import Motion, Settings
from common.errors import UserError
from media.excerpt import parse_time

BackgroundKind = Literal["none", "image", "clip", "colour", "source", "transparent"]

OPTION = re.compile(r"(?<!\S)--([a-z]+(?:-[a-z]+)*)")  # as messages name it: --paste-back
_LONGEST_STEM = 40  # characters of an uploaded file's name, in that of the result
_NUMBER = r"\s*(\d+(?:\.\d*)?)\s*"
RGBA = re.compile(rf"rgba?\({_NUMBER},{_NUMBER},{_NUMBER}(?:,{_NUMBER})?\)")  # of a colour picker


class Capabilities(NamedTuple):
    """What a model can do.

    has_cutting: it can put the figure on another background. has_painting: also by the networks
    BGBase and BGRefine. notes: a line on each thing that it cannot do, with the reason.
    """

    animators: tuple[AnimatorName, ...]
    has_cutting: bool
    has_painting: bool
    notes: tuple[str, ...]


class FormValues(NamedTuple):
    """What the controls hold; named like the options of animate.py where they mean the same.

    source .. background_clip: uploaded files. background_color: `#00ff00` or `rgba(0, 255, 0, 1)`.
    start, end: as typed; empty for all of the clip.
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
    motion: Motion
    reference_frame: Literal["first", "auto"]
    adapt_scale: bool
    smooth: bool
    crop: Literal["auto", "none"]
    paste_back: bool
    start: str
    end: str
    sound: bool
    layout: LayoutName


def find_capabilities(
    branches: Collection[str], untrained: Collection[str], age: str
) -> Capabilities:
    """What a model with these branches can do.

    Args:
        untrained: what of it has not begun to learn; see `Checkpoint.untrained`.
        age: how long it was trained, in words.

    Raises:
        UserError: it cannot animate.
    """
    notes = []
    animators: list[AnimatorName] = ["motion"] if "motion" in branches else []
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
    return Capabilities(tuple(animators), has_cutting, has_painting, tuple(notes))


def read_job(choices: FormValues, folder: Path) -> Job:
    """What to animate, with the result in `folder`.

    Raises:
        UserError: a file is missing.
    """
    if choices.source is None:
        raise UserError("There is no source yet: drop an image there.")
    if choices.driving is None:
        raise UserError("There is no driving clip yet: drop a video there.")
    background = read_background(choices)
    suffix = ".webm" if background == TRANSPARENT else ".mp4"
    stems = [Path(path).stem[:_LONGEST_STEM] for path in (choices.source, choices.driving)]
    name = f"{'--'.join(stems)}{suffix}"
    return Job(choices.source, choices.driving, background, folder / name)


def read_background(choices: FormValues) -> str | None:
    match choices.background:
        case "image" | "clip" as kind:
            path = choices.background_image if kind == "image" else choices.background_clip
            if path is None:
                raise UserError(f"There is no {kind} for the background yet: drop one there.")
            return path
        case "colour":
            return read_color(choices.background_color)
        case "source":
            return SOURCE
        case "transparent":
            return TRANSPARENT
        case "none":
            return None


def read_color(text: str) -> str:
    """`#rrggbb` of a colour picker's value."""
    match = RGBA.fullmatch(text)
    if match is None:
        # The mark makes it a colour in any case, never the name of a file.
        return f"#{text.removeprefix('#')}"
    return "#" + "".join(f"{min(round(float(part)), 255):02x}" for part in match.groups()[:3])


def read_options(
    choices: FormValues, offer: Capabilities, max_frames: int | None = None
) -> JobOptions:
    """How to animate. What the page does not show at these choices has no effect.

    Args:
        max_frames: of the driving clip.
    """
    is_motion = choices.animator == "motion"
    is_relative = is_motion and choices.motion == "relative"
    has_picture = choices.background in ("image", "clip", "source")
    background_type, compose = choices.background_type, choices.compose
    if not offer.has_painting:
        background_type, compose = "other", "alpha"
    return JobOptions(
        Settings(
            animator=choices.animator,
            motion=choices.motion if is_motion else None,
            adapt_scale=is_relative and choices.adapt_scale,
            reference_frame=choices.reference_frame if is_relative else "first",
            smooth=choices.smooth,
            crop_source=choices.crop,
            crop_driving=choices.crop,
            paste_back=choices.paste_back,
            background_type=background_type if has_picture else None,
            compose=compose if has_picture else None,
        ),
        layout=choices.layout,
        audio="copy" if choices.sound else "none",
        start=read_time("--start", choices.start),
        end=read_time("--end", choices.end),
        max_frames=max_frames,
    )


def read_time(option: str, text: str) -> Fraction | None:
    """Seconds; None where nothing was typed."""
    if not text.strip():
        return None
    try:
        return parse_time(text)
    except UserError as error:
        raise UserError(f"{option} {error}") from None


def explain(message: str, job: Job | None) -> str:
    """A message of animate.py for someone who sees the page: files by the names that they had, and
    options by those of the controls.
    """
    for path in (job.source, job.driving, job.background) if job is not None else ():
        if path is not None:
            message = message.replace(path, Path(path).name)
    return OPTION.sub(lambda option: option[1].replace("-", " "), message)
