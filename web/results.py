"""The part of the page that shows a result or a message."""

import shutil
from pathlib import Path
from typing import Any

import gradio as gr

from animation.jobs import JobResult
from web.controls import MIN_COLUMN

RESULT_HEIGHT = 360  # pixels

Changes = dict[Any, Any]  # new values and properties, by control


class Results:
    """Builds the boxes of the result in the page that is being made (inside `gr.Blocks`).

    Attributes:
        video: shows a video, and the progress before there is one.
        picture: shows an animated picture.
        pictures: the column of these two.
        notes: shows messages.
        download, download_masks: buttons.
        all: all of these.
    """

    def __init__(self) -> None:
        box: dict[str, Any] = {
            **{"label": "Result", "height": RESULT_HEIGHT, "interactive": False},
            **{"visible": False, "buttons": [], "elem_classes": "picture"},
        }
        with gr.Column(scale=2, visible=False) as self.pictures:
            self.video = gr.Video(autoplay=True, loop=True, **box)
            self.picture = gr.Image(**box)
        with gr.Column(min_width=MIN_COLUMN):
            self.notes = gr.Textbox(visible=False, interactive=False)
            self.download = gr.DownloadButton("Download", visible=False)
            self.download_masks = gr.DownloadButton("Download masks", visible=False)
        # Without pictures, a message takes the whole width.
        self.all: list[Any] = [
            self.pictures,
            self.video,
            self.picture,
            self.notes,
            self.download,
            self.download_masks,
        ]

    def _boxes(self) -> tuple[Any, Any]:
        return self.video, self.picture

    def _place(self, box: Any, path: Path | None = None) -> Changes:
        """Show `path` in a box."""
        return {self.pictures: gr.update(visible=True), box: gr.update(value=path, visible=True)}

    def clear(self) -> Changes:
        """Show nothing."""
        hidden = {item: gr.update(visible=False) for item in self.all}
        # Otherwise an earlier result would be seen for a moment when its box appears again.
        return hidden | {box: gr.update(value=None, visible=False) for box in self._boxes()}

    def wait(self) -> Changes:
        """Show an empty box, which the progress lies over."""
        return self.clear() | self._place(self.video)

    def tell(self, label: str, text: str) -> Changes:
        """Show a message and no result. The label is Notes, Stopped or Error."""
        classes = ["error"] if label == "Error" else []
        return self.clear() | {
            self.notes: gr.update(value=text, label=label, visible=True, elem_classes=classes)
        }

    def show(self, result: JobResult, text: str) -> Changes:
        """Show a result with notes, and buttons to download it and its masks."""
        path, masks = result.output.path, result.output.masks_path
        changes = self.tell("Notes", text)
        if path.is_dir():
            path = as_archive(path)
        elif path.suffix == ".gif":
            changes |= self._place(self.picture, path)
        elif path.suffix != ".mov":  # no browser plays ProRes, and Gradio would convert it
            changes |= self._place(self.video, path)
        changes[self.download] = gr.update(value=path, visible=True)
        if masks is not None:
            masks = as_archive(masks) if masks.is_dir() else masks
            changes[self.download_masks] = gr.update(value=masks, visible=True)
        return changes


def as_archive(folder: Path) -> Path:
    """Pack the files of a folder in a zip file beside it."""
    return Path(shutil.make_archive(str(folder), "zip", folder))
