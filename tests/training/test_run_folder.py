"""The run folder: no run writes to the folder of another, and one process at a time to its own."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import train
from tests.helpers.runs import (
    REPOSITORY,
    call,
    contents,
    error_line,
    finish,
    metrics,
    start,
    step_file,
    steps,
    tiny,
    wait_until,
)
from training import setup
from training.run_folder import RunRecord, claimed, read_record, write_record

ALONE = ("masks=null", "background=null", "discriminator=null", "log.images_every=1000")


@pytest.fixture(scope="module")
def other_run(tmp_path_factory):
    """A finished run of 8 steps of the motion branch."""
    folder = tmp_path_factory.mktemp("other") / "run"
    assert call(train, *tiny(folder, *ALONE)) == 0
    return folder


@pytest.fixture
def own_run(tmp_path, other_run):
    """A second finished run: a copy of the first with another id in all its files."""
    folder = shutil.copytree(other_run, tmp_path / "own")
    write_record(folder, RunRecord("own", has_saved=True))
    for path in (folder / "checkpoints").iterdir():
        torch.save(contents(path) | {"run_id": "own"}, path)
    return folder


def without_ids(folder):
    """Make the folder look like one of an earlier version, without ids."""
    (folder / "run.json").unlink()
    for path in (folder / "checkpoints").iterdir():
        content = contents(path)
        del content["run_id"], content["training"]["log"]
        torch.save(content, path)


def state(folder):
    """Every file and folder in a folder, with its content."""
    paths = sorted(folder.rglob("*"))
    return {path: path.read_bytes() if path.is_file() else None for path in paths}


def into(folder, *overrides):
    return (f"run.output_dir={folder}", "train.epochs=5", *overrides)


def test_run_and_checkpoints_have_one_id(other_run):
    record = json.loads((other_run / "run.json").read_text())
    assert record == {"run_id": record["run_id"], "origin": None, "has_saved": True}
    files = [step_file(other_run, 4), step_file(other_run, 8), other_run / "checkpoints/best.pt"]
    assert {contents(path)["run_id"] for path in files} == {record["run_id"]}


def test_every_run_has_another_id(other_run, tmp_path):
    assert call(train, *tiny(tmp_path / "run", *ALONE, "train.max_steps=1")) == 0
    assert read_record(tmp_path / "run").run_id != read_record(other_run).run_id


# Checkpoints of other runs


def test_another_run_does_not_continue_in_a_folder_with_checkpoints(other_run, own_run, capsys):
    """It is refused, as when two runs use the same config with the same folder."""
    before = state(own_run)
    given = step_file(other_run, 8)
    assert call(train, "--resume", given, *into(own_run, "train.max_steps=12")) == 2
    line = error_line(capsys, "train.py")
    assert f"run.output_dir: {own_run} already has checkpoints (step-00000008.pt), of another" in (
        line
    )
    assert f"than {given}; choose another folder with run.output_dir=..." in line
    assert state(own_run) == before


@pytest.mark.parametrize("name", ["commands.jsonl", "metrics.jsonl", "config.yaml"])
def test_another_run_does_not_continue_in_a_folder_with_logs(other_run, tmp_path, capsys, name):
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(other_run / name, folder)
    before = state(folder)
    given = step_file(other_run, 8)
    assert call(train, "--resume", given, *into(folder)) == 2
    line = error_line(capsys, "train.py")
    assert f"run.output_dir: {folder} holds {name}, not of {given}; choose another folder" in line
    assert state(folder) == before


def test_another_run_does_not_continue_in_one_that_has_saved_nothing(other_run, tmp_path, capsys):
    write_record(tmp_path, RunRecord("new"))
    before = state(tmp_path)
    assert call(train, "--resume", step_file(other_run, 8), *into(tmp_path)) == 2
    assert "was begun as a new run, which has saved nothing yet" in error_line(capsys, "train.py")
    assert state(tmp_path) == before


def test_a_checkpoint_continues_in_a_new_folder_as_a_run_of_its_own(other_run, tmp_path):
    folder, given = tmp_path / "new", step_file(other_run, 8)
    assert call(train, "--resume", given, *into(folder, "train.max_steps=9")) == 0
    record = read_record(folder)
    assert record.origin == (str(given.resolve()), read_record(other_run).run_id, 8)
    assert contents(step_file(folder, 9))["run_id"] == record.run_id
    assert record.run_id != read_record(other_run).run_id
    assert (
        call(train, *tiny(folder, *ALONE, "train.epochs=5", "train.max_steps=10"), "--resume") == 0
    )
    assert [row["step"] for row in metrics(folder)] == [9, 10]


def test_a_continued_run_that_was_killed_before_it_saved(other_run, tmp_path, capsys):
    """It can be started again with its first command; --resume alone must not start at step 0."""
    folder, given = tmp_path / "new", step_file(other_run, 8)
    begin = ("--resume", given, *into(folder, "train.max_steps=10"))
    assert call(train, *begin, "log.scalars_every=1") == 0
    shutil.rmtree(folder / "checkpoints")
    write_record(folder, read_record(folder)._replace(has_saved=False))
    capsys.readouterr()
    assert call(train, *tiny(folder, *ALONE), "--resume") == 2
    line = error_line(capsys, "train.py")
    assert f"{folder} was begun as --resume {given.resolve()}, which has saved nothing yet" in line
    assert call(train, *begin) == 0
    assert [row["step"] for row in metrics(folder)] == [9, 10]


def test_a_copy_of_an_own_checkpoint_continues(own_run, tmp_path):
    copy = shutil.copy(step_file(own_run, 8), tmp_path / "backup.pt")
    assert call(train, "--resume", copy, *into(own_run, "train.max_steps=9")) == 0
    assert read_record(own_run).run_id == "own"
    assert steps(own_run) == [4, 8, 9]


def test_a_checkpoint_of_another_run_among_ones_own(other_run, own_run, capsys):
    """It is refused, since it would some day be continued, deleted or replaced."""
    torch.save(contents(step_file(other_run, 8)) | {"step": 20}, step_file(own_run, 20))
    before = state(own_run)
    assert call(train, *tiny(own_run, *ALONE, "train.epochs=5"), "--resume") == 2
    line = error_line(capsys, "train.py")
    assert f"{step_file(own_run, 20)}: a checkpoint of another run than that of {own_run}" in line
    assert state(own_run) == before


# Folders of earlier versions


def test_a_run_of_an_earlier_version_goes_on_in_its_folder(own_run):
    without_ids(own_run)
    arguments = tiny(
        own_run, *ALONE, "train.epochs=5", "train.max_steps=9", "train.keep_checkpoints=2"
    )
    assert call(train, *arguments, "--resume") == 0
    run_id = read_record(own_run).run_id
    assert contents(step_file(own_run, 9))["run_id"] == run_id
    assert steps(own_run) == [8, 9]
    again = tiny(own_run, *ALONE, "train.epochs=5", "train.max_steps=10")
    assert call(train, *again, "--resume", step_file(own_run, 9)) == 0
    assert read_record(own_run).run_id == run_id
    assert [row["step"] for row in metrics(own_run)] == [*range(1, 11)]


def test_a_checkpoint_of_an_earlier_version_is_no_other_folders(
    own_run, other_run, tmp_path, capsys
):
    old = shutil.copytree(other_run, tmp_path / "old")
    without_ids(old)
    before = state(own_run)
    assert call(train, "--resume", step_file(old, 8), *into(own_run)) == 2
    assert "already has checkpoints (step-00000008.pt), of another run" in (
        error_line(capsys, "train.py")
    )
    assert state(own_run) == before


def test_a_run_of_an_earlier_version_that_had_saved_nothing_begins_again(tmp_path):
    folder = tmp_path / "run"
    arguments = tiny(folder, *ALONE, "train.max_steps=1")
    assert call(train, *arguments) == 0
    shutil.rmtree(folder / "checkpoints")
    (folder / "run.json").unlink()
    assert call(train, *arguments) == 0
    assert [row["step"] for row in metrics(folder)] == [1]


# Files that no run wrote, and missing checkpoints


@pytest.mark.parametrize(
    "name",
    ["config.yaml", "metrics.jsonl", "commands.jsonl", "pictures/train-motion-00000001.png"],
)
@pytest.mark.parametrize("resume", [(), ("--resume",)])
def test_a_file_that_no_run_wrote_is_not_replaced(tmp_path, capsys, name, resume):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    assert call(train, *tiny(tmp_path, *ALONE), *resume) == 2
    assert f"run.output_dir: {tmp_path} holds {name}, which no run wrote" in (
        error_line(capsys, "train.py")
    )
    files = {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {tmp_path / name: "mine"}


def test_a_best_checkpoint_alone_is_not_replaced(own_run, capsys):
    for step in steps(own_run):
        step_file(own_run, step).unlink()
    before = state(own_run)
    for resume in ((), ("--resume",)):
        assert call(train, *tiny(own_run, *ALONE), *resume) == 2
        best = own_run / "checkpoints" / "best.pt"
        assert f"already has checkpoints (best.pt); continue with --resume {best}, or" in (
            error_line(capsys, "train.py")
        )
    assert state(own_run) == before
    assert call(train, *tiny(own_run, *ALONE, "train.epochs=3"), "--resume", best) == 0


@pytest.mark.parametrize("resume", [(), ("--resume",)])
def test_checkpoints_that_are_gone_are_not_taken_for_none(own_run, capsys, resume):
    """The folder is empty, because they were deleted or their disk is not mounted."""
    shutil.rmtree(own_run / "checkpoints")
    (own_run / "checkpoints").mkdir()
    before = state(own_run)
    assert call(train, *tiny(own_run, *ALONE), *resume) == 2
    line = error_line(capsys, "train.py")
    assert f"{own_run / 'checkpoints'}: has no checkpoint, though this run saved some" in line
    assert state(own_run) == before


def not_a_folder(folder, monkeypatch):
    shutil.rmtree(folder)
    folder.write_text("")
    return "Not a directory"


def not_readable(folder, monkeypatch):
    original = os.scandir

    def scandir(path="."):
        if Path(path) == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)
    return "Permission denied"


def not_mounted(folder, monkeypatch):
    shutil.rmtree(folder)
    folder.symlink_to(folder.parent / "disk")
    return "a link to a folder that does not exist"


@pytest.mark.parametrize("resume", [(), ("--resume",)])
@pytest.mark.parametrize("spoil", [not_a_folder, not_readable, not_mounted])
def test_checkpoints_that_cannot_be_listed(own_run, monkeypatch, capsys, spoil, resume):
    reason = spoil(own_run / "checkpoints", monkeypatch)
    log = (own_run / "metrics.jsonl").read_bytes()
    assert call(train, *tiny(own_run, *ALONE), *resume) == 2
    line = error_line(capsys, "train.py")
    assert f"{own_run / 'checkpoints'}: " in line
    assert reason in line
    assert (own_run / "metrics.jsonl").read_bytes() == log


@pytest.mark.parametrize("name", ["step-00000004.pt", "step-00000012.pt", "best.pt"])
def test_a_folder_with_the_name_of_a_checkpoint(own_run, capsys, name):
    path = own_run / "checkpoints" / name
    path.unlink(missing_ok=True)
    path.mkdir()
    assert call(train, *tiny(own_run, *ALONE, "train.epochs=5"), "--resume") == 2
    assert f"{path}: has the name of a checkpoint, but is no file; move it away" in (
        error_line(capsys, "train.py")
    )


@pytest.mark.parametrize("text", ["", "[]", '{"run_id": 3, "origin": null, "has_saved": true}'])
def test_a_damaged_record(own_run, capsys, text):
    (own_run / "run.json").write_text(text)
    assert call(train, *tiny(own_run, *ALONE), "--resume") == 2
    assert f"{own_run / 'run.json'}: not as a run wrote it" in error_line(capsys, "train.py")


@pytest.mark.parametrize("name", ["commands.jsonl", "metrics.jsonl", "run.json", "config.yaml"])
def test_a_file_of_the_run_that_cannot_be_written(own_run, capsys, name):
    """It ends the run with one line; here a folder has the file's name."""
    (own_run / name).unlink()
    (own_run / name).mkdir()
    assert call(train, *tiny(own_run, *ALONE, "train.epochs=5"), "--resume") == 2
    line = error_line(capsys, "train.py")
    assert f"{own_run / name}: cannot be " in line
    assert "(Is a directory)" in line


