"""Figures of the background branch: figures of the first test clips on other backgrounds."""

import torch
from matplotlib.figure import Figure

from animation.background_swap import BackgroundSwapper, BackgroundType
from animation.branch_animators import MotionAnimator, frames_to_tensor
from branches.model import Model
from datasets.puppets.clips import Puppets
from docs.drawing.canvas import DEVICE, cells, show
from docs.drawing.masks import scenes
from media.visualization import to_uint8

NUM_ROWS = 4  # of the six columns
CASES: tuple[BackgroundType, ...] = ("same", "other")


@torch.inference_mode()
def draw_columns(model: Model, clips: Puppets) -> Figure:
    """Draw the six columns of animate.py: clip i moves the puppet of clip i + 1, and clip i + 2
    gives the background.
    """
    motion = model.motion
    assert motion is not None
    animator = MotionAnimator(motion, DEVICE)
    swapper = BackgroundSwapper(model, "same", "network")
    titles = ("source", "driving", "animation", "third image", "BGBase", "BGRefine")
    figure, axes = cells(NUM_ROWS, len(titles), titles, scale=1.2)
    count = len(clips.clips)
    moments = [0, clips.num_frames(0) // 2]  # relative motion begins with the first frame
    for row in range(NUM_ROWS):
        source, third = (
            frames_to_tensor(clips.read((row + shift) % count, [0]), DEVICE) for shift in (1, 2)
        )
        driving = frames_to_tensor(clips.read(row, moments), DEVICE)
        animated = animator.start(source)(driving)[1:]
        swapped = swapper.swap(animated, third)
        assert swapped.base is not None
        assert swapped.refined is not None
        pictures = (source, driving[1:], animated, third, swapped.base, swapped.refined)
        for axis, picture in zip(axes[row], pictures, strict=True):
            show(axis, to_uint8(picture)[0])
    return figure


@torch.inference_mode()
def draw_swap(model: Model, clips: Puppets) -> Figure:
    """Draw the animated figure on the background of a third image: inputs and outputs of the
    networks, and the truth. The driving clip is another puppet's, in absolute motion, since only
    for that the truth can be rendered.
    """
    motion, background = model.motion, model.background
    assert motion is not None
    assert background is not None
    animator = MotionAnimator(motion, DEVICE, motion="absolute")
    swappers = {case: BackgroundSwapper(model, case, "alpha") for case in CASES}
    titles = ("S", "D", "Y", "F(Y)", "Z", "B(Z)", "BGBase", "BGRefine", "alpha", "truth")
    found = scenes(clips, "another")
    figure, axes = cells(len(CASES) * len(found), len(titles), titles)
    for i, scene in enumerate(found):
        animated = animator.start(scene.source)(scene.driving)
        for j, (case, swapper) in enumerate(swappers.items()):
            third = scene.third_images[case]
            swapped = swapper.swap(animated, third)
            assert swapped.background_mask is not None  # there is a background
            assert swapped.result is not None
            painted = background.swap(
                animated, swapped.foreground_mask, third, swapped.background_mask
            )
            pictures = (
                scene.source,
                scene.driving,
                animated,
                painted.foreground,
                third,
                painted.background,
                painted.base,
                painted.refined,
                swapped.result,
                scene.figure.on(scene.new_background),
            )
            row = axes[len(CASES) * i + j]
            row[0].set_ylabel(case)
            for axis, picture in zip(row, pictures, strict=True):
                show(axis, to_uint8(picture)[0])
    return figure
