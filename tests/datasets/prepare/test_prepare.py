"""Tests what the command writes, rejects and reports, and how it continues after an end."""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction

import numpy as np
import pytest

import train
from common.errors import UserError
from datasets.build import build_source, preflight
from datasets.clips import ClipFolder
from datasets.packed import PackedClips
from datasets.prepare import folder as prepare_folder
from tests.helpers import dying
from tests.helpers.clip_files import robot_record, run, write_records
from tests.helpers.factories import tiny_config
from tests.helpers.media import (
    damage,
    frame_numbers,
    truncate,
    write_clip,
    write_frame_folder,
    write_strip,
)
from tests.helpers.runs import (
    REPOSITORY,
    call,
    environment,
    error_line,
    finish,
    metrics,
    tiny,
    wait_until,
)

SIZE = (48, 64)
PROG = "python -m datasets.prepare"


@pytest.fixture
def clips(tmp_path):
    root = tmp_path / "clips"
    write_clip(root / "train" / "id1#a.mp4", 9)
    write_clip(root / "train" / "id2#b.webm", 7, rate=Fraction(30000, 1001))
    write_frame_folder(root / "train" / "id2#c", 5)
    write_clip(root / "train" / "id3#d.gif", 6)
    write_clip(root / "test" / "id9#e.mp4", 8)
    return root


