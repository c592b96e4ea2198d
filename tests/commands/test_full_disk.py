"""A disk that is full: one line that says so, and nothing lost."""

import errno
import resource
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import logger
import train
from branches.model import Model
from checkpoints import checkpoint
from checkpoints.compare import differences
from common.errors import UserError
from common.files import named_failures
from media.images import write_image
from media.visualization import to_uint8
from tests.helpers.factories import noise_frames, tiny_config
from tests.helpers.runs import call, contents, metrics, step_file, steps, tiny

ALONE = ("masks=null", "background=null", "discriminator=null", "log.images_every=1000")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="limits files as POSIX does")


@contextmanager
def largest_file(num_bytes):
    """No file may get larger: the system refuses what is too much, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def save(path, model, config):
    places = {"step": 1, "epoch": 0, "batch": 1}
    checkpoint.save(path, config, model.networks, **places, average=None, training={}, metrics={})


def test_a_checkpoint_at_every_size(tmp_path):
    """Wherever it is cut off: in what torch writes itself, or in what is written in its name."""
    config = tiny_config("masks=null", "background=null", "discriminator=null")
    model, path = Model(config), tmp_path / "c.pt"
    save(path, model, config)
    before, size = path.read_bytes(), path.stat().st_size
    for num_bytes in (0, 1, 64, *range(1000, size, size // 40), size - 1):
        with (
            pytest.raises(UserError, match=r"c\.pt: cannot be written \("),
            largest_file(num_bytes),
        ):
            save(path, model, config)
        assert [entry.name for entry in tmp_path.iterdir()] == ["c.pt"]
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_a_picture_at_every_size(tmp_path, name):
    """A system that takes only the beginning of what is written says so at the next write alone."""
    path, frame = tmp_path / name, to_uint8(noise_frames(1, (64, 64)))[0]
    write_image(path, frame)
    before, size = path.read_bytes(), path.stat().st_size
    for num_bytes in (0, 1, 64, size // 2, size - 1):
        with (
            pytest.raises(UserError, match=rf"{name}: cannot be written \("),
            largest_file(num_bytes),
        ):
            write_image(path, frame)
        assert [entry.name for entry in tmp_path.iterdir()] == [name]
    assert path.read_bytes() == before


def test_what_torch_cannot_write_for_another_reason_is_no_full_disk(tmp_path, monkeypatch):
    def refuse(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(torch, "save", refuse)
    config = tiny_config("masks=null", "background=null", "discriminator=null")
    with pytest.raises(RuntimeError, match="a bug"):
        save(tmp_path / "c.pt", Model(config), config)
    assert list(tmp_path.iterdir()) == []


def test_while_training(tmp_path, capsys):
    """At the second checkpoint, which is the larger one."""
    folder = tmp_path / "run"
    arguments = tiny(folder, *ALONE, "train.max_steps=4")
    assert call(train, *arguments) == 0
    capsys.readouterr()
    saved = step_file(folder, 4)
    with largest_file(saved.stat().st_size // 2):
        assert call(train, *tiny(folder, *ALONE), "--resume") == 2
    output = capsys.readouterr()
    assert output.err.splitlines()[-1] == (
        f"train.py: error: {step_file(folder, 8)}: cannot be written (File too large); "
        f"last good checkpoint: {saved}"
    )
    assert "Traceback" not in output.err
    assert steps(folder) == [4]
    assert not list(folder.rglob(".*"))


def full(path):
    """What the system says where `path` lies on a full disk."""
    with named_failures(path), open("/dev/full", "wb", buffering=0) as file:
        file.write(b"x")


def without_speed(rows):
    return [{name: value for name, value in row.items() if "speed/" not in name} for row in rows]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbs, of 8 steps."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert call(train, *tiny(folder, *ALONE, *SELDOM)) == 0
    return folder


SELDOM = ("log.scalars_every=3", "train.checkpoint_every=5", "log.validate_every=6")


@pytest.mark.parametrize("kind", ["train", "validation"])
@pytest.mark.parametrize("place", ["metrics.jsonl", "events"])
def test_while_logging(tmp_path, whole, monkeypatch, capsys, kind, place):
    """The step is saved, its line is written when there is room: the log is that of a run which
    nothing disturbed.
    """
    folder = tmp_path / "run"
    add_line, scalars = logger.add_line, logger.EventFile.scalars

    def add_to_full_disk(path, text):
        if '"step": 6' in text and f'"kind": "{kind}"' in text:
            path.open("a").write(text[:20])  # as much as there was room for
            full(path)
        add_line(path, text)

    def write_to_full_disk(events, step, values):
        if step == 6 and ("validation/l1" in values) == (kind == "validation"):
            full(folder / "events")
        scalars(events, step, values)

    if place == "events":
        monkeypatch.setattr(logger.EventFile, "scalars", write_to_full_disk)
    else:
        monkeypatch.setattr(logger, "add_line", add_to_full_disk)
    assert call(train, *tiny(folder, *ALONE, *SELDOM)) == 2
    output = capsys.readouterr()
    assert output.err.splitlines()[-1] == (
        f"train.py: error: {folder / place}: cannot be written (No space left on device)"
    )
    assert "Traceback" not in output.err
    assert steps(folder)[-1] == 6
    monkeypatch.undo()
    assert call(train, *tiny(folder, *ALONE, *SELDOM), "--resume") == 0
    for name in ("train", "validation"):
        assert without_speed(metrics(folder, name)) == without_speed(metrics(whole, name))
    a, b = (contents(step_file(run, 8)) for run in (folder, whole))
    for content in (a, b):
        del content["config"], content["run_id"], content["training"]["seconds"]
    assert differences(a, b) == []


def test_while_logging_with_no_room_for_a_checkpoint_either(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    saved = folder / "checkpoints" / "step-00000005.pt"

    def add_to_full_disk(path, text):
        if '"step": 6' in text:
            monkeypatch.setattr(Path, "mkdir", lambda path, **_: full(path))
            full(path)

    monkeypatch.setattr(logger, "add_line", add_to_full_disk)
    assert call(train, *tiny(folder, *ALONE, *SELDOM)) == 2
    monkeypatch.undo()
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith(f"train.py: error: {folder / 'metrics.jsonl'}: cannot be written (")
    assert lines[-1].endswith(f"; last good checkpoint: {saved}")
    assert not [line for line in lines if "Traceback" in line]
    assert steps(folder) == [5]


def test_an_error_of_the_system_that_has_no_text_is_told_too(tmp_path):
    with pytest.raises(UserError, match=r"cannot be written \(odd\)"), named_failures(tmp_path):
        raise OSError("odd")
    with pytest.raises(UserError, match=r"\(Is a directory\)"), named_failures(tmp_path):
        raise OSError(errno.EISDIR, "Is a directory")
