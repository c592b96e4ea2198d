"""The page's Animate button: notes, errors, limits, stopping."""

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from animation.animator import Animator
from common.errors import UserError
from configs.schema import PuppetsConfig
from media.excerpt import Excerpt
from media.images import write_image
from tests.helpers.lively import kind_config, write_checkpoint
from tests.helpers.media import write_clip
from tests.helpers.runs import step_file
from tests.media.test_deinterlace import KINDS, woven, write_interlaced
from web.waiting import QueueLength


def test_remarks_on_the_clip_are_shown_with_the_result(tiny_run, tmp_path):
    pytest.importorskip("gradio")
    from web import page as web_page

    page = web_page.Page(Animator.load(step_file(tiny_run, 8), device="cpu"))
    frames = [woven(number) for number in range(4)]
    clip = write_interlaced(tmp_path / "clip.mp4", frames, *KINDS["h264.mp4"])
    picture = tmp_path / "a.png"
    write_image(picture, frames[0])
    values = {control: control.value for control in page._controls.fields.values()}
    values[page._controls.fields["source"]] = str(picture)
    values[page._controls.fields["driving"]] = str(clip)
    request = SimpleNamespace(session_hash="a")
    (changes,) = page._run(values, request, lambda *_, **__: None)
    lines = changes[page._results.notes]["value"].splitlines()
    assert lines.count("clip.mp4: interlaced; made whole (bwdif)") == 1
    page.close()


def test_addresses_are_not_opened(tiny_run, tmp_path, monkeypatch):
    """Gradio would download what a request names in place of an upload, without any limit."""
    pytest.importorskip("gradio")
    from gradio import processing_utils

    from web import page as web_page

    page = web_page.Page(Animator.load(step_file(tiny_run, 8), device="cpu"))
    opened = []

    async def download(address, cache_dir):
        opened.append(address)
        return str(tmp_path / "a.png")

    monkeypatch.setattr(processing_utils, "async_ssrf_protected_download", download)
    payload = {"path": "https://example.com/a.png", "meta": {"_type": "gradio.FileData"}}
    for control in page._controls.fields.values():
        moved = processing_utils.async_move_files_to_cache(
            payload, control, check_in_upload_folder=True
        )
        with pytest.raises(UserError, match="Only uploaded files are read here"):
            asyncio.run(moved)
    assert opened == []
    page.close()


@pytest.mark.parametrize("debug", [False, True])
def test_any_failure_is_a_message(tiny_run, tmp_path, monkeypatch, capsys, debug):
    pytest.importorskip("gradio")
    from web import page as web_page

    page = web_page.Page(Animator.load(step_file(tiny_run, 8), device="cpu"), debug)
    clip = write_clip(tmp_path / "clip.mp4", 2)

    def run_job(*_):
        raise IndexError(f"{clip}: list index out of range")

    monkeypatch.setattr(web_page, "run_job", run_job)
    values = {control: control.value for control in page._controls.fields.values()}
    values[page._controls.fields["source"]] = values[page._controls.fields["driving"]] = str(clip)
    request = SimpleNamespace(session_hash="a")
    (changes,) = page._run(values, request, lambda *_, **__: None)
    notes = changes[page._results.notes]
    assert (notes["label"], notes["value"]) == (
        "Error",
        "IndexError: clip.mp4: list index out of range",
    )
    assert ("Traceback" in capsys.readouterr().err) == debug
    page.close()


@pytest.fixture
def opened(tiny_run, tmp_path):
    """`opened(limits, **choices)` returns a page, and a function that presses its button for a clip
    of 40 frames and returns label and text of the message.
    """
    pytest.importorskip("gradio")
    from web import page as web_page

    animator = Animator.load(step_file(tiny_run, 8), device="cpu")
    clip = write_clip(tmp_path / "clip.mp4", 40, (32, 32))
    picture = tmp_path / "a.png"
    write_image(picture, woven(0))
    pages = []

    def opened(limits=None, **choices):
        page = web_page.Page(animator, limits=web_page.Limits(**(limits or {})))
        pages.append(page)
        values = {control: control.value for control in page._controls.fields.values()}
        given = {"source": str(picture), "driving": str(clip)} | choices
        values |= {page._controls.fields[name]: value for name, value in given.items()}

        def press(progress=lambda *_, **__: None):
            request = SimpleNamespace(session_hash="a")
            (changes,) = page._run(values, request, progress)
            notes = changes[page._results.notes]
            return notes["label"], notes["value"]

        return page, press

    yield opened
    for page in pages:
        page.close()


