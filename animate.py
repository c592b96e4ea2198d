"""Animate images with the motion of videos, and put them on another background if one is given.

Without --source and --driving, the first clips of the test split of its data set are used: one clip
animates another, and a third one is the background if the checkpoint can swap backgrounds.
"""

import argparse
import sys
import traceback
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import common.openmp  # noqa: F401

import torch
from tqdm import tqdm

from animation.animator import Animator
from animation.branch_animators import ANIMATORS
from animation.job_list import is_many, list_jobs, read_pairs
from animation.jobs import Job, JobOptions, JobResult, check_outputs, run_job
from animation.layouts import LAYOUTS
from animation.results_table import Results, Row
from animation.settings import Crop, ReferenceFrame, Settings
from checkpoints.checkpoint import Checkpoint
from checkpoints.folder import folder_of_run, newest_checkpoint
from common.cli import (
    add_device_argument,
    add_max_pixels_argument,
    add_precision_argument,
    end_on_sigterm,
    positive_int,
    run_entry_point,
    say,
)
from common.errors import UserError, ends_all, in_one_line
from common.machine import keep_freed_memory
from common.safe_paths import printable
from media.crops import parse_box
from media.excerpt import parse_time
from metrics.detectors.build import DETECTORS, build_detector

FORMATS = {"mp4": ".mp4", "webm": ".webm", "gif": ".gif", "png": ""}


def main(arguments: argparse.Namespace) -> int:
    path = Path(arguments.checkpoint) if arguments.checkpoint else newest_checkpoint()
    jobs, results = choose_jobs(arguments, path)
    check_outputs(jobs, arguments.audio, save_masks=arguments.save_masks)
    options = read_options(arguments)
    animator = Animator.load(
        path,
        arguments.config,
        arguments.device,
        arguments.precision,
        arguments.compile,
        arguments.max_pixels,
    )
    if animator.device.type == "cpu":
        keep_freed_memory()
    if animator.saved.report is not None:
        say(f"{path}: {animator.saved.report}")
    print(f"networks in {animator.precision} on {animator.device}")
    if results is not None:
        return run_jobs(
            animator,
            jobs,
            results,
            options,
            skip_existing=arguments.skip_existing,
            debug=arguments.debug,
        )
    print(describe(run_one(animator, jobs[0], options), animator.saved))
    return 0


def choose_jobs(arguments: argparse.Namespace, path: Path) -> tuple[list[Job], Results | None]:
    """The jobs to run, and a table of results if they are many; None for a single animation."""
    source, driving, background = arguments.source, arguments.driving, arguments.background
    output = None if arguments.output is None else Path(arguments.output)
    suffix = FORMATS[arguments.format or "mp4"]
    if (source is None) != (driving is None):
        raise UserError("--source and --driving belong together: an image and a clip")
    has_pairs = arguments.pairs is not None
    if has_pairs and source is not None:
        raise UserError("--pairs names sources and driving clips; leave --source and --driving out")
    if arguments.allow_outside and not has_pairs:
        raise UserError("--allow-outside is for --pairs; leave it out")
    if has_pairs or (source is not None and is_many(source, driving)):
        is_video = output is not None and output.suffix and output.suffix in FORMATS.values()
        if output is None or is_video or output.is_file():
            raise UserError("--output: many animations go to a folder; give its name")
        if has_pairs:
            jobs = read_pairs(
                Path(arguments.pairs),
                background,
                output,
                suffix,
                allow_outside=arguments.allow_outside,
            )
        else:
            for option, path in (("source", source), ("driving", driving)):
                if output.resolve() == Path(path).resolve():
                    raise UserError(
                        f"--output {output}: is the folder of --{option}; results in it would be "
                        "taken for inputs the next time; choose another"
                    )
            jobs = list_jobs(source, driving, background, output, suffix)
        return jobs, Results(output)
    for option in ("format", "skip_existing"):
        if getattr(arguments, option):
            raise UserError(
                f"--{option.replace('_', '-')} is for many animations: folders, or --pairs; leave "
                "it out"
            )
    if output is None:
        if source is not None:
            raise UserError("--output is missing: out.mp4, or a folder for lossless png frames")
        output = folder_of_run(path) / "animation.mp4"
    return [Job(source, driving, background, output)], None


