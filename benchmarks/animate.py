"""Animation, one frame at a time against everything together: frames/s of each stage.

    python -m benchmarks.animate [--config vox-fomm.yaml | --checkpoint PATH] [key.sub=value ...]

The first table is the networks alone: the motion branch with relative motion, uint8 frames in and
out. Every row adds one lever to the row above; all take the same frames and weights. Every round
starts a process for each row in turn, so that whatever else the machine does reaches all of them,
and none profits from memory that another has left. Encoding the source is left out where it is done
once for a clip.

    plain loop          as published scripts animate: one frame at a time, float32, the source
                        encoded for each; blur, heatmaps and upsampling as they are defined
    fewer products      separable blur and heatmaps, modules.blocks.UpConv2d
    source once         encoded once
    batches             --batch-size frames at a time
    folded norms, regrouped outputs, channels last, bf16, fp16, compiled
                        animation/acceleration.py; bf16 not where it is emulated; fp16, in the place
                        of bf16, on CUDA only;
                        compiled, of the row above, with --compile
    freed memory is kept
                        common/machine.py; on the CPU only

    ratio               frames/s, to those of the plain loop
    max_error, psnr     of the predictions in [0, 1], to the plain loop's; the PSNR of all frames

The second table is whole clips by the networks of the last row, frames/s: of reading the driving
clip (.mp4), of the networks, and of writing an .mp4, each alone; of all in turns; and overlapped,
as animate.py runs them on CUDA.

Without a checkpoint the weights are random, and BatchNorm's statistics those of the frames. With
--memory-frames a clip of so many frames is animated as well, and resident memory noted on the way.
"""

import argparse
import copy
import json
import math
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from animation.acceleration import DTYPES, compile_networks, fold_norms, lay_out, regroup_outputs
from animation.branch_animators import MotionAnimator, Move, frames_to_tensor
from benchmarks.plain_step import Lever, Patch, plain_downsample, plain_heatmaps, without
from benchmarks.steps import in_fresh_process, seconds
from benchmarks.tables import markdown_table
from benchmarks.whole_clips import WholeClips
from branches.model import Model
from branches.motion.fomm import FommBranch
from checkpoints import checkpoint
from checkpoints.weights import load_model
from common.cli import add_device_argument, pick_device, positive_int, run_entry_point
from common.errors import UserError
from common.files import replacing
from common.machine import keep_freed_memory
from common.speed_trial import is_emulated
from configs.loading import load_config
from configs.schema import Config
from datasets.puppets.clips import Puppets
from media.frames import Frame, Frames
from media.visualization import to_uint8
from modules import blocks, dense_motion
from modules.blocks import AntiAliasDownsample
from modules.keypoint_transfer import first_keypoints, relative_keypoints

AS_PUBLISHED: Final = Lever(
    "fewer products",
    patches=(
        Patch(AntiAliasDownsample, "forward", plain_downsample),
        Patch(dense_motion, "gaussian_heatmaps", plain_heatmaps),
        Patch(blocks, "MIN_FUSED_AREA", math.inf),
    ),
)


class Variant(NamedTuple):
    """A row of the first table: the networks, and how many frames they take at a time."""

    model: Model
    move: Move
    batch_size: int

    def predictions(self, driving: Frames, device: torch.device) -> Iterator[Tensor]:
        """Of `driving`, uint8 N x H x W x 3, batch by batch: B x 3 x H x W in [0, 1]."""
        for first in range(0, len(driving), self.batch_size):
            yield self.move(frames_to_tensor(driving[first : first + self.batch_size], device))

    def run(self, driving: Frames, device: torch.device) -> None:
        """From frames to frames, on the CPU both."""
        for prediction in self.predictions(driving, device):
            to_uint8(prediction)


def main(arguments: argparse.Namespace) -> None:
    output = Path(arguments.output)
    if output.is_dir():
        raise UserError(f"--output {output}: is a folder; give a file")
    scene = build_scene(arguments)
    arguments.half_precisions = half_precisions(scene.device)  # for the processes of all rows
    for name in left_out(scene.device):
        print(f"left out: the row {name}, which is emulated on this device")
    with torch.inference_mode():
        variants = {name: build() for name, build in scene.variants(arguments).items()}
        errors = measure_errors(variants, scene.driving, scene.device)
    times = time_rows(arguments, list(variants))
    rows = stage_rows(times, errors, len(scene.driving))
    fastest = MotionAnimator(_motion(list(variants.values())[-1].model), scene.device)
    whole = WholeClips(
        fastest,
        scene.source,
        scene.clips.read(1, range(arguments.clip_frames)),
        arguments.batch_size,
    )
    clip_rows = whole.measure(arguments.rounds)
    memory = None
    if arguments.memory_frames is not None:
        memory = whole.memory(arguments.memory_frames)
    report = {
        "config": None if arguments.checkpoint else arguments.config,
        "checkpoint": arguments.checkpoint,
        "overrides": arguments.overrides,
        "device": str(scene.device),
        "threads": torch.get_num_threads(),
        "image_size": scene.clips.image_size,
        "batch_size": arguments.batch_size,
        "rounds": arguments.rounds,
        "stages": rows,
        "clips": clip_rows,
        "resident_mib": memory,
    }
    with replacing(output) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n")
    for table in (rows, clip_rows):
        print(markdown_table([{k: _text(k, v) for k, v in row.items()} for row in table]) + "\n")
    if memory is not None:
        print(", ".join(f"after {n} frames {mib:.0f} MiB" for n, mib in memory.items()) + "\n")
    print(output)


