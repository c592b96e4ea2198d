"""The files that one export writes: all of them or none, and none that describes another one."""

import errno
import hashlib
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from checkpoints import checkpoint, export
from checkpoints.checkpoint import load
from common.cli import run_entry_point
from common.file_lock import locked
from tests.helpers.runs import error_line, step_file


def run_export(*arguments: object) -> int:
    argv = [*map(str, arguments)]
    return run_entry_point(export.main, export.build_parser(), argv)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("part", ["save_slim", "describe", "model_card"])
@pytest.mark.parametrize("is_first", [True, False])
def test_a_failure_leaves_the_earlier_export(tiny_run, tmp_path, monkeypatch, part, is_first):
    path = tmp_path / "model.pt"
    if not is_first:
        assert run_export(step_file(tiny_run, 8), "--output", path) == 0
        (tmp_path / "model.md").unlink()
    before = files(tmp_path)

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint if part == "save_slim" else export, part, fail)
    assert run_export(step_file(tiny_run, 4), "--output", path) == 2
    assert files(tmp_path) == before


@pytest.mark.parametrize("num_renamed", [0, 1, 2, 3])
def test_a_kill_leaves_no_wrong_description(tiny_run, tmp_path, monkeypatch, num_renamed):
    """Whatever was renamed before: a description is of the file beside it, or there is none."""
    path = tmp_path / "model.pt"
    assert run_export(step_file(tiny_run, 8), "--output", path) == 0
    (tmp_path / "model.md").unlink()
    before, rename, left = files(tmp_path), os.replace, [num_renamed]

    class Killed(BaseException):
        pass

    def replace(*names):
        if not left[0]:
            monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)  # nothing is cleaned up
            raise Killed
        left[0] -= 1
        rename(*names)

    monkeypatch.setattr(os, "replace", replace)
    with suppress(Killed):
        run_export(step_file(tiny_run, 4), "--output", path)
    monkeypatch.undo()
    found = files(tmp_path)
    assert (found["model.pt"] == before["model.pt"]) == (num_renamed == 0)
    if "model.json" in found:
        described = json.loads(found["model.json"])
        assert described["sha256"] == hashlib.sha256(found["model.pt"]).hexdigest()
        assert num_renamed == 3
    assert run_export(step_file(tiny_run, 4), "--output", path) == 0
    assert files(tmp_path).keys() == {"model.pt", "model.json", "model.md"}


def test_two_exports_to_one_name(tiny_run, tmp_path, capsys):
    """Also to files of two kinds, which share the description."""
    with locked(tmp_path / ".model.export.lock"):
        for name in ("model.pt", "model.safetensors"):
            assert run_export(step_file(tiny_run, 8), "--output", tmp_path / name) == 2
            line = error_line(capsys, "python -m checkpoints.export")
            assert "exports to this name; wait until it ends" in line
        assert [p.name for p in tmp_path.iterdir()] == [".model.export.lock"]


@pytest.mark.parametrize("name", ["model.pt", "model.json"])
def test_a_folder_in_place_of_a_file(tiny_run, tmp_path, capsys, name):
    assert run_export(step_file(tiny_run, 8), "--output", tmp_path / "model.pt") == 0
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    names = sorted(tmp_path.iterdir())
    assert run_export(step_file(tiny_run, 8), "--output", tmp_path / "model.pt") == 2
    assert name in error_line(capsys, "python -m checkpoints.export")
    assert sorted(tmp_path.iterdir()) == names


def test_a_licence_that_cannot_be_written(tiny_run, tmp_path, capsys):
    options = ("--output", tmp_path / "model.pt", "--licence", os.fsdecode(b"\xff"))
    assert run_export(step_file(tiny_run, 8), *options) == 2
    assert "--licence: text with a NUL" in error_line(capsys, "python -m checkpoints.export")


def test_an_input_whose_name_is_not_utf8(tiny_run, tmp_path):
    path = shutil.copy(step_file(tiny_run, 8), tmp_path / os.fsdecode(b"\xff.pt"))
    assert run_export(path, "--output", tmp_path / "model.pt") == 0
    assert load(tmp_path / "model.pt").provenance["exported_from"] == r"\udcff.pt"


@pytest.mark.parametrize("output", [".", "", "/", "..", "missing/..", "folder"])
def test_an_output_that_names_no_file(tiny_run, tmp_path, monkeypatch, capsys, output):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    assert run_export(step_file(tiny_run, 8), "--output", output) == 2
    line = error_line(capsys, "python -m checkpoints.export")
    assert f"--output {Path(output)}: is a folder; give a file, {Path(output, 'model.pt')}" in line
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize(
    ("output", "replaced"),
    [
        ("run.pt", "run.json"),  # without it nobody knows which run the checkpoints are of
        ("config.yaml", "config.yaml"),
        ("config.pt", "config.json"),
        ("checkpoints/best.pt", "checkpoints/best.pt"),
        ("checkpoints/step-00000004.safetensors", None),
        ("link.pt", "link.pt"),
    ],
)
def test_files_that_no_export_wrote_stay(tiny_run, tmp_path, capsys, output, replaced):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    (run / "config.json").write_text('{"file": "model.pt"}\n')
    (run / "link.pt").symlink_to(run / "config.json")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    code = run_export(step_file(tiny_run, 8), "--output", run / output)
    assert {path: path.read_bytes() for path in before} == before
    if replaced is None:
        assert code == 0
        return
    assert code == 2
    line = error_line(capsys, "python -m checkpoints.export")
    assert f"would replace {run / replaced}, which no earlier export wrote; choose another" in line
    assert {path for path in run.rglob("*") if path.is_file()} == before.keys()


def test_networks_for_a_file(tiny_run, tmp_path, capsys):
    """The name is refused before the checkpoint is written."""
    (tmp_path / "notes.txt").write_text("mine\n")
    options = ("--output", tmp_path / "m.pt", "--onnx", tmp_path / "notes.txt")
    assert run_export(step_file(tiny_run, 8), *options) == 2
    assert "notes.txt: is a file; give a folder" in error_line(
        capsys, "python -m checkpoints.export"
    )
    assert files(tmp_path) == {"notes.txt": b"mine\n"}
