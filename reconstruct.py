"""Evaluate a model: reconstruct each test clip from its first frame, and measure the result.

With --compare: print the differences of two such evaluations.

On several GPUs: torchrun --nproc-per-node 4 reconstruct.py --checkpoint ...
"""

import argparse
import sys
import zlib
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import common.openmp  # noqa: F401

import torch

from animation.acceleration import DTYPES, choose_precision, optimize_for_inference
from animation.branch_animators import (
    ANIMATORS,
    AnimatorName,
    BranchAnimator,
    reconstruction_animators,
)
from branches.model import Model
from checkpoints import checkpoint
from checkpoints.folder import folder_of_run
from checkpoints.weights import load_model
from common.cli import (
    add_device_argument,
    add_join_timeout_argument,
    add_max_pixels_argument,
    add_precision_argument,
    end_on_sigterm,
    pick_device,
    positive_int,
    run_entry_point,
    say,
)
from common.distributed import processes as distributed
from common.distributed.torchrun_agent import ending_with_agent
from common.errors import UserError
from common.files import check_folder_name
from common.limits import chosen_limits
from common.safe_paths import resolve
from common.speed_trial import Choice
from configs.loading import dump_config, load_config
from configs.schema import DataConfig
from datasets.build import build_puppets, build_source, clip_facts, preflight, share_num_frames
from datasets.source import ClipSource
from evaluation.build import MODEL_REGION, REGION_FINDERS, Plan, Wanted, build_plan
from evaluation.compare import compare_runs
from evaluation.frechet_results import FrechetResults, as_json
from evaluation.measuring import measure_clips
from evaluation.metric_names import FRECHET
from evaluation.page import write_page
from evaluation.published_tables import TABLES, PublishedTable, console_text, published_table
from evaluation.reconstruction import COLUMNS
from evaluation.report import console_table, count_frames, summarize, write_report
from evaluation.results_folder import PAGE_FILE, replacing_results
from metrics.detectors.build import DETECTORS
from metrics.extractors import FVD_LENGTH, TORCHVISION


class Setup(NamedTuple):
    """What an evaluation needs, after it was read and checked."""

    saved: checkpoint.Checkpoint
    device: torch.device
    precision: Choice
    animator_name: AnimatorName
    animator: BranchAnimator
    data: DataConfig
    clips: ClipSource
    plan: Plan
    output: Path
    published: PublishedTable | None


def main(arguments: argparse.Namespace) -> int:
    if arguments.compare is not None:
        print(compare_runs(*arguments.compare))
        return 0
    with ending_with_agent(), distributed.process_group(arguments.join_timeout, "start again"):
        setup = set_up(arguments)
        if distributed.world_size() > 1:
            with distributed.shared_errors():
                found = facts(setup)
            distributed.check_agreement(found)
        share_num_frames(setup.clips)
        return evaluate(setup, arguments)


def set_up(arguments: argparse.Namespace) -> Setup:
    """Read and check everything that the options name; each process does that for itself."""
    path = Path(arguments.checkpoint)
    with distributed.shared_errors(), distributed.warned_once():
        device = pick_device(arguments.device, distributed.local_rank())
        saved = _load_checkpoint(path, arguments.config)
        choice = None
        if distributed.is_main():  # by a timed trial, which might end otherwise elsewhere
            choice = choose_precision(arguments.precision, device, saved.evaluation_networks)
    (chosen, *_) = distributed.gather(choice)
    assert chosen is not None
    precision = Choice(*chosen)
    count = distributed.world_size()
    devices = f"{count} x {device.type}" if count > 1 else device
    distributed.say_once(f"networks in {precision} on {devices}")
    with distributed.shared_errors(), distributed.warned_once():
        model = _load_for_inference(saved, device, precision.precision)
        name, animator = _choose_animator(arguments.animator, model, device, path)
        data = _choose_data(saved.config.data, arguments)
        published = None
        if arguments.published is not None:
            published = published_table(arguments.published, data.size)
        clips = first_clips(data, arguments.split, arguments.num_clips)
        if distributed.is_main():
            print(preflight(clips, max_unreadable=0))
        plan = build_plan(
            _wanted(arguments),
            model=model,
            origin=f"{path} ({saved.age})",
            animator=name,
            clips=clips,
            fit=data.fit,
            limits=chosen_limits(arguments.max_pixels),
            device=device,
        )
        for line in (*plan.left_out, *(measure.origin for measure in plan.frechet)):
            distributed.say_once(line)
        output = _output_folder(arguments, path)
    return Setup(saved, device, precision, name, animator, data, clips, plan, output, published)