# One process at a time


def test_a_folder_that_is_trained_into(own_run, capsys):
    before = state(own_run)
    with claimed(own_run):
        for resume in ((), ("--resume",), ("--resume", step_file(own_run, 8))):
            assert call(train, *tiny(own_run, *ALONE), *resume) == 2
            assert error_line(capsys, "train.py").startswith(
                f"train.py: error: run.output_dir: process {os.getpid()} on "
            )
    assert state(own_run) == before


def test_two_starts_into_a_new_folder(tmp_path, monkeypatch, capsys):
    """The second one starts while the first checks its clips and has not written anything yet."""
    folder = tmp_path / "run"
    arguments = tiny(folder, *ALONE, "train.max_steps=2")
    build_pairs, codes = setup.build_pairs, []

    def start_another_one(config):
        monkeypatch.setattr(setup, "build_pairs", build_pairs)
        codes.append(call(train, *arguments, "seed=2"))
        assert f"trains into {folder}; wait until it ends, or" in error_line(capsys, "train.py")
        return build_pairs(config)

    monkeypatch.setattr(setup, "build_pairs", start_another_one)
    assert call(train, *arguments) == 0
    assert codes == [2]
    assert len((folder / "commands.jsonl").read_text().splitlines()) == 1
    assert [row["step"] for row in metrics(folder)] == [1, 2]


