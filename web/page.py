"""The page of `python -m web`, made with Gradio: its layout, and what its buttons do."""

import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import gradio as gr
from gradio.utils import get_upload_folder

from animation.animator import Animator
from animation.jobs import JobResult, check_inputs, run_job
from common.errors import UserError, in_one_line
from common.limits import Limits as PixelLimits
from web.capabilities import find_capabilities
from web.choices import (
    DECIDING,
    FormValues,
    explain,
    find_shown,
    read_job,
    read_options,
    without_hidden,
)
from web.controls import MIN_COLUMN, Controls
from web.examples import Examples
from web.guard import KEPT_SECONDS, MAX_KEPT_FILES, in_megabytes, num_bytes
from web.results import Changes, Results
from web.waiting import POLL_SECONDS, WaitingQueue, describe_length, describe_place

STYLE = Path(__file__).with_suffix(".css")
SCRIPT = Path(__file__).with_suffix(".js")

# Bytes of a result before it is complete. Frames of a large picture, pasted back, take 100 MB each.
MAX_RESULT = 2**31
MAX_STOPPED = 1000  # requests to stop that are remembered
SWEEP_SECONDS = 600  # old files are removed so often
QUEUE_SECONDS = 5  # the shown length of the queue is at most so old
PROGRESS = gr.Progress()  # by this default Gradio finds the argument to pass the progress to


class Limits(NamedTuple):
    """Limits for each user of the page.

    max_frames: frames of a driving clip, or of the chosen part of it.
    max_seconds: time for one animation.
    max_waiting: animations in the queue, besides the running one.
    max_bytes: size of an uploaded file.
    """

    max_frames: int = 3000
    max_seconds: float = 1800.0
    max_waiting: int = 10
    max_bytes: int = 200 * 2**20


DEFAULT_LIMITS = Limits()


class Stopped(Exception):
    """The user has stopped the animation or left the page."""


