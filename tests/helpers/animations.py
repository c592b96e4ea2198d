"""Helpers of the tests of animation: files for animate.py, runs of it, and expected results."""

import shutil
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

import animate
from animation.background_swap import BackgroundSwapper, BackgroundType, Compose, SwappedFrames
from animation.branch_animators import AnimatorName, build_animator, frames_to_tensor
from animation.branch_animators import animate as animate_frames
from animation.inputs import Driving
from animation.layouts import AnimatedBatch
from animation.prepared import Animation
from branches.model import Model
from checkpoints.checkpoint import load
from checkpoints.weights import load_model
from media.frames import Frame, Frames
from media.video import open_clip
from tests.helpers.media import numbered_frame, write_frame_folder
from tests.helpers.runs import call, contents

CPU = torch.device("cpu")
SIDE = 32  # side of the tiny run's frames, in pixels


def write_files(folder: Path, checkpoint: Path) -> Path:
    """Write pictures, clips and variants of the tiny run's `checkpoint`; returns `folder`.

    Pictures: source.png, other.png, wide.png. Clips: driving/ (5 frames), short/ (3 frames).
    Checkpoints: all.pt; square.pt, with the threshold 0.5, whose masks are 1 except in the border
    of 6 pixels that the mask generator does not reach; no-BRANCH.pt, without a branch; early.pt,
    from before the start of refinement and background, and no-motion-early.pt.
    """
    Image.fromarray(numbered_frame(21, (SIDE, SIDE))).save(folder / "source.png")
    Image.fromarray(numbered_frame(42, (SIDE, SIDE))).save(folder / "other.png")
    Image.fromarray(numbered_frame(21, (30, 50))).save(folder / "wide.png")
    write_frame_folder(folder / "driving", 5, (SIDE, SIDE))
    write_frame_folder(folder / "short", 3, (SIDE, SIDE))
    shutil.copyfile(checkpoint, folder / "all.pt")
    content = contents(folder / "all.pt")
    content["config"]["background"]["threshold"] = 0.5
    mask_generator = content["average"]["networks"]["mask_generator"]
    mask_generator["ref.weight"].zero_()
    mask_generator["ref.bias"].fill_(100.0)
    torch.save(content, folder / "square.pt")
    for branches in (("background",), ("masks", "background"), ("motion",)):
        torch.save(without(folder / "all.pt", *branches), folder / f"no-{'-'.join(branches)}.pt")
    for name, later in (("all", "early"), ("no-motion", "no-motion-early")):
        content = contents(folder / f"{name}.pt")
        assert (content["epoch"], content["batch"]) == (2, 0)
        config = content["config"]
        config["train"]["epochs"] = 3
        config["masks"]["refinement"]["start_epoch"] = config["background"]["start_epoch"] = 2
        torch.save(content, folder / f"{later}.pt")
    return folder


def without(path: Path, *branches: str) -> dict[str, Any]:
    """The content of a checkpoint, changed as if it had been trained without these branches."""
    content = contents(path)
    built = load_model(load(path), CPU).branches
    if "motion" in branches:  # the discriminator needs the motion branch
        content["config"]["discriminator"] = None
        del content["networks"]["discriminator"]
    for branch in branches:
        content["config"][branch] = None
        for name, _ in built[branch].named_children():
            del content["networks"][name], content["average"]["networks"][name]
    return content


def run_to_folder(files: Path, model: str, output: Path, *arguments: object) -> Frames:
    """Animate source.png by driving/ into a folder of frames, and return these frames."""
    inputs = ("--source", files / "source.png", "--driving", files / "driving")
    checkpoint = ("--checkpoint", files / f"{model}.pt")
    assert call(animate, *checkpoint, *inputs, "--output", output, *arguments) == 0
    return pngs(output)


def expected_swap(
    files: Path, kind: BackgroundType, compose: Compose, animator: AnimatorName = "motion"
) -> tuple[Frames, Tensor, SwappedFrames]:
    """Driving frames, the animation and its swap to other.png, computed without animate.py."""
    model = load_model(load(files / "all.pt"), CPU)
    driving = open_clip(files / "driving").read(range(5))
    moved = build_animator(model, CPU, animator)
    ((_, animated),) = animate_frames(moved, picture(files / "source.png"), driving)
    other = frames_to_tensor(picture(files / "other.png")[None], CPU)
    return driving, animated, BackgroundSwapper(model, kind, compose).swap(animated, other)


def build_animation(
    model: Model,
    driving: Iterable[Frame],
    swapper: BackgroundSwapper | None = None,
    backgrounds: Iterable[Frame] | None = None,
    batch_size: int = 2,
) -> Animation:
    """The animation of frame 0 by `driving`, on `backgrounds` if there are any."""
    return Animation(
        build_animator(model, CPU, "motion"),
        numbered_frame(0, (32, 32)),
        Driving(driving, Fraction(25), None, "driving"),
        reference=None,
        swapper=swapper,
        backgrounds=backgrounds,
        paster=None,
        is_transparent=False,
        batch_size=batch_size,
        notes=[],
    )


def swapped_batches(
    model: Model,
    swapper: BackgroundSwapper,
    driving: Iterable[Frame],
    backgrounds: Iterable[Frame],
    batch_size: int,
) -> Iterator[AnimatedBatch]:
    """Animate frame 0 by `driving` on `backgrounds`; returns the batches."""
    return build_animation(model, driving, swapper, backgrounds, batch_size).batches()


def assert_rounded_alike(frames: Frames, expected: Frames) -> None:
    """Pictures of the same numbers, up to the last bits: with another number of frames in a batch a
    processor may add in another order, and a value near a half is then rounded the other way.
    """
    assert frames.shape == expected.shape
    assert np.abs(frames.astype(int) - expected.astype(int)).max() <= 1


def pngs(folder: Path) -> Frames:
    """Read the frames of a folder, N x H x W x C."""
    return np.stack([picture(path) for path in sorted(folder.glob("*.png"))])


def picture(path: Path) -> NDArray[np.uint8]:
    return np.array(Image.open(path))


def columns(frames: Frames) -> list[Frames]:
    """Split frames into the pictures that stand side by side in them."""
    return np.split(frames, frames.shape[2] // SIDE, axis=2)


def uint8(images: Tensor) -> Frames:
    return images.mul(255).round().byte().movedim(1, -1).numpy()