def run_jobs(
    animator: Animator,
    jobs: Sequence[Job],
    results: Results,
    options: JobOptions,
    *,
    skip_existing: bool,
    debug: bool,
) -> int:
    """Run the jobs one after the other; a job that fails is noted and the others still run.

    Returns the exit code.
    """
    num_failed = 0
    for number, job in enumerate(jobs, 1):
        row = {
            "output": str(job.output),
            "status": "skipped",
            "source": str(job.source),
            "driving": str(job.driving),
            "background": job.background or "",
        }
        if skip_existing and job.output.exists():
            results.keep(row)
            continue
        say(f"{number} of {len(jobs)}: {job.source} by {job.driving}")
        try:
            result = run_one(animator, job, options)
        except Exception as error:
            if ends_all(error):
                raise
            num_failed += 1
            reason = in_one_line(error)
            if not isinstance(error, UserError):
                reason = f"{job.driving}: {reason}"
            if debug:
                traceback.print_exception(error)
            say(f"animate.py: error: {reason}", sys.stderr)
            results.add({**row, "status": "failed", "error": reason})
            continue
        results.add({**row, "status": "done", **describe_row(result)})
    say(f"{results.path}: {len(jobs)} animations, {num_failed} failed")
    return 1 if num_failed else 0


def run_one(animator: Animator, job: Job, options: JobOptions) -> JobResult:
    """Run a job with a progress bar."""
    with tqdm(unit="frame", disable=None, leave=False) as bar:

        def progress(num_done: int, num_frames: int | None) -> None:
            bar.total = num_frames
            bar.update(num_done - bar.n)

        return run_job(animator, job, options, say, progress)


def describe(result: JobResult, saved: Checkpoint) -> str:
    """Lines for the console on a finished animation."""
    output = result.output
    sound = "" if output.sound is None else ", with sound"
    model = f"{saved.path} ({saved.age})"
    lines = [f"{output.path}: {result.num_frames} frames{sound}, {model}"]
    if output.masks_path is not None:
        lines.append(f"{output.masks_path}: the figure's opacity in each frame")
    lines += [f"{name}: {value:.4f}" for name, value in result.metrics.items()]
    return "\n".join(map(printable, lines))


def describe_row(result: JobResult) -> Row:
    """Cells of results.csv on a finished animation."""
    reference = result.reference
    return {
        "num_frames": str(result.num_frames),
        "seconds": f"{result.seconds:.2f}",
        "reference_frame": "" if reference is None else str(reference.position),
        "reference_distance": "" if reference is None else f"{reference.distance:.4f}",
        **{name: f"{value:.6f}" for name, value in result.metrics.items()},
    }


def read_options(arguments: argparse.Namespace) -> JobOptions:
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


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="animate.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--checkpoint", metavar="PATH", help="the model; default: the newest under runs/"
    )
    parser.add_argument(
        "--config", metavar="FILE", help="config of a published checkpoint, which contains none"
    )
    parser.add_argument("--source", metavar="IMAGE", help="an image, or a folder of images")
    parser.add_argument(
        "--driving", metavar="CLIP", help="a video, a folder of frames, or a folder of clips"
    )
    parser.add_argument("--output", metavar="PATH", help="out.mp4, .webm, .gif, or a folder (png)")
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

    motion = parser.add_argument_group("motion")
    motion.add_argument(
        "--animator",
        choices=ANIMATORS,
        help="the branch that animates; default: motion, if the checkpoint has it",
    )
    motion.add_argument(
        "--motion",
        choices=("relative", "absolute"),
        help="for the animator motion; relative (default): the change since the reference frame "
        "moves the source; absolute: the source takes the driving keypoints",
    )
    motion.add_argument(
        "--reference-frame",
        default="first",
        metavar="first|N|auto",
        help="reference of relative motion: the driving frame that has the source's pose; auto: "
        "the frame that is nearest to it",
    )
    motion.add_argument(
        "--adapt-scale", action="store_true", help="scale relative motion by the figures' sizes"
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
        "colour ('#00ff00', quoted), or `transparent` (to .webm or a folder); for a file of "
        "such a name write ./source",
    )
    background.add_argument(
        "--background-type",
        choices=("same", "other"),
        help="same (default): a picture like the training data, whose own figure is removed; "
        "other: used as it is, the default for a colour",
    )
    background.add_argument(
        "--background-end",
        choices=("loop", "hold", "stop"),
        help="when a clip ends before the driving one: start again (default), hold the last frame, "
        "or stop",
    )
    background.add_argument(
        "--compose",
        choices=("network", "alpha"),
        help="network (default): BGBase and BGRefine paint the picture; alpha: the figure is cut "
        "out and laid over, the default for a colour",
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
        help="the driving clip's sound (default), none, or that of a file; for .mp4 and .webm",
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


if __name__ == "__main__":
    end_on_sigterm()
    sys.exit(run_entry_point(main, build_parser()))
