"""The model that comes with the project: used where there is no run, and never written beside."""

import shutil

import pytest

import animate
import reconstruct
import web.__main__ as page
from checkpoints import export, folder
from common.cli import run_entry_point
from media.video import open_clip
from tests.helpers.media import write_clip
from tests.helpers.runs import REPOSITORY, call, error_line, step_file

pytest.importorskip("safetensors")
ADVICE = (
    "no checkpoint under runs/: using {}, the model that comes with the project; train your own "
    "with `python train.py --config demo.yaml`"
)


@pytest.fixture
def own(tiny_run, tmp_path, monkeypatch):
    """Path of a tiny model in the place of the real one; the working folder is empty."""
    path = tmp_path / "project" / "assets" / "puppets.safetensors"
    arguments = [str(step_file(tiny_run, 8)), "--output", str(path), "--half"]
    assert run_entry_point(export.main, export.build_parser(), arguments) == 0
    monkeypatch.setattr(folder, "OWN_MODEL", path)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return path


def test_it_lies_beside_the_code():
    assert folder.OWN_MODEL == REPOSITORY / "assets" / "puppets.safetensors"


def test_animates_puppets_without_any_option(own, tmp_path, capsys):
    capsys.readouterr()
    assert call(animate) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == ADVICE.format(own)
    output = "results/puppets/animation.mp4"
    assert lines[-1] == f"{output}: 4 frames, {own} (step 8)"
    assert open_clip(tmp_path / "work" / output).size == (32, 6 * 32)
    names = {path.name for path in own.parent.iterdir()}
    assert names == {f"puppets.{suffix}" for suffix in ("safetensors", "json", "md")}
    assert call(animate) == 0  # once more, as with a run


def test_animates_a_clip(own, tmp_path, capsys):
    write_clip(tmp_path / "driving.mp4", 3, (32, 32))
    frames = ("--source", tmp_path / "driving.mp4", "--driving", tmp_path / "driving.mp4")
    assert call(animate, *frames, "--output", "out.mp4") == 2  # a clip is no source
    capsys.readouterr()
    (tmp_path / "still").mkdir()
    shutil.copy(REPOSITORY / "docs" / "figures" / "columns.png", tmp_path / "still.png")
    pair = ("--source", tmp_path / "still.png", "--driving", tmp_path / "driving.mp4")
    assert call(animate, *pair, "--output", "out.mp4") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == ADVICE.format(own)
    assert lines[-1] == f"out.mp4: 3 frames, {own} (step 8)"


def test_the_name_is_short_in_the_folder_of_the_project(own, monkeypatch, capsys):
    monkeypatch.chdir(own.parents[1])
    capsys.readouterr()
    assert call(animate) == 0
    assert capsys.readouterr().out.splitlines()[0] == ADVICE.format("assets/puppets.safetensors")
    assert (own.parents[1] / "results/puppets/animation.mp4").exists()
    assert {path.suffix for path in own.parent.iterdir()} == {".safetensors", ".json", ".md"}


def test_a_run_comes_first(own, tiny_run, tmp_path, capsys):
    shutil.copytree(tiny_run, tmp_path / "work" / "runs" / "mine")
    capsys.readouterr()
    assert call(animate) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("runs/mine/animation.mp4: 4 frames, runs/mine/checkpoints/step-")
    assert not any("comes with the project" in line for line in lines)


@pytest.mark.parametrize("where", ["", "assets/"])
def test_its_evaluation_is_not_written_beside_it(own, tmp_path, monkeypatch, where):
    """Nor that of a model that somebody has put there; elsewhere results lie beside a model."""
    path = own.with_name("other.safetensors") if where else tmp_path / "other.safetensors"
    own.rename(path)
    folder_of_results = tmp_path / "work/results/other" if where else tmp_path
    assert call(reconstruct, "--checkpoint", path) == 0
    assert (folder_of_results / "reconstruction/test/index.html").exists()
    assert not (own.parent / "reconstruction").exists()


def test_the_page_takes_it(own, monkeypatch, capsys):
    pytest.importorskip("gradio")
    served = []
    monkeypatch.setattr(page, "serve", lambda animator, *_: served.append(animator))
    for name in ("GRADIO_ANALYTICS_ENABLED", "GRADIO_TEMP_DIR", "NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")  # restored after the test
    capsys.readouterr()
    assert call(page) == 0
    assert capsys.readouterr().out.splitlines()[0] == ADVICE.format(own)
    assert served[0].saved.path == own


def test_neither_a_run_nor_the_model(own, tmp_path, capsys):
    own.unlink()
    capsys.readouterr()
    assert call(animate) == 2
    assert error_line(capsys, "animate.py").endswith(
        "no checkpoint under runs/: train a model with `python train.py --config demo.yaml`, or "
        "give --checkpoint"
    )
    assert list((tmp_path / "work").iterdir()) == []
