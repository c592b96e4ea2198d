"""The options of animate.py: its parser, and the settings that they say."""

import argparse
from fractions import Fraction
from typing import Final, Literal, get_args

import torch

from animation.background_swap import BackgroundType, Compose, Edge
from animation.branch_animators import ANIMATORS
from animation.jobs import JobOptions
from animation.layouts import LAYOUTS
from animation.mask_sources import MASKS
from animation.settings import Crop, ReferenceFrame, Settings
from branches.motion.branch import MOTION_MODES
from common.cli import (
    add_device_argument,
    add_join_timeout_argument,
    add_max_pixels_argument,
    add_precision_argument,
    positive_int,
)
from common.errors import UserError
from media.backgrounds import BackgroundEnd
from media.crops import parse_box
from media.excerpt import parse_time
from metrics.detectors.build import DETECTORS, build_detector

FormatName = Literal["mp4", "webm", "mov", "gif", "png"]
FORMATS: Final[dict[FormatName, str]] = {  # their suffixes; png is a folder
    name: "" if name == "png" else f".{name}" for name in get_args(FormatName)
}


def read_options(arguments: argparse.Namespace) -> JobOptions:
    """The options that all jobs of a run share."""
    detector = arguments.detector
    start, end = (
        None if text is None else parse_time_option(option, text)
        for option, text in (("--start", arguments.start), ("--end", arguments.end))
    )
    return JobOptions(
        read_settings(arguments),
        layout=arguments.layout,
        show_masks=arguments.show_masks,
        save_masks=arguments.save_masks,
        audio=arguments.audio,
        start=start,
        end=end,
        detector=None if detector is None else build_detector(detector, torch.device("cpu")),
    )


def read_settings(arguments: argparse.Namespace) -> Settings:
    """The settings of each animation."""
    crop_source, crop_driving = (
        parse_crop("--crop", arguments.crop) if given is None else parse_crop(option, given)
        for option, given in (
            ("--crop-source", arguments.crop_source),
            ("--crop-driving", arguments.crop_driving),
        )
    )
    return Settings(
        animator=arguments.animator,
        motion=arguments.motion,
        adapt_scale=arguments.adapt_scale,
        reference_frame=parse_reference(arguments.reference_frame),
        smooth=arguments.smooth,
        crop_source=crop_source,
        crop_driving=crop_driving,
        paste_back=arguments.paste_back,
        background_type=arguments.background_type,
        background_end=arguments.background_end,
        compose=arguments.compose,
        masks=arguments.masks,
        background_masks=arguments.background_masks,
        edge=arguments.edge,
        batch_size=arguments.batch_size,
    )


def parse_time_option(option: str, text: str) -> Fraction:
    """Parse the time that was given for `option`; errors name the option."""
    try:
        return parse_time(text)
    except UserError as error:
        raise UserError(f"{option} {error}") from None


def parse_crop(option: str, text: str) -> Crop:
    if text == "auto":
        return "auto"
    if text == "none":
        return "none"
    return parse_box(text, option)


def parse_reference(text: str) -> ReferenceFrame:
    if text == "first":
        return "first"
    if text == "auto":
        return "auto"
    if text.isdecimal():
        return int(text)
    raise UserError(f"--reference-frame {text}: give first, auto, or a number counted from 0")


