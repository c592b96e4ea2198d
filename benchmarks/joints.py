"""Measure whether the keypoints of a checkpoint follow the true joints of puppets.

    python -m benchmarks.joints --checkpoint runs/demo/checkpoints/best.pt

Keypoints are learned without labels, so none of them is the hand. If the keypoints together know
where the hand is, a linear map from all of them finds it, as landmarks are measured in the
literature on keypoints without labels. Animation needs movement rather than places: so the map, a
ridge regression fitted to training clips, goes from the movement of the keypoints since the first
frame of a clip to that of the joints. The table is for test clips, whose puppets, poses and
backgrounds do not occur in training:

    movement    mean distance that the joint has moved since the first frame, in pixels
    error       mean distance between the true movement and the one found, in pixels
    ratio       error over movement: 1 for keypoints that know nothing of the joint, 0 is best
"""

import argparse
import sys
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from animation.branch_animators import frames_to_tensor
from benchmarks.puppet_scenes import driving_frames
from benchmarks.tables import Cell, markdown_table
from branches.motion.branch import MotionBranch
from checkpoints import checkpoint
from checkpoints.weights import load_model
from common.cli import add_device_argument, pick_device, positive_int, run_entry_point
from common.errors import UserError
from datasets.build import build_puppets
from datasets.puppets.clips import Puppets
from datasets.puppets.figure import find_joints

PARTS: Final = {
    "trunk": ("hips", "neck", "head"),
    "arms": ("left elbow", "right elbow", "left hand", "right hand"),
    "legs": ("left knee", "right knee", "left foot", "right foot"),
}
_RIDGE = 1e-5  # weight of the squared coefficients beside the mean squared error

Floats = NDArray[np.float64]


class Movements(NamedTuple):
    """Movements since the first frame of each clip, for N frames.

    keypoints: N x 2K, in [-1, 1] coordinates.
    joints: N x J x 2, in pixels, in the order of `find_joints`.
    """

    keypoints: Floats
    joints: Floats


def main(arguments: argparse.Namespace) -> None:
    path, device = Path(arguments.checkpoint), pick_device(arguments.device)
    saved = checkpoint.load(path)
    data = saved.config.data
    if data.kind != "puppets":
        raise UserError(f"{path}: trained on clips, whose joints are unknown; use puppets")
    motion = load_model(saved, device).motion
    if motion is None or not motion.has_keypoints:
        raise UserError(f"{path}: has no keypoints; give a checkpoint of demo.yaml")
    train, test = (
        build_puppets(data, split, min(arguments.num_clips, most))
        for split, most in (
            ("train", data.puppets.num_train_clips),
            ("test", data.puppets.num_test_clips),
        )
    )
    moved = [collect(motion, clips, arguments.num_frames, device) for clips in (train, test)]
    errors = measure(*moved)
    distances = np.linalg.norm(moved[1].joints, axis=-1).mean(axis=0)
    names = list(find_joints(test.identity(0), test.pose(0, 0), test.image_size))
    ratios = dict(zip(names, errors / distances, strict=True))
    rows: list[dict[str, Cell]] = [
        {"joint": name, "movement": f"{d:.2f}", "error": f"{e:.2f}", "ratio": f"{ratios[name]:.2f}"}
        for name, d, e in zip(names, distances, errors, strict=True)
    ]
    print(markdown_table(rows))
    means = {part: np.mean([ratios[name] for name in found]) for part, found in PARTS.items()}
    print("\nratio: " + ", ".join(f"{part} {mean:.2f}" for part, mean in means.items()))


@torch.inference_mode()
def collect(
    motion: MotionBranch, clips: Puppets, num_frames: int, device: torch.device
) -> Movements:
    """Find the movements of keypoints and joints in `num_frames` frames of each clip."""
    frames = [0, *driving_frames(clips, num_frames)]
    keypoints, joints = [], []
    for index in range(len(clips.clips)):
        found = motion.detect(frames_to_tensor(clips.read(index, frames), device)).value
        identity = clips.identity(index)
        true = [
            list(find_joints(identity, clips.pose(index, frame), clips.image_size).values())
            for frame in frames
        ]
        keypoints.append(moved(found.double().cpu().numpy()))
        joints.append(moved(np.array(true)))
    flat = np.concatenate(keypoints)
    return Movements(flat.reshape(len(flat), -1), np.concatenate(joints))


def moved(places: Floats) -> Floats:
    """Movements since the first frame: frames x points x 2 become (frames - 1) x points x 2."""
    return places[1:] - places[:1]


def measure(train: Movements, test: Movements) -> Floats:
    """Mean error of each joint's movement, in pixels."""
    inputs = _with_constant(train.keypoints)
    targets = train.joints.reshape(len(inputs), -1)
    square = inputs.T @ inputs / len(inputs) + _RIDGE * np.eye(inputs.shape[1])
    linear = np.linalg.solve(square, inputs.T @ targets / len(inputs))
    found = (_with_constant(test.keypoints) @ linear).reshape(test.joints.shape)
    error: Floats = np.linalg.norm(found - test.joints, axis=-1).mean(axis=0)
    return error


def _with_constant(values: Floats) -> Floats:
    return np.concatenate([values, np.ones((len(values), 1))], axis=1)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.joints",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", required=True, metavar="PATH")
    parser.add_argument(
        "--num-clips", type=positive_int, default=192, help="clips of each split (default: 192)"
    )
    parser.add_argument(
        "--num-frames", type=positive_int, default=7, help="later frames of a clip (default: 7)"
    )
    add_device_argument(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_entry_point(main, build_parser()))
