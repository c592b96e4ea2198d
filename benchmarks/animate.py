"""Measure how fast animation is, optimization by optimization, in frames/s.

    python -m benchmarks.animate [--config vox-fomm.yaml | --checkpoint PATH] [key.sub=value ...]

The first table measures the networks alone: the motion branch with its default motion, from uint8
frames to uint8 frames. Each row adds one optimization to the row above; all rows have the same
frames and weights. A row that changes nothing for this kind of motion model is left out. In every
round each row runs once, in a process of its own, so that other load on the machine affects all
rows, and no row profits from memory that another has left. The time to encode the source counts
only in rows that encode it for every frame.

    plain loop          as published scripts animate: one frame at a time, in float32, with the
                        source encoded for each; blur, heatmaps and upsampling by their definitions
    fewer products      separable blur and heatmaps, modules.blocks.UpConv2d
    source once         the source is encoded once
    batches             --batch-size frames at a time
    folded norms, regrouped outputs, channels last, bf16, fp16, compiled
                        see animation/acceleration.py; bf16 is left out if it is emulated; fp16,
                        instead of bf16, on CUDA only; compiled, on top of the row above, only with
                        --compile
    freed memory is kept
                        see common/machine.py; on the CPU only

    ratio               frames/s, divided by those of the plain loop
    max_error, psnr     largest difference, and PSNR over all frames, of the predictions in [0, 1]
                        to those of the plain loop

The second table measures whole clips with the networks of the last row, in frames/s: reading the
driving clip (.mp4), the networks, and writing an .mp4, each alone; all three in turns; and all
three overlapped, as animate.py runs them on CUDA.

Without a checkpoint the weights are random, and the statistics of BatchNorm are those of the
frames. With --memory-frames a clip of so many frames is animated, too, and resident memory is
noted on the way.
"""

import argparse
import copy
import json
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from animation.acceleration import DTYPES, compile_networks, fold_norms, lay_out, regroup_outputs
from animation.branch_animators import MotionAnimator, Move, frames_to_tensor
from benchmarks.animation_models import (
    AS_PUBLISHED,
    build_model,
    calibrate,
    has_fewer_products,
    motion_of,
    plain_loop,
)
from benchmarks.plain_step import Optimization
from benchmarks.tables import markdown_table
from benchmarks.training_steps import in_fresh_process, seconds
from benchmarks.whole_clips import WholeClips
from branches.model import Model
from common.cli import add_device_argument, pick_device, positive_int, run_entry_point
from common.files import check_output_file, replacing
from common.machine import keep_freed_memory
from common.safe_paths import printable
from common.speed_trial import is_emulated
from datasets.puppets.clips import Puppets
from media.frames import Frame, Frames
from media.visualization import to_uint8

# Rows that change networks, and are left out where they change nothing.
_CHANGES: Final = ("folded norms", "regrouped outputs", "channels last", "bf16", "fp16")


class Variant(NamedTuple):
    """A row of the first table: the networks, and how many frames they get at a time."""

    model: Model
    move: Move
    batch_size: int

    def predictions(self, driving: Frames, device: torch.device) -> Iterator[Tensor]:
        """Predictions for the frames `driving`, uint8 N x H x W x 3, batch by batch: B x 3 x H x W
        in [0, 1].
        """
        for first in range(0, len(driving), self.batch_size):
            yield self.move(frames_to_tensor(driving[first : first + self.batch_size], device))

    def run(self, driving: Frames, device: torch.device) -> None:
        """Animate the frames `driving` and bring the predictions to the CPU as uint8."""
        for prediction in self.predictions(driving, device):
            to_uint8(prediction)


def main(arguments: argparse.Namespace) -> None:
    output = Path(arguments.output)
    check_output_file(output, "animate.json")
    scene = build_scene(arguments)
    arguments.half_precisions = half_precisions(scene.device)  # for the processes of all rows
    for name in left_out(scene.device):
        print(f"left out: the row {name}, which is emulated on this device")
    with torch.inference_mode():
        built = {name: build() for name, build in scene.variants(arguments).items()}
        variants = effective(built)
        errors = measure_errors(variants, scene.driving, scene.device)
    times = time_rows(arguments, list(variants))
    rows = stage_rows(times, errors, len(scene.driving))
    fastest = MotionAnimator(motion_of(list(variants.values())[-1].model), scene.device)
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
    print(printable(str(output)))


