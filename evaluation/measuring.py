"""Measures the clips of an evaluation, in one process or divided among several."""

import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm

from animation.branch_animators import BranchAnimator
from common.cli import say
from common.distributed.processes import is_main
from common.distributed.work_queue import Result, WorkQueue, shared_queue
from common.errors import UserError, ends_all, in_one_line
from common.json_files import nearest_rate
from datasets.source import ClipSource
from evaluation.build import Plan
from evaluation.frechet_measures import ClipFeatures, FrechetMeasure
from evaluation.measures import FrameMetrics, Measure
from evaluation.reconstruction import EightBit, check_finite, reconstruct_clip, side_by_side
from evaluation.report import MeasuredClip
from evaluation.results_folder import SAVED_FOLDERS, clip_path
from media.timing import MAX_SECONDS, remarks_on_rate
from media.video import VideoError
from media.video_writer import VideoWriter
from media.visualization import to_uint8


class Collected(NamedTuple):
    """What was measured, in the order of the clips: complete in rank 0, empty in the others.

    failed: reasons by clip name.
    """

    measured: list[MeasuredClip]
    failed: dict[str, str]


def measure_clips(
    animator: BranchAnimator,
    clips: ClipSource,
    plan: Plan,
    results: Path,
    *,
    batch_size: int,
    save_frames: bool,
    debug: bool,
) -> Collected:
    """Measure every clip, and write its videos to `results`.

    Each process takes the next clip when it has finished one. FID and FVD are added up in `plan`.

    Raises:
        UserError: no clip could be measured.
    """
    names = [clip.name for clip in clips.clips]
    collected = Collected([], {})
    waiting: dict[int, Result] = {}  # results that arrived before that of an earlier clip
    with tqdm(total=len(names), unit="clip", disable=None if is_main() else True) as bar:

        def receive(index: int, result: Result) -> None:
            waiting[index] = result
            while (following := len(collected.measured) + len(collected.failed)) in waiting:
                _collect(names[following], waiting.pop(following), collected, plan.frechet)
            bar.update()

        with shared_queue(len(names), receive) as queue:
            for index in queue:
                failed: dict[str, str] = {}
                result = None
                with _noted_failure(names[index], failed, debug=debug):
                    clip = measure_clip(
                        EightBit(animator),
                        clips,
                        index,
                        plan.measures,
                        results,
                        queue,
                        batch_size=batch_size,
                        save_frames=save_frames,
                    )
                    result = _pack(clip, [measure.take_clip() for measure in plan.frechet])
                queue.hand_in(index, result or Result({"failed": failed[names[index]]}))
    if is_main() and not collected.measured:
        raise UserError(
            f"none of {len(names)} clips could be measured: {collected.failed[names[0]]}"
        )
    return collected


def _pack(clip: MeasuredClip, features: Sequence[ClipFeatures]) -> Result:
    """Pack the numbers of a clip as a result that can be sent to rank 0."""
    arrays = [*clip.metrics.values()]
    for found in features:
        arrays += [found.model, found.real, found.repeated]
    sizes = [found.sizes for found in features]
    return Result(
        {"num_frames": clip.num_frames, "metrics": [*clip.metrics], "sizes": sizes}, arrays
    )


def _collect(
    name: str, result: Result, collected: Collected, frechet: Sequence[FrechetMeasure]
) -> None:
    """Add the result of the clip `name`, which is the next in order."""
    found = result.values
    if "failed" in found:
        collected.failed[name] = found["failed"]
        return
    arrays = iter(result.arrays)
    metrics = {metric: next(arrays) for metric in found["metrics"]}
    collected.measured.append(MeasuredClip(name, found["num_frames"], metrics))
    for measure, sizes in zip(frechet, found["sizes"], strict=True):
        measure.add(ClipFeatures(sizes, next(arrays), next(arrays), next(arrays)))


@contextmanager
def _noted_failure(name: str, failed: dict[str, str], *, debug: bool) -> Iterator[None]:
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


def measure_clip(
    animator: BranchAnimator,
    clips: ClipSource,
    index: int,
    measures: Sequence[Measure],
    results: Path,
    queue: WorkQueue | None = None,
    *,
    batch_size: int,
    save_frames: bool,
) -> MeasuredClip:
    """Reconstruct a clip, measure it, and write the side-by-side video.

    Args:
        results: the folder to write to.
        queue: ends this if another process has failed.
        save_frames: also write driving frames and predictions as lossless frames.

    Raises:
        UserError: a prediction is not finite.
    """
    name, stated = clips.clips[index].name, clips.frame_rate(index)
    frame_rate = max(nearest_rate(stated), Fraction(1, MAX_SECONDS))  # which a video can have
    for remark in remarks_on_rate(stated, frame_rate):
        say(f"clip {name}: {remark}")
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
            if queue is not None:
                queue.check()
    metrics = {
        metric: torch.cat([found[metric] for found in collected]).double().cpu().numpy()
        for metric in collected[0]
    }
    return MeasuredClip(name, len(metrics["l1"]), metrics)
