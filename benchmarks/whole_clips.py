"""Measures animation from file to file: time of its parts, in turns and overlapped; memory."""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tqdm import tqdm

from animation.branch_animators import BranchAnimator
from animation.inputs import DrivingFrames, open_driving
from animation.layouts import AnimatedBatch
from animation.output import Output, write_animation
from animation.prepared import Animation
from media.container import DEFAULT_FRAME_RATE
from media.frames import Frame, Frames
from media.video import open_clip
from media.video_writer import VideoWriter

_WARM_UP = 1  # rounds that are left out: libraries choose kernels, and networks are compiled


def in_turns(runs: dict[str, Callable[[], object]], num_rounds: int) -> dict[str, float]:
    """Median seconds of each run, by name. The runs take turns, so that other load on the machine
    affects all of them.
    """
    found: dict[str, list[float]] = {name: [] for name in runs}
    for index in tqdm(range(_WARM_UP + num_rounds), unit="round", disable=None):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            if index >= _WARM_UP:
                found[name].append(time.perf_counter() - started)
    return {name: statistics.median(times) for name, times in found.items()}


class WholeClips:
    """Animates .mp4 files into .mp4 files.

    Args:
        driving: the driving frames, uint8 N x H x W x 3.
    """

    def __init__(
        self, animator: BranchAnimator, source: Frame, driving: Frames, batch_size: int
    ) -> None:
        self.animator = animator
        self.source = source
        self.driving = driving
        self.batch_size = batch_size

    def measure(self, num_rounds: int) -> list[dict[str, Any]]:
        """Measure reading, networks and writing alone, all three in turns, and overlapped.

        Returns:
            The rows of a table, in frames/s; the last one has the ratio of overlapped to in turns.
        """
        with self._clip(len(self.driving)) as clip:
            output = clip.with_name("output.mp4")
            runs: dict[str, Callable[[], object]] = {
                "reading": lambda: list(open_clip(clip)),
                "networks": lambda: list(self._animation(self.driving).frames()),
                "writing": partial(_write, self.driving, output),
                "in turns": lambda: self._animate(clip, output, overlapped=False),
                "overlapped": lambda: self._animate(clip, output, overlapped=True),
            }
            seconds = in_turns(runs, num_rounds)
        rates = {name: len(self.driving) / found for name, found in seconds.items()}
        rows: list[dict[str, Any]] = [
            {"clip": name, "frames_per_second": rate, "ratio": None} for name, rate in rates.items()
        ]
        rows[-1]["ratio"] = rates["overlapped"] / rates["in turns"]
        return rows

    def memory(self, num_frames: int) -> dict[int, float]:
        """Resident memory in MiB after a tenth of `num_frames` and after all of them (Linux only),
        by the number of frames.
        """
        found: dict[int, float] = {}
        num_done = 0

        def note(batch: AnimatedBatch) -> None:
            nonlocal num_done
            num_done += len(batch.driving)
            for wanted in (num_frames // 10, num_frames):
                if num_done >= wanted:
                    found.setdefault(wanted, _resident_mib())

        with self._clip(num_frames) as clip:
            self._animate(clip, clip.with_name("output.mp4"), note, overlapped=True)
        return found

    @contextmanager
    def _clip(self, num_frames: int) -> Iterator[Path]:
        """Context manager: yields an .mp4 of `num_frames` frames, in which the driving frames
        repeat, in a temporary folder.
        """
        with TemporaryDirectory() as folder:
            clip = Path(folder) / "driving.mp4"
            _write((self.driving[i % len(self.driving)] for i in range(num_frames)), clip)
            yield clip

    def _animation(self, driving: DrivingFrames) -> Animation:
        """The animation of the source by `driving`, without background, crop or mask."""
        return Animation(
            self.animator,
            self.source,
            open_driving(driving),
            reference=None,
            swapper=None,
            backgrounds=None,
            paster=None,
            is_transparent=False,
            batch_size=self.batch_size,
            notes=[],
        )

    def _animate(
        self,
        clip: Path,
        output: Path,
        on_batch: Callable[[AnimatedBatch], object] = lambda _: None,
        *,
        overlapped: bool,
    ) -> None:
        """Animate the file `clip` into `output`."""
        write_animation(self._animation(clip), Output(output), on_batch, overlapped)


def _write(frames: Iterable[Frame], path: Path) -> None:
    with VideoWriter(path, DEFAULT_FRAME_RATE) as video:
        for frame in frames:
            video.write(frame)


def _resident_mib() -> float:
    """Resident memory of this process in MiB (Linux only)."""
    status = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in status if line.startswith("VmRSS:")]
    return int(line.split()[1]) / 1024
