"""Measure whether the keypoints of a checkpoint follow the true joints of puppets.

    python -m benchmarks.joints --checkpoint runs/demo/checkpoints/best.pt

Several checkpoints, each after a --checkpoint of its own, are measured on the same puppets and also
shown side by side. --output writes a list with a report for each.

Keypoints are learned without labels, so none of them is the hand. If the keypoints together know
where the hand is, a linear map from all of them finds it, as landmarks are measured in the
literature on keypoints without labels. Animation needs movement rather than places: so the map, a
ridge regression fitted to training clips, goes from the movement of the keypoints since the first
frame of a clip to that of the joints. The table is for test clips, whose puppets, poses and
backgrounds do not occur in training:

    movement    mean distance that the joint has moved since the first frame, in pixels
    error       mean distance between the true movement and the one found, in pixels
    ratio       error over movement: 1 for keypoints that know nothing of the joint, 0 is best

The mean of a part (trunk, arms, legs) is that of its joints' ratios.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from animation.branch_animators import frames_to_tensor
from benchmarks.puppet_scenes import driving_frames
from benchmarks.tables import Cell, markdown_table
from branches.motion.branch import MotionBranch
from checkpoints import checkpoint
from checkpoints.checkpoint import Checkpoint
from checkpoints.folder import folder_of_run
from checkpoints.weights import load_model
from common.cli import add_device_argument, pick_device, positive_int, run_entry_point
from common.errors import UserError
from common.files import check_output_file, replacing
from common.safe_paths import printable
from configs.schema import DataConfig
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
    device = pick_device(arguments.device)
    paths = [Path(path) for path in arguments.checkpoint]
    names = choose_names(paths, arguments.names)
    output = None if arguments.output is None else Path(arguments.output)
    if output is not None:
        check_output_file(output, "joints.json")
    saved = [checkpoint.load(path) for path in paths]
    check_puppets(saved, arguments.num_clips)
    motions = [load_motion(each, device) for each in saved]
    counts = (arguments.num_clips, arguments.num_frames)
    reports = [
        {
            "name": name,
            "checkpoint": str(each.path),
            "step": each.step,
            **measure_joints(motion, each.config.data, *counts, device),
        }
        for name, each, motion in zip(names, saved, motions, strict=True)
    ]
    if output is not None:
        with replacing(output) as temporary:
            temporary.write_text(json.dumps(reports, indent=2) + "\n")
    blocks = [table(report) for report in reports]
    if len(reports) > 1:
        blocks = [
            f"{printable(name)}:\n\n{block}" for name, block in zip(names, blocks, strict=True)
        ]
        blocks.append(side_by_side(reports))
    if output is not None:
        blocks.append(printable(str(output)))
    print("\n\n".join(blocks))


def choose_names(paths: Sequence[Path], given: Sequence[str] | None) -> list[str]:
    """The names of the checkpoints: those given, or those of their run folders.

    Raises:
        UserError: there is not one for each, or two columns of the table would have the same.
    """
    if given is not None and len(given) != len(paths):
        raise UserError(
            f"--names: {len(given)} names for {len(paths)} checkpoints; give one for each"
        )
    names = [_name_of_run(path) for path in paths] if given is None else list(given)
    taken = {"joint", "movement"}
    for path, name in zip(paths, names, strict=True):
        if name in taken:
            raise UserError(f"{path}: {name!r} names two columns of the table; give other --names")
        taken.add(name)
    return names


def _name_of_run(path: Path) -> str:
    """The name of the run folder, or that of the file if it lies in the working folder."""
    name = folder_of_run(path).name
    return path.stem if name in ("", "..") else name


def check_puppets(saved: Sequence[Checkpoint], num_clips: int) -> None:
    """Check that all checkpoints were trained on puppets, and can be measured on the same ones.

    Raises:
        UserError: one cannot; names the checkpoint and the keys of its config.
    """
    for each in saved:
        if each.config.data.kind != "puppets":
            raise UserError(f"{each.path}: trained on clips, whose joints are unknown; use puppets")
    first = _puppets(saved[0].config.data, num_clips)
    for each in saved[1:]:
        found = _puppets(each.config.data, num_clips)
        different = [
            f"{key} {found[key]}, not {first[key]}" for key in first if found[key] != first[key]
        ]
        if different:
            raise UserError(
                f"{each.path}: its puppets are not those of {saved[0].path} "
                f"({'; '.join(different)}); measure it by a command of its own"
            )


def _puppets(data: DataConfig, num_clips: int) -> dict[str, object]:
    """The settings that decide which puppets are measured, by their key."""
    puppets = data.puppets
    return {
        "data.image_size": list(data.size),
        "data.puppets.num_train_clips": min(num_clips, puppets.num_train_clips),
        "data.puppets.num_test_clips": min(num_clips, puppets.num_test_clips),
        "data.puppets.num_frames": puppets.num_frames,
        "data.puppets.motion_scale": puppets.motion_scale,
        "data.puppets.seed": puppets.seed,
    }


def load_motion(saved: Checkpoint, device: torch.device) -> MotionBranch:
    """Load the motion branch of a checkpoint.

    Raises:
        UserError: it has no keypoints.
    """
    motion = load_model(saved, device).motion
    if motion is None or not motion.has_keypoints:
        raise UserError(f"{saved.path}: has no keypoints; give a checkpoint of demo.yaml")
    return motion


def measure_joints(
    motion: MotionBranch, data: DataConfig, num_clips: int, num_frames: int, device: torch.device
) -> dict[str, Any]:
    """The report of a checkpoint: what was measured on, the numbers of each joint (pixels; see the
    file's docstring) and the mean ratio of each part.

    Args:
        num_clips: the most clips of each split.
        num_frames: the most later frames of each clip.
    """
    train, test = (
        build_puppets(data, split, min(num_clips, most))
        for split, most in (
            ("train", data.puppets.num_train_clips),
            ("test", data.puppets.num_test_clips),
        )
    )
    found = [collect(motion, clips, num_frames, device) for clips in (train, test)]
    errors = measure(*found)
    movements = np.linalg.norm(found[1].joints, axis=-1).mean(axis=0)
    names = list(find_joints(test.identity(0), test.pose(0, 0), test.image_size))
    joints = {
        name: {"movement": float(movement), "error": float(error), "ratio": float(error / movement)}
        for name, movement, error in zip(names, movements, errors, strict=True)
    }
    return {
        "split": test.split,
        "image_size": list(data.size),
        "num_train_clips": len(train.clips),
        "num_clips": len(test.clips),
        "num_frames": len(driving_frames(test, num_frames)),
        "joints": joints,
        "mean_ratios": {
            part: float(np.mean([joints[name]["ratio"] for name in of_part]))
            for part, of_part in PARTS.items()
        },
    }


def table(report: Mapping[str, Any]) -> str:
    """The numbers of each joint in one report, and a line with the mean ratio of each part."""
    rows: list[dict[str, Cell]] = [
        {"joint": name, **{key: f"{value:.2f}" for key, value in numbers.items()}}
        for name, numbers in report["joints"].items()
    ]
    means = ", ".join(f"{part} {mean:.2f}" for part, mean in report["mean_ratios"].items())
    return f"{markdown_table(rows)}\n\nratio: {means}"


def side_by_side(reports: Sequence[Mapping[str, Any]]) -> str:
    """A table of the ratios in several reports of the same puppets: a line for each joint, with its
    movement, then one for the mean of each part; a column for each report.
    """
    rows: list[dict[str, Cell]] = [
        {
            "joint": name,
            "movement": f"{numbers['movement']:.2f}",
            **{report["name"]: f"{report['joints'][name]['ratio']:.2f}" for report in reports},
        }
        for name, numbers in reports[0]["joints"].items()
    ]
    rows += [
        {
            "joint": f"mean of {part}",
            **{report["name"]: f"{report['mean_ratios'][part]:.2f}" for report in reports},
        }
        for part in PARTS
    ]
    return markdown_table(rows)


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
    parser.add_argument(
        "--checkpoint",
        action="append",
        required=True,
        metavar="PATH",
        help="give the option again for each further checkpoint",
    )
    parser.add_argument(
        "--names",
        nargs="+",
        metavar="NAME",
        help="names of the columns, one for each checkpoint; default: those of the run folders",
    )
    parser.add_argument(
        "--output", metavar="FILE.json", help="where to write the reports; default: nowhere"
    )
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
