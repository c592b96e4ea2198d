"""Ids of runs and steps of checkpoints: a run takes none that it could not go on from."""

import json
import shutil

import pytest
import torch

import train
from tests.helpers.runs import call, contents, error_line, step_file, steps, tiny

ALONE = ("masks=null", "background=null", "discriminator=null", "log.images_every=1000")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ids") / "run"
    assert call(train, *tiny(folder, *ALONE, "train.checkpoint_every=2")) == 0
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        {"run_id": "a b"},
        {"run_id": ""},
        {"run_id": "a" * 65},
        {"run_id": "\ud800"},
        {"has_saved": "no"},
        {"origin": {"checkpoint": 1, "run_id": None, "step": 1}},
        {"origin": {"checkpoint": "a.pt", "run_id": [], "step": 1}},
        {"origin": {"checkpoint": "a.pt", "run_id": None, "step": "1"}},
    ],
)
def test_a_record_with_values_that_cannot_be_right(tmp_path, capsys, changes):
    """With such an id no checkpoint of the run could be read."""
    record = {"run_id": "a", "origin": None, "has_saved": False} | changes
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert call(train, *tiny(tmp_path, *ALONE)) == 2
    assert f"{tmp_path / 'run.json'}: not as a run wrote it" in error_line(capsys, "train.py")
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_checkpoint_of_another_run_under_a_name_of_ones_own(finished, tmp_path, capsys):
    """It lies in the folder of the run, but does not belong to it."""
    folder = shutil.copytree(finished, tmp_path / "run")
    other = folder / "checkpoints" / "backup.pt"
    torch.save(contents(step_file(folder, 8)) | {"run_id": "other"}, other)
    command = tiny(folder, *ALONE, "train.epochs=3")
    assert call(train, *command, "--resume", other) == 2
    line = error_line(capsys, "train.py")
    assert f"{other}: a checkpoint of another run than that of {folder}; move it away" in line
    shutil.copy(step_file(folder, 8), other)  # a copy of its own is one of the run
    assert call(train, *command, "--resume", other) == 0


def test_a_checkpoint_of_another_step_than_its_name_is_skipped(finished, tmp_path, capsys):
    """Else the run would go back to that step, whenever it is resumed."""
    folder = shutil.copytree(finished, tmp_path / "run")
    renamed = step_file(folder, 99)
    shutil.copy(step_file(folder, 4), renamed)
    assert call(train, *tiny(folder, *ALONE, "train.epochs=3"), "--resume") == 0
    found = capsys.readouterr()
    assert f"skipped: {renamed}: holds step 4, not that of its name; rename it" in found.err
    assert f"continuing {step_file(folder, 8)} at step 8" in found.out
    assert steps(folder)[-2:] == [12, 99]
