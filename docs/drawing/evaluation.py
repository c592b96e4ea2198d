"""Draw the figures of docs/evaluation.md and docs/animation.md from a checkpoint.

    pip install -e '.[docs]'
    python -m docs.drawing.evaluation --checkpoint runs/demo/checkpoints/best.pt

The checkpoint must have the motion and the mask branch, and be trained on puppets (demo.yaml). The
figures show the first clips of the test split; none is chosen by hand.
"""

import argparse
import copy
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from animation.branch_animators import MotionAnimator, frames_to_tensor
from animation.cropping import Cropper
from animation.smoothing import Smoothing, smooth_keypoints
from branches.model import Model
from checkpoints import checkpoint
from checkpoints.weights import load_model
from common.cli import run_entry_point
from common.errors import UserError
from common.seeding import numpy_rng
from datasets.build import build_puppets
from datasets.puppets.background import paint_background
from datasets.puppets.clips import Puppets
from datasets.puppets.figure import draw_figure
from docs.drawing.canvas import CELL, DEVICE, NUM_EXAMPLES, cells, show, write
from evaluation.measures import salient_metrics
from evaluation.regions import MaskRegions
from media.crops import Box, cut_out
from media.frames import Frame
from media.visualization import to_uint8
from metrics.image import masked, psnr

MASK, KEYPOINTS, TRUTH = "#ffb000", "#00c2ff", "white"  # colours of boxes
RAW, SMOOTH = "#777777", "#1f6fb4"  # colours of keypoint paths
CANVAS = (192, 256)  # height and width of the larger pictures, in pixels
SIDES = (96, 112, 144, 176)  # sides of the squares in them that a puppet is drawn in, in pixels
NUM_PATH_FRAMES = 50  # two seconds
PIXELS = 128  # a coordinate of 1 is half of 256 pixels


def main(arguments: argparse.Namespace) -> None:
    plt.switch_backend("agg")  # files only; needs no display
    path = Path(arguments.checkpoint)
    saved = checkpoint.load(path)
    if saved.config.data.kind != "puppets" or not {"motion", "masks"} <= set(saved.config.branches):
        raise UserError(
            f"{path}: the figures show masks and keypoints of puppets; give a checkpoint trained "
            "on puppets with motion and masks (demo.yaml)"
        )
    model = load_model(saved, DEVICE)
    clips = build_puppets(saved.config.data, "test", len(SIDES))
    output = Path(arguments.output)
    write(draw_salient(model, clips), output / "salient.png")
    write(draw_crops(model, clips), output / "crops.png")
    write(draw_smoothing(model, clips), output / "smoothing.png")


