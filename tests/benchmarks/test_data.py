"""benchmarks/data.py on a tiny clip: the clip in every form, and the tables."""

import json

import numpy as np
import pytest

from benchmarks import data
from benchmarks.data import mean_psnr, store_in_all_ways
from common.cli import run_entry_point
from tests.helpers.media import frame_numbers, numbered_frame, write_clip
from tests.helpers.runs import error_line


@pytest.fixture(autouse=True)
def small_and_short(monkeypatch):
    monkeypatch.setattr(data, "SIZE", (48, 64))
    monkeypatch.setattr(data, "SECONDS", 0.001)


def run(*arguments):
    return run_entry_point(data.main, data.build_parser(), [*map(str, arguments)])


def test_every_row_holds_the_same_clip(tmp_path):
    original = np.stack([numbered_frame(number, (48, 64)) for number in range(20)])
    stored = {way.name: way.clips for way in store_in_all_ways(tmp_path, original)}
    assert len(stored) == 8
    decoded = stored["mp4, full decode"].read(0, range(20))
    assert frame_numbers(decoded) == [*range(20)]
    lossless = ("mp4, full decode", "mp4, key frame every 250", "folder of png", "array")
    for name, clips in stored.items():
        assert clips.num_frames(0) == 20
        assert frame_numbers(clips.read(0, [19, 3])) == [19, 3]
        is_same = np.array_equal(clips.read(0, [7]), decoded[7:8])
        assert is_same == (name in lossless)
    np.testing.assert_array_equal(
        stored["packed"].read(0, [5]), stored["folder of jpg"].read(0, [5])
    )


def test_psnr_by_hand():
    black, grey = np.zeros((2, 4, 4, 3), np.uint8), np.full((2, 4, 4, 3), 51, np.uint8)
    assert mean_psnr(grey, black) == pytest.approx(-20 * np.log10(0.2))


def test_tables(tmp_path, capsys):
    clip = write_clip(tmp_path / "clip.mp4", 9)
    output = tmp_path / "data.json"
    arguments = ("--clip", clip, "--rounds", 1, "--workers", 1, "--output", output)
    assert run(*arguments) == 0
    report = json.loads(output.read_text())
    assert report["num_frames"] == 9
    rows = {row["stored as"]: row for row in report["reading"]}
    assert {"packed", "packed, bare", "packed, 1 processes", "array"} < rows.keys()
    assert rows["array"]["kB a frame"] == pytest.approx(48 * 64 * 3 / 1000, rel=0.02)
    assert rows["packed"]["kB a frame"] == rows["packed, bare"]["kB a frame"] > 1
    assert all(row["pairs/s"] > 0 for row in rows.values())
    assert rows["mp4, full decode"]["to full decode"] == 1
    loss = {row[""]: row for row in report["loss"]}
    assert loss["mp4, CRF 23"]["dB to the mp4"] is None
    for worse, better in (("90, 4:2:0", "95, 4:2:0"), ("95, 4:2:0", "95, 4:4:4")):
        worse, better = loss[f"JPEG {worse}"], loss[f"JPEG {better}"]
        assert worse["dB to the mp4"] < better["dB to the mp4"]
        assert worse["kB a frame"] < better["kB a frame"]
    text = capsys.readouterr().out
    assert f"9 frames of {clip}, 48 x 64 pixels" in text
    assert "| packed " in text
    assert "JPEG 100, 4:4:4" in text


def test_bad_input(tmp_path, capsys):
    write_clip(tmp_path / "still.mp4", 1)
    assert run("--clip", tmp_path / "still.mp4", "--output", tmp_path / "a.json") == 2
    assert "has a single frame" in error_line(capsys, "python -m benchmarks.data")