def build_parser(description: str | None) -> argparse.ArgumentParser:
    """The parser of animate.py."""
    parser = argparse.ArgumentParser(
        prog="animate.py",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--checkpoint",
        metavar="PATH",
        help="the model; default: the newest under runs/ or, without any, the one in assets/",
    )
    parser.add_argument(
        "--config", metavar="FILE", help="config of a published checkpoint, which contains none"
    )
    parser.add_argument("--source", metavar="IMAGE", help="an image, or a folder of images")
    parser.add_argument(
        "--more-sources",
        nargs="+",
        metavar="IMAGE",
        help="more images of the figure of --source, for a model that takes several (X2Face)",
    )
    parser.add_argument(
        "--driving",
        metavar="CLIP",
        help="a video, a folder of frames, or a folder of clips; or a camera: camera:0, "
        "camera:rtsp://..., or camera:clip.mp4 for a file in real time",
    )
    parser.add_argument(
        "--output", metavar="PATH", help="out.mp4, .webm, .mov, .gif, or a folder (png)"
    )
    parser.add_argument("--batch-size", type=positive_int, default=8, help="frames at a time")
    add_device_argument(parser)
    add_precision_argument(parser)
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile the networks; takes a minute or more at the start, for long clips on CUDA",
    )

    many = parser.add_argument_group("many animations: folders of sources or clips, or pairs")
    many.add_argument(
        "--pairs", metavar="CSV", help="columns source, driving and, if wanted, background, output"
    )
    many.add_argument(
        "--allow-outside",
        action="store_true",
        help="allow outputs of --pairs outside of the folder --output",
    )
    many.add_argument("--format", choices=FORMATS, help="format of the results; default: mp4")
    many.add_argument("--skip-existing", action="store_true", help="keep results that exist")
    add_join_timeout_argument(many)

    motion = parser.add_argument_group("motion")
    motion.add_argument(
        "--animator",
        choices=ANIMATORS,
        help="the branch that animates; default: motion, if the checkpoint has it",
    )
    motion.add_argument(
        "--motion",
        choices=MOTION_MODES,
        help="for the animator motion; relative (default, where the model has it): the change "
        "since the reference frame moves the source; absolute: the source takes the driving pose; "
        "avd: the source takes the driving pose and keeps its shape, where the model has a network "
        "for that (TPSMM)",
    )
    motion.add_argument(
        "--reference-frame",
        default="first",
        metavar="first|N|auto",
        help="reference of relative motion: the driving frame that has the source's pose; auto: "
        "the frame that is nearest to it",
    )
    motion.add_argument(
        "--adapt-scale",
        action="store_true",
        help="scale relative motion by the figures' sizes; TPSMM always does",
    )
    motion.add_argument(
        "--smooth", action="store_true", help="filter keypoints and masks over time: less jitter"
    )

    pictures = parser.add_argument_group("crops, and parts of clips")
    for option, what in (
        ("", "source and driving clip"),
        ("-source", "the source"),
        ("-driving", "the driving clip"),
    ):
        pictures.add_argument(
            f"--crop{option}",
            default=None if option else "none",
            metavar="auto|none|x,y,w,h",
            help=f"crop {what}: auto, around the figure; or a rectangle in pixels (if it begins "
            "with a minus: --crop=-9,0,64,64)",
        )
    pictures.add_argument(
        "--paste-back", action="store_true", help="put the result back into the uncropped source"
    )
    add_max_pixels_argument(pictures)
    pictures.add_argument(
        "--start", metavar="TIME", help="start in the driving clip: 12.5 (seconds) or 1:02.5"
    )
    pictures.add_argument("--end", metavar="TIME", help="end in the driving clip")

    background = parser.add_argument_group("background")
    background.add_argument(
        "--background",
        metavar="WHAT",
        help="put the figure on an image, a clip, the `source`'s own background kept still, a "
        "colour ('#00ff00', quoted, or a name such as green), or `transparent` (to .webm, .mov or "
        "a folder); for a file of such a name write ./source",
    )
    background.add_argument(
        "--background-type",
        choices=get_args(BackgroundType),
        help="same (default): a picture like the training data, whose own figure is removed; "
        "other: used as it is, the default for a colour, and with --masks saliency, which finds "
        "something in every picture",
    )
    background.add_argument(
        "--background-end",
        choices=get_args(BackgroundEnd),
        help="when a clip ends before the driving one: start again (default), hold the last frame, "
        "or stop",
    )
    background.add_argument(
        "--compose",
        choices=get_args(Compose),
        help="network (default, where the model has them and its own masks are used): BGBase and "
        "BGRefine paint the picture; alpha: the figure is cut out and laid over, the default for a "
        "colour and for other masks",
    )
    background.add_argument(
        "--masks",
        metavar="|".join((*MASKS, "PATH")),
        help="what cuts the figure out of the animated frames: the model's own masks, a detector "
        "of people or of what attracts attention, or a clip or folder of masks, one for each "
        "driving frame, white on the figure; default: the first of the three that is there",
    )
    background.add_argument(
        "--background-masks",
        metavar="|".join((*MASKS, "PATH")),
        help="the same for the figure in the background, if that is removed: a mask for a picture, "
        "or one for each frame of a clip; default: as --masks",
    )
    background.add_argument(
        "--edge",
        choices=get_args(Edge),
        help="clean: with --compose alpha, the old background is removed from the colours of the "
        "figure's edge, the default for all but the model's own masks; plain: colours stay",
    )

    written = parser.add_argument_group("output")
    written.add_argument(
        "--layout",
        choices=LAYOUTS,
        help="result (default); side-by-side: source, driving, result; demo (default for test "
        "clips): source, driving, animated, background, BGBase, BGRefine",
    )
    written.add_argument(
        "--audio",
        default="copy",
        metavar="copy|none|FILE",
        help="the driving clip's sound (default), none, or that of a file; for .mp4, .webm, .mov",
    )
    written.add_argument(
        "--show-masks",
        action="store_true",
        help="add columns: the raw masks of source, animated frame and background",
    )
    written.add_argument(
        "--save-masks",
        action="store_true",
        help="also write the figure's opacity, its mask feathered around the threshold: out.mp4 "
        "gets out-masks.mp4 beside it",
    )
    written.add_argument(
        "--detector",
        choices=DETECTORS,
        help="measure how well the results keep the source's identity and meet the driving pose",
    )
    return parser
