"""Tests what ends a run and what does not, and what later runs keep: kills, strange files."""

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from fractions import Fraction
from functools import partial
from pathlib import Path

import pytest

from common.errors import UserError
from common.json_files import MIN_RATE
from datasets.packed import PackedClips
from datasets.prepare import folder as prepare_folder
from datasets.prepare.candidates import Candidate
from datasets.prepare.convert import ConvertOptions, Remark, convert
from datasets.prepare.footage import BoxedClip, Region, WholeClip
from media.crops import Box
from media.frame_folder import stated_frame_rate
from tests.helpers import dying
from tests.helpers.clip_files import run
from tests.helpers.hostile import write_large_gif
from tests.helpers.hostile_media import write_with_times
from tests.helpers.media import damage, frame_numbers, write_clip, write_strip
from tests.helpers.runs import REPOSITORY, environment, error_line, wait_until
from tests.media.test_deinterlace import KINDS, woven, write_interlaced

PROG = "python -m datasets.prepare"
SETTINGS = ConvertOptions("packed", (48, 64), "crop", 95, 1, 2, None, 1)


def names(output, split):
    return {clip.name for clip in PackedClips(output / split, (48, 64)).clips}


def report(output):
    with (output / "report.csv").open(newline="") as file:
        return {row["clip"]: row for row in csv.DictReader(file)}


