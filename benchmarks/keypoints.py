"""Measure the keypoints of driving clips: their distances between frames, and their jitter.

The table has quantiles of the distances that `--reference-frame` uses (animation/reference.py):
between frames of one clip, and between frames of two clips. The line below it has the jitter, which
is the mean absolute second difference over time, in pixels of 256; the jitter after `--smooth` as a
factor of that; and the delay of the smoothed path: the shift, in frames, at which the detected path
fits it best.
"""

import argparse
import sys
from itertools import combinations, product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from animation.branch_animators import in_batches
from animation.reference import keypoint_distance
from animation.smoothing import Smoothing, smooth_keypoints
from benchmarks.tables import markdown_table
from checkpoints import checkpoint
from checkpoints.weights import load_model
from common.cli import add_device_argument, pick_device, positive_int, run_entry_point
from common.errors import UserError
from datasets.build import build_source
from evaluation.reconstruction import spread
from modules.keypoint_detector import Keypoints

QUANTILES = (0.05, 0.5, 0.95, 0.99)
PIXELS = 128  # a distance of 1 in coordinates, in pixels of a frame of 256 x 256
MAX_DELAY, DELAY_STEP = 6.0, 0.1  # frames: largest delay that is tried, and distance of the tries


def main(arguments: argparse.Namespace) -> None:
    device = pick_device(arguments.device)
    saved = checkpoint.load(Path(arguments.checkpoint))
    branch = load_model(saved, device).motion
    if branch is None or not branch.has_keypoints:
        raise UserError(
            f"{saved.path}: has no motion branch with keypoints; give a checkpoint that has one"
        )
    data = saved.config.data.model_copy(update={"id_sampling": False})
    if arguments.data_root is not None:
        data = data.model_copy(update={"kind": "clips", "root": arguments.data_root})
    clips = build_source(data, arguments.split)
    paths, smoothed = [], []
    for index in range(len(clips.clips)):
        batches = [
            keypoints for _, keypoints in in_batches(branch.detect, clips.stream(index), 32, device)
        ]
        path = Keypoints(torch.cat([found.value for found in batches]).cpu(), None)
        smoothing = Smoothing(clips.frame_rate(index))
        paths.append(path.value)
        smoothed.append(smooth_keypoints(path, smoothing, None)[0].value)
    frames = [path[spread(len(path), arguments.num_frames)] for path in paths]
    distances = {
        "one clip": distances_within_clips(frames),
        "two clips": distances_between_clips(frames),
    }
    print(
        markdown_table(
            [
                {"frames of": name, **{f"{q:.0%}": float(np.quantile(found, q)) for q in QUANTILES}}
                for name, found in distances.items()
                if len(found)
            ]
        )
    )
    if min(map(len, paths)) <= MAX_DELAY:
        raise UserError(f"{data.root or data.kind}: a clip has no more than {MAX_DELAY:g} frames")
    detected = np.mean([jitter(path) for path in paths])
    share = np.mean([jitter(path) for path in smoothed]) / detected
    late = np.mean([delay_of(*pair) for pair in zip(paths, smoothed, strict=True)])
    print(f"\njitter {detected:.2f} pixels of 256, smoothed x {share:.2f}, {late:.2f} frames late")


def distances_within_clips(clips: list[Tensor]) -> NDArray[np.float64]:
    """Distances between all pairs of frames of the same clip; each clip is N x K x 2."""
    pairs = [pair for clip in clips for pair in combinations(clip, 2)]
    return np.array([keypoint_distance(*pair) for pair in pairs])


def distances_between_clips(clips: list[Tensor]) -> NDArray[np.float64]:
    """Distances between all pairs of frames of different clips; each clip is N x K x 2."""
    pairs = [pair for two in combinations(clips, 2) for pair in product(*two)]
    return np.array([keypoint_distance(*pair) for pair in pairs])


def jitter(path: Tensor) -> float:
    """Jitter of the keypoints `path`, T x K x 2, in pixels of 256."""
    return PIXELS * float(path.diff(n=2, dim=0).abs().mean())


def delay_of(path: Tensor, smoothed: Tensor) -> float:
    """Delay, in frames, by which `path` comes nearest to `smoothed`; both are T x K x 2, T > 6."""
    times = np.arange(int(MAX_DELAY), len(path))
    errors = {}
    for delay in np.arange(0, MAX_DELAY, DELAY_STEP):
        before = np.floor(times - delay).astype(int)
        share = torch.from_numpy(times - delay - before).to(path)[:, None, None]
        delayed = path[before].lerp(path[np.minimum(before + 1, len(path) - 1)], share)
        errors[float(delay)] = float((delayed - smoothed[times]).square().sum())
    return min(errors, key=lambda delay: errors[delay])


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.keypoints",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", required=True, metavar="PATH")
    parser.add_argument(
        "--data-root", metavar="DIR", help="folder of clips; default: the data of the training"
    )
    parser.add_argument("--split", default="test", help="train or test (default)")
    parser.add_argument(
        "--num-frames", type=positive_int, default=8, help="frames of a clip, for distances (8)"
    )
    add_device_argument(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_entry_point(main, build_parser()))