def test_a_clip_that_is_too_long_is_refused(opened):
    _, press = opened({"max_frames": 39})
    assert press() == (
        "Error",
        "clip.mp4: has 40 frames, more than the 39 that are allowed here; choose a part of it with "
        "start and end",
    )
    _, press = opened({"max_frames": 39}, start="0.1")  # 37 frames are left
    assert press()[0] == "Notes"


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({}, "its turn has come"),
        ({"source": "wrong.txt"}, "wrong.txt: "),
        ({"background": "image", "background_image": "wrong.txt"}, "background wrong.txt: "),
        ({"background": "clip", "background_clip": "wrong.txt"}, "background wrong.txt: "),
        ({"background": "colour", "background_color": "#12"}, "background #12: not a colour"),
        ({"background": "colour", "masks": "files", "masks_files": ["wrong.txt"]}, "masks wrong"),
        (
            {"background": "colour", "masks": "files", "masks_files": ["a.png"]},
            "masks a.png: has 1 masks, and 40 driving frames",
        ),
        ({"save_masks": True, "masks": "files", "masks_files": ["wrong.txt"]}, "masks wrong.txt: "),
        (
            {
                "background": "source",
                "background_masks": "files",
                "background_masks_files": ["wrong.txt"],
            },
            "background masks wrong.txt: ",
        ),
        (
            {
                "background": "image",
                "background_image": "a.png",
                "background_masks": "files",
                "background_masks_files": ["clip.mp4"],
            },
            "background masks clip.mp4: has 40 masks, and the background 1 picture",
        ),
        ({"sound": "file", "sound_file": "wrong.txt"}, "audio wrong.txt: "),
        ({"sound": "file", "sound_file": "clip.mp4"}, "audio clip.mp4: the file has no sound"),
    ],
)
def test_wrong_files_are_found_before_the_waiting(opened, tmp_path, monkeypatch, choices, message):
    from web import page as web_page

    def run_job(*_):
        raise UserError("its turn has come")

    (tmp_path / "wrong.txt").write_text("no picture, no clip, no sound")

    def found(value):
        if isinstance(value, list):
            return [*map(found, value)]
        return str(tmp_path / value) if "." in str(value) else value

    page, press = opened(**{name: found(value) for name, value in choices.items()})
    monkeypatch.setattr(web_page, "run_job", run_job)
    monkeypatch.setattr(page._queue, "length", lambda: QueueLength(1, 1))
    label, text = press()
    assert label == "Error"
    assert text.startswith(message)


def test_an_animation_that_takes_too_long_is_ended(opened):
    _, press = opened({"max_seconds": 0.0})
    assert press() == (
        "Error",
        "This takes more than the 0 minutes that an animation may take here: choose a part of the "
        "clip with Start and End.",
    )


def test_a_result_that_is_too_large_is_ended(opened, monkeypatch):
    from web import page as web_page

    monkeypatch.setattr(web_page, "MAX_RESULT", 2**20)
    _, press = opened(format="png")
    assert press()[0] == "Notes"
    monkeypatch.setattr(web_page, "MAX_RESULT", 2**10)
    label, text = press()
    assert label == "Error"
    assert text.startswith("The result takes more than the 0.000976562 MB that there is room for:")


def test_no_room_for_another_result(opened, tmp_path, monkeypatch):
    """Uploads are limited, but from those that are there any number of results can be made."""
    from web.guard import MAX_KEPT_FILES

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "kept"))
    (tmp_path / "kept").mkdir()
    _, press = opened({"max_bytes": 10**6})
    assert press()[0] == "Notes"
    (tmp_path / "kept" / "result.mp4").write_bytes(bytes(MAX_KEPT_FILES * 10**6 + 1))
    assert press() == ("Error", "There is no room for another result now; try again in an hour.")