@torch.inference_mode()
def draw_salient(model: Model, clips: Puppets) -> Figure:
    """Draw reconstructed frames and their salient region, with the PSNR in the two conventions."""
    motion, masks = model.motion, model.masks
    assert motion is not None
    assert masks is not None
    titles = ("D", "prediction", "region", "D, salient", "prediction, salient")
    figure, axes = cells(NUM_EXAMPLES, len(titles), titles, scale=1.2)
    for row in range(NUM_EXAMPLES):
        moments = [0, clips.num_frames(row) // 2]
        source, driving = frames_to_tensor(clips.read(row, moments), DEVICE).split(1)
        prediction = MotionAnimator(motion, DEVICE, motion="absolute").start(source)(driving)
        region = MaskRegions(masks, model.mask_threshold, "").start("", source)(driving)
        pictures = (driving, prediction, region.float().expand_as(driving))
        salient = (masked(driving, region), masked(prediction, region))
        for axis, picture in zip(axes[row], (*pictures, *salient), strict=True):
            show(axis, to_uint8(picture)[0])
        found = salient_metrics(prediction, driving, region)
        pixels, whole = float(found["psnr_salient_pixels"]), float(found["psnr_salient"])
        axes[row][1].set_xlabel(f"psnr {float(psnr(prediction, driving)):.1f}")
        axes[row][2].set_xlabel(f"psnr_salient_pixels {pixels:.1f}")
        axes[row][4].set_xlabel(f"psnr_salient {whole:.1f}")
    return figure


def draw_crops(model: Model, clips: Puppets) -> Figure:
    """Draw puppets in larger pictures, with the crops that mask and keypoints find."""
    keypoints_alone = copy.copy(model)
    keypoints_alone.masks = None
    croppers = {
        color: Cropper(found_by, clips.image_size, DEVICE, face_detector=None)
        for color, found_by in ((MASK, model), (KEYPOINTS, keypoints_alone))
    }
    count, width = len(SIDES), CANVAS[1] / CANVAS[0]
    figure, axes = plt.subplots(
        3,
        count,
        figsize=(1.3 * CELL * width * count, 1.3 * CELL * 3),
        layout="constrained",
    )
    for column, side in enumerate(SIDES):
        picture, frame_box = larger_picture(clips, column, side)
        axes[0][column].imshow(picture, extent=(0, CANVAS[1], CANVAS[0], 0))
        outline(axes[0][column], frame_box, TRUTH, "--")
        for row, (color, cropper) in enumerate(croppers.items(), start=1):
            box = cropper.figure_box(picture).box
            outline(axes[0][column], box, color, "-")
            axes[row][column].imshow(
                cut_out(picture, box, clips.image_size), interpolation="bicubic"
            )
            axes[row][column].set_xlabel(f"IoU {overlap(box, frame_box):.2f}")
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
    for axis, label in zip(axes[:, 0], ("picture", "by the mask", "by the keypoints"), strict=True):
        axis.set_ylabel(label)
    return figure


def larger_picture(clips: Puppets, index: int, side: int) -> tuple[Frame, Box]:
    """Draw the puppet of a clip in a square of `side` pixels, at a random place in a picture of the
    size CANVAS; returns the picture and the square.
    """
    rng = numpy_rng("larger picture", index)
    top, left = (int(rng.integers(0, length - side + 1)) for length in CANVAS)
    picture = paint_background(clips.background(index), CANVAS).copy()
    moment = clips.num_frames(index) // 2
    puppet = draw_figure(clips.identity(index), clips.pose(index, moment), (side, side))
    behind = picture[top : top + side, left : left + side]
    behind *= 1 - puppet.foreground_mask[..., None]
    behind += puppet.colour
    frame = np.rint(255 * picture.clip(0, 1)).astype(np.uint8)
    return frame, Box(left, top, side, side)


def outline(axis: Axes, box: Box, color: str, style: str) -> None:
    """Draw the box in `color`, with a black rim."""
    corner = (box.left, box.top)
    for line, width in (("black", 3.0), (color, 1.6)):
        axis.add_patch(
            Rectangle(
                corner, box.width, box.height, fill=False, color=line, linewidth=width, ls=style
            )
        )


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    width = min(a.left + a.width, b.left + b.width) - max(a.left, b.left)
    height = min(a.top + a.height, b.top + b.height) - max(a.top, b.top)
    common = max(width, 0) * max(height, 0)
    return common / (a.width * a.height + b.width * b.height - common)


@torch.inference_mode()
def draw_smoothing(model: Model, clips: Puppets) -> Figure:
    """Draw paths before and after smoothing: for each clip, x of the keypoint that moves least
    along x, and of the one that moves most.
    """
    motion = model.motion
    assert motion is not None
    figure, axes = plt.subplots(2, NUM_EXAMPLES, figsize=(12, 4.6), layout="constrained")
    for column in range(NUM_EXAMPLES):
        frames = clips.read(column, range(NUM_PATH_FRAMES))
        keypoints = motion.detect(frames_to_tensor(frames, DEVICE))
        smooth, _ = smooth_keypoints(keypoints, Smoothing(clips.frame_rate(column)), None)
        speed = keypoints.value[..., 0].diff(dim=0).abs().mean(dim=0)
        for axis, k in zip(axes[:, column], (speed.argmin(), speed.argmax()), strict=True):
            axis.plot(PIXELS * keypoints.value[:, k, 0], color=RAW, linewidth=1, label="detected")
            axis.plot(PIXELS * smooth.value[:, k, 0], color=SMOOTH, linewidth=1.6, label="smoothed")
            axis.set_title(f"clip {column}, keypoint {int(k)}", fontsize=10)
            axis.spines[["top", "right"]].set_visible(False)
            axis.grid(alpha=0.3)
    axes[0][0].legend(frameon=False, fontsize=8)
    for axis, label in zip(axes[:, 0], ("slowest", "fastest"), strict=True):
        axis.set_ylabel(f"{label}: x in pixels of 256")
    for axis in axes[-1]:
        axis.set_xlabel("frame")
    return figure


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m docs.drawing.evaluation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", required=True, metavar="PATH")
    parser.add_argument(
        "--output", metavar="DIR", default=str(Path(__file__).parents[1] / "figures")
    )
    return parser


if __name__ == "__main__":
    sys.exit(run_entry_point(main, build_parser()))
