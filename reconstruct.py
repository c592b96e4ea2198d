"""Evaluate a model: reconstruct each test clip from its first frame, and measure the result.

With --compare: print the differences of two such evaluations.
"""

import argparse
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import common.openmp  # noqa: F401

import torch
from tqdm import tqdm

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
    add_max_pixels_argument,
    add_precision_argument,
    end_on_sigterm,
    pick_device,
    positive_int,
    run_entry_point,
    say,
)
from common.errors import UserError, ends_all, in_one_line
from common.files import check_folder_name
from common.limits import chosen_limits
from common.safe_paths import resolve
from configs.loading import load_config
from configs.schema import DataConfig
from datasets.build import build_puppets, build_source, preflight
from datasets.source import ClipSource
from evaluation.build import MODEL_REGION, REGION_FINDERS, Plan, Wanted, build_plan
from evaluation.compare import compare_runs
from evaluation.frechet_results import FrechetResults, as_json
from evaluation.measures import FrameMetrics, Measure
from evaluation.metric_names import FRECHET
from evaluation.page import write_page
from evaluation.published_tables import TABLES, console_text, published_table
from evaluation.reconstruction import (
    COLUMNS,
    EightBit,
    check_finite,
    reconstruct_clip,
    side_by_side,
)
from evaluation.report import MeasuredClip, console_table, count_frames, summarize, write_report
from evaluation.results_folder import PAGE_FILE, SAVED_FOLDERS, clip_path, replacing_results
from media.video import VideoError
from media.video_writer import VideoWriter
from media.visualization import to_uint8
from metrics.detectors.build import DETECTORS
from metrics.extractors import FVD_LENGTH, TORCHVISION


def main(arguments: argparse.Namespace) -> int:
    if arguments.compare is not None:
        print(compare_runs(*arguments.compare))
        return 0
    path, device = Path(arguments.checkpoint), pick_device(arguments.device)
    saved = _load_checkpoint(path, arguments.config)
    precision = choose_precision(arguments.precision, device, saved.evaluation_networks)
    print(f"networks in {precision} on {device}")
    model = _load_for_inference(saved, device, precision.precision)
    name, animator = _choose_animator(arguments.animator, model, device, path)
    data = _choose_data(saved.config.data, arguments)
    published = None
    if arguments.published is not None:
        published = published_table(arguments.published, data.size)
    clips = first_clips(data, arguments.split, arguments.num_clips)
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
        say(line)
    output = _output_folder(arguments, path)
    names = [clip.name for clip in clips.clips]
    with replacing_results(output, names, saves_frames=arguments.save_frames) as results:
        measured, failed = _measure_clips(animator, clips, plan, results, arguments)
        summaries, frechet = summarize(measured), plan.frechet_results()
        about = {
            "checkpoint": str(path),
            "step": saved.step,
            "age": saved.age,
            "data": data.root if data.kind == "clips" else data.kind,
            "split": arguments.split,
            "animator": name,
            "image_size": list(data.size),
            "precision": precision.precision,
            "num_clips": len(measured),
            "num_frames": count_frames(measured),
            "saved_frames": arguments.save_frames,
            **_about_plan(plan, frechet),
            "failed": failed,
        }
        write_report(results, about, summaries, measured)
        write_page(results / PAGE_FILE, about, summaries, measured, COLUMNS, published)
    print(console_table(summaries, frechet))
    if published is not None:
        print(console_text(published, summaries))
    say(f"{output}: {PAGE_FILE}, metrics.json, metrics.csv, frames.csv, clips/")
    if failed:
        print(f"{len(failed)} of {len(names)} clips failed and are in none of these numbers")
    return 1 if failed else 0


def _load_checkpoint(path: Path, config_name: str | None) -> checkpoint.Checkpoint:
    """Load the checkpoint `path`, with the config `config_name` if it is a published file."""
    config = None if config_name is None else load_config(config_name)
    saved = checkpoint.load(path, config)
    if saved.report is not None:
        say(f"{path}: {saved.report}")
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


def _measure_clips(
    animator: BranchAnimator,
    clips: ClipSource,
    plan: Plan,
    results: Path,
    arguments: argparse.Namespace,
) -> tuple[list[MeasuredClip], dict[str, str]]:
    """Measure every clip.

    Returns:
        The measured clips, and the reasons of the failed ones by clip name.

    Raises:
        UserError: no clip could be measured.
    """
    names = [clip.name for clip in clips.clips]
    measured: list[MeasuredClip] = []
    failed: dict[str, str] = {}
    for index in tqdm(range(len(names)), unit="clip", disable=None):
        with noted_failure(names[index], failed, debug=arguments.debug):
            measured.append(
                measure_clip(
                    EightBit(animator),
                    clips,
                    index,
                    plan.measures,
                    results,
                    batch_size=arguments.batch_size,
                    save_frames=arguments.save_frames,
                )
            )
            for measure in plan.frechet:
                measure.keep_clip()
    if not measured:
        raise UserError(f"none of {len(names)} clips could be measured: {failed[names[0]]}")
    return measured, failed


@contextmanager
def noted_failure(name: str, failed: dict[str, str], *, debug: bool) -> Iterator[None]:
    """Context manager: prints an error of the clip `name` alone, and notes it in `failed`.

    An error of the model, the memory or the disk would repeat for every clip, and is raised: any
    UserError except a VideoError, and every error that `errors.ends_all` names.
    """
    try:
        yield
    except Exception as error:
        concerns_all = isinstance(error, UserError) and not isinstance(error, VideoError)
        if concerns_all or ends_all(error):
            raise
        if debug:
            traceback.print_exception(error)
        failed[name] = in_one_line(error)
        say(f"reconstruct.py: error: clip {name}: {failed[name]}", sys.stderr)


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


def measure_clip(
    animator: BranchAnimator,
    clips: ClipSource,
    index: int,
    measures: Sequence[Measure],
    results: Path,
    *,
    batch_size: int,
    save_frames: bool,
) -> MeasuredClip:
    """Reconstruct a clip, measure it, and write the side-by-side video.

    Args:
        results: the folder to write to.
        save_frames: also write driving frames and predictions as lossless frames.

    Raises:
        UserError: a prediction is not finite.
    """
    name, frame_rate = clips.clips[index].name, clips.frame_rate(index)
    source = clips.read(index, [0])[0]
    collected: list[FrameMetrics] = []
    with ExitStack() as stack:
        video = stack.enter_context(VideoWriter(results / clip_path(name), frame_rate))
        folders = {
            kind: stack.enter_context(
                VideoWriter(results / folder / name, frame_rate, as_folder=True)
            )
            for kind, folder in SAVED_FOLDERS.items()
            if save_frames
        }
        for batch in reconstruct_clip(
            animator, clips, index, batch_size=batch_size, measures=measures
        ):
            check_finite(batch.prediction, name, sum(len(found["l1"]) for found in collected))
            for driving, prediction in zip(batch.driving, to_uint8(batch.prediction), strict=True):
                video.write(side_by_side(source, driving, prediction))
                for kind, writer in folders.items():
                    writer.write(driving if kind == "driving" else prediction)
            collected.append(batch.metrics)
    metrics = {
        metric: torch.cat([found[metric] for found in collected]).double().cpu().numpy()
        for metric in collected[0]
    }
    return MeasuredClip(name, len(metrics["l1"]), metrics)


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
    add_precision_argument(parser)
    add_max_pixels_argument(parser)
    return parser


if __name__ == "__main__":
    end_on_sigterm()
    sys.exit(run_entry_point(main, build_parser()))
