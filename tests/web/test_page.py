"""What the page's button does where an animation fails."""

from types import SimpleNamespace

import pytest

from animation.animator import Animator
from datasets.images import write_image
from tests.datasets.test_deinterlace import KINDS, woven, write_interlaced
from tests.media import write_clip
from tests.runs import step_file


def test_what_is_odd_about_the_clip_stands_beside_the_result(tiny_run, tmp_path):
    pytest.importorskip("gradio")
    from web import page as web_page

    page = web_page.Page(Animator.load(step_file(tiny_run, 8), device="cpu"))
    frames = [woven(number) for number in range(4)]
    clip = write_interlaced(tmp_path / "clip.mp4", frames, *KINDS["h264.mp4"])
    picture = tmp_path / "a.png"
    write_image(picture, frames[0])
    values = {control: control.value for control in page._controls.values()}
    values[page._controls["source"]] = str(picture)
    values[page._controls["driving"]] = str(clip)
    request = SimpleNamespace(session_hash="a")
    (changes,) = page._make(values, request, lambda *_, **__: None)
    lines = changes[page._notes]["value"].splitlines()
    assert lines.count("clip.mp4: interlaced; made whole (bwdif)") == 1
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
    values = {control: control.value for control in page._controls.values()}
    values[page._controls["source"]] = values[page._controls["driving"]] = str(clip)
    request = SimpleNamespace(session_hash="a")
    (changes,) = page._make(values, request, lambda *_, **__: None)
    notes = changes[page._notes]
    assert (notes["label"], notes["value"]) == (
        "Error",
        "IndexError: clip.mp4: list index out of range",
    )
    assert ("Traceback" in capsys.readouterr().err) == debug
    page.close()