@pytest.mark.parametrize("choices", [{}, {"reference_frame": "auto"}, {"crop_driving": "auto"}])
@pytest.mark.parametrize("num_read", [0, 1, 20])
def test_leaving_the_page_stops_its_animation(opened, monkeypatch, choices, num_read):
    """It stops at the next frame that is read, also while the clip is only searched."""
    page, press = opened(**choices)
    frames_from = Excerpt.frames_from
    read = []

    def leave_midway(clip, first):
        for frame in frames_from(clip, first):
            if len(read) == num_read:
                page._stop_session(SimpleNamespace(session_hash="a"))
            read.append(frame)
            yield frame

    monkeypatch.setattr(Excerpt, "frames_from", leave_midway)
    assert press() == ("Stopped", "There is no result.")
    assert len(read) == num_read + 1


def test_leaving_another_page_stops_nothing(opened):
    from web.page import MAX_STOPPED

    page, press = opened()
    page._stop_session(SimpleNamespace(session_hash="b"))
    assert press()[0] == "Notes"
    page._stopped["c"] = time.monotonic() - 10_000
    page._stop_session(SimpleNamespace(session_hash="d"))
    assert set(page._stopped) == {"b", "d"}  # old requests are forgotten
    for number in range(2 * MAX_STOPPED):
        page._stop_session(SimpleNamespace(session_hash=f"e{number}"))
        page._stop_session(SimpleNamespace(session_hash="d"))
    assert len(page._stopped) == MAX_STOPPED
    assert [*page._stopped][-2:] == [f"e{2 * MAX_STOPPED - 1}", "d"]


def test_the_page_of_a_model_without_keypoints(tmp_path):
    """It animates, and shows no control of motion."""
    pytest.importorskip("gradio")
    from web import page as web_page

    path = write_checkpoint(tmp_path / "x2face.pt", kind_config("x2face", "data.image_size=32"))
    page = web_page.Page(Animator.load(path, device="cpu"))
    hidden = ("motion", "reference_frame", "adapt_scale", "smooth")
    assert not any(page._controls.fields[name].visible for name in hidden)
    fields = page._controls.fields
    assert fields["more_sources"].visible
    updates = page._show_controls({fields["animator"]: "masks", fields["motion"]: "absolute"})
    shown = dict(zip(fields, updates, strict=True))
    assert [shown[name]["visible"] for name in hidden] == [False, False, False, True]
    clip = write_clip(tmp_path / "clip.mp4", 3, (32, 32))
    picture = tmp_path / "a.png"
    write_image(picture, woven(0))
    values = {control: control.value for control in page._controls.fields.values()}
    values[page._controls.fields["source"]] = str(picture)
    values[page._controls.fields["driving"]] = str(clip)
    (changes,) = page._run(values, SimpleNamespace(session_hash="a"), lambda *_, **__: None)
    lines = changes[page._results.notes]["value"].splitlines()
    assert lines[0].startswith("a--clip.mp4: 3 frames")
    assert "motion absolute: a motion model of kind x2face has no other" in lines
    page.close()


def test_examples_outlive_the_removal_of_old_files(tiny_run, tmp_path, monkeypatch):
    """Their small pictures stay, and so do the files that a click puts in a box."""
    pytest.importorskip("gradio")
    import gradio as gr
    from gradio.route_utils import delete_files_created_by_app

    from web import examples as web_examples
    from web import page as web_page

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "kept"))
    monkeypatch.setattr(web_examples, "NUM_FRAMES", 2)
    (tmp_path / "examples").mkdir()
    drawn = web_examples.draw_examples(tmp_path / "examples", (32, 32), PuppetsConfig())
    animator = Animator.load(step_file(tiny_run, 8), device="cpu")
    page = web_page.Page(animator, examples=drawn)
    delete_files_created_by_app(page.blocks, -1)
    galleries = [block for block in page.blocks.blocks.values() if isinstance(block, gr.Dataset)]
    shown = [Path(sample["path"]) for gallery in galleries for (sample,) in gallery.samples]
    assert len(shown) == 9
    assert all(path.is_file() for path in (*shown, *drawn.sources, *drawn.clips))
    page.close()
