"""Animation, one frame at a time against everything together: frames/s of each stage.

    python -m benchmarks.animate [--config vox-fomm.yaml | --checkpoint PATH] [key.sub=value ...]

The first table is the networks alone: the motion branch with relative motion, uint8 frames in and
out. Every row adds one lever to the row above; all take the same frames and weights in turns, in
one process. Encoding the source is left out where it is done once for a clip.

    plain loop          as published scripts animate: one frame at a time, float32, the source
                        encoded for each; blur, heatmaps and upsampling as they are defined
    fewer products      separable blur and heatmaps, modules.blocks.UpConv2d
    source once         encoded once
    batches             --batch-size frames at a time
    folded norms, regrouped outputs, channels last, bf16, fp16, compiled
                        animation/inference.py; fp16, in the place of bf16, on CUDA only;
                        compiled, of the row above, with --compile

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
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

import checkpoint
from animation.inference import DTYPES, compile_networks, fold_norms, lay_out, regroup_outputs
from animation.movers import MotionMover, Move, frames_to_tensor, load_model
from benchmarks.plain_step import Lever, Patch, plain_downsample, plain_heatmaps, without
from benchmarks.tables import markdown_table
from benchmarks.whole_clips import WholeClips, in_turns
from branches.motion import MotionBranch
from cli import add_device_argument, pick_device, positive_int, run_entry_point
from config import Config
from config_file import load_config
from datasets.puppets import Puppets
from datasets.source import Frame, Frames
from errors import UserError
from files import replacing
from model import Model
from modules import blocks, dense_motion
from modules.blocks import AntiAliasDownsample
from modules.keypoint_transfer import first_keypoints, relative_keypoints
from visualization import to_uint8

AS_PUBLISHED: Final = Lever(
    "fewer products",
    patches=(
        Patch(AntiAliasDownsample, "forward", plain_downsample),
        Patch(dense_motion, "gaussian_heatmaps", plain_heatmaps),
        Patch(blocks, "MIN_FUSED_AREA", math.inf),
    ),
)


class Contestant(NamedTuple):
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
    device = pick_device(arguments.device)
    model, config = build_model(arguments, device)
    clips = Puppets("test", 2, max(arguments.frames, arguments.clip_frames), config.data.size, 0)
    source = clips.read(0, [0])[0]
    driving = clips.read(1, range(arguments.frames))
    if arguments.checkpoint is None:
        calibrate(model, frames_to_tensor(driving, device))
    with torch.inference_mode():
        contestants = build_contestants(
            model, source, driving[0], arguments.batch_size, device, compiled=arguments.compile
        )
        errors = measure_errors(contestants, driving, device)
        seconds = in_turns(
            {name: partial(c.run, driving, device) for name, c in contestants.items()},
            arguments.rounds,
        )
    rows = stage_rows(seconds, errors, len(driving))
    fastest = MotionMover(_motion(list(contestants.values())[-1].model), device)
    whole = WholeClips(
        fastest, source, clips.read(1, range(arguments.clip_frames)), arguments.batch_size
    )
    clip_rows = whole.measure(arguments.rounds)
    memory = None
    if arguments.memory_frames is not None:
        memory = whole.memory(arguments.memory_frames)
    report = {
        "config": None if arguments.checkpoint else arguments.config,
        "checkpoint": arguments.checkpoint,
        "overrides": arguments.overrides,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "image_size": config.data.size,
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


def build_contestants(
    model: Model,
    source: Frame,
    reference: Frame,
    batch_size: int,
    device: torch.device,
    *,
    compiled: bool,
) -> dict[str, Contestant]:
    """See the file's docstring."""
    first = frames_to_tensor(source[None], device)
    origin = frames_to_tensor(reference[None], device)
    rows = {
        "plain loop": Contestant(model, plain_loop(model, first, origin), 1),
        "fewer products": Contestant(model, plain_loop(model, first, origin, levers=()), 1),
    }

    def add(name: str, model: Model, batch_size: int) -> None:
        move = MotionMover(_motion(model), device).start(first, origin)
        rows[name] = Contestant(model, move, batch_size)

    add("source once", model, 1)
    add("batches", model, batch_size)
    folded = _copy(model, fold_norms)
    add("folded norms", folded, batch_size)
    regrouped = _copy(folded, regroup_outputs)
    add("regrouped outputs", regrouped, batch_size)
    add("channels last", _copy(regrouped, partial(lay_out, dtype=torch.float32)), batch_size)
    for name in ("bf16", "fp16") if device.type == "cuda" else ("bf16",):
        halved = _copy(regrouped, partial(lay_out, dtype=DTYPES[name]))
        add(name, halved, batch_size)
    if compiled:
        add("compiled", _copy(halved, compile_networks), batch_size)
    return rows


def measure_errors(
    contestants: dict[str, Contestant], driving: Frames, device: torch.device
) -> dict[str, tuple[float, float | None]]:
    """Largest difference and PSNR of the predictions to those of the first contestant."""
    found = {
        name: torch.cat(list(contestant.predictions(driving, device)))
        for name, contestant in contestants.items()
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
    seconds: dict[str, float], errors: dict[str, tuple[float, float | None]], num_frames: int
) -> list[dict[str, Any]]:
    """Of the first table."""
    slowest = next(iter(seconds.values()))
    return [
        {
            "stage": name,
            "frames_per_second": num_frames / found,
            "ratio": slowest / found,
            "max_error": errors[name][0],
            "psnr": errors[name][1],
        }
        for name, found in seconds.items()
    ]


def _copy(model: Model, pull: Callable[[Model], None]) -> Model:
    """With one more lever."""
    model = copy.deepcopy(model)
    pull(model)
    return model


def _motion(model: Model) -> MotionBranch:
    branch = model.branches["motion"]
    assert isinstance(branch, MotionBranch)
    return branch


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
