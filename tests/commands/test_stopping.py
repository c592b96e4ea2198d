"""A run that is stopped or killed and goes on: its log is that of a run which nothing disturbed."""

import os
import signal

import pytest

import train
from checkpoints.compare import differences
from tests.helpers.runs import call, contents, metrics, step_file, tiny
from training import trainer as training

ALONE = ("masks=null", "background=null", "discriminator=null", "log.images_every=1000")
# Windows of three steps; the checkpoints of every fourth lie within them.
WINDOWS = ("log.scalars_every=3", "train.checkpoint_every=4", "train.epochs=3")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert call(train, *tiny(folder, *ALONE, *WINDOWS)) == 0
    return folder


@pytest.fixture
def end_in(monkeypatch):
    """Let a signal or an exception come in the step behind `step`."""

    def end(step, how):
        original, steps = training.train_step, iter(range(1000))

        def train_step(*arguments):
            if next(steps) == step:
                how()
            return original(*arguments)

        monkeypatch.setattr(training, "train_step", train_step)

    return end


def stop():
    os.kill(os.getpid(), signal.SIGTERM)


def kill():
    raise KeyboardInterrupt  # unwinds without saving


def without_speed(folder):
    return [{n: v for n, v in row.items() if "speed/" not in n} for row in metrics(folder)]


def same_end(folder, whole):
    a, b = (contents(step_file(run, 12)) for run in (folder, whole))
    for content in (a, b):
        del content["config"], content["run_id"], content["training"]["seconds"]
    return differences(a, b) == []


@pytest.mark.parametrize(
    ("step", "how", "code", "told"),
    [
        (3, stop, 143, [3]),
        (4, stop, 143, [3]),
        (11, stop, 143, [3, 6, 9, 12]),
        (3, kill, 130, [3]),
        (6, kill, 130, [3, 6]),
    ],
)
def test_the_log_of_a_run_that_was_stopped(
    tmp_path, whole, monkeypatch, end_in, step, how, code, told
):
    folder = tmp_path / "run"
    end_in(step, how)
    assert call(train, *tiny(folder, *ALONE, *WINDOWS)) == code
    monkeypatch.undo()
    assert [row["step"] for row in metrics(folder)] == told
    assert call(train, *tiny(folder, *ALONE, *WINDOWS), "--resume") == 0
    assert [row["step"] for row in metrics(folder)] == [3, 6, 9, 12]
    assert without_speed(folder) == without_speed(whole)
    assert metrics(folder, "validation") == metrics(whole, "validation")
    assert same_end(folder, whole)


def test_the_end_of_a_run_has_a_line_and_the_window_goes_on(tmp_path, whole):
    """Of a run that is ended by its number of steps and made longer later."""
    folder = tmp_path / "run"
    assert call(train, *tiny(folder, *ALONE, *WINDOWS, "train.max_steps=7")) == 0
    assert [row["step"] for row in metrics(folder)] == [3, 6, 7]
    assert call(train, *tiny(folder, *ALONE, *WINDOWS, "train.max_steps=7"), "--resume") == 0
    assert [row["step"] for row in metrics(folder)] == [3, 6, 7]
    assert call(train, *tiny(folder, *ALONE, *WINDOWS), "--resume") == 0
    rows = {row["step"]: row for row in without_speed(folder)}
    assert list(rows) == [3, 6, 7, 9, 12]
    assert [rows[step] for step in (3, 6, 9, 12)] == without_speed(whole)


@pytest.mark.parametrize("copies", [1, 2])
def test_killed_between_the_last_line_and_the_last_checkpoint(tmp_path, monkeypatch, copies):
    """The line of the last step, and its validation, are there once, and in the right window."""
    folder = tmp_path / "run"
    arguments = tiny(folder, *ALONE, *WINDOWS, "train.max_steps=7", "log.validate_every=1000")
    saves = []
    save = training.Trainer.save

    def save_or_die(trainer):
        saves.append(trainer.step)
        if saves.count(7) == copies:
            raise KeyboardInterrupt
        save(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(training.Trainer, "save", save_or_die)
        assert call(train, *arguments) == 130
    assert [row["step"] for row in metrics(folder)] == [3, 6, 7]
    assert call(train, *arguments, "--resume") == 0
    assert [row["step"] for row in metrics(folder)] == [3, 6, 7]
    assert [row["step"] for row in metrics(folder, "validation")] == [7]


@pytest.mark.parametrize(
    "tail",
    [b'{"step": 9, "kind": "tr\xe4', b"\xff\xfe\x00", b"[1, 2]\n", b'{"step": "x"}\n', b"3\n"],
)
def test_a_log_that_ends_in_something_else(tmp_path, whole, tail):
    """Half a line of a killed run, in bytes of any kind."""
    folder = tmp_path / "run"
    arguments = tiny(folder, *ALONE, "train.max_steps=2", "train.checkpoint_every=2")
    assert call(train, *arguments) == 0
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(tail)
    with (folder / "commands.jsonl").open("ab") as file:
        file.write(b'{"time": "half')
    assert call(train, *tiny(folder, *ALONE, "train.max_steps=3"), "--resume") == 0
    assert [row["step"] for row in metrics(folder)] == [1, 2, 3]
    lines = (folder / "commands.jsonl").read_text().splitlines()
    assert len(lines) == 3
    assert lines[1] == '{"time": "half'
