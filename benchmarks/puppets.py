"""Measure a checkpoint on unseen puppets against the rendered truth.

    python -m benchmarks.puppets --checkpoint runs/demo/checkpoints/best.pt

Identities, motions and backgrounds are those of the test split. The source is the first frame of
clip i. The driving frames are later frames of clip i itself (driver: own), or of clip i + 1
(driver: another; absolute motion). The third image belongs to clip i + 2: it is one of its frames,
whose own figure must be removed (background_type: same), or its background without a figure
(background_type: other). The truth is rendered: puppet i in the driving pose, on its own or on the
new background.

PSNRs are in dB, at most 100 for one frame; every number is a mean over frames.

    mask_iou             intersection over union of the masks, at image size and at the configured
                         threshold, and the pixels of which the figure covers more than half;
                         mask_iou_all_white: the same for a mask that is all foreground
    mask_iou_train       mask_iou for thresholds from 0.1 to 0.9 on training clips; choose the
                         threshold by these, not by the test clips
    swap_psnr_train      PSNR of the swap for the same thresholds on training clips, with the
                         default animator, driver own, background type same, painted by BGRefine;
                         the networks were trained at one of these thresholds
    l1, psnr, ssim       over the whole frame
    figure_l1            L1 over the pixels where the figure is in the source or in the truth
    figure_psnr          PSNR over the pixels of which the figure covers more than half in the truth
    background_psnr      PSNR to the new background, over the pixels that the figure does not touch
    swap_gain_db         background_psnr minus the PSNR to the source's background over the same
                         pixels; below 0 the old background is still there
    figure_gain_db       figure_psnr minus that of the new background itself; 0 for a picture
                         without a figure
    swap_figure_gain_db  the name of figure_gain_db in the headline

The headline has the gains of the default animator with driver own and background type same, painted
by BGRefine. Those with `another_` are the same with driver another; there the figure also loses
what the animator cannot transfer.

Each case has a result. Besides those of the animators these are the baselines source and driving
(the frames themselves) and background (without a figure); and in a swap base (BGBase), refined
(BGRefine, which is `--compose network`), alpha (`--compose alpha`) and animated (nothing is
swapped).
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from animation.background_swap import BackgroundSwapper, BackgroundType, Compose
from animation.branch_animators import (
    AnimatorName,
    BranchAnimator,
    build_animator,
    reconstruction_animators,
)
from benchmarks.puppet_scenes import DRIVERS, MIN_CLIPS, Driver, Scene, build_scene, driving_frames
from benchmarks.puppet_scores import animation_scores, swap_scores
from benchmarks.tables import detailed_tables, summary_table
from branches.model import Model
from checkpoints import checkpoint
from checkpoints.folder import folder_of_run
from checkpoints.weights import load_model
from common.cli import add_device_argument, pick_device, positive_int, run_entry_point
from common.errors import UserError
from common.files import check_output_file, replacing
from common.safe_paths import printable
from datasets.build import build_puppets
from datasets.puppets.clips import Puppets
from evaluation.measures import FrameMetrics
from evaluation.reconstruction import evaluate_masks, mask_overlaps, mean_metrics

THRESHOLDS = tuple(tenths / 10 for tenths in range(1, 10))


class AnimationCase(NamedTuple):
    """A case of the animation that is measured.

    result: the name of an animator, or of a baseline: source, driving, background.
    """

    driver: Driver
    result: str


class SwapCase(NamedTuple):
    """A case of the background swap that is measured.

    result: base, refined or alpha; or a baseline: animated (nothing is swapped) or background (no
        figure).
    background_type: None for the baselines. animator: None for the baseline background.
    """

    driver: Driver
    animator: AnimatorName | None
    background_type: BackgroundType | None
    result: str


AnimationMetrics = dict[AnimationCase, list[FrameMetrics]]
SwapMetrics = dict[SwapCase, list[FrameMetrics]]


class Networks(NamedTuple):
    """The animators and the background swappers of a model that are measured."""

    animators: dict[Driver, dict[AnimatorName, BranchAnimator]]
    swappers: dict[tuple[BackgroundType, Compose], BackgroundSwapper]
    device: torch.device


def main(arguments: argparse.Namespace) -> None:
    path = Path(arguments.checkpoint)
    output = Path(arguments.output or folder_of_run(path) / "puppets.json")
    check_output_file(output, "puppets.json")
    if arguments.num_clips < MIN_CLIPS:
        raise UserError(
            f"--num-clips {arguments.num_clips}: source, driving clip and new background are "
            f"three clips; give at least {MIN_CLIPS}"
        )
    device = pick_device(arguments.device)
    saved = checkpoint.load(path)
    data = saved.config.data
    if data.kind != "puppets":
        raise UserError(
            f"{path}: trained on data.kind {data.kind}; the truth can be rendered of puppets "
            "only: give a checkpoint trained on them (demo.yaml)"
        )
    for start in saved.untrained.values():
        print(f"left out: {start.section}, which at step {saved.step} has not started ({start})")
    model = load_model(saved, device)
    train, test = (
        build_puppets(data, split, num_clips)
        for split, num_clips in (
            ("train", min(arguments.num_clips, data.puppets.num_train_clips)),
            ("test", arguments.num_clips),
        )
    )
    networks = build_networks(model, device, saved.untrained)
    default_animator = next(iter(networks.animators["own"]))
    masks = measure_masks(model, train, test, arguments.num_frames, device)
    animation, swap = measure(networks, test, arguments.num_frames)
    report: dict[str, Any] = {
        "checkpoint": str(path),
        "step": saved.step,
        "split": test.split,
        "image_size": list(data.size),
        "num_clips": len(test.clips),
        "num_frames": len(driving_frames(test, arguments.num_frames)),
        "animator": default_animator,
        "left_out": [str(start) for start in saved.untrained.values()],
        **masks,
        **headline_gains(swap, default_animator),
        **(
            {}
            if "background" in saved.untrained
            else sweep_swaps(model, networks, train, arguments.num_frames)
        ),
        "animation": records(animation),
        "background_swap": records(swap),
    }
    with replacing(output) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n")
    print(summary_table(report))
    if arguments.markdown:
        print(f"\n{detailed_tables(report)}")
    print(f"\n{printable(str(output))}")


def build_networks(model: Model, device: torch.device, untrained: Collection[str]) -> Networks:
    """Build the animators of `model` for both drivers, and a swapper for each way to swap that it
    has.

    Args:
        untrained: config sections whose networks have not learned; they are left out.
    """
    own = reconstruction_animators(model, device)  # they take the driving mask without refinement
    another = {
        name: build_animator(model, device, name, motion="absolute")
        for name in own
        if name != "masks" or "masks.refinement" not in untrained
    }
    ways: list[tuple[BackgroundType, Compose]] = []
    if model.background is not None and "background" not in untrained:
        # With `same`, alpha also returns the pictures of both networks.
        ways = [("same", "alpha"), ("other", "network"), ("other", "alpha")]
    elif model.masks is not None:
        ways = [("other", "alpha")]
    swappers = {way: BackgroundSwapper(model, *way) for way in ways}
    return Networks({"own": own, "another": another}, swappers, device)


def measure_masks(
    model: Model, train: Puppets, test: Puppets, num_frames: int, device: torch.device
) -> dict[str, Any]:
    """`mask_iou` with its baseline on `test`, and `mask_iou_train` on `train`; see the file's
    docstring. Empty for a model without masks.
    """
    if model.masks is None:
        return {}
    overlap = evaluate_masks(
        model.masks,
        test,
        device,
        threshold=model.mask_threshold,
        num_clips=len(test.clips),
        num_frames=num_frames,
    )
    by_threshold = mean_metrics(
        mask_overlaps(model.masks, train, device, THRESHOLDS, len(train.clips), num_frames)
    )
    return {
        "threshold": model.mask_threshold,
        **overlap,
        "mask_iou_train": {
            str(threshold): by_threshold[str(threshold)] for threshold in THRESHOLDS
        },
    }


@torch.inference_mode()
def sweep_swaps(
    model: Model, networks: Networks, clips: Puppets, num_frames: int
) -> dict[str, dict[str, float]]:
    """`swap_psnr_train`, see the file's docstring. Empty for a model without a background branch,
    and if there are fewer clips than a swap needs.
    """
    branch = model.background
    if branch is None or len(clips.clips) < MIN_CLIPS:
        return {}
    animator = next(iter(networks.animators["own"].values()))
    trained_at = branch.threshold
    collected: list[FrameMetrics] = []
    frames = driving_frames(clips, num_frames)
    for index in range(len(clips.clips)):
        scene = build_scene(clips, index, "own", frames, networks.device)
        pictures = animator.start(scene.source)(scene.driving)
        by_threshold = {}
        for threshold in THRESHOLDS:
            branch.threshold = threshold
            swapped = BackgroundSwapper(model, "same", "network").swap(
                pictures, scene.third_images["same"]
            )
            assert swapped.refined is not None
            scores = swap_scores(
                swapped.refined, scene.figure, scene.new_background, scene.old_background
            )
            by_threshold[str(threshold)] = scores["psnr"]
        collected.append(by_threshold)
    branch.threshold = trained_at
    return {"swap_psnr_train": mean_metrics(collected)}


@torch.inference_mode()
def measure(
    networks: Networks, clips: Puppets, num_frames: int
) -> tuple[AnimationMetrics, SwapMetrics]:
    """Measure all cases: lists of scores, with an entry for each clip, by case."""
    animation: AnimationMetrics = defaultdict(list)
    swap: SwapMetrics = defaultdict(list)
    frames = driving_frames(clips, num_frames)
    for index in tqdm(range(len(clips.clips)), unit="clip", disable=None):
        for driver in DRIVERS:
            scene = build_scene(clips, index, driver, frames, networks.device)
            animated = {
                name: animator.start(scene.source)(scene.driving)
                for name, animator in networks.animators[driver].items()
            }
            for animation_case, scores in score_animation(scene, animated):
                animation[animation_case].append(scores)
            for swap_case, scores in score_swap(scene, animated, networks.swappers):
                swap[swap_case].append(scores)
    return animation, swap


def score_animation(
    scene: Scene, animated: Mapping[AnimatorName, Tensor]
) -> Iterator[tuple[AnimationCase, FrameMetrics]]:
    """Scores of the animators' pictures, B x 3 x H x W, and of the baselines, by case."""
    results: dict[str, Tensor] = {"source": scene.source}
    if scene.driver == "another":  # with driver own the driving frame is the truth
        results["driving"] = scene.driving
    results["background"] = scene.old_background
    for name, result in (*animated.items(), *results.items()):
        scores = animation_scores(
            result.expand_as(scene.driving),
            scene.figure,
            scene.old_background,
            scene.source_inside,
        )
        yield AnimationCase(scene.driver, name), scores


