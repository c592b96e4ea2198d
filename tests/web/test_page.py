"""What the page's button does where an animation fails."""

from types import SimpleNamespace

import pytest

from animation.animator import Animator
from tests.media import write_clip
from tests.runs import step_file


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
