"""Converts the values of the page's controls to a job."""

import re
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from animation.background_swap import BackgroundType, Compose, Edge
from animation.branch_animators import AnimatorName
from animation.inputs import SOURCE, TRANSPARENT
from animation.jobs import Job, JobOptions
from animation.layouts import LayoutName
from animation.mask_sources import Masks, MasksName
from animation.options import FORMATS, FormatName, parse_crop, parse_time_option
from animation.settings import ReferenceFrame, Settings
from branches.motion.branch import MotionMode
from common.errors import UserError
from common.limits import REMEDY
from media.backgrounds import BackgroundEnd
from web.capabilities import Capabilities

BackgroundKind = Literal["none", "image", "clip", "colour", "source", "transparent"]
CropKind = Literal["none", "auto", "box"]
SoundKind = Literal["driving clip", "none", "file"]
ReferenceKind = Literal["first", "auto", "number"]
MasksKind = MasksName | Literal["automatic", "files"]

OPTION = re.compile(r"(?<!\S)--([a-z]+(?:-[a-z]+)*)")  # an option in a message: --paste-back
FOR_THE_HOST = re.compile(r"run `[^`]+` if it is missing, or ")
_LONGEST_STEM = 40  # characters of an uploaded file's name that the result's name contains
_NUMBER = r"\s*(\d+(?:\.\d*)?)\s*"
RGBA = re.compile(
    rf"rgba?\({_NUMBER},{_NUMBER},{_NUMBER}(?:,{_NUMBER})?\)"
)  # value of a colour picker


class FormValues(NamedTuple):
    """Values of the page's controls. Fields with the name of an option of animate.py mean the same;
    the defaults are what the page shows first.

    source, driving, more_sources, background_image, background_clip, sound_file, masks_files,
        background_masks_files: paths of uploaded files.
    background: the kind of background.
    background_color: `#00ff00` or `rgba(0, 255, 0, 1)`.
    reference_number: the frame that is meant by the reference frame `number`, counted from 0.
    crop_source_box, crop_driving_box: the crop that is meant by `box`: `left,top,width,height`.
    start, end: as typed; empty for the whole clip.

    `automatic` leaves the choice to animate.py.
    """

    source: str | None = None
    driving: str | None = None
    more_sources: list[str] | None = None
    background: BackgroundKind = "none"
    background_image: str | None = None
    background_clip: str | None = None
    background_color: str = "#00ff00"
    background_type: BackgroundType | Literal["automatic"] = "automatic"
    background_end: BackgroundEnd = "loop"
    masks: MasksKind = "automatic"
    masks_files: list[str] | None = None
    background_masks: MasksKind = "automatic"
    background_masks_files: list[str] | None = None
    compose: Compose | Literal["automatic"] = "automatic"
    edge: Edge | Literal["automatic"] = "automatic"
    animator: AnimatorName = "motion"
    motion: MotionMode | None = None
    reference_frame: ReferenceKind = "first"
    reference_number: float | None = 0
    adapt_scale: bool = False
    smooth: bool = False
    crop_source: CropKind = "none"
    crop_source_box: str = ""
    crop_driving: CropKind = "none"
    crop_driving_box: str = ""
    paste_back: bool = False
    start: str = ""
    end: str = ""
    sound: SoundKind = "driving clip"
    sound_file: str | None = None
    layout: LayoutName = "result"
    show_masks: bool = False
    save_masks: bool = False
    format: FormatName = "mp4"


# Controls that decide which others have an effect.
DECIDING = (
    *("background", "animator", "motion", "reference_frame", "crop_source", "crop_driving"),
    *("sound", "layout", "format", "masks", "background_masks", "background_type", "compose"),
    *("show_masks", "save_masks"),
)


def find_shown(form: FormValues, capabilities: Capabilities) -> frozenset[str]:
    """The controls that have an effect, by the names of the fields; the page shows only these."""
    is_motion = form.animator == "motion"
    is_relative = is_motion and form.motion == "relative"
    has_sound = form.format in ("mp4", "webm", "mov")
    has_background = form.background != "none"
    has_picture = form.background in ("image", "clip", "source")
    is_removed = has_picture and form.background_type != "other"
    shows_masks = form.show_masks and form.layout != "result"
    needs_masks = has_background or form.save_masks or shows_masks
    own_masks = form.masks in ("automatic", "model")
    is_painted = (capabilities.has_painting and has_picture) and (
        form.compose == "network" or (form.compose == "automatic" and own_masks)
    )
    conditions = {
        "more_sources": is_motion and capabilities.takes_several_sources,
        "background_image": form.background == "image",
        "background_clip": form.background == "clip",
        "background_color": form.background == "colour",
        "background_type": has_picture,
        "background_end": form.background == "clip",
        "masks": needs_masks,
        "masks_files": needs_masks and form.masks == "files",
        "background_masks": is_removed,
        "background_masks_files": is_removed and form.background_masks == "files",
        "compose": has_picture and capabilities.has_painting,
        "edge": has_background and not is_painted,
        "animator": len(capabilities.animators) > 1,
        "motion": is_motion and len(capabilities.modes) > 1,
        "reference_frame": is_relative,
        "reference_number": is_relative and form.reference_frame == "number",
        "adapt_scale": is_relative and capabilities.has_scale,
        "smooth": not is_motion or capabilities.has_keypoints or needs_masks,
        "crop_source_box": form.crop_source == "box",
        "crop_driving_box": form.crop_driving == "box",
        "sound": has_sound,
        "sound_file": has_sound and form.sound == "file",
        "show_masks": form.layout != "result",
    }
    return frozenset(name for name in FormValues._fields if conditions.get(name, True))


