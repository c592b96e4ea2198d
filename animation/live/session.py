"""Animates a picture by a camera in real time: shows it on a page, measures, and may record it."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from fractions import Fraction
from pathlib import Path
from typing import Final, NamedTuple

from tqdm import tqdm

from animation.animator import Animator
from animation.inputs import Driving, Picture, open_source
from animation.layouts import LayoutName
from animation.live.measures import Measures
from animation.live.newest import NewestShot
from animation.live.page import Page
from animation.settings import Settings
from common.cli import caught_signals, say
from common.errors import UserError
from media.camera import Camera, open_camera
from media.frames import Frame
from media.images import encode_image
from media.video_writer import VideoWriter

LINE_SECONDS: Final = 1.0  # between two lines of measurements
PATIENCE: Final = 10.0  # seconds without a picture after which a camera counts as lost
# Frames a second of a recording. In a folder, frames are repeated to fill the time, and a file that
# is played as a camera may state a hundred thousand a second.
MAX_RECORDED_RATE: Final = Fraction(120)
LOOK_SECONDS: Final = 0.2  # between two looks for a signal, while no picture comes


class LiveOptions(NamedTuple):
    """What to animate, and how. All fields are options of animate.py.

    output: file or folder to record to; None to record nothing.
    """

    camera: str
    sources: tuple[str, ...]
    background: str | None
    settings: Settings
    layout: LayoutName | None
    show_masks: bool
    output: Path | None
    port: int


def run_live(animator: Animator, options: LiveOptions) -> None:
    """Animate until the camera ends, or until Ctrl-C or SIGTERM; then print a summary.

    Each frame is computed from the newest picture of the camera; pictures that came in the meantime
    are dropped. The recording is complete in each of these cases, and when the camera is lost.

    Raises:
        UserError: an input cannot be used, the port is taken, or the camera is lost.
    """
    sources: list[Picture] = [open_source(path, animator.limits)[0] for path in options.sources]
    with (
        Page(options.port) as page,
        caught_signals() as caught,
        ExitStack() as recording,
        tqdm(bar_format="{desc}", disable=None, leave=False) as bar,
    ):
        camera = open_camera(options.camera, animator.limits)
        feed = _Feed(camera, is_stopped=lambda: bool(caught))
        show = _Display(page, options.output, camera.frame_rate, recording, bar)
        say(f"{page.address} shows the animation (Ctrl-C ends it)")
        with feed:
            try:
                _animate(animator, sources, options, feed, show)
            finally:
                show.summarize(feed.shots)
    if options.output is not None and show.measures.num_frames:
        say(f"{options.output}: {show.measures.num_frames} frames")
    if feed.failure is not None:
        raise feed.failure


def _animate(
    animator: Animator,
    sources: list[Picture],
    options: LiveOptions,
    feed: "_Feed",
    show: "_Display",
) -> None:
    """Animate by the frames of `feed`, anew for each reference frame."""
    while (driving := feed.begin()) is not None:
        animation = animator.prepare(
            sources,
            driving,
            options.background,
            options.settings,
            with_masks=options.show_masks,
        )
        layout = animation.layout(options.layout, show_masks=options.show_masks)
        show.announce(animation.notes)
        show.page.has_reference = animation.reference is not None
        # The first frame has waited for all this, which says nothing on those that follow.
        is_first = True
        with closing(animation.batches()) as batches:
            for batch in batches:
                frame = layout.arrange(batch)[0]
                show.add(frame, feed.shot_time, is_first, feed.shots)
                is_first = False
                if show.page.take_reference_request():
                    break
        show.announce(animation.notes)  # more have come from the frames


class _Feed:
    """The driving frames: the newest ones of a camera, which is read inside of a `with` block.

    Attributes:
        shots: the shots of the camera.
        shot_time: time of the last frame, in seconds of `time.perf_counter`.
        failure: why the camera was lost; it then ends as it does otherwise.
    """

    def __init__(self, camera: Camera, is_stopped: Callable[[], bool]) -> None:
        self.shots = NewestShot(camera)
        self.shot_time = 0.0
        self.failure: UserError | None = None
        self._camera = camera
        self._is_stopped = is_stopped
        self._times: list[Fraction] = []  # of the frames since `begin`, in seconds
        self._start = 0.0  # when the first of them was taken

    def __enter__(self) -> None:
        self.shots.start()

    def __exit__(self, *_: object) -> None:
        self.shots.close()

    def begin(self) -> Driving | None:
        """The frames from the newest one on; None if there are no more."""
        self._times = []
        first = self._next()
        if first is None:
            return None
        rate, name = self._camera.frame_rate, self._camera.name
        return Driving(self._from(first), rate, None, name, self._times)

    def _from(self, first: Frame) -> Iterator[Frame]:
        frame: Frame | None = first
        while frame is not None:
            yield frame
            frame = self._next()

    def _next(self) -> Frame | None:
        """The newest frame, when there is one; None at the end."""
        began = time.perf_counter()
        while not self._is_stopped():
            try:
                shot = self.shots.take(LOOK_SECONDS)
            except UserError as error:
                self.failure = error
                return None
            if shot is not None:
                if not self._times:
                    self._start = shot.time
                _append_time(self._times, shot.time - self._start)
                self.shot_time = shot.time
                return shot.convert()
            if self.shots.is_over:
                return None
            if time.perf_counter() - began > PATIENCE:
                self.failure = UserError(
                    f"{self._camera.name}: has sent no picture for {PATIENCE:g} s; look after the "
                    "camera, and start again"
                )
                return None
        return None


def _append_time(times: list[Fraction], seconds: float) -> None:
    """Append a time, at least a microsecond later than the last: a packet may hold two pictures."""
    earliest = times[-1] + Fraction(1, 10**6) if times else Fraction(0)
    times.append(max(Fraction(seconds), earliest))


class _Display:
    """Shows frames on the page, measures and records them.

    Args:
        output: where to record to; None for nowhere.
        recording: the context in which the recording is written, from the first frame on.
        bar: shows the line of measurements in a terminal.
    """

    def __init__(
        self,
        page: Page,
        output: Path | None,
        frame_rate: Fraction,
        recording: ExitStack,
        bar: "tqdm[None]",
    ) -> None:
        self.page = page
        self.measures = Measures()
        self._recording = recording
        self._bar = bar
        self._announced: set[str] = set()
        self._times: list[Fraction] = []  # of the recorded frames, in seconds since the first
        self._start = 0.0
        self._writer = None
        if output is not None:
            rate = min(frame_rate, MAX_RECORDED_RATE)
            self._writer = VideoWriter(output, rate, times=self._times)

    def announce(self, notes: list[str]) -> None:
        """Print those of the notes that are new."""
        for note in notes:
            if note not in self._announced:
                self._announced.add(note)
                say(note)

    def add(self, frame: Frame, shot_time: float, is_first: bool, shots: NewestShot) -> None:
        """Show a frame. `is_first`: its latency says nothing, and is not counted."""
        self.page.show(encode_image(frame, ".jpg"))
        self.measures.add(None if is_first else time.perf_counter() - shot_time)
        if self._writer is not None:
            if not self._times:
                self._start = shot_time
                self._recording.enter_context(self._writer)
            _append_time(self._times, shot_time - self._start)
            self._writer.write(frame)
        if self.measures.seconds_since_line >= LINE_SECONDS:
            self.page.line = line = self.measures.line(shots.num_dropped)
            if self._bar.disable:
                say(line)
            else:
                self._bar.set_description_str(line)

    def summarize(self, shots: NewestShot) -> None:
        """Print the summary, if there were frames."""
        if self.measures.num_frames:
            say(self.measures.summary(shots.num_shots, shots.num_dropped))