class Scene(NamedTuple):
    """The model and the frames that all rows use; the same in every process."""

    model: Model
    clips: Puppets
    source: Frame
    driving: Frames
    device: torch.device

    def variants(self, arguments: argparse.Namespace) -> dict[str, Callable[[], Variant]]:
        """Functions that build the variant of each row, by the row's name."""
        first = frames_to_tensor(self.source[None], self.device)
        origin = frames_to_tensor(self.driving[:1], self.device)
        size = arguments.batch_size

        def plain(*optimizations: Optimization) -> Variant:
            return Variant(self.model, plain_loop(self.model, first, origin, optimizations), 1)

        def fast(batch_size: int, *changes: Callable[[Model], None]) -> Variant:
            model = copy.deepcopy(self.model)
            for change in changes:
                change(model)
            move = MotionAnimator(motion_of(model), self.device).start(first, origin)
            return Variant(model, move, batch_size)

        exact: list[Callable[[Model], None]] = [fold_norms, regroup_outputs]
        rows: dict[str, Callable[[], Variant]] = {"plain loop": partial(plain, AS_PUBLISHED)}
        if has_fewer_products(motion_of(self.model)):
            rows["fewer products"] = plain
        rows |= {
            "source once": partial(fast, 1),
            "batches": partial(fast, size),
            "folded norms": partial(fast, size, fold_norms),
            "regrouped outputs": partial(fast, size, *exact),
            "channels last": partial(fast, size, *exact, partial(lay_out, dtype=torch.float32)),
        }
        changes: list[Callable[[Model], None]] = [*exact, partial(lay_out, dtype=torch.float32)]
        for name in arguments.half_precisions:
            changes = [*exact, partial(lay_out, dtype=DTYPES[name])]
            rows[name] = partial(fast, size, *changes)
        if self.device.type == "cpu":
            changes = [_keep_freed_memory, *changes]
            rows["freed memory is kept"] = partial(fast, size, *changes)
        if arguments.compile:
            rows["compiled"] = partial(fast, size, *changes, compile_networks)
        return rows


def effective(variants: dict[str, Variant]) -> dict[str, Variant]:
    """Leave out variants whose networks equal those of the row before, and print their names."""
    found: dict[str, Variant] = {}
    before: list[object] = []
    for name, variant in variants.items():
        layers = _layers(variant.model)
        if name in _CHANGES and layers == before:
            print(f"left out: the row {name}, which changes nothing for this motion model")
            continue
        found[name] = variant
        before = layers
    return found


def _layers(model: Model) -> list[object]:
    """What optimizations change in the motion branch: layers, precision, memory layout."""
    branch = motion_of(model)
    layers: list[object] = [(name, type(module)) for name, module in branch.named_modules()]
    return [*layers, *((n, p.dtype, p.stride()) for n, p in branch.named_parameters())]


def half_precisions(device: torch.device) -> list[str]:
    """Half precisions that have a row: bf16 and, on CUDA, fp16, unless the device emulates them."""
    return [name for name in _candidates(device) if not is_emulated(name, device)]


def left_out(device: torch.device) -> list[str]:
    """Half precisions that have no row, because the device emulates them."""
    return [name for name in _candidates(device) if is_emulated(name, device)]


def _candidates(device: torch.device) -> list[str]:
    """Half precisions that animate.py offers on this kind of device."""
    return ["bf16", "fp16"] if device.type == "cuda" else ["bf16"]


def _keep_freed_memory(_: Model) -> None:
    keep_freed_memory()


def build_scene(arguments: argparse.Namespace) -> Scene:
    """Build the model and the frames; they are the same in every process."""
    device = pick_device(arguments.device)
    model, config = build_model(arguments, device)
    clips = Puppets("test", 2, max(arguments.frames, arguments.clip_frames), config.data.size, 0)
    source, driving = clips.read(0, [0])[0], clips.read(1, range(arguments.frames))
    if arguments.checkpoint is None:
        calibrate(motion_of(model), frames_to_tensor(driving, device))
    return Scene(model, clips, source, driving, device)


def time_rows(arguments: argparse.Namespace, names: Sequence[str]) -> dict[str, float]:
    """Median seconds of every row, by its name."""
    found: dict[str, list[float]] = {name: [] for name in names}
    turns = [name for _ in range(arguments.rounds) for name in names]
    for name in tqdm(turns, unit="row", disable=None):
        found[name].append(in_fresh_process(partial(time_row, arguments, name)))
    return {name: statistics.median(times) for name, times in found.items()}


def time_row(arguments: argparse.Namespace, name: str) -> float:
    """Seconds that the row `name` takes for all frames, after one run that is not timed, in which
    libraries choose kernels and networks are compiled.
    """
    scene = build_scene(arguments)
    with torch.inference_mode():
        variant = scene.variants(arguments)[name]()
        variant.run(scene.driving, scene.device)
        return seconds(partial(variant.run, scene.driving, scene.device), scene.device)


def measure_errors(
    variants: dict[str, Variant], driving: Frames, device: torch.device
) -> dict[str, tuple[float, float | None]]:
    """Largest difference and PSNR of the predictions to those of the first variant, by variant; the
    PSNR is None if there is no difference.
    """
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
    """The rows of the first table."""
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


def _text(name: str, value: str | float | None) -> str:
    """The text of the value of the column `name`."""
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
    parser.add_argument("--checkpoint", metavar="PATH", help="use its weights, not random ones")
    parser.add_argument(
        "overrides", nargs="*", metavar="key.sub=value", help="change keys of the config"
    )
    parser.add_argument("--batch-size", type=positive_int, default=8, help="frames at a time (8)")
    parser.add_argument(
        "--frames", type=positive_int, default=8, help="frames of a timed run of the networks (8)"
    )
    parser.add_argument(
        "--clip-frames", type=positive_int, default=32, help="frames of a whole clip (32)"
    )
    parser.add_argument("--rounds", type=positive_int, default=3, help="timed runs of each row (3)")
    parser.add_argument("--compile", action="store_true", help="add the row 'compiled'")
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