class Scene(NamedTuple):
    """What all rows animate."""

    model: Model
    clips: Puppets
    source: Frame
    driving: Frames
    device: torch.device

    def variants(self, arguments: argparse.Namespace) -> dict[str, Callable[[], Variant]]:
        """What makes each row; see the file's docstring."""
        first = frames_to_tensor(self.source[None], self.device)
        origin = frames_to_tensor(self.driving[:1], self.device)
        size = arguments.batch_size

        def plain(*levers: Lever) -> Variant:
            return Variant(self.model, plain_loop(self.model, first, origin, levers), 1)

        def fast(batch_size: int, *pulls: Callable[[Model], None]) -> Variant:
            model = copy.deepcopy(self.model)
            for pull in pulls:
                pull(model)
            move = MotionAnimator(_motion(model), self.device).start(first, origin)
            return Variant(model, move, batch_size)

        exact: list[Callable[[Model], None]] = [fold_norms, regroup_outputs]
        rows: dict[str, Callable[[], Variant]] = {
            "plain loop": partial(plain, AS_PUBLISHED),
            "fewer products": plain,
            "source once": partial(fast, 1),
            "batches": partial(fast, size),
            "folded norms": partial(fast, size, fold_norms),
            "regrouped outputs": partial(fast, size, *exact),
            "channels last": partial(fast, size, *exact, partial(lay_out, dtype=torch.float32)),
        }
        pulls: list[Callable[[Model], None]] = [*exact, partial(lay_out, dtype=torch.float32)]
        for name in arguments.half_precisions:
            pulls = [*exact, partial(lay_out, dtype=DTYPES[name])]
            rows[name] = partial(fast, size, *pulls)
        if self.device.type == "cpu":
            pulls = [_keep_freed_memory, *pulls]
            rows["freed memory is kept"] = partial(fast, size, *pulls)
        if arguments.compile:
            rows["compiled"] = partial(fast, size, *pulls, compile_networks)
        return rows


def half_precisions(device: torch.device) -> list[str]:
    """Those of the rows: of bf16 and, on CUDA, fp16 what the device does not emulate."""
    return [name for name in _wanted(device) if not is_emulated(name, device)]


def left_out(device: torch.device) -> list[str]:
    """The others."""
    return [name for name in _wanted(device) if is_emulated(name, device)]


def _wanted(device: torch.device) -> list[str]:
    return ["bf16", "fp16"] if device.type == "cuda" else ["bf16"]


def _keep_freed_memory(_: Model) -> None:
    keep_freed_memory()


def build_scene(arguments: argparse.Namespace) -> Scene:
    """The same in every process."""
    device = pick_device(arguments.device)
    model, config = build_model(arguments, device)
    clips = Puppets("test", 2, max(arguments.frames, arguments.clip_frames), config.data.size, 0)
    source, driving = clips.read(0, [0])[0], clips.read(1, range(arguments.frames))
    if arguments.checkpoint is None:
        calibrate(model, frames_to_tensor(driving, device))
    return Scene(model, clips, source, driving, device)


def time_rows(arguments: argparse.Namespace, names: Sequence[str]) -> dict[str, float]:
    """Median seconds of every row."""
    found: dict[str, list[float]] = {name: [] for name in names}
    turns = [name for _ in range(arguments.rounds) for name in names]
    for name in tqdm(turns, unit="row", disable=None):
        found[name].append(in_fresh_process(partial(time_row, arguments, name)))
    return {name: statistics.median(times) for name, times in found.items()}


def time_row(arguments: argparse.Namespace, name: str) -> float:
    """Seconds, once libraries have chosen their kernels and networks are compiled."""
    scene = build_scene(arguments)
    with torch.inference_mode():
        variant = scene.variants(arguments)[name]()
        variant.run(scene.driving, scene.device)
        return seconds(partial(variant.run, scene.driving, scene.device), scene.device)