def files(folder):
    """Read the contents of all files, by path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def report(output):
    with (output / "report.csv").open(newline="") as file:
        return {row["clip"]: row for row in csv.DictReader(file)}


def read_all(source):
    return {
        clip.name: (source.frame_rate(i), frame_numbers(np.stack([*source.stream(i)])))
        for i, clip in enumerate(source.clips)
    }


def test_packed_clips_show_what_the_clips_show(clips, tmp_path, capsys):
    assert run(clips, tmp_path / "out") == 0
    for split in ("train", "test"):
        plain, packed = ClipFolder(clips, split, SIZE), PackedClips(tmp_path / "out" / split, SIZE)
        assert plain.clips == packed.clips
        assert read_all(plain) == read_all(packed)
    output = capsys.readouterr().out
    assert "5 clips found" in output
    assert "5 clips prepared, 35 frames, 0.00 GB; 0 were there before" in output
    assert report(tmp_path / "out") == {}


def test_any_number_of_processes_writes_the_same(clips, tmp_path):
    assert run(clips, tmp_path / "one") == 0
    assert run(clips, tmp_path / "two", "--workers", 2) == 0
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_running_again_does_nothing_new(clips, tmp_path, capsys):
    assert run(clips, tmp_path / "out") == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("t*/*")}
    assert run(clips, tmp_path / "out") == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("t*/*")} == before
    assert "0 clips prepared, 0 frames, 0.00 GB; 5 were there before" in capsys.readouterr().out


def test_new_clips_join(clips, tmp_path):
    assert run(clips, tmp_path / "out") == 0
    write_clip(clips / "train" / "id1#new.mp4", 3)
    assert run(clips, tmp_path / "out") == 0
    packed = PackedClips(tmp_path / "out" / "train", SIZE)
    assert read_all(packed) == read_all(ClipFolder(clips, "train", SIZE))


@pytest.mark.parametrize("form", ["packed", "frames"])
@pytest.mark.parametrize("num_before", [0, 2, 4])
def test_interrupted_and_continued(clips, tmp_path, monkeypatch, capsys, form, num_before):
    assert run(clips, tmp_path / "whole", "--format", form) == 0
    converted = []
    convert = prepare_folder.convert

    def interrupted(candidate, settings, target):
        if len(converted) == num_before:
            raise KeyboardInterrupt
        converted.append(candidate.name)
        return convert(candidate, settings, target)

    with monkeypatch.context() as patch:
        patch.setattr(prepare_folder, "convert", interrupted)
        assert run(clips, tmp_path / "out", "--format", form) == 130
    assert report(tmp_path / "out") == {}
    assert not [*(tmp_path / "out").glob("*/.*")]
    capsys.readouterr()
    assert run(clips, tmp_path / "out", "--format", form) == 0
    assert f"{5 - num_before} clips prepared" in capsys.readouterr().out
    whole, out = files(tmp_path / "whole"), files(tmp_path / "out")
    assert out == whole


def test_killed_and_continued(tmp_path):
    """A scheduler sends SIGTERM while processes are at work."""
    clips, out = tmp_path / "clips" / "train", tmp_path / "out"
    first = write_clip(clips / "0.mp4", 60, (96, 128))
    for number in range(1, 24):
        shutil.copy(first, clips / f"{number}.mp4")
    options = ["--image-size", "96x128", "--workers", "2"]
    command = [sys.executable, "-m", "datasets.prepare", *options]
    command += ["--input", str(clips.parent), "--output", str(out)]
    process = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    lines = out / "train" / "clips.jsonl"
    wait_until(lambda: lines.exists() and lines.read_text().count("\n") >= 1, process)
    process.send_signal(signal.SIGTERM)
    ended = finish(process)
    assert ended.code == 143
    assert "Traceback" not in ended.stderr
    assert not [*(out / "train").glob(".*")]
    assert 1 <= lines.read_text().count("\n") < 24
    with pytest.raises(UserError, match="packing ended early"):
        PackedClips(out / "train", (96, 128))

    assert run(clips.parent, out, *options) == 0
    packed = PackedClips(out / "train", (96, 128))
    assert [packed.num_frames(index) for index in range(24)] == [60] * 24
    for index in range(24):
        assert frame_numbers(packed.read(index, [0, 59])) == [0, 59]


def test_a_process_that_died(clips, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(prepare_folder, "convert", dying.convert)
    assert run(clips, tmp_path / "out", "--workers", 2) == 2
    line = error_line(capsys, PROG)
    assert "a process died near this clip, perhaps for lack of memory; start again with" in line


def test_interrupted_while_processes_are_busy(clips, tmp_path, monkeypatch):
    """Ctrl-C does not wait for the clips in work."""
    monkeypatch.setattr(prepare_folder, "convert", dying.keep_busy)
    started = time.monotonic()
    timer = threading.Timer(2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    assert run(clips, tmp_path / "out", "--workers", 2) == 130
    assert time.monotonic() - started < 40


def test_rejected_and_shortened_clips(tmp_path, capsys, caplog):
    clips = tmp_path / "clips" / "train"
    write_clip(clips / "good.mp4", 12)
    write_clip(clips / "short.mp4", 4)
    write_clip(clips / "small.mp4", 12, (24, 32))
    (clips / "text.mp4").write_text("not a video")
    truncate(write_clip(clips / "torn.mp4", 12), 0.3)
    damage(write_clip(clips / "half.mp4", 60, gop=12, codec_options={"bf": "0"}), 30, 59)
    damage(write_clip(clips / "early.mp4", 60, gop=12, codec_options={"bf": "0"}), 3, 59)
    truncate(write_frame_folder(clips / "folder", 12) / "frame8.png", 0.5)
    arguments = ("--min-frames", 5, "--min-size", 40)
    assert run(tmp_path / "clips", tmp_path / "out", *arguments) == 0
    rows = report(tmp_path / "out")
    assert {name: (row["outcome"], row["reason"]) for name, row in rows.items()} == {
        "short": ("rejected", "too few frames"),
        "small": ("rejected", "too small"),
        "text": ("rejected", "cannot be read"),
        "torn": ("rejected", "cannot be read"),
        "half": ("shortened", "damaged"),
        "early": ("rejected", "too few frames"),
        "folder": ("shortened", "damaged"),
    }
    assert rows["short"]["detail"] == "4 frames"
    assert rows["small"]["detail"] == "32 x 24 pixels"
    assert rows["text"]["source"] == str(clips / "text.mp4")
    assert "the file holds text" in rows["text"]["detail"]
    assert "frames after 30 of 60 cannot be decoded" in rows["half"]["detail"]
    assert "frame8.png" in rows["folder"]["detail"]
    captured = capsys.readouterr()
    assert "2 rejected: too few frames" in captured.out
    assert "2 shortened: damaged" in captured.out
    assert captured.err == ""
    assert caplog.messages == []
    packed = PackedClips(tmp_path / "out" / "train", SIZE)
    assert {c.name: packed.num_frames(i) for i, c in enumerate(packed.clips)} == {
        "good": 12, "half": 30, "folder": 8,
    }  # fmt: skip

    # Shortened clips stay in the report; a repaired one is prepared.
    write_clip(clips / "text.mp4", 6)
    assert run(tmp_path / "clips", tmp_path / "out", *arguments) == 0
    assert set(report(tmp_path / "out")) == set(rows) - {"text"}


def test_nothing_that_can_be_used(tmp_path, capsys):
    write_clip(tmp_path / "clips" / "train" / "a.mp4", 1)
    assert run(tmp_path / "clips", tmp_path / "out") == 2
    assert "none of 1 clips could be used" in error_line(capsys, PROG)
    assert report(tmp_path / "out")["a"]["detail"] == "1 frames"


def test_frames_that_are_kept(tmp_path):
    write_clip(tmp_path / "clips" / "train" / "a.mp4", 40, rate=Fraction(30))
    for name, arguments, expected, rate in (
        ("step", ("--frame-step", 3), [*range(0, 40, 3)], 10),
        ("max", ("--max-frames", 7), [*range(7)], 30),
        ("both", ("--frame-step", 4, "--max-frames", 5), [0, 4, 8, 12, 16], Fraction(15, 2)),
    ):
        assert run(tmp_path / "clips", tmp_path / name, *arguments) == 0
        packed = PackedClips(tmp_path / name / "train", SIZE)
        assert read_all(packed) == {"a": (rate, expected)}


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_frames_of_another_shape(tmp_path, fit):
    write_clip(tmp_path / "clips" / "train" / "a.mp4", 3, (96, 64))
    assert run(tmp_path / "clips", tmp_path / "out", "--fit", fit) == 0
    (frame,) = PackedClips(tmp_path / "out" / "train", SIZE).read(0, [1])
    expected = ClipFolder(tmp_path / "clips", "train", SIZE, fit).read(0, [1])[0]
    assert abs(frame.astype(int) - expected).mean() < 2


def test_folders_of_frames_are_lossless_clips(clips, tmp_path):
    assert run(clips, tmp_path / "out", "--format", "frames") == 0
    plain, written = ClipFolder(clips, "train", SIZE), ClipFolder(tmp_path / "out", "train", SIZE)
    assert plain.clips == written.clips
    for index in range(4):
        assert plain.frame_rate(index) == written.frame_rate(index)
        np.testing.assert_array_equal([*plain.stream(index)], [*written.stream(index)])


def test_robot_records(tmp_path):
    records = [robot_record(3 * n, 3, 64) for n in range(5)]
    for split in ("train", "test"):
        write_records(tmp_path / "softmotion30_44k" / split / "traj_0_to_4.tfrecords", records)
    assert run(tmp_path / "softmotion30_44k", tmp_path / "out", "--image-size", 64) == 0
    packed = PackedClips(tmp_path / "out" / "test", (64, 64))
    found = read_all(packed)
    assert [*found] == [f"traj_0_to_4_{n:05d}" for n in range(5)]
    assert [numbers for _, numbers in found.values()] == [
        [3 * n, 3 * n + 1, 3 * n + 2] for n in range(5)
    ]


def test_a_split_by_identities_stays_when_clips_join(tmp_path):
    for number in range(8):
        write_strip(tmp_path / "clips" / f"id{number}#a.png", 2)
    assert run(tmp_path / "clips", tmp_path / "out", "--test-share", 0.25) == 0
    before = {
        split: {clip.name for clip in PackedClips(tmp_path / "out" / split, SIZE).clips}
        for split in ("train", "test")
    }
    assert (len(before["train"]), len(before["test"])) == (6, 2)
    for number in range(16):
        write_strip(tmp_path / "clips" / f"id{number}#b.png", 2)
    assert run(tmp_path / "clips", tmp_path / "out", "--test-share", 0.25) == 0
    ids = {}
    for split in ("train", "test"):
        names = {clip.name for clip in PackedClips(tmp_path / "out" / split, SIZE).clips}
        assert before[split] <= names
        ids[split] = {name.split("#")[0] for name in names}
    assert not ids["train"] & ids["test"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("--quality", 90), "was prepared with --quality 95, not --quality 90"),
        (("--image-size", 32), "was prepared with --image-size 48x64, not --image-size 32x32"),
        (("--max-frames", 3), "was prepared with no --max-frames, not --max-frames 3"),
        (("--format", "frames"), "was prepared with --format packed, not --format frames"),
    ],
)
def test_other_settings_are_refused(clips, tmp_path, capsys, change, expected):
    assert run(clips, tmp_path / "out") == 0
    before = files(tmp_path / "out")
    capsys.readouterr()
    assert run(clips, tmp_path / "out", *change) == 2
    assert expected in error_line(capsys, PROG)
    assert files(tmp_path / "out") == before


def test_folders_that_are_not_free(clips, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    assert run(clips, tmp_path / "full") == 2
    assert "holds thesis.tex, which no earlier run wrote" in error_line(capsys, PROG)
    (tmp_path / "file").touch()
    assert run(clips, tmp_path / "file" / "out") == 2
    assert "cannot be written: not a directory" in error_line(capsys, PROG)
    assert run(clips, clips / "out") == 2
    assert "lies in --input" in error_line(capsys, PROG)
    assert run(clips, tmp_path / "out", "--min-frames", 9, "--max-frames", 3) == 2
    assert "--max-frames 3: below --min-frames 9" in error_line(capsys, PROG)


def test_one_run_at_a_time(tmp_path):
    with (
        prepare_folder.claimed(tmp_path / "out", {}),
        pytest.raises(UserError, match="another run is preparing clips into it"),
        prepare_folder.claimed(tmp_path / "out", {}),
    ):
        pass
    with prepare_folder.claimed(tmp_path / "out", {}):
        pass


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("prepared.json", "prepared.json: damaged"),
        ("report.csv", "report.csv: has been changed"),
    ],
)
def test_damaged_settings_and_report(clips, tmp_path, capsys, name, expected):
    assert run(clips, tmp_path / "out") == 0
    (tmp_path / "out" / name).write_text("{\n1\n")
    capsys.readouterr()
    assert run(clips, tmp_path / "out") == 2
    assert expected in error_line(capsys, PROG)


@pytest.mark.parametrize("form", ["packed", "frames"])
def test_a_disk_that_is_full_while_a_clip_is_written(clips, tmp_path, monkeypatch, capsys, form):
    """The clip is named, not the temporary file that is gone again."""

    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("datasets.prepare.convert.write_fragment", full)
    monkeypatch.setattr("media.video_writer.encode_image", full)
    assert run(clips, tmp_path / "out", "--format", form, "--workers", "1") == 2
    line = error_line(capsys, PROG)
    assert "cannot be written" in line
    assert re.search(r"out/(train|test)/[^.]", line), line
    assert ".tmp" not in line


def test_full_disk(clips, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("datasets.pack_writer.shutil.copyfileobj", full)
    assert run(clips, tmp_path / "out") == 2
    assert "test: cannot be written: no space left" in error_line(capsys, PROG)
    monkeypatch.undo()
    assert run(clips, tmp_path / "out") == 0
    assert len(PackedClips(tmp_path / "out" / "train", SIZE).clips) == 4


@pytest.mark.parametrize(
    "option",
    [
        "--image-size 8",
        "--image-size 4y4",
        "--quality 0",
        "--quality 101",
        "--test-share 1",
        "--workers 0",
        "--frame-step 0",
    ],
)
def test_options_out_of_range(tmp_path, option, capsys):
    with pytest.raises(SystemExit):
        run(tmp_path, tmp_path / "out", *option.split())
    assert option.split()[0] in capsys.readouterr().err


def test_a_run_on_packed_clips(clips, tmp_path, capsys):
    """data.root may have one split packed and the other as plain clips."""
    assert run(clips, tmp_path / "out") == 0
    write_clip(tmp_path / "out" / "test" / "x.mp4", 2)
    (tmp_path / "out" / "test" / "pack.json").unlink()
    config = tiny_config("data.kind=clips", f"data.root={tmp_path / 'out'}")
    assert isinstance(build_source(config.data, "train"), PackedClips)
    assert isinstance(build_source(config.data, "test"), ClipFolder)
    assert "4 clips, 4 ids, 27 frames; height x width: 48 x 64 (4)" in preflight(
        build_source(config.data, "train")
    )
    root = f"data.root={tmp_path / 'out'}"
    options = ("data.kind=clips", root, "data.id_sampling=true", "data.num_workers=2")
    assert call(train, *tiny(tmp_path / "run", *options)) == 0
    assert "4 clips, 3 ids, 27 frames" in capsys.readouterr().out
    assert len(metrics(tmp_path / "run")) > 0
