"""reconstruct.py: a clip that fails is left out and told; what is wrong with all ends it."""

import csv
import html
import json

import av
import pytest

import reconstruct
from common.errors import UserError
from evaluation import measuring
from media.video import VideoError
from tests.helpers.media import write_clip
from tests.helpers.runs import call, step_file


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two clips whose names need care in tables."""
    root = tmp_path_factory.mktemp("named")
    write_clip(root / "test" / "a#1.mp4", 3, (32, 32))
    write_clip(root / "test" / "b & <c>.mp4", 2, (32, 32))
    return root


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    "error",
    [
        ZeroDivisionError("by zero"),
        VideoError("a#1.mp4: frame 1 cannot be decoded"),
        av.error.BlockingIOError(11, "Resource temporarily unavailable"),
    ],
)
def test_one_clip_that_fails_is_left_out_and_told(
    tiny_run, data, tmp_path, capsys, monkeypatch, error
):
    original = measuring.reconstruct_clip

    def reconstruct_clip(animator, clips, index, **options):
        yield next(original(animator, clips, index, **options))
        if index == 0:
            raise error

    monkeypatch.setattr(measuring, "reconstruct_clip", reconstruct_clip)
    output = tmp_path / "out"
    arguments = ("--checkpoint", step_file(tiny_run, 8), "--data-root", data, "--output", output)
    assert call(reconstruct, *arguments, "--save-frames") == 1
    reason = str(error)
    if not isinstance(error, VideoError):
        reason = f"{type(error).__name__}: {reason}"
    said = capsys.readouterr()
    assert said.err.splitlines() == [f"reconstruct.py: error: clip a#1: {reason}"]
    assert said.out.splitlines()[-1] == "1 of 2 clips failed and are in none of these numbers"
    summary = json.loads((output / "metrics.json").read_text())
    assert (summary["num_clips"], summary["failed"]) == (1, {"a#1": reason})
    found = rows_of(output / "metrics.csv")
    assert [(row["clip"], row["num_frames"]) for row in found] == [("b & <c>", "2"), ("a#1", "0")]
    assert {row["clip"] for row in rows_of(output / "frames.csv")} == {"b & <c>"}
    assert f"clip a#1 failed and is in none of these numbers: {reason}" in (
        html.unescape((output / "index.html").read_text())
    )
    assert [path.name for path in (output / "clips").iterdir()] == ["b & <c>.mp4"]
    assert [path.name for path in (output / "frames" / "driving").iterdir()] == ["b & <c>"]


@pytest.mark.parametrize("error", [UserError("the model diverged"), MemoryError()])
def test_what_is_wrong_with_every_clip_ends_the_evaluation(
    tiny_run, data, tmp_path, monkeypatch, error
):
    def measure_clip(*_, **__):
        raise error

    monkeypatch.setattr(measuring, "measure_clip", measure_clip)
    arguments = ("--checkpoint", step_file(tiny_run, 8), "--data-root", data)
    arguments += ("--output", tmp_path / "out")
    if isinstance(error, UserError):
        assert call(reconstruct, *arguments) == 2
    else:
        with pytest.raises(MemoryError):
            call(reconstruct, *arguments)
    assert not (tmp_path / "out").exists()


def test_no_clip_that_could_be_measured(tiny_run, data, tmp_path, capsys, monkeypatch):
    def measure_clip(*_, **__):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(measuring, "measure_clip", measure_clip)
    output = tmp_path / "out"
    arguments = ("--checkpoint", step_file(tiny_run, 8), "--data-root", data, "--output", output)
    assert call(reconstruct, *arguments) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.endswith("none of 2 clips could be measured: ZeroDivisionError: by zero")
    assert not output.exists()