def without_hidden(form: FormValues, capabilities: Capabilities) -> FormValues:
    """The form with the defaults in place of values that are hidden: these have no effect."""
    shown = find_shown(form, capabilities)
    first = FormValues(animator=form.animator)  # the only one, where the choice is hidden
    hidden = {name: getattr(first, name) for name in FormValues._fields if name not in shown}
    return form._replace(**cast(dict[str, Any], hidden))


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
    suffix = FORMATS[form.format]
    if background == TRANSPARENT and suffix == ".mp4":  # which has no transparency
        suffix = ".webm"
    stems = [Path(path).stem[:_LONGEST_STEM] for path in (form.source, form.driving)]
    name = "--".join(stems)
    if not suffix:  # a folder; after a dot its name would seem to have a suffix
        name = name.replace(".", "_")
    return Job(
        form.source,
        form.driving,
        background,
        folder / f"{name}{suffix}",
        tuple(form.more_sources or ()),
    )


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


def read_options(form: FormValues, folder: Path, max_frames: int | None = None) -> JobOptions:
    """The job options for the values of the form.

    Args:
        form: after `without_hidden`.
        folder: where several pictures of masks are put together, in folders.
        max_frames: limit for the frames of the driving clip.

    Raises:
        UserError: what was typed is no time, number or crop, or a file is missing.
    """
    crops = [
        parse_crop(option, box if kind == "box" else kind)
        for option, kind, box in (
            ("--crop-source", form.crop_source, form.crop_source_box),
            ("--crop-driving", form.crop_driving, form.crop_driving_box),
        )
    ]
    behind = folder / "background-pictures"
    return JobOptions(
        Settings(
            animator=form.animator,
            motion=form.motion,
            adapt_scale=form.adapt_scale,
            reference_frame=read_reference(form),
            smooth=form.smooth,
            crop_source=crops[0],
            crop_driving=crops[1],
            paste_back=form.paste_back,
            background_type=None if form.background_type == "automatic" else form.background_type,
            background_end=form.background_end if form.background == "clip" else None,
            compose=None if form.compose == "automatic" else form.compose,
            masks=read_masks(form.masks, form.masks_files, folder / "pictures"),
            background_masks=read_masks(form.background_masks, form.background_masks_files, behind),
            edge=None if form.edge == "automatic" else form.edge,
        ),
        layout=form.layout,
        show_masks=form.show_masks,
        save_masks=form.save_masks,
        audio=read_sound(form),
        start=read_time("--start", form.start),
        end=read_time("--end", form.end),
        max_frames=max_frames,
    )


def read_masks(kind: MasksKind, files: list[str] | None, folder: Path) -> Masks | None:
    """The value of animate.py's --masks or --background-masks.

    Several files get a second name in `folder`, which is made: together they are a clip. They are
    not copied, since many requests may wait with the same ones.
    """
    if kind != "files":
        return None if kind == "automatic" else kind
    if not files:
        raise UserError("There are no masks yet: drop a clip of masks, or pictures.")
    if len(files) == 1:
        return Path(files[0])
    names = [Path(file).name for file in files]
    if len({*names}) < len(names):
        raise UserError("Two masks have the same name: give the pictures names in their order.")
    folder.mkdir()
    for file, name in zip(files, names, strict=True):
        _link_or_copy(Path(file), folder / name)
    return folder


def _link_or_copy(file: Path, target: Path) -> None:
    try:
        target.hardlink_to(file)
    except OSError:  # another file system, or one without such links
        shutil.copyfile(file, target)


def read_reference(form: FormValues) -> ReferenceFrame:
    """The value of animate.py's --reference-frame for the values of the form."""
    if form.reference_frame != "number":
        return form.reference_frame
    number = form.reference_number
    if number is None or number != int(number) or number < 0:
        raise UserError(
            "Number of the reference frame: give that of a driving frame, counted from 0, found "
            f"{'nothing' if number is None else f'{number:g}'}."
        )
    return int(number)


def read_sound(form: FormValues) -> str:
    """The value of animate.py's --audio for the values of the form."""
    if form.sound == "file":
        if form.sound_file is None:
            raise UserError("There is no sound yet: drop a file there.")
        return form.sound_file
    return "none" if form.sound == "none" else "copy"


def read_time(option: str, text: str) -> Fraction | None:
    """The time in seconds; None if nothing was typed. Errors name `option`."""
    return parse_time_option(option, text) if text.strip() else None


def explain(message: str, form: FormValues, folder: Path) -> str:
    """Adapt a message of animate.py to the page: uploaded files, and those in `folder`, are named
    without their folder, and options like the page's controls. Advice for whoever started the page
    is left out.
    """
    uploads = (
        *(form.source, form.driving, form.background_image, form.background_clip),
        *(form.sound_file, *(form.more_sources or ()), *(form.masks_files or ())),
        *(form.background_masks_files or ()),
    )
    for path in uploads:
        if path is not None:
            message = message.replace(path, Path(path).name)
    message = message.replace(f"{folder}/", "").replace(REMEDY, "give a smaller one")
    message = FOR_THE_HOST.sub("", message)
    return OPTION.sub(lambda option: option[1].replace("-", " "), message)