def build_model(arguments: argparse.Namespace, device: torch.device) -> tuple[Model, Config]:
    """In evaluation mode, with the weights of a checkpoint or random ones."""
    if arguments.checkpoint is not None:
        if arguments.overrides:
            raise UserError(f"{arguments.overrides[0]}: a checkpoint has its own config; leave out")
        saved = checkpoint.load(Path(arguments.checkpoint))
        config = saved.config
    else:
        saved, config = None, load_config(arguments.config, arguments.overrides)
    if config.motion is None:
        raise UserError("motion is null: this measures the motion branch; use another config")
    model = Model(config).eval().to(device) if saved is None else load_model(saved, device)
    return model, config


@torch.no_grad()
def calibrate(model: Model, frames: Tensor) -> None:
    """Take BatchNorm's statistics from `frames`, N x 3 x H x W, the first of them as the source.

    And let random keypoints move no farther than those of a figure: jumping across the picture,
    they would make every rounding error a large one.
    """
    branch = _motion(model)
    branch.keypoint_detector.kp.weight *= 0.1
    norms = [module for module in branch.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0  # nothing of what they start with is left
    branch.train()
    source, keypoints = frames[:1].expand_as(frames), branch.keypoint_detector(frames)
    motion = branch.dense_motion(source, branch.keypoint_detector(source), keypoints)
    branch.generator(source, motion)
    branch.eval()


def plain_loop(
    model: Model, source: Tensor, reference: Tensor, levers: Sequence[Lever] = (AS_PUBLISHED,)
) -> Move:
    """As published scripts animate: all but the source's keypoints anew for every frame.

    Args:
        levers: of the networks, to do without.
    """
    branch = _motion(model)
    source = source.contiguous()
    keypoints = branch.keypoint_detector(source)
    origin = first_keypoints(branch.keypoint_detector(reference.contiguous()))

    def move(driving: Tensor) -> Tensor:
        with without(list(levers)):
            moved = branch.keypoint_detector(driving.contiguous())
            moved = relative_keypoints(keypoints, moved, origin)
            return branch.generator(source, branch.dense_motion(source, keypoints, moved))

    return move


def measure_errors(
    variants: dict[str, Variant], driving: Frames, device: torch.device
) -> dict[str, tuple[float, float | None]]:
    """Largest difference and PSNR of the predictions to those of the first variant."""
    found = {
        name: torch.cat(list(variant.predictions(driving, device)))
        for name, variant in variants.items()
    }
    expected = next(iter(found.values()))
    errors = {name: prediction - expected for name, prediction in found.items()}
    return {
        name: (
            float(error.abs().max()),
            float(-10 * error.square().mean().log10()) if error.any() else None,
        )
        for name, error in errors.items()
    }


def stage_rows(
    times: dict[str, float], errors: dict[str, tuple[float, float | None]], num_frames: int
) -> list[dict[str, Any]]:
    """Of the first table."""
    slowest = next(iter(times.values()))
    return [
        {
            "stage": name,
            "frames_per_second": num_frames / found,
            "ratio": slowest / found,
            "max_error": errors[name][0],
            "psnr": errors[name][1],
        }
        for name, found in times.items()
    ]


def _motion(model: Model) -> FommBranch:
    assert model.motion is not None
    return model.motion


def _text(name: str, value: str | float | None) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:.1e}" if name == "max_error" else f"{value:.2f}"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.animate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config", default="vox-fomm.yaml", help="a file, or the name of one in configs/"
    )
    parser.add_argument("--checkpoint", metavar="PATH", help="instead of random weights")
    parser.add_argument(
        "overrides", nargs="*", metavar="key.sub=value", help="change keys of the config"
    )
    parser.add_argument("--batch-size", type=positive_int, default=8, help="frames at a time (8)")
    parser.add_argument(
        "--frames", type=positive_int, default=8, help="of a timed run of the networks (8)"
    )
    parser.add_argument("--clip-frames", type=positive_int, default=32, help="of a whole clip (32)")
    parser.add_argument("--rounds", type=positive_int, default=3, help="timed, of each (3)")
    parser.add_argument("--compile", action="store_true", help="add the row compiled")
    parser.add_argument(
        "--memory-frames",
        type=positive_int,
        metavar="N",
        help="also animate a clip of N frames and note resident memory (Linux)",
    )
    parser.add_argument(
        "--output",
        metavar="FILE.json",
        default="runs/animate.json",
        help="default: runs/animate.json",
    )
    add_device_argument(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_entry_point(main, build_parser()))