def test_a_killed_run_gives_its_folder_free(tmp_path):
    """The folder is free at once, although the run's worker processes live on for some seconds."""
    folder = tmp_path / "run"
    arguments = tiny(folder, *ALONE, "data.num_workers=2", "log.validate_every=1000")
    process = start("train.py", *arguments, "train.epochs=100000")
    wait_until(lambda: bool(steps(folder)), process)
    assert (folder / ".lock").exists()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with claimed(folder):
        pass
    finish(process)
    assert not (folder / ".lock").exists()


def test_a_child_process_does_not_keep_the_folder(tmp_path):
    context = multiprocessing.get_context("fork")
    go_on = context.Event()
    with claimed(tmp_path):
        child = context.Process(target=go_on.wait, args=(60,))
        child.start()
    try:
        with claimed(tmp_path):
            assert child.is_alive()
    finally:
        go_on.set()
        child.join()


def test_a_lock_that_is_a_link_is_not_followed(tmp_path, capsys):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "mine")
    assert call(train, *tiny(tmp_path / "run", *ALONE)) == 2
    assert ".lock: is a link, and nothing is written to it" in error_line(capsys, "train.py")
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_start_that_fails_leaves_no_new_folder(tmp_path, capsys):
    assert call(train, *tiny(tmp_path / "new" / "run", *ALONE, "train.batch_size=1000")) == 2
    assert "train.batch_size" in error_line(capsys, "train.py")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_goes_and_the_files_of_others_stay(own_run):
    """Temporary files of this and of earlier versions are deleted in all folders of a run."""
    token = "0123456789abcdef"
    ours = [
        *(f".config.{token}.tmp.yaml", f".metrics.{token}.tmp.jsonl", f".run.{token}.tmp.json"),
        *(f"checkpoints/.step-00000009.{token}.tmp.pt", "checkpoints/.best.123.tmp.pt"),
        f"pictures/.train-motion-00000008.{token}.tmp.png",
        "pictures/.validation-masks-00000008.1.tmp.png",
    ]
    others = [
        *(f".animation.{token}.tmp.mp4", f".summary.{token}.tmp.json", ".notes.tmp.yaml"),
        *("checkpoints/.mine.12.tmp.pt", "pictures/.holiday.tmp.png"),
    ]
    for name in (*ours, *others):
        (own_run / name).write_text("half")
    assert call(train, *tiny(own_run, *ALONE), "--resume") == 0
    found = {str(p.relative_to(own_run)) for p in own_run.rglob(".*")}
    assert found == set(others)


def test_listing_runs_takes_no_torch():
    """The default checkpoint is chosen before torch is imported."""
    code = "import sys, checkpoints.folder; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)


def test_a_folder_that_is_a_link_to_nothing(tmp_path, capsys):
    (tmp_path / "run").symlink_to("nowhere")
    assert call(train, *tiny(tmp_path / "run", *ALONE)) == 2
    assert "run: is a link to nowhere, which is missing; make" in error_line(capsys, "train.py")


def test_another_file_of_the_name_of_the_lock_is_kept(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").write_text("dependencies\n")
    assert call(train, *tiny(tmp_path / "run", *ALONE)) == 2
    assert ".lock: is no lock file of this program" in error_line(capsys, "train.py")
    assert (tmp_path / "run" / ".lock").read_text() == "dependencies\n"
