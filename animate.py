"""Animate an image with the motion of a video.

Without --source and --driving: the first two test clips of the training data, one animated by the
other, with the newest checkpoint under runs/.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

import checkpoint
from animation import Animator
from cli import add_device_argument, pick_device, positive_int, run_entry_point
from config import Config
from datasets.build import build_source
from datasets.images import Fit, fit_frames, read_image
from datasets.source import Frame
from datasets.video import open_clip
from datasets.video_writer import VideoWriter
from errors import UserError
from visualization import to_uint8

RUNS = Path("runs")


class Inputs(NamedTuple):
    """Source and driving frames at the model's size, with the driving clip's frame rate."""

    source: Frame
    driving: Iterable[Frame]
    num_frames: int
    frame_rate: Fraction


def main(arguments: argparse.Namespace) -> None:
    if (arguments.source is None) != (arguments.driving is None):
        raise UserError("--source and --driving belong together: an image and a clip")
    for option in ("source", "driving"):
        refuse_to_replace(option, getattr(arguments, option), arguments.output)
    path = Path(arguments.checkpoint) if arguments.checkpoint else newest_checkpoint()
    device = pick_device(arguments.device)
    saved = checkpoint.load(path)
    animator = Animator.from_checkpoint(saved, device)
    if arguments.source is None:
        inputs = demo_inputs(saved.config)
        output = Path(arguments.output or checkpoint.run_folder(path) / "animation.mp4")
    else:
        inputs = read_inputs(arguments.source, arguments.driving, saved.config)
        if arguments.output is None:
            raise UserError("--output is missing: out.mp4, or a folder for lossless png frames")
        output = Path(arguments.output)

    num_frames = 0
    with VideoWriter(output, inputs.frame_rate) as video:
        batches = animator.animate(
            inputs.source,
            tqdm(inputs.driving, total=inputs.num_frames, unit="frame", disable=None),
            motion=arguments.motion,
            adapt_scale=arguments.adapt_scale,
            batch_size=arguments.batch_size,
        )
        for driving, prediction in batches:
            for driving_frame, frame in zip(driving, to_uint8(prediction), strict=True):
                if arguments.layout == "side-by-side":
                    frame = np.concatenate((inputs.source, driving_frame, frame), axis=1)
                video.write(frame)
                num_frames += 1
    print(f"{output}: {num_frames} frames, {path} (step {saved.step})")


def newest_checkpoint() -> Path:
    """The checkpoint written last in any run."""
    found = sorted(RUNS.glob("*/checkpoints/step-*.pt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise UserError(
            f"no checkpoint under {RUNS}/: train one with `python train.py --config demo.yaml`, "
            "or give --checkpoint"
        )
    return found[-1]


def refuse_to_replace(option: str, path: str | None, output: str | None) -> None:
    """Raise UserError where `output` would take the place of an input, or of a folder around it."""
    if path is None or output is None:
        return
    resolved = Path(path).resolve()
    if Path(output).resolve() in (resolved, *resolved.parents):
        raise UserError(f"--output {output} would replace --{option} {path}; choose another path")


def demo_inputs(config: Config) -> Inputs:
    """The first test clip drives the first frame of the second, or of itself if it is alone."""
    clips = build_source(config.data, "test")
    source = clips.read(min(1, len(clips.clips) - 1), [0])[0]
    return Inputs(source, clips.stream(0), clips.num_frames(0), clips.frame_rate(0))


def read_inputs(source: str, driving: str, config: Config) -> Inputs:
    """The files the user named, brought to the model's size as `data.fit` says."""
    size, fit = config.data.size, config.data.fit
    clip = open_clip(driving)
    image = read_image(source)
    for name, shape in ((source, image.shape[:2]), (driving, clip.size)):
        if shape[0] * size[1] != shape[1] * size[0]:
            how = {"crop": "cropped at the centre", "pad": "padded with black"}[fit]
            print(f"{name}: {shape[1]} x {shape[0]} pixels, {how} to the shape of the model")
    return Inputs(
        fit_frames(image[None], size, fit)[0],
        fitted(clip, size, fit),
        clip.num_frames,
        clip.frame_rate,
    )


def fitted(frames: Iterable[Frame], size: tuple[int, int], fit: Fit) -> Iterator[Frame]:
    for frame in frames:
        yield fit_frames(frame[None], size, fit)[0]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="animate.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", metavar="PATH", help="default: the newest under runs/")
    parser.add_argument("--source", metavar="IMAGE")
    parser.add_argument("--driving", metavar="CLIP", help="a video or a folder of frames")
    parser.add_argument("--output", metavar="PATH", help="out.mp4, .webm, .gif, or a folder (png)")
    parser.add_argument(
        "--motion",
        choices=("relative", "absolute"),
        default="relative",
        help="relative (default): the change since the first driving frame moves the source",
    )
    parser.add_argument(
        "--adapt-scale", action="store_true", help="scale relative motion by the figures' sizes"
    )
    parser.add_argument("--layout", choices=("result", "side-by-side"), default="result")
    parser.add_argument("--batch-size", type=positive_int, default=8, help="frames at a time")
    add_device_argument(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_entry_point(main, build_parser()))