def facts(setup: Setup) -> dict[str, object]:
    """Facts, by name, that must be the same in all processes."""
    return {
        "step of the checkpoint": setup.saved.step,
        "checksum of its config": zlib.crc32(dump_config(setup.saved.config).encode()),
        "animator": setup.animator_name,
        **clip_facts(setup.clips),
        "tools of the metrics": str(setup.plan.measured_with),
        "device": setup.device.type,
        "torch": version("torch"),
    }


def evaluate(setup: Setup, arguments: argparse.Namespace) -> int:
    """Measure the clips, and write and print the results; returns the exit code."""
    saved, plan, output = setup.saved, setup.plan, setup.output
    names = [clip.name for clip in setup.clips.clips]
    with ExitStack() as stack:
        results = _shared_folder(stack, output, names, saves_frames=arguments.save_frames)
        measured, failed = measure_clips(
            setup.animator,
            setup.clips,
            plan,
            results,
            batch_size=arguments.batch_size,
            save_frames=arguments.save_frames,
            debug=arguments.debug,
        )
        summaries, frechet = summarize(measured), plan.frechet_results()
        about = {
            "checkpoint": str(Path(arguments.checkpoint)),
            "step": saved.step,
            "age": saved.age,
            "data": setup.data.root if setup.data.kind == "clips" else setup.data.kind,
            "split": arguments.split,
            "animator": setup.animator_name,
            "image_size": list(setup.data.size),
            "precision": setup.precision.precision,
            "num_clips": len(measured),
            "num_frames": count_frames(measured),
            "saved_frames": arguments.save_frames,
            **_about_plan(plan, frechet),
            "failed": failed,
        }
        with distributed.shared_errors():
            if distributed.is_main():
                write_report(results, about, summaries, measured)
                page = results / PAGE_FILE
                write_page(page, about, summaries, measured, COLUMNS, setup.published)
                stack.close()  # moves the results to `output`
    if not distributed.is_main():
        return 0
    print(console_table(summaries, frechet))
    if setup.published is not None:
        print(console_text(setup.published, summaries))
    say(f"{output}: {PAGE_FILE}, metrics.json, metrics.csv, frames.csv, clips/")
    if failed:
        print(f"{len(failed)} of {len(names)} clips failed and are in none of these numbers")
    return 1 if failed else 0


def _shared_folder(
    stack: ExitStack, output: Path, names: Sequence[str], *, saves_frames: bool
) -> Path:
    """The folder to which all processes write results; see `replacing_results`.

    Args:
        stack: at its end rank 0 moves the results to `output`.
    """
    own = None
    with distributed.shared_errors():
        if distributed.is_main():
            replacing = replacing_results(output, names, saves_frames=saves_frames)
            own = str(stack.enter_context(replacing))
    results = Path(distributed.gather(own)[0] or "")
    with distributed.shared_errors():
        if not results.is_dir():
            raise UserError(
                f"--output {output}: rank {distributed.rank()} does not find {results.name} in it; "
                "choose a folder that all machines share"
            )
    return results


def _load_checkpoint(path: Path, config_name: str | None) -> checkpoint.Checkpoint:
    """Load the checkpoint `path`, with the config `config_name` if it is a published file."""
    config = None if config_name is None else load_config(config_name)
    saved = checkpoint.load(path, config)
    if saved.report is not None:
        distributed.say_once(f"{path}: {saved.report}")
    return saved


def _load_for_inference(
    saved: checkpoint.Checkpoint, device: torch.device, precision: str
) -> Model:
    """Build the model of `saved`; in half precision it is also optimized for speed."""
    model = load_model(saved, device)
    if precision == "float32":
        return model
    return optimize_for_inference(model, DTYPES[precision])


def _choose_data(trained_on: DataConfig, arguments: argparse.Namespace) -> DataConfig:
    """The data section for this evaluation: that of the training, or the clips of --data-root."""
    # All clips are measured, not one of each identity. The limit of pixels comes from the command
    # line, because an untrusted checkpoint must not decide how much memory is used.
    changes: dict[str, Any] = {"id_sampling": False, "max_pixels": arguments.max_pixels}
    if arguments.data_root is not None:
        changes |= {"kind": "clips", "root": arguments.data_root}
    return trained_on.model_copy(update=changes)


def _choose_animator(
    asked_for: AnimatorName | None, model: Model, device: torch.device, path: Path
) -> tuple[AnimatorName, BranchAnimator]:
    """The animator that --animator names or, by default, the first one that the model has."""
    animators = reconstruction_animators(model, device)
    name = asked_for or next(iter(animators))
    if name not in animators:
        raise UserError(
            f"--animator {name}: {path} was trained without the branch {name}; it has: "
            f"{', '.join(animators)}"
        )
    return name, animators[name]


def _wanted(arguments: argparse.Namespace) -> Wanted:
    """The measures that the options ask for."""
    return Wanted(
        detector=arguments.detector,
        salient=arguments.salient,
        lpips=arguments.lpips,
        fid=arguments.fid,
        fvd=arguments.fvd,
        fvd_length=arguments.fvd_length,
    )


