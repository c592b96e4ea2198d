"""Speed of animation on the device, with random networks and puppets at 256 x 256."""

import argparse
from functools import partial
from typing import Any, Final

import torch

from animation.branch_animators import MotionAnimator
from benchmarks.animate import build_parser, build_scene, half_precisions
from benchmarks.animation_models import motion_of
from benchmarks.gpu.checks import Check, Setup
from benchmarks.gpu.rows import overrides
from benchmarks.training_steps import seconds
from benchmarks.whole_clips import WholeClips

MODELS: Final = ("vox-fomm", "vox-tpsmm", "vox-monkey-net", "vox-x2face")
BATCHES: Final = (8, 32)
GOAL: Final = 300.0  # frames/s
_ROUNDS = 3


def checks(setup: Setup) -> list[Check]:
    """See `checks.checks_of`."""
    batches = (2,) if setup.tiny else BATCHES
    found = [Check(f"files, {MODELS[0]}", partial(files, MODELS[0], batches[-1]), 60)]
    found += [
        Check(f"networks, {name}, {batch} frames", partial(networks, name, batch), 45)
        for name in MODELS
        for batch in batches
    ]
    compiled = partial(networks, MODELS[0], batches[-1], compiled=True)
    return [*found, *([] if setup.tiny else [Check(f"compiled, {MODELS[0]}", compiled, 150)])]


def files(name: str, batch_size: int, setup: Setup) -> dict[str, Any]:
    """Frames/s from file to file, with the networks of the fastest row."""
    arguments = _arguments(name, batch_size, setup)
    scene = build_scene(arguments)
    variant = scene.variants(arguments)[_fastest(arguments)]()
    clip = scene.clips.read(1, range(arguments.clip_frames))
    animator = MotionAnimator(motion_of(variant.model), setup.device)
    rows = WholeClips(animator, scene.source, clip, batch_size).measure(arguments.rounds)
    found = {row["clip"]: row["frames_per_second"] for row in rows}
    failed = [f"overlapped is below {GOAL:.0f} frames/s"] if found["overlapped"] < GOAL else []
    return {**found, "failed": [] if setup.tiny else failed}


def networks(name: str, batch_size: int, setup: Setup, compiled: bool = False) -> dict[str, Any]:
    """Frames/s of the networks, from uint8 frames to uint8 frames, row by row."""
    arguments = _arguments(name, batch_size, setup)
    arguments.compile = compiled
    scene = build_scene(arguments)
    variants = scene.variants(arguments)
    names = (
        ["compiled"] if compiled else ["plain loop", "channels last", *arguments.half_precisions]
    )
    found = {}
    with torch.inference_mode():
        for row in names:
            variant = variants[row]()
            run = partial(variant.run, scene.driving, setup.device)
            run()
            taken = min(seconds(run, setup.device) for _ in range(arguments.rounds))
            found[row] = len(scene.driving) / taken
    failed = [f"below {GOAL:.0f} frames/s"] if max(found.values()) < GOAL else []
    return {**found, "failed": [] if setup.tiny else failed}


def _arguments(name: str, batch_size: int, setup: Setup) -> argparse.Namespace:
    """The arguments of benchmarks.animate."""
    frames = ("2", "2", "1") if setup.tiny else ("128", "256", str(_ROUNDS))
    options = ["--config", name, "--batch-size", str(batch_size), "--device", setup.device.type]
    for option, value in zip(("--frames", "--clip-frames", "--rounds"), frames, strict=True):
        options += [option, value]
    arguments = build_parser().parse_intermixed_args([*options, *overrides(name, setup.tiny)])
    arguments.half_precisions = half_precisions(setup.device)
    return arguments


def _fastest(arguments: argparse.Namespace) -> str:
    """The row of the last precision, which animate.py uses."""
    return arguments.half_precisions[-1] if arguments.half_precisions else "channels last"