def is_alive(process_id):
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="lists processes as Linux does")
@pytest.mark.parametrize("form", ["packed", "frames"])
def test_killed_without_a_warning(tmp_path, form):
    """If the command alone gets SIGKILL, its processes end too; clips and remarks are kept."""
    clips, out = tmp_path / "clips" / "train", tmp_path / "out"
    short = write_clip(clips / "00.mp4", 60, (96, 128), gop=12, codec_options={"bf": "0"})
    damage(short, 30, 59)
    first = write_clip(clips / "01.mp4", 60, (96, 128))
    for number in range(2, 24):
        shutil.copy(first, clips / f"{number:02d}.mp4")
    options = ["--image-size", "96x128", "--workers", "2", "--format", form]
    command = [sys.executable, "-m", "datasets.prepare", *options]
    command += ["--input", str(clips.parent), "--output", str(out)]
    process = subprocess.Popen(command, cwd=REPOSITORY, env=environment())
    found = partial(prepare_folder.finished_clips, out)
    wait_until(lambda: len(found()) >= 1, process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.wait()
    assert len(children) >= 2
    assert 1 <= len(found()) < 24
    assert report(out)["00"]["outcome"] == "shortened"
    deadline = time.monotonic() + 10
    while any(map(is_alive, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, children))

    assert run(clips.parent, out, *options) == 0
    assert len(found()) == 24
    assert [*report(out)] == ["00"]
    assert not [*(out / "train").glob(".*")]
    if form == "packed":
        packed = PackedClips(out / "train", (96, 128))
        for index in range(1, 24):
            assert frame_numbers(packed.read(index, [0, 59])) == [0, 59]


def test_a_report_that_was_torn_off(tmp_path):
    """The last row is about a clip that was not finished."""
    clips = tmp_path / "clips" / "train"
    for name in ("a", "ab"):
        damage(write_clip(clips / f"{name}.mp4", 60, gop=12, codec_options={"bf": "0"}), 30, 59)
    assert run(tmp_path / "clips", tmp_path / "out") == 0
    rows = report(tmp_path / "out")
    path = tmp_path / "out" / "report.csv"
    path.write_bytes(path.read_bytes() + b"train,a,shortened\xe6")
    assert run(tmp_path / "clips", tmp_path / "out") == 0
    assert report(tmp_path / "out") == rows


def test_a_process_that_dies_while_others_are_sent_for(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare_folder, "convert", dying.die_at_the_second)
    clips = [Candidate("train", str(n), WholeClip(tmp_path / str(n))) for n in range(20)]
    results = prepare_folder._convert_all(clips, SETTINGS, tmp_path, 2)
    next(results)
    time.sleep(1)  # until the second one has died
    with pytest.raises(UserError, match="0: a process died near this clip"):
        next(results)


class Odd:
    source = "odd.mp4"

    def open(self, limits=None):
        raise ZeroDivisionError("division by zero")


def test_an_unexpected_error_of_a_clip(tmp_path):
    outcome = convert(Candidate("train", "a", Odd()), SETTINGS, tmp_path / "part")
    detail = "ZeroDivisionError: division by zero"
    remark = Remark("train", "a", "rejected", "cannot be read", detail, "odd.mp4")
    assert outcome[:2] == (None, remark)
    assert outcome.traceback is not None
    assert "raise ZeroDivisionError" in outcome.traceback


class TooLarge:
    source = "large.mp4"

    def open(self, limits=None):
        raise MemoryError


def test_lack_of_memory_does_not_reject_the_clip(tmp_path, capsys, monkeypatch):
    with pytest.raises(MemoryError):
        convert(Candidate("train", "a", TooLarge()), SETTINGS, tmp_path / "part")
    write_clip(tmp_path / "clips" / "train" / "b.mp4", 4)
    monkeypatch.setattr(WholeClip, "open", TooLarge.open)
    assert run(tmp_path / "clips", tmp_path / "out") == 2
    assert "not enough memory; start again with fewer --workers" in (error_line(capsys, PROG))


def test_changed_clips_are_reported(tmp_path, capfd, caplog):
    """The report has rows and the summary a line that counts them; no warnings between clips."""
    (tmp_path / "clips" / "train").mkdir(parents=True)
    for name in ("a#1", "b#1"):
        frames = [woven(number) for number in range(4)]
        write_interlaced(tmp_path / "clips" / "train" / f"{name}.mp4", frames, *KINDS["h264.mp4"])
    write_clip(tmp_path / "clips" / "train" / "c#1.mp4", 4)
    assert run(tmp_path / "clips", tmp_path / "out", "--workers", 2) == 0
    rows = report(tmp_path / "out")
    assert sorted(rows) == ["a#1", "b#1"]
    for row in rows.values():
        assert (row["outcome"], row["reason"]) == ("changed", "interlaced")
        assert row["detail"] == "interlaced; made whole (bwdif)"
    said = capfd.readouterr()
    assert "2 changed: interlaced" in said.out.splitlines()
    assert "interlaced" not in said.err
    assert caplog.messages == []


@pytest.mark.parametrize("debug", [False, True])
def test_one_strange_clip_is_a_row_and_the_rest_is_prepared(tmp_path, capsys, debug):
    write_clip(tmp_path / "clips" / "b.mp4", 4)
    odd = Candidate("train", "a", Odd())
    fine = Candidate("train", "b", WholeClip(tmp_path / "clips" / "b.mp4"))
    out = tmp_path / "out"
    with prepare_folder.claimed(out, {}):
        prepare_folder.note_settings(out, {})
        summary = prepare_folder.prepare([odd, fine], SETTINGS, out, 1, debug)
    assert summary.num_clips == 1
    assert report(out)["a"]["detail"] == "ZeroDivisionError: division by zero"
    assert ("raise ZeroDivisionError" in capsys.readouterr().err) == debug


@pytest.mark.parametrize("form", ["packed", "frames"])
def test_a_clip_of_years_does_not_spoil_the_others(tmp_path, capsys, form):
    """A pack with its frame rate could be written, but neither read nor continued."""
    write_clip(tmp_path / "clips" / "train" / "b.mp4", 4)
    write_with_times(tmp_path / "clips" / "train" / "a.mkv", range(0, 10**10, 10**9))
    write_with_times(tmp_path / "clips" / "train" / "c.mkv", [*range(0, 1000, 40), 10**13])
    for _ in range(2):
        assert run(tmp_path / "clips", tmp_path / "out", "--format", form, "--frame-step", 2) == 0
    folder = tmp_path / "out" / "train"
    if form == "packed":
        rates = {clip.name: clip.frame_rate for clip in PackedClips(folder, (48, 64)).packed}
    else:
        rates = {path.name: stated_frame_rate(path) for path in folder.iterdir()}
    assert rates == {"a": MIN_RATE, "b": Fraction(25, 2), "c": MIN_RATE}
    assert "2 changed: impossible frame rate\n" in capsys.readouterr().out
    rows = report(tmp_path / "out")
    assert [*rows] == ["a", "c"]
    assert rows["a"]["detail"] == "impossible frame rate; 5e-07 frames a second, now 1e-05"


@pytest.mark.parametrize("reason", ["damaged", "ends early"])
def test_a_clip_of_years_that_is_shortened(tmp_path, reason):
    """Its row of the report says both."""
    path = write_with_times(tmp_path / "a.mkv", range(0, 10**10, 10**9))
    footage = BoxedClip(path, 0, 20, None, Region(Box(0, 0, 64, 48), None))
    if reason == "damaged":
        damage(path, 6, 9)
        footage = WholeClip(path)
    outcome = convert(Candidate("train", "a", footage), SETTINGS, tmp_path / "out")
    assert (outcome.remark.outcome, outcome.remark.reason) == ("shortened", reason)
    assert outcome.remark.detail.endswith(
        "; impossible frame rate; 1e-06 frames a second, now 1e-05"
    )


@pytest.mark.parametrize("rate", [None, Fraction(25)])
def test_a_part_before_a_gap_of_years_has_its_own_rate(tmp_path, rate):
    path = write_with_times(tmp_path / "a.mkv", [*range(0, 400, 40), 10**13])
    region = Region(Box(0, 0, 64, 48), None)
    assert BoxedClip(path, 2, 8, rate, region).open().frame_rate == 25


def test_long_names(tmp_path):
    write_clip(tmp_path / "clips" / "train" / ("x" * 150) / ("y" * 150 + ".mp4"), 2)
    write_clip(tmp_path / "clips" / "train" / "short.mp4", 2)
    long = "x" * 150 + "#" + "y" * 150
    assert run(tmp_path / "clips", tmp_path / "packed") == 0
    assert names(tmp_path / "packed", "train") == {long, "short"}
    assert run(tmp_path / "clips", tmp_path / "frames", "--format", "frames") == 0
    assert [path.name for path in (tmp_path / "frames" / "train").iterdir()] == ["short"]
    assert report(tmp_path / "frames")[long]["reason"] == "name too long"


def test_settings_count_once_a_clip_is_finished(tmp_path, capsys):
    """A first run that finished no clip does not fix the settings of the next."""
    write_strip(tmp_path / "clips" / "anna#a.png", 3)
    out = tmp_path / "out"
    assert run(tmp_path / "clips", out) == 2
    assert "there is one identity, anna" in error_line(capsys, PROG)
    assert run(tmp_path / "clips", out, "--test-share", 0, "--min-frames", 9) == 2
    assert "none of 1 clips could be used" in error_line(capsys, PROG)
    assert run(tmp_path / "clips", out, "--test-share", 0) == 0
    capsys.readouterr()
    assert run(tmp_path / "clips", out, "--test-share", 0, "--min-frames", 2, "--seed", 1) == 2
    assert "was prepared with --seed 0, not --seed 1" in error_line(capsys, PROG)
    (tmp_path / "clips").rename(tmp_path / "moved")
    assert run(tmp_path / "moved", out, "--test-share", 0) == 2
    assert f"was prepared with --input {tmp_path / 'clips'}, not" in error_line(capsys, PROG)


def test_settings_of_a_version_without_a_later_option(tmp_path):
    write_strip(tmp_path / "clips" / "train" / "a.png", 3)
    assert run(tmp_path / "clips", tmp_path / "out") == 0
    path = tmp_path / "out" / "prepared.json"
    note = json.loads(path.read_text())
    del note["min_size"]
    path.write_text(json.dumps(note))
    assert run(tmp_path / "clips", tmp_path / "out") == 0


def test_a_draw_is_kept_when_clips_join_an_interrupted_run(tmp_path, monkeypatch):
    for number in range(8):
        write_strip(tmp_path / "clips" / f"{number}.png", 2)

    def interrupted(candidate, settings, target):
        if candidate.split == "train":
            raise KeyboardInterrupt
        return convert(candidate, settings, target)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(prepare_folder, "convert", interrupted)
        assert run(tmp_path / "clips", out, "--test-share", 0.25) == 130
    drawn = json.loads((out / "splits.json").read_text())
    for number in range(8, 24):
        write_strip(tmp_path / "clips" / f"{number}.png", 2)
    assert run(tmp_path / "clips", out, "--test-share", 0.25) == 0
    assert len(names(out, "test")) == 6
    assert {name: "test" if name in names(out, "test") else "train" for name in drawn} == drawn


def test_an_identity_in_both_splits_is_named(tmp_path, caplog):
    for place in ("train/id1#a", "train/id2#b", "test/id1#c"):
        write_strip(tmp_path / "clips" / f"{place}.png", 2)
    for _ in range(2):
        caplog.clear()
        assert run(tmp_path / "clips", tmp_path / "out") == 0
        assert "1 identities are in train/ and in test/, the first is id1" in caplog.text


def test_a_split_that_has_nothing_left(tmp_path, capsys):
    write_strip(tmp_path / "clips" / "train" / "a.png", 3)
    write_clip(tmp_path / "clips" / "test" / "b.mp4", 1)
    assert run(tmp_path / "clips", tmp_path / "out") == 0
    assert "test/ is empty: each of its clips was rejected" in capsys.readouterr().out


@pytest.mark.skipif(os.geteuid() == 0, reason="who may read everything")
def test_a_folder_that_may_not_be_read(tmp_path, capsys):
    write_strip(tmp_path / "clips" / "train" / "a.png", 3)
    (tmp_path / "clips" / "train" / "id1").mkdir(mode=0)
    assert run(tmp_path / "clips", tmp_path / "out") == 2
    assert "id1: permission denied" in error_line(capsys, PROG)


def test_quality(tmp_path):
    write_clip(tmp_path / "clips" / "train" / "a.mp4", 4)
    for quality in (60, 95):
        assert run(tmp_path / "clips", tmp_path / f"{quality}", "--quality", quality) == 0
    small, large = (PackedClips(tmp_path / name / "train", (48, 64)) for name in ("60", "95"))
    assert len(small.jpeg(0, 0)) < 0.8 * len(large.jpeg(0, 0))


def test_processes_do_without_torch():
    """Torch would take 300 MB in each process."""
    code = "import sys, datasets.prepare.__main__; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, env=environment(), check=True)


def test_clips_that_are_too_large(tmp_path, capsys):
    """They are rows of the report until the user raises the limit."""
    write_clip(tmp_path / "clips" / "train" / "a.mp4", 4)
    write_large_gif(tmp_path / "clips" / "train" / "b.gif", 16000, 16000)
    assert run(tmp_path / "clips", tmp_path / "out") == 0
    (row,) = report(tmp_path / "out").values()
    assert (row["clip"], row["reason"]) == ("b", "cannot be read")
    assert "frames of 16000 x 16000 pixels" in row["detail"]
    assert "with --max-pixels" in row["detail"]
    capsys.readouterr()
    output = tmp_path / "other"
    assert run(tmp_path / "clips", output, "--max-pixels", 48 * 64 - 1) == 2
    assert "none of 2 clips could be used" in error_line(capsys, PROG)
    assert run(tmp_path / "clips", output, "--max-pixels", 48 * 64) == 0  # it may change
    assert names(output, "train") == {"a"}


@pytest.mark.parametrize("form", ["packed", "frames"])
def test_files_of_a_killed_run_are_deleted_and_others_stay(tmp_path, form):
    """In a container the killed process may have had the same id as this one."""
    write_clip(tmp_path / "clips" / "train" / "a.mp4", 4)
    out = tmp_path / "out"
    assert run(tmp_path / "clips", out, "--format", form) == 0
    token, process = "0123456789abcdef", os.getpid()
    left = [
        *(f".prepared.{token}.tmp.json", f".report.{process}.tmp.csv", f".splits.{token}.tmp.json"),
        *(f"train/.{token}-3.tmp", f"train/.{process}-0.tmp", f"train/.pack.{process}.tmp.json"),
        f"train/..{token}-3.{token}.tmp.tmp/00000.png",
    ]
    others = [".notes.tmp", "train/.notes.tmp.txt", "train/.mine.tmp"]
    for name in (*left, *others):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("half")
    write_clip(tmp_path / "clips" / "train" / "b.mp4", 4)
    assert run(tmp_path / "clips", out, "--format", form) == 0
    hidden = {str(path.relative_to(out)) for path in out.rglob(".*")}
    assert hidden == set(others)
