"""The page of `python -m web`, made with Gradio: its controls, and what they do."""

import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from animation.animator import Animator
from animation.branch_animators import AnimatorName
from animation.jobs import Job, JobResult, run_job
from branches.motion.branch import MotionMode
from common.errors import UserError, in_one_line
from web.choices import (
    BackgroundKind,
    Controls,
    FormValues,
    explain,
    find_capabilities,
    find_controls,
    read_job,
    read_options,
)
from web.guard import take_uploads_only

STYLE = Path(__file__).with_suffix(".css")
SCRIPT = Path(__file__).with_suffix(".js")

INPUT_HEIGHT, BACKGROUND_HEIGHT, RESULT_HEIGHT = 320, 150, 360  # pixels
MIN_COLUMN = 240  # pixels; if columns would be narrower, they are placed below each other
SWEEP_SECONDS, KEPT_SECONDS = 600, 3600  # old files are removed so often; age of an old file
PROGRESS = gr.Progress()  # by this default Gradio finds the argument to pass the progress to

BACKGROUNDS: dict[BackgroundKind, str] = {
    "none": "unchanged",
    "image": "an image",
    "clip": "a clip",
    "colour": "a colour",
    "source": "source, kept still",
    "transparent": "transparent",
}

Changes = dict[Any, Any]  # new values and properties, by control


class Limits(NamedTuple):
    """Limits for each user of the page.

    max_frames: frames of a driving clip, or of the chosen part of it.
    max_seconds: time for one animation.
    max_waiting: animations in the queue, besides the running one.
    """

    max_frames: int = 3000
    max_seconds: float = 1800.0
    max_waiting: int = 10


DEFAULT_LIMITS = Limits()


class Stopped(Exception):
    """The user has stopped the animation or left the page."""


