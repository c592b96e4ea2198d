"""best.pt is the best checkpoint, even if a run is killed while it is copied."""

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
def validation_l1(monkeypatch):
    """A function that lets validations find the given L1 values, one after the other."""

    def judge(found):
        original = validation.validate_model
        steps = iter(found)

        def validate_model(*arguments):
            return original(*arguments) | {"l1": next(steps)}

        monkeypatch.setattr("training.trainer.validate_model", validate_model)

    return judge


def killed_at_copy(monkeypatch, number):
    """Kill the run when it would make the `number`-th copy of best.pt."""
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
def test_killed_while_the_best_is_copied(tmp_path, monkeypatch, validation_l1, number):
    """The step's own file is already the best when the run is killed, but best.pt is not yet its
    copy. The metrics of all later steps are worse.
    """
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        killed_at_copy(patch, number)
        validation_l1([0.5, 0.3][:number])
        assert call(train, *tiny(folder, *ALONE, *OFTEN)) == 130
    validation_l1([0.4, 0.6, 0.7, 0.8])
    assert call(train, *tiny(folder, *ALONE, *OFTEN), "--resume") == 0
    expected = (4, 0.4) if number == 1 else (4, 0.3)
    if number == 1:
        # Step 2 was copied when the run was resumed; step 4, which was better, replaced it.
        assert contents(step_file(folder, 2))["metrics"]["l1"] == 0.5
    assert (best(folder).step, best(folder).metrics["l1"]) == expected
    assert contents(step_file(folder, 8))["training"]["best_l1"] == expected[1]


def test_the_copy_is_made_when_the_run_goes_on(tmp_path, monkeypatch, validation_l1):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        killed_at_copy(patch, 1)
        validation_l1([0.5])
        assert call(train, *tiny(folder, *ALONE, *OFTEN)) == 130
    assert not (folder / "checkpoints" / "best.pt").exists()
    validation_l1([0.9])
    again = tiny(folder, *ALONE, *OFTEN, "train.max_steps=3")
    assert call(train, *again, "--resume") == 0
    assert best(folder).step == 2
    assert (
        differences(contents(step_file(folder, 2)), contents(folder / "checkpoints/best.pt")) == []
    )


def test_a_worse_one_does_not_replace_the_best_of_a_later_step(tmp_path, validation_l1):
    """The newest step files are missing; best.pt itself tells its L1."""
    folder = tmp_path / "run"
    validation_l1([0.5, 0.2, 0.6, 0.7])
    assert call(train, *tiny(folder, *ALONE, *OFTEN)) == 0
    for step in (4, 6, 8):
        step_file(folder, step).unlink()
    validation_l1([0.4, 0.6, 0.7])
    assert call(train, *tiny(folder, *ALONE, *OFTEN), "--resume") == 0
    assert best(folder).metrics["l1"] == 0.2
    assert [row["l1"] for row in metrics(folder, "validation")] == [0.5, 0.4, 0.6, 0.7]


def test_a_best_checkpoint_that_cannot_be_read_is_named_and_replaced(
    tmp_path, validation_l1, capsys
):
    folder = tmp_path / "run"
    validation_l1([0.5])
    assert call(train, *tiny(folder, *ALONE, *OFTEN, "train.max_steps=2")) == 0
    path = folder / "checkpoints" / "best.pt"
    path.write_bytes(path.read_bytes()[:1000])
    validation_l1([0.9, 0.8, 0.95])
    assert call(train, *tiny(folder, *ALONE, *OFTEN), "--resume") == 0
    assert f"{path}: cannot be read; the next validation replaces it" in capsys.readouterr().err
    assert best(folder).metrics["l1"] == 0.5  # copied again from the checkpoint of its step


def test_the_l1_of_a_best_checkpoint_in_the_old_file_format_is_known(tmp_path, validation_l1):
    """The old format is no zip archive, so the file cannot be mapped to memory."""
    folder = tmp_path / "run"
    validation_l1([0.1])
    assert call(train, *tiny(folder, *ALONE, *OFTEN, "train.max_steps=2")) == 0
    path = folder / "checkpoints" / "best.pt"
    torch.save(contents(path), path, _use_new_zipfile_serialization=False)
    validation_l1([0.9, 0.8, 0.95])
    assert call(train, *tiny(folder, *ALONE, *OFTEN), "--resume") == 0
    assert best(folder).metrics["l1"] == 0.1


def test_a_best_checkpoint_whose_metric_cannot_be_right_is_replaced(tmp_path, validation_l1):
    folder = tmp_path / "run"
    validation_l1([0.5])
    assert call(train, *tiny(folder, *ALONE, *OFTEN, "train.max_steps=2")) == 0
    path = folder / "checkpoints" / "best.pt"
    content = contents(path)
    content["metrics"]["l1"] = -torch.inf
    torch.save(content, path)
    validation_l1([0.4])
    assert call(train, *tiny(folder, *ALONE, *OFTEN, "train.max_steps=4"), "--resume") == 0
    assert best(folder).step == 4
