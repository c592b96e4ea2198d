"""Animate an image with the motion of a video, if wanted on another background.

Without --source and --driving: the first test clips of the training data, one animated by another,
with the newest checkpoint under runs/. If it can swap backgrounds, a third clip gives one.
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import checkpoint
from animation.background_swap import BackgroundSwapper, BackgroundType, Compose
from animation.inputs import TRANSPARENT, Inputs, choose_inputs, is_file_name
from animation.layouts import LAYOUTS, AnimatedBatch, Layout, LayoutName, grey_frames
from animation.movers import (
    ANIMATORS,
    AnimatorName,
    MaskMover,
    Mover,
    animate,
    build_mover,
    frames_to_tensor,
    load_model,
)
from checkpoint import Checkpoint
from cli import add_device_argument, pick_device, positive_int, run_entry_point
from datasets.backgrounds import BackgroundFrames, parse_color
from datasets.video_writer import VideoWriter
from errors import UserError
from model import Model

RUNS = Path("runs")


def main(arguments: argparse.Namespace) -> None:
    if (arguments.source is None) != (arguments.driving is None):
        raise UserError("--source and --driving belong together: an image and a clip")
    path = Path(arguments.checkpoint) if arguments.checkpoint else newest_checkpoint()
    output = choose_output(arguments, path)
    refuse_to_replace(arguments, output, "--output")
    masks_output = None
    if arguments.save_masks:
        masks_output = name_masks(output)
        refuse_to_replace(arguments, masks_output, "--save-masks")
    device = pick_device(arguments.device)
    saved = checkpoint.load(path)
    model = load_model(saved, device)
    mover = choose_animator(arguments, saved, model, device)
    inputs = choose_inputs(arguments, saved)
    swapper = build_swapper(arguments, saved, model, inputs)
    layout_name = choose_layout(arguments, swapper)
    is_transparent = arguments.background == TRANSPARENT
    source_mask = None
    if swapper is not None and arguments.show_masks:
        source_mask = swapper.cut_out(frames_to_tensor(inputs.source[None], device)).foreground_mask
    layout = Layout(layout_name, is_transparent, source_mask)

    num_frames = 0
    video = VideoWriter(output, inputs.frame_rate, transparent=is_transparent)
    masks = None
    if masks_output is not None:
        masks = open_masks(masks_output, inputs.frame_rate, as_folder=output.is_dir())
    # The video ends first: if it fails there, no new masks appear beside an earlier one.
    with masks or nullcontext(), video:
        for batch in animated_batches(mover, swapper, inputs, arguments.batch_size):
            for frame in layout.arrange(batch):
                video.write(frame)
                num_frames += 1
            if masks is not None and batch.swapped is not None:
                for frame in grey_frames(batch.swapped.alpha, batch.driving):
                    masks.write(frame)
    print(f"{output}: {num_frames} frames, {path} (step {saved.step})")
    if masks_output is not None:
        print(f"{masks_output}: the figure's opacity in each of them")


def animated_batches(
    mover: Mover, swapper: BackgroundSwapper | None, inputs: Inputs, batch_size: int
) -> Iterator[AnimatedBatch]:
    """Animate and swap batch by batch; memory does not grow with the number of frames."""
    progress = tqdm(inputs.driving, total=inputs.num_frames, unit="frame", disable=None)
    backgrounds = None if inputs.backgrounds is None else iter(inputs.backgrounds)
    for driving, animated in animate(mover, inputs.source, progress, batch_size):
        if swapper is None or backgrounds is None:
            swapped = None if swapper is None else swapper.cut_out(animated)
            yield AnimatedBatch(inputs.source, driving, animated, None, swapped)
            continue
        behind = list(islice(backgrounds, len(driving)))
        count = len(behind)
        if behind:
            # The array of a picture that stays is the same: one upload, one mask.
            is_still = all(frame is behind[0] for frame in behind)
            pictures = np.stack(behind[:1] if is_still else behind)
            swapped = swapper.swap(animated[:count], frames_to_tensor(pictures, mover.device))
            yield AnimatedBatch(
                inputs.source, driving[:count], animated[:count], np.stack(behind), swapped
            )
        if count < len(driving):
            return


# What the options come to


def newest_checkpoint() -> Path:
    """The checkpoint written last in any run."""
    found = sorted(RUNS.glob("*/checkpoints/step-*.pt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise UserError(
            f"no checkpoint under {RUNS}/: train one with `python train.py --config demo.yaml`, "
            "or give --checkpoint"
        )
    return found[-1]


def choose_output(arguments: argparse.Namespace, path: Path) -> Path:
    """--output; of the test clips, animation.mp4 in the run of the checkpoint `path`."""
    if arguments.output is not None:
        return Path(arguments.output)
    if arguments.source is not None:
        raise UserError("--output is missing: out.mp4, or a folder for lossless png frames")
    return checkpoint.run_folder(path) / "animation.mp4"


def refuse_to_replace(arguments: argparse.Namespace, output: Path, origin: str) -> None:
    """Raise UserError where `output`, written because of the option `origin`, would take the place
    of an input, or of a folder around it.
    """
    for option in ("source", "driving", "background"):
        path = getattr(arguments, option)
        if path is None or (option == "background" and not is_file_name(path)):
            continue
        resolved = Path(path).resolve()
        if output.resolve() in (resolved, *resolved.parents):
            raise UserError(
                f"{origin} {output} would replace --{option} {path}; choose another path"
            )


def name_masks(output: Path) -> Path:
    """out-masks.mp4 for out.mp4; a folder keeps all of its name, which may have a dot."""
    if output.is_dir():
        return output.parent / f"{output.name}-masks"
    return output.parent / f"{output.stem}-masks{output.suffix}"


def open_masks(path: Path, frame_rate: Fraction, as_folder: bool) -> VideoWriter:
    """The writer of --save-masks, whose `path` the user did not give."""
    try:
        return VideoWriter(path, frame_rate, as_folder=as_folder)
    except UserError as error:
        raise UserError(f"--save-masks {error} (the name follows from --output)") from None


def choose_animator(
    arguments: argparse.Namespace, saved: Checkpoint, model: Model, device: torch.device
) -> Mover:
    name: AnimatorName = arguments.animator or ("motion" if "motion" in model.branches else "masks")
    if name == "masks":
        for option in ("motion", "adapt_scale"):
            if getattr(arguments, option):
                raise UserError(
                    f"{as_typed(option)} belongs to the animator motion; leave it out, or use "
                    "--animator motion"
                )
    mover = build_mover(
        model,
        device,
        name,
        motion=arguments.motion or "relative",
        adapt_scale=arguments.adapt_scale,
    )
    start = saved.untrained.get("masks.refinement.start_epoch")
    if isinstance(mover, MaskMover) and start is not None:
        remedy = ", or use --animator motion" if "motion" in model.branches else ""
        raise UserError(
            f"--animator masks: at step {saved.step} the refinement has not started "
            f"(masks.refinement.start_epoch: {start}); train on{remedy}"
        )
    return mover


def build_swapper(
    arguments: argparse.Namespace, saved: Checkpoint, model: Model, inputs: Inputs
) -> BackgroundSwapper | None:
    """None where neither a background nor a mask was asked for."""
    if inputs.backgrounds is not None or arguments.background == TRANSPARENT:
        background, end = inputs.backgrounds, arguments.background_end
        is_clip = isinstance(background, BackgroundFrames) and not background.is_still
        if end is not None and not is_clip:
            raise UserError(f"--background-end {end}: is for a clip; leave it out")
        swapper = BackgroundSwapper(model, *choose_swap(arguments))
        start = saved.untrained.get("background.start_epoch")
        if swapper.networks is not None and start is not None:
            raise UserError(
                f"--background: at step {saved.step} the background branch has not started "
                f"(background.start_epoch: {start}); train on, or use --compose alpha "
                "--background-type other"
            )
        return swapper
    for option in ("background_type", "background_end", "compose"):
        if getattr(arguments, option) is not None:
            raise UserError(
                f"{as_typed(option)} says what to do with a --background; give one, or leave it out"
            )
    for option in ("save_masks", "show_masks"):
        if getattr(arguments, option):
            if "masks" not in model.branches:
                raise UserError(
                    f"{as_typed(option)}: the checkpoint was trained without the mask branch; "
                    "leave it out, or train with the section masks"
                )
            return BackgroundSwapper(model, "other", "alpha")  # only cuts out
    return None


def choose_swap(arguments: argparse.Namespace) -> tuple[BackgroundType, Compose]:
    """--background-type and --compose with their defaults.

    Raises:
        UserError: they contradict the kind of background.
    """
    text, kind, compose = arguments.background, arguments.background_type, arguments.compose
    if text == TRANSPARENT:
        if kind is not None or compose == "network":
            option = f"--compose {compose}" if kind is None else f"--background-type {kind}"
            raise UserError(f"{option}: a transparent background has no picture; leave it out")
        return "other", "alpha"
    if text is not None and parse_color(text) is not None:
        if kind == "same":
            raise UserError(
                f"--background-type same: the colour {text} has no figure to remove; leave it out"
            )
        return "other", compose or "alpha"
    return kind or "same", compose or "network"


def choose_layout(arguments: argparse.Namespace, swapper: BackgroundSwapper | None) -> LayoutName:
    is_transparent = arguments.background == TRANSPARENT
    has_networks = swapper is not None and swapper.networks is not None
    if is_transparent and arguments.show_masks:
        raise UserError("--show-masks: a transparent result stands alone; use --save-masks")
    name: LayoutName = arguments.layout or "result"
    if arguments.layout is None and arguments.source is None and not is_transparent:
        name = "demo" if has_networks else "side-by-side"
    if name != "result" and is_transparent:
        raise UserError(f"--layout {name}: transparent shows the figure alone; use --layout result")
    if name == "demo" and not has_networks:
        raise UserError(
            "--layout demo shows what BGBase and BGRefine paint, and nothing needs them here; give "
            "a --background with --compose network, or use --layout side-by-side"
        )
    if name == "result" and arguments.show_masks:
        raise UserError("--show-masks adds columns; use it with --layout side-by-side or demo")
    return name


def as_typed(option: str) -> str:
    """An option's name as the user types it."""
    return "--" + option.replace("_", "-")


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
    parser.add_argument("--batch-size", type=positive_int, default=8, help="frames at a time")
    add_device_argument(parser)

    motion = parser.add_argument_group("motion")
    motion.add_argument(
        "--animator",
        choices=ANIMATORS,
        help="who moves the source; default: motion, where the checkpoint has it",
    )
    motion.add_argument(
        "--motion",
        choices=("relative", "absolute"),
        help="of the animator motion: relative (default), the change since the first driving frame "
        "moves the source",
    )
    motion.add_argument(
        "--adapt-scale", action="store_true", help="scale relative motion by the figures' sizes"
    )

    background = parser.add_argument_group("background")
    background.add_argument(
        "--background",
        metavar="WHAT",
        help="put the figure on an image, a clip, the `source`'s own background kept still, a "
        "colour ('#00ff00', quoted), or `transparent` (to .webm or a folder); a file of such a "
        "name is ./source",
    )
    background.add_argument(
        "--background-type",
        choices=("same", "other"),
        help="same (default): as the training data, its own figure is removed; other: taken as it "
        "is, the default for a colour",
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

    written = parser.add_argument_group("what is written")
    written.add_argument(
        "--layout",
        choices=LAYOUTS,
        help="result (default); side-by-side: source, driving, result; demo (default for test "
        "clips): source, driving, animated, background, BGBase, BGRefine",
    )
    written.add_argument(
        "--show-masks",
        action="store_true",
        help="more columns: the raw masks of source, animated frame and background",
    )
    written.add_argument(
        "--save-masks",
        action="store_true",
        help="also write the figure's opacity, its mask feathered around the threshold: out.mp4 "
        "gets out-masks.mp4 beside it",
    )
    return parser


if __name__ == "__main__":
    sys.exit(run_entry_point(main, build_parser()))
