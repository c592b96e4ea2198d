"""best.pt is the best, also where a run is killed while it is copied."""

import shutil

import pytest
import torch

import train
from checkpoints import folder as checkpoint_folder
from checkpoints.checkpoint import load
from checkpoints.compare import differences
from tests.helpers.runs import call, contents, metrics, step_file, tiny
from training import validation

ALONE = ("masks=null", "background=null", "discriminator=null", "log.images_every=1000")
OFTEN = ("log.validate_every=2", "train.checkpoint_every=2", "train.keep_checkpoints=9")


@pytest.fixture
def judged(monkeypatch):
    """Let validations find these L1, by step."""

    def judge(found):
        original = validation.validate_model
        steps = iter(found)

        def validate_model(*arguments):
            return original(*arguments) | {"l1": next(steps)}

        monkeypatch.setattr("training.trainer.validate_model", validate_model)

    return judge


def killed_at_copy(monkeypatch, number):
    """The `number`-th copy is never made, and nothing after it."""
    copies = []
    copyfile = shutil.copyfile

    def copy(source, target):
        copies.append(source)
        if len(copies) == number:
            raise KeyboardInterrupt
        return copyfile(source, target)

    monkeypatch.setattr(checkpoint_folder.shutil, "copyfile", copy)


def best(folder):
    return load(folder / "checkpoints" / "best.pt")


@pytest.mark.parametrize("number", [1, 2])
def test_killed_while_the_best_is_copied(tmp_path, monkeypatch, judged, number):
    """The step's file knows that it is the best, best.pt does not yet. What follows is worse."""
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        killed_at_copy(patch, number)
        judged([0.5, 0.3][:number])
        assert call(train, *tiny(folder, *ALONE, *OFTEN)) == 130
    judged([0.4, 0.6, 0.7, 0.8])
    assert call(train, *tiny(folder, *ALONE, *OFTEN), "--resume") == 0
    expected = (4, 0.4) if number == 1 else (4, 0.3)
    if number == 1:  # copied when the run went on, and again at the next, which was better
        assert contents(step_file(folder, 2))["metrics"]["l1"] == 0.5
    assert (best(folder).step, best(folder).metrics["l1"]) == expected
    assert contents(step_file(folder, 8))["training"]["best_l1"] == expected[1]


def test_the_copy_is_made_when_the_run_goes_on(tmp_path, monkeypatch, judged):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        killed_at_copy(patch, 1)
        judged([0.5])
        assert call(train, *tiny(folder, *ALONE, *OFTEN)) == 130
    assert not (folder / "checkpoints" / "best.pt").exists()
    judged([0.9])
    again = tiny(folder, *ALONE, *OFTEN, "train.max_steps=3")
    assert call(train, *again, "--resume") == 0
    assert best(folder).step == 2
    assert (
        differences(contents(step_file(folder, 2)), contents(folder / "checkpoints/best.pt")) == []
    )


def test_a_worse_one_does_not_replace_the_best_of_a_later_step(tmp_path, judged):
    """The newest step files are gone; what the best is best.pt says."""
    folder = tmp_path / "run"
    judged([0.5, 0.2, 0.6, 0.7])
    assert call(train, *tiny(folder, *ALONE, *OFTEN)) == 0
    for step in (4, 6, 8):
        step_file(folder, step).unlink()
    judged([0.4, 0.6, 0.7])
    assert call(train, *tiny(folder, *ALONE, *OFTEN), "--resume") == 0
    assert best(folder).metrics["l1"] == 0.2
    assert [row["l1"] for row in metrics(folder, "validation")] == [0.5, 0.4, 0.6, 0.7]


def test_a_best_checkpoint_that_cannot_be_read_is_told_and_replaced(tmp_path, judged, capsys):
    folder = tmp_path / "run"
    judged([0.5])
    assert call(train, *tiny(folder, *ALONE, *OFTEN, "train.max_steps=2")) == 0
    path = folder / "checkpoints" / "best.pt"
    path.write_bytes(path.read_bytes()[:1000])
    judged([0.9, 0.8, 0.95])
    assert call(train, *tiny(folder, *ALONE, *OFTEN), "--resume") == 0
    assert f"{path}: cannot be read; the next validation replaces it" in capsys.readouterr().err
    assert best(folder).metrics["l1"] == 0.5  # from the checkpoint that it was a copy of


def test_the_best_of_the_format_of_old_is_known(tmp_path, judged):
    """Files that are no zip archives cannot be mapped to memory."""
    folder = tmp_path / "run"
    judged([0.1])
    assert call(train, *tiny(folder, *ALONE, *OFTEN, "train.max_steps=2")) == 0
    path = folder / "checkpoints" / "best.pt"
    torch.save(contents(path), path, _use_new_zipfile_serialization=False)
    judged([0.9, 0.8, 0.95])
    assert call(train, *tiny(folder, *ALONE, *OFTEN), "--resume") == 0
    assert best(folder).metrics["l1"] == 0.1
