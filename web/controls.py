"""The controls of the page: boxes for files, and options."""

from collections.abc import Callable, Iterable
from typing import Any, Final, Literal, get_args

import gradio as gr

from animation.background_swap import BackgroundType, Compose, Edge
from animation.layouts import LAYOUTS
from animation.options import FORMATS
from media.backgrounds import BackgroundEnd
from web.capabilities import Capabilities
from web.choices import (
    BackgroundKind,
    CropKind,
    FormValues,
    ReferenceKind,
    SoundKind,
    find_shown,
)
from web.guard import take_uploads_only

INPUT_HEIGHT, BACKGROUND_HEIGHT, FILE_HEIGHT = 320, 150, 120  # pixels
MIN_COLUMN = 240  # pixels; if columns would be narrower, they are placed below each other

BACKGROUNDS: Final[dict[BackgroundKind, str]] = {
    "none": "unchanged",
    "image": "an image",
    "clip": "a clip",
    "colour": "a colour",
    "source": "source, kept still",
    "transparent": "transparent",
}


class Controls:
    """Builds the controls in the page that is being made (inside `gr.Blocks`).

    Attributes:
        fields: the controls by the names of the fields of FormValues; each `add_` method adds some.
    """

    def __init__(self, capabilities: Capabilities) -> None:
        modes = capabilities.modes
        self.first = FormValues(
            animator=capabilities.animators[0], motion=modes[0] if modes else None
        )
        self.fields: dict[str, Any] = {}
        self._capabilities = capabilities
        self._shown = find_shown(self.first, capabilities)

    def read(self, values: dict[Any, Any]) -> FormValues:
        """The form for the values by control; controls that are not in `values` keep their first
        value.
        """
        given = {name: values[item] for name, item in self.fields.items() if item in values}
        return self.first._replace(**given)

    def _add(self, name: str, make: Callable[..., Any], **properties: Any) -> None:
        """Add the control `name`, made by `make`, with its first value; hidden if it has no effect
        at first.
        """
        value = getattr(self.first, name)
        if value is not None:
            properties["value"] = value
        control = make(visible=name in self._shown, **properties)
        take_uploads_only(control)
        self.fields[name] = control

    def _add_choice(self, name: str, choices: Iterable[str], *, label: str, info: str = "") -> None:
        """Add buttons for the control `name`, one of which is chosen."""
        self._add(name, gr.Radio, choices=[*choices], label=label, info=info or None)

    def add_source(self) -> None:
        self._add("source", add_image, label="Source image", height=INPUT_HEIGHT)
        self._add(
            "more_sources",
            add_files,
            label="More images of the same figure",
            file_count="multiple",
        )

    def add_driving(self) -> None:
        self._add("driving", add_video, label="Driving clip", height=INPUT_HEIGHT)

    def add_background(self) -> None:
        kinds = [(label, kind) for kind, label in BACKGROUNDS.items()]
        self._add("background", gr.Dropdown, choices=kinds, label="Background")
        self._add("background_image", add_image, label="Image", height=BACKGROUND_HEIGHT)
        self._add("background_clip", add_video, label="Clip", height=BACKGROUND_HEIGHT)
        self._add("background_color", gr.ColorPicker, label="Colour")
        self._add_choice(
            "background_end",
            get_args(BackgroundEnd),
            label="Background end",
            info="if it ends before the driving clip: start again, hold its last frame, or stop",
        )

    def add_masks(self) -> None:
        """Controls of what cuts the figure out."""
        self._add_masks("masks", "Masks", "what cuts the figure out; files: white on the figure")

    def add_background_masks(self) -> None:
        """Controls of the figure that the background itself shows."""
        self._add_choice(
            "background_type",
            ("automatic", *get_args(BackgroundType)),
            label="Background type",
            info="same as the training data: its own figure is removed; other: used as it is",
        )
        self._add_masks(
            "background_masks", "Background masks", "what cuts out the background's own figure"
        )

    def _add_masks(self, name: str, label: str, info: str) -> None:
        choices = ["automatic", *self._capabilities.masks, "files"]
        self._add_choice(name, choices, label=label, info=info)
        self._add(
            f"{name}_files",
            add_files,
            label=f"{label}: a clip, or pictures",
            file_count="multiple",
        )

    def add_composition(self) -> None:
        """Controls of how the figure is put on the background."""
        self._add_choice(
            "compose",
            ("automatic", *get_args(Compose)),
            label="Compose",
            info="network: paint figure and background anew; alpha: lay the figure over it",
        )
        self._add_choice(
            "edge",
            ("automatic", *get_args(Edge)),
            label="Edge",
            info="clean: without the colours of the old background",
        )

    def add_motion(self) -> None:
        self._add_choice(
            "animator",
            self._capabilities.animators,
            label="Animator",
            info="the motion model, or the figure's mask",
        )
        self._add_choice(
            "motion",
            self._capabilities.modes,
            label="Motion",
            info="relative: the change since the reference frame moves the source; absolute: the "
            "source takes the driving pose"
            + ("; avd: and keeps its own shape" if "avd" in self._capabilities.modes else ""),
        )
        self._add_choice(
            "reference_frame",
            get_args(ReferenceKind),
            label="Reference frame",
            info="the driving frame with the pose of the source; auto: the nearest to it",
        )
        self._add(
            "reference_number",
            gr.Number,
            label="Number of the reference frame",
            info="counted from 0",
        )
        self._add(
            "adapt_scale",
            gr.Checkbox,
            label="Adapt scale",
            info="scale the motion by the sizes of the two figures",
        )
        self._add("smooth", gr.Checkbox, label="Smooth", info="less jitter")

    def add_input_options(self) -> None:
        self._add("start", gr.Textbox, label="Start", info="in the driving clip: 12.5 or 1:02.5")
        self._add("end", gr.Textbox, label="End", info="empty: the whole clip")
        for name, what in (("source", "source"), ("driving", "driving clip")):
            self._add_choice(
                f"crop_{name}",
                get_args(CropKind),
                label=f"Crop of the {what}",
                info="auto: around the figure",
            )
            self._add(
                f"crop_{name}_box",
                gr.Textbox,
                label=f"Box in the {what}",
                info="left,top,width,height in pixels: 40,0,256,256",
            )
        self._add(
            "paste_back",
            gr.Checkbox,
            label="Paste back",
            info="put the result back into the uncropped source",
        )

    def add_output_options(self) -> None:
        has_demo = self._capabilities.has_painting
        self._add_choice(
            "layout",
            [name for name in LAYOUTS if has_demo or name != "demo"],
            label="Layout",
            info="side-by-side: source, driving, result"
            + ("; demo: and the steps on the way to another background" if has_demo else ""),
        )
        self._add(
            "show_masks", gr.Checkbox, label="Show masks", info="more columns, with the masks"
        )
        self._add(
            "save_masks", gr.Checkbox, label="Save masks", info="a second file, with the masks"
        )
        self._add_choice(
            "format",
            FORMATS,
            label="Format",
            info="mov: ProRes; png: frames in a zip file; a transparent mp4 becomes a webm",
        )
        self._add_choice(
            "sound",
            get_args(SoundKind),
            label="Sound",
        )
        self._add(
            "sound_file",
            add_files,
            label="File with the sound",
        )


def add_image(*, label: str, height: int, visible: bool = True) -> Any:
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


def add_files(
    *, label: str, file_count: Literal["single", "multiple"] = "single", visible: bool = True
) -> Any:
    """A control to drop a file, or several; its value is the path, or a list of paths."""
    files: Any = gr.File(
        label=label,
        file_count=file_count,
        height=FILE_HEIGHT,
        visible=visible,
        elem_classes="file",
    )

    def paths(payload: Any) -> Any:
        """The paths of the uploads, without Gradio's empty temporary file for each."""
        if payload is None:
            return None
        if file_count == "single":
            return payload.path
        return [file.path for file in payload.root]

    files.preprocess = paths
    return files


def add_video(*, label: str, height: int, visible: bool = True) -> Any:
    """A control to drop a clip; its value is the path of the uploaded file."""
    return gr.Video(
        label=label,
        height=height,
        sources=["upload"],
        visible=visible,
        buttons=[],
        elem_classes="picture",
    )