class Page:
    """The page of one model.

    Args:
        debug: print the tracebacks of errors.
        limits: limits for each user.

    Attributes:
        blocks: the Gradio application; launch it with STYLE and SCRIPT.

    Raises:
        UserError: the model cannot animate.
    """

    def __init__(
        self, animator: Animator, debug: bool = False, limits: Limits = DEFAULT_LIMITS
    ) -> None:
        saved = animator.saved
        self._debug = debug
        self._limits = limits
        self._animator = animator
        self._capabilities = find_capabilities(animator.model, saved.untrained, saved.age)
        # Sessions whose animation must stop, with the time of the request.
        self._stopped: dict[str | None, float] = {}
        self._closing = threading.Event()  # set when all animations must stop
        self._controls: dict[str, Any] = {}  # by the names of the fields of FormValues
        height, width = animator.size
        with gr.Blocks(
            title="Image animation",
            analytics_enabled=False,
            delete_cache=(SWEEP_SECONDS, KEPT_SECONDS),
        ) as self.blocks:
            gr.Markdown("# Image animation\nAn image that moves as a clip does.")
            with gr.Row():
                self._add_inputs()
            with gr.Accordion("Options", open=False):
                self._add_options()
            self._animate = gr.Button("Animate", variant="primary", size="lg")
            self._stop = gr.Button("Stop", variant="stop", size="lg", visible=False)
            with gr.Row():
                self._result = gr.Video(
                    label="Result",
                    height=RESULT_HEIGHT,
                    scale=2,
                    interactive=False,
                    visible=False,
                    autoplay=True,
                    loop=True,
                    buttons=[],
                    elem_classes="picture",
                )
                with gr.Column(min_width=MIN_COLUMN):
                    self._notes = gr.Textbox(visible=False, interactive=False)
                    self._download = gr.DownloadButton("Download", visible=False)
            model = f"Model: `{saved.path}`, {saved.age}, {width} x {height} pixels."
            gr.Markdown(" ".join((model, *self._capabilities.notes)))
            self._connect()
        self.blocks.queue(max_size=limits.max_waiting, api_open=False)

    def close(self) -> None:
        """Stop all animations and the server."""
        self._closing.set()
        self.blocks.close(verbose=False)

    def _add_inputs(self) -> None:
        """Add the controls for source, driving clip and background."""
        controls = self._controls
        with gr.Column(min_width=MIN_COLUMN):
            controls["source"] = add_image("Source image", INPUT_HEIGHT)
        with gr.Column(min_width=MIN_COLUMN):
            controls["driving"] = add_video("Driving clip", INPUT_HEIGHT)
        with gr.Column(min_width=MIN_COLUMN, visible=self._capabilities.has_cutting):
            kinds = [
                (label, kind)
                for kind, label in BACKGROUNDS.items()
                if kind != "source" or self._capabilities.has_painting
            ]
            controls["background"] = gr.Dropdown(kinds, value="none", label="Background")
            controls["background_image"] = add_image("Image", BACKGROUND_HEIGHT, visible=False)
            controls["background_clip"] = add_video("Clip", BACKGROUND_HEIGHT, visible=False)
            controls["background_color"] = gr.ColorPicker("#00ff00", label="Colour", visible=False)
            controls["background_type"] = gr.Radio(
                ["same", "other"],
                value="same",
                label="Background type",
                info="same as the training data: its own figure is removed; other: used as it is",
                visible=False,
            )

    def _add_options(self) -> None:
        """Add the options, in three columns."""
        with gr.Row():
            with gr.Column(min_width=MIN_COLUMN):
                self._add_motion_options()
            with gr.Column(min_width=MIN_COLUMN):
                self._add_input_options()
            with gr.Column(min_width=MIN_COLUMN):
                self._add_output_options()

    def _add_motion_options(self) -> None:
        controls = self._controls
        animators, modes = self._capabilities.animators, self._capabilities.modes
        default = modes[0] if modes else None
        shown = find_controls(self._capabilities, animators[0], default)
        controls["animator"] = gr.Radio(
            [*animators],
            value=animators[0],
            label="Animator",
            info="the motion model, or the figure's mask",
            visible=len(animators) > 1,
        )
        controls["motion"] = gr.Radio(
            [*modes],
            value=default,
            label="Motion",
            info="relative: the change since the reference frame moves the source",
            visible=shown.motion,
        )
        controls["reference_frame"] = gr.Radio(
            ["first", "auto"],
            value="first",
            label="Reference frame",
            info="the driving frame with the pose of the source; auto: the nearest to it",
            visible=shown.reference_frame,
        )
        controls["adapt_scale"] = gr.Checkbox(
            label="Adapt scale",
            info="scale the motion by the sizes of the two figures",
            visible=shown.adapt_scale,
        )
        controls["smooth"] = gr.Checkbox(label="Smooth", info="less jitter", visible=shown.smooth)

    def _add_input_options(self) -> None:
        controls = self._controls
        controls["start"] = gr.Textbox(
            "", label="Start", info="in the driving clip: 12.5 or 1:02.5", max_lines=1
        )
        controls["end"] = gr.Textbox("", label="End", info="empty: the whole clip", max_lines=1)
        controls["crop"] = gr.Radio(
            ["none", "auto"],
            value="none",
            label="Crop",
            info="crop source and driving clip; auto: around the figure",
        )

    def _add_output_options(self) -> None:
        controls = self._controls
        controls["layout"] = gr.Radio(
            ["result", "side-by-side"],
            value="result",
            label="Layout",
            info="side-by-side: source, driving, result",
        )
        controls["paste_back"] = gr.Checkbox(
            label="Paste back", info="put the result back into the uncropped source"
        )
        controls["sound"] = gr.Checkbox(value=True, label="Sound", info="that of the driving clip")
        controls["compose"] = gr.Radio(
            ["network", "alpha"],
            value="network",
            label="Compose",
            info="paint figure and background anew, or lay the figure over the background",
            visible=False,
        )

    def _connect(self) -> None:
        """Connect the controls with what happens when they are clicked or changed."""
        controls = self._controls
        for control in controls.values():
            take_uploads_only(control)
        quick: dict[str, Any] = {
            "queue": False,
            "show_progress": "hidden",
            "api_visibility": "private",
        }
        buttons = [self._animate, self._stop]
        results = [self._result, self._download, self._notes]
        # The first step is queued too: if the queue is full, Gradio says so and does nothing else.
        queued = quick | {"queue": True, "concurrency_limit": None}
        self._animate.click(self._show_running, None, [*buttons, *results], **queued).success(
            self._run,
            set(controls.values()),
            results,
            show_progress_on=self._result,
            concurrency_limit=1,
            api_visibility="private",
        ).then(self._show_idle, None, buttons, **quick)
        self._stop.click(self._show_stopping, None, self._stop, **quick)
        self.blocks.unload(self._stop_session)
        controls["background"].change(
            self._show_background,
            controls["background"],
            [
                *(controls[f"background_{name}"] for name in ("image", "clip", "color", "type")),
                controls["compose"],
            ],
            **quick,
        )
        for changed in ("animator", "motion"):
            controls[changed].change(
                self._show_motion,
                [controls["animator"], controls["motion"]],
                [controls[name] for name in Controls._fields],
                **quick,
            )

    def _show_background(self, kind: BackgroundKind) -> list[Any]:
        """Show the controls that belong to this kind of background, and hide the others."""
        shown = [kind == other for other in ("image", "clip", "colour")]
        is_painted = kind in ("image", "clip", "source") and self._capabilities.has_painting
        return [gr.update(visible=visible) for visible in (*shown, is_painted, is_painted)]

    def _show_motion(self, animator: AnimatorName, motion: MotionMode | None) -> list[Any]:
        """Show the controls that belong to this animator and motion, and hide the others."""
        shown = find_controls(self._capabilities, animator, motion)
        return [gr.update(visible=visible) for visible in shown]

    def _show_running(self, request: gr.Request) -> Changes:
        """Show that an animation runs."""
        # An earlier request to stop may have come too late.
        self._stopped.pop(request.session_hash, None)
        return {
            self._animate: gr.update(visible=False),
            self._stop: gr.update(value="Stop", interactive=True, visible=True),
            self._result: gr.update(value=None, visible=True),
            self._download: gr.update(visible=False),
            self._notes: gr.update(visible=False),
        }

    def _show_stopping(self, request: gr.Request) -> Any:
        """Stop the user's animation, and show that it stops."""
        self._stop_session(request)
        return gr.update(value="Stopping", interactive=False)

    def _stop_session(self, request: gr.Request) -> None:
        """Stop the animation of this session, also if its tab was closed: others wait for its end.

        Requests to stop that are older than KEPT_SECONDS are forgotten.
        """
        now = time.monotonic()
        for session, since in [*self._stopped.items()]:
            if now - since > KEPT_SECONDS:
                self._stopped.pop(session, None)
        self._stopped[request.session_hash] = now

    def _show_idle(self, request: gr.Request) -> Changes:
        """Show that no animation runs."""
        self._stopped.pop(request.session_hash, None)
        return {self._animate: gr.update(visible=True), self._stop: gr.update(visible=False)}

    def _run(
        self,
        values: dict[Any, Any],
        request: gr.Request,
        progress: gr.Progress = PROGRESS,
    ) -> Iterator[Changes]:
        """Animate, and show the result or the error.

        It yields instead of returning: Gradio copies the result file before this function continues
        and removes it.
        """
        form = FormValues(**{name: values[control] for name, control in self._controls.items()})
        deadline = time.monotonic() + self._limits.max_seconds

        def watch() -> None:
            if self._closing.is_set() or request.session_hash in self._stopped:
                raise Stopped
            if time.monotonic() > deadline:
                raise UserError(
                    f"This takes more than the {self._limits.max_seconds / 60:g} minutes that an "
                    "animation may take here: choose a part of the clip with Start and End."
                )

        def show(num_done: int, num_frames: int | None) -> None:
            watch()
            progress((num_done, num_frames), unit="frames")

        with tempfile.TemporaryDirectory() as folder:
            job: Job | None = None
            notes: list[str] = []
            try:
                job = read_job(form, Path(folder))
                progress(0, desc="reading")
                show(0, None)
                options = read_options(form, self._capabilities, self._limits.max_frames)
                result = run_job(self._animator, job, options, notes.append, show, watch)
            except Stopped:
                yield self._show_message("Stopped", "There is no result.")
            except MemoryError:  # this concerns the whole server
                raise
            except Exception as error:
                if self._debug:
                    traceback.print_exception(error)
                yield self._show_message("Error", explain(in_one_line(error), job))
            else:
                lines = [describe(result), *(explain(note, job) for note in notes)]
                yield self._show_message("Notes", "\n".join(lines)) | {
                    self._result: gr.update(value=result.output.path, visible=True),
                    self._download: gr.update(value=result.output.path, visible=True),
                }

    def _show_message(self, label: str, text: str) -> Changes:
        """Show `text` and no result."""
        return {
            self._result: gr.update(value=None, visible=False),
            self._download: gr.update(value=None, visible=False),
            self._notes: gr.update(
                value=text,
                label=label,
                visible=True,
                elem_classes=["error"] if label == "Error" else [],
            ),
        }


def describe(result: JobResult) -> str:
    """A line on a finished animation."""
    sound = "" if result.output.sound is None else ", with sound"
    name = result.output.path.name
    return f"{name}: {result.num_frames} frames{sound}, in {result.seconds:.1f} s"


def add_image(label: str, height: int, *, visible: bool = True) -> Any:
    """A control to drop an image; its value is the path of the uploaded file."""
    image: Any = gr.Image(
        label=label,
        height=height,
        type="filepath",
        sources=["upload"],
        visible=visible,
        buttons=[],
        elem_classes="picture",
    )
    # Gradio would open the file first, show its own message for a wrong one, and convert some.
    image.preprocess = lambda payload: None if payload is None else payload.path
    return image


def add_video(label: str, height: int, *, visible: bool = True) -> Any:
    """A control to drop a clip; its value is the path of the uploaded file."""
    return gr.Video(
        label=label,
        height=height,
        sources=["upload"],
        visible=visible,
        buttons=[],
        elem_classes="picture",
    )