def score_swap(
    scene: Scene,
    animated: Mapping[AnimatorName, Tensor],
    swappers: Mapping[tuple[BackgroundType, Compose], BackgroundSwapper],
) -> Iterator[tuple[SwapCase, FrameMetrics]]:
    """Scores of every way to put the figures of `animated`, B x 3 x H x W, on the new background,
    by case.
    """

    def scores(result: Tensor) -> FrameMetrics:
        return swap_scores(result, scene.figure, scene.new_background, scene.old_background)

    if not swappers:
        return
    empty = scene.new_background.expand_as(scene.driving)
    yield SwapCase(scene.driver, None, None, "background"), scores(empty)
    for name, frames in animated.items():
        yield SwapCase(scene.driver, name, None, "animated"), scores(frames)
        for (background_type, compose), swapper in swappers.items():
            swapped = swapper.swap(frames, scene.third_images[background_type])
            pictures = {
                "base": swapped.base,
                "refined": swapped.refined,
                "alpha": swapped.result if compose == "alpha" else None,
            }
            for result, picture in pictures.items():
                if picture is not None:
                    yield SwapCase(scene.driver, name, background_type, result), scores(picture)


def headline_gains(swap: SwapMetrics, animator: AnimatorName) -> dict[str, float]:
    """The gains of the headline; see the file's docstring. Empty without a background branch."""
    gains = {}
    prefixes: dict[Driver, str] = {"own": "", "another": "another_"}
    for driver, prefix in prefixes.items():
        case = SwapCase(driver, animator, "same", "refined")
        if case in swap:
            means = mean_metrics(swap[case])
            gains[f"{prefix}swap_gain_db"] = means["swap_gain_db"]
            gains[f"{prefix}swap_figure_gain_db"] = means["figure_gain_db"]
    return gains


def records(metrics: AnimationMetrics | SwapMetrics) -> list[dict[str, str | float | None]]:
    """A record for each case, of its fields and its mean scores."""
    return [{**case._asdict(), **mean_metrics(found)} for case, found in metrics.items()]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.puppets",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", required=True, metavar="PATH")
    parser.add_argument(
        "--output", metavar="FILE.json", help="default: puppets.json in the run's folder"
    )
    parser.add_argument(
        "--num-clips",
        type=positive_int,
        default=48,
        help="number of test clips; it may differ from the config's (default: 48)",
    )
    parser.add_argument(
        "--num-frames", type=positive_int, default=4, help="driving frames per clip (default: 4)"
    )
    parser.add_argument("--markdown", action="store_true", help="print all tables")
    add_device_argument(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_entry_point(main, build_parser()))
