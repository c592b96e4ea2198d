"""Opens clips to check them, on all cores: frame counts, sizes, and what cannot be read."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from common.cli import log_warnings
from common.errors import UserError, ends_all, in_one_line
from common.limits import Limits
from common.machine import num_cores
from common.worker_processes import worker_processes
from media.video import VideoError, open_clip
from media.video_file import VideoFile

# Threads share the memory of readers, but for most of the work one of them runs at a time; worker
# processes take seconds to start.
MIN_FOR_PROCESSES = 2000
_CHUNK = 32  # clips that a worker process takes at a time


class Inspected(NamedTuple):
    """What opening a clip has found.

    size: (height, width) of its frames. rate: frames per second. remarks: what is changed in its
    frames. is_damaged: whether its end cannot be decoded, which a warning has told.
    """

    num_frames: int
    size: tuple[int, int]
    rate: Fraction
    remarks: Sequence[str]
    is_damaged: bool = False


Inspection = Inspected | VideoError


def inspect_clip(path: Path, limits: Limits) -> Inspection:
    """Open a clip, count its frames, and decode the first and the last one."""
    try:
        clip = open_clip(path, limits=limits)
        num_frames, size = clip.num_frames, clip.size
        is_damaged = isinstance(clip, VideoFile) and clip.is_damaged
        return Inspected(num_frames, size, clip.frame_rate, [*clip.remarks], is_damaged)
    except VideoError as error:
        return VideoError(str(error))  # without what a worker process could not send
    except Exception as error:  # one strange file must not end a run over all the others
        if ends_all(error):
            raise
        return VideoError(f"{path}: {in_one_line(error)}")


def inspect_paths(paths: Sequence[Path], limits: Limits) -> list[Inspection]:
    """Inspect clips on all cores, with a progress bar.

    Raises:
        UserError: a worker process has died.
    """
    bar = partial(tqdm, total=len(paths), unit="clip", disable=None, leave=False)
    inspect = partial(inspect_clip, limits=limits)
    if len(paths) < MIN_FOR_PROCESSES:
        with ThreadPoolExecutor(max_workers=num_cores()) as pool:
            return [*bar(pool.map(inspect, paths))]
    try:
        with worker_processes(num_cores(), log_warnings) as workers:
            return [*bar(workers.map(inspect, paths, chunksize=_CHUNK))]
    except BrokenProcessPool:
        raise UserError(
            f"{paths[0].parent}: a process that checks clips died, perhaps for lack of memory; "
            "start again"
        ) from None