class Page:
    """The page of one model.

    Args:
        debug: print the tracebacks of errors.
        limits: limits for each user.
        examples: files that are offered to try the page with.

    Attributes:
        blocks: the Gradio application; launch it with STYLE, SCRIPT and `max_threads`.
        max_threads: threads that it needs.

    Raises:
        UserError: the model cannot animate.
    """

    def __init__(
        self,
        animator: Animator,
        debug: bool = False,
        limits: Limits = DEFAULT_LIMITS,
        examples: Examples | None = None,
    ) -> None:
        saved = animator.saved
        self._debug = debug
        self._limits = limits
        self._animator = animator
        self._capabilities = find_capabilities(
            animator.model, saved.untrained, saved.age, tuple(animator.mask_sources.available())
        )
        self._queue = WaitingQueue(limits.max_waiting)
        self._checking = threading.Lock()  # files that wait are checked one after the other
        self.max_threads = limits.max_waiting + 40
        # Sessions whose animation must stop, with the time of the request.
        self._stopped: dict[str | None, float] = {}
        self._closing = threading.Event()  # set when all animations must stop
        self._controls = Controls(self._capabilities)
        with gr.Blocks(
            title="Image animation",
            analytics_enabled=False,
            delete_cache=(SWEEP_SECONDS, KEPT_SECONDS),
        ) as self.blocks:
            gr.Markdown("# Image animation\nAn image that moves as a clip does.")
            with gr.Row():
                self._add_inputs(examples)
            with gr.Accordion("Options", open=False):
                self._add_options()
            self._animate = gr.Button("Animate", variant="primary", size="lg")
            self._stop = gr.Button("Stop", variant="stop", size="lg", visible=False)
            self._length = gr.Markdown(self._show_length())
            with gr.Row():
                self._results = Results()
            height, width = animator.size
            model = f"Model: `{saved.path}`, {saved.age}, {width} x {height} pixels."
            gr.Markdown(" ".join((model, *self._capabilities.notes)))
            self._connect()
        self.blocks.queue(max_size=self.max_threads, api_open=False)

    def close(self) -> None:
        """Stop all animations and the server."""
        self._closing.set()
        self.blocks.close(verbose=False)

    def _add_inputs(self, examples: Examples | None) -> None:
        """Add the boxes for source, driving clip and background, each with its examples."""
        controls, limits = self._controls, (self._limits, self._animator.limits)
        with gr.Column(min_width=MIN_COLUMN):
            controls.add_source()
            gr.Markdown(describe_image_limits(*limits), elem_classes="limits")
            if examples is not None:
                self._add_examples("source", "Example images", examples.sources)
        with gr.Column(min_width=MIN_COLUMN):
            controls.add_driving()
            gr.Markdown(describe_clip_limits(*limits), elem_classes="limits")
            if examples is not None:
                self._add_examples("driving", "Example clips", examples.clips)
        with gr.Column(min_width=MIN_COLUMN):
            controls.add_background()
            if examples is not None:
                # The box of a background is shown only where the kind of background is an image.
                self._add_examples(
                    "background_image",
                    "Example backgrounds",
                    examples.backgrounds,
                    also={"background": "image"},
                )

    def _add_examples(
        self,
        name: str,
        label: str,
        paths: tuple[Path, ...],
        also: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Add small pictures; a click on one puts its file in the control `name`, and other values
        in the controls of `also`.
        """
        control = self._controls.fields[name]
        gallery = gr.Dataset(
            components=[control],
            samples=[[str(path)] for path in paths],
            type="index",
            label=label,
            elem_classes="examples",
        )
        others = {self._controls.fields[other]: value for other, value in also.items()}

        def choose(index: int) -> Changes:
            return {control: str(paths[index])} | others

        gallery.click(choose, gallery, [control, *others], **quick())

    def _add_options(self) -> None:
        """Add the options, in three columns."""
        controls = self._controls
        for row in (
            (controls.add_motion, controls.add_input_options, controls.add_output_options),
            (controls.add_masks, controls.add_background_masks, controls.add_composition),
        ):
            with gr.Row():
                for add in row:
                    with gr.Column(min_width=MIN_COLUMN):
                        add()

    def _connect(self) -> None:
        """Connect the controls with what happens when they are clicked or changed."""
        fields = self._controls.fields
        buttons = [self._animate, self._stop]
        results = self._results.all
        self._animate.click(self._show_running, None, [*buttons, *results], **quick()).then(
            self._run,
            set(fields.values()),
            results,
            show_progress_on=self._results.video,
            concurrency_limit=None,  # they wait in a queue of our own
            api_visibility="private",
        ).then(self._show_idle, None, [*buttons, self._length], **quick())
        self._stop.click(self._show_stopping, None, self._stop, **quick())
        self.blocks.unload(self._stop_session)
        for event in (self.blocks.load, gr.Timer(QUEUE_SECONDS).tick):
            event(self._show_length, None, self._length, **quick())
        deciding = {fields[name] for name in DECIDING}
        for changed in deciding:
            changed.change(self._show_controls, deciding, [*fields.values()], **quick())

    def _show_controls(self, values: Changes) -> list[Any]:
        """Show the controls that have an effect, and hide the others."""
        shown = find_shown(self._controls.read(values), self._capabilities)
        return [gr.update(visible=name in shown) for name in self._controls.fields]

    def _show_length(self) -> str:
        """Show the length of the queue."""
        length, most = describe_length(self._queue.length()), self._limits.max_seconds
        return f"{length} An animation may take up to {in_minutes(most)}."

    def _show_running(self, request: gr.Request) -> Changes:
        """Show that an animation runs."""
        # An earlier request to stop may have come too late.
        self._stopped.pop(request.session_hash, None)
        return {
            self._animate: gr.update(visible=False),
            self._stop: gr.update(value="Stop", interactive=True, visible=True),
            **self._results.wait(),
        }

    def _show_stopping(self, request: gr.Request) -> Any:
        """Stop the user's animation, and show that it stops."""
        self._stop_session(request)
        return gr.update(value="Stopping", interactive=False)

    def _stop_session(self, request: gr.Request) -> None:
        """Stop the animation of this session, also if its tab was closed: others wait for its end.

        Requests to stop that are older than KEPT_SECONDS are forgotten, and all but the newest.
        """
        now = time.monotonic()
        self._stopped.pop(request.session_hash, None)  # so that the last ones are the newest
        for number, (session, since) in enumerate(reversed([*self._stopped.items()]), 1):
            if now - since > KEPT_SECONDS or number >= MAX_STOPPED:
                self._stopped.pop(session, None)
        self._stopped[request.session_hash] = now

    def _show_idle(self, request: gr.Request) -> Changes:
        """Show that no animation runs."""
        self._stopped.pop(request.session_hash, None)
        return {
            self._animate: gr.update(visible=True),
            self._stop: gr.update(visible=False),
            self._length: self._show_length(),
        }

    def _run(
        self,
        values: Changes,
        request: gr.Request,
        progress: gr.Progress = PROGRESS,
    ) -> Iterator[Changes]:
        """Animate when it is this request's turn, and show the result or the error.

        It yields instead of returning: Gradio copies the result file before this function continues
        and removes it.
        """
        form = without_hidden(self._controls.read(values), self._capabilities)

        def watch() -> None:
            if self._closing.is_set() or request.session_hash in self._stopped:
                raise Stopped

        with tempfile.TemporaryDirectory() as folder:
            notes: list[str] = []
            try:
                result = self._wait_and_run(form, Path(folder), notes.append, watch, progress)
            except Stopped:
                yield self._results.tell("Stopped", "There is no result.")
            except MemoryError:  # this concerns the whole server
                raise
            except Exception as error:
                if self._debug:
                    traceback.print_exception(error)
                yield self._results.tell("Error", explain(in_one_line(error), form, Path(folder)))
            else:
                lines = [describe(result), *(explain(note, form, Path(folder)) for note in notes)]
                yield self._results.show(result, "\n".join(lines))

    def _wait_and_run(
        self,
        form: FormValues,
        folder: Path,
        announce: Callable[[str], object],
        watch: Callable[[], object],
        progress: gr.Progress,
    ) -> JobResult:
        """Wait for this request's turn, and animate; the result goes to `folder`.

        Wrong files are found before the waiting, so that nobody waits for an error.
        """
        job = read_job(form, folder)
        options = read_options(form, folder, self._limits.max_frames)
        num_given = num_bytes(folder, 0)
        with self._queue.place() as place:

            def tell(num_before: int, num_waiting: int) -> None:
                watch()
                progress(0.0, desc=describe_place(num_before, num_waiting))

            if self._queue.length().num_waiting:
                while not self._checking.acquire(timeout=POLL_SECONDS):
                    watch()
                try:
                    check_inputs(self._animator, job, options)
                finally:
                    self._checking.release()
            place.wait(tell)
            deadline = time.monotonic() + self._limits.max_seconds

            def watch_time() -> None:
                watch()
                if time.monotonic() > deadline:
                    raise UserError(
                        f"This takes more than the {in_minutes(self._limits.max_seconds)} that an "
                        "animation may take here: choose a part of the clip with Start and End."
                    )

            def show(num_done: int, num_frames: int | None) -> None:
                watch_time()
                check_size(num_bytes(folder, 0) - num_given)
                progress((num_done, num_frames), unit="frames")

            progress(0.0, desc="reading source and clip")
            watch_time()
            self._check_room()
            return run_job(self._animator, job, options, announce, show, watch_time)

    def _check_room(self) -> None:
        """Raise UserError where uploads and results of the last hour leave no room for a result."""
        if num_bytes(Path(get_upload_folder())) > MAX_KEPT_FILES * self._limits.max_bytes:
            raise UserError("There is no room for another result now; try again in an hour.")


def check_size(size: int) -> None:
    """Raise UserError where a result that is being written takes too much room, in bytes."""
    if size > MAX_RESULT:
        raise UserError(
            f"The result takes more than the {in_megabytes(MAX_RESULT)} that there is room for: "
            "choose a part of the clip with Start and End, or a smaller source."
        )


def quick() -> dict[str, Any]:
    """Properties of an event that only changes what is shown."""
    return {"queue": False, "show_progress": "hidden", "api_visibility": "private"}


def describe(result: JobResult) -> str:
    """A line on a finished animation."""
    sound = "" if result.output.sound is None else ", with sound"
    name = result.output.path.name
    return f"{name}: {result.num_frames} frames{sound}, in {result.seconds:.1f} s"


def describe_image_limits(limits: Limits, pixels: PixelLimits) -> str:
    """What may be given as an image."""
    return (
        f"PNG, JPEG, WebP and others; up to {pixels.picture / 1e6:,.3g} million pixels and "
        f"{in_megabytes(limits.max_bytes)}"
    )


def describe_clip_limits(limits: Limits, pixels: PixelLimits) -> str:
    """What may be given as a clip."""
    return (
        f"mp4, mov, webm, avi and others; up to {limits.max_frames:,} frames of "
        f"{pixels.frame / 1e6:,.3g} million pixels, and {in_megabytes(limits.max_bytes)}"
    )


def in_minutes(seconds: float) -> str:
    """Format a time, such as 30 minutes."""
    minutes = seconds / 60
    return f"{minutes:g} {'minute' if minutes == 1 else 'minutes'}"