def _about_plan(plan: Plan, frechet: FrechetResults) -> dict[str, Any]:
    """What was measured with which tools, for metrics.json."""
    return {
        "measured_with": {tool: found._asdict() for tool, found in plan.measured_with.items()},
        "frechet": as_json(frechet),
        "left_out": plan.left_out,
    }


def _output_folder(arguments: argparse.Namespace, path: Path) -> Path:
    """The folder for the results: that of --output or, by default, one in the folder of the run.

    Its name ends in the animator only where --animator is given, so that the default folder is the
    same for all configs.
    """
    folder = arguments.split
    if arguments.data_root is not None:  # kept apart from the results of the run's own clips
        folder += f"-{resolve(Path(arguments.data_root)).name}"
    if arguments.animator is not None:
        folder += f"-{arguments.animator}"
    output = Path(arguments.output or folder_of_run(path) / "reconstruction" / folder)
    check_folder_name(output)
    return output


def first_clips(data: DataConfig, split: str, num_clips: int | None) -> ClipSource:
    """The first `num_clips` clips of a split, or all of them for None.

    Raises:
        UserError: there are fewer clips, or `build_source` raises it.
    """
    clips = build_source(data, split)
    if num_clips is None:
        return clips
    if data.kind == "puppets":  # any number of puppets can be drawn
        return build_puppets(data, split, num_clips)
    if num_clips > len(clips.clips):
        raise UserError(
            f"--num-clips {num_clips}: {data.root}/{split} has {len(clips.clips)}; leave the "
            "option out for all of them"
        )
    clips.clips = clips.clips[:num_clips]
    return clips


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="reconstruct.py", description=__doc__)
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--checkpoint", metavar="PATH", help="the model to evaluate")
    task.add_argument(
        "--compare",
        nargs=2,
        type=Path,
        metavar=("RUN_A", "RUN_B"),
        help="two folders that this script wrote; prints their differences, paired by frame",
    )
    parser.add_argument(
        "--config", metavar="FILE", help="the config of a published checkpoint, which holds none"
    )
    parser.add_argument(
        "--data-root", metavar="DIR", help="folder of clips; default: the data of the training"
    )
    parser.add_argument("--split", default="test", help="train or test (default)")
    parser.add_argument(
        "--num-clips", type=positive_int, metavar="N", help="the first N; default: all"
    )
    parser.add_argument(
        "--animator",
        choices=ANIMATORS,
        help="the branch that moves the source; default: motion, where the checkpoint has it",
    )
    parser.add_argument(
        "--detector",
        choices=DETECTORS,
        help="also measure AKD and MKR of the keypoints that it finds, and AED and CSIM if it can "
        "tell people apart",
    )
    parser.add_argument(
        "--salient",
        metavar="REGION",
        help="also measure the pixel metrics over the salient region and over the rest: "
        f"{', '.join(REGION_FINDERS)} (found by a network), {MODEL_REGION} (the model's own "
        "figure, where its motion has a weight of the background), or a folder of masks: "
        "DIR/<clip>/00000.png or DIR/<clip>.mp4",
    )
    parser.add_argument(
        "--lpips", choices=("alex", "vgg"), help="also measure LPIPS with this network"
    )
    for metric in FRECHET:
        parser.add_argument(
            f"--{metric}",
            nargs="?",
            const="",
            metavar="WEIGHTS",
            help=f"also measure {metric.upper()} with this network: a TorchScript file, which is a "
            "program that runs with all your rights (give one that you trust; its SHA-256 is "
            f"printed), or a name of torchvision: {', '.join(TORCHVISION[metric])}; without a "
            "value: say where the field's network comes from",
        )
    parser.add_argument(
        "--fvd-length",
        type=positive_int,
        default=FVD_LENGTH,
        metavar="N",
        help=f"frames of each clip of FVD; default: {FVD_LENGTH}",
    )
    parser.add_argument(
        "--published",
        choices=TABLES,
        help="also print published results, which are for 256 x 256 pixels",
    )
    parser.add_argument(
        "--save-frames", action="store_true", help="also write lossless PNG frames to frames/"
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        help="folder for the results; default: reconstruction/SPLIT in the run's folder, followed "
        "by the last folder of --data-root (test-heads) and by --animator where these are given; "
        "an earlier evaluation there is replaced, even that of another checkpoint",
    )
    parser.add_argument("--batch-size", type=positive_int, default=8, help="frames at a time")
    add_device_argument(parser)
    add_join_timeout_argument(parser)
    add_precision_argument(parser)
    add_max_pixels_argument(parser)
    return parser


if __name__ == "__main__":
    end_on_sigterm()
    sys.exit(run_entry_point(main, build_parser()))
