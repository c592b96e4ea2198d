"""Tests of listing and unpacking packed clips."""

import json
import os
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from common.cli import run_entry_point
from datasets import unpack
from datasets.pack_writer import PackWriter, write_fragment
from datasets.packed import PackedClips
from media.video import open_clip
from tests.helpers.media import frame_numbers, numbered_frame
from tests.helpers.runs import REPOSITORY, environment, error_line

PROG = "python -m datasets.unpack"


def run(*arguments):
    return run_entry_point(unpack.main, unpack.build_parser(), [*map(str, arguments)])


@pytest.fixture
def packed(tmp_path):
    with PackWriter(tmp_path / "train", (48, 64)) as writer:
        for name, num_frames in (("id1#a", 10), ("id2#b", 5)):
            part = tmp_path / "part"
            frames = [numbered_frame(number) for number in range(num_frames)]
            table = write_fragment(part, name, frames, 95)
            writer.append(name, Fraction(25, 2), f"from/{name}.mp4", part, table)
        writer.finish()
    return tmp_path / "train"


def test_list(packed, capsys):
    assert run(packed) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "id1#a  10 frames  0.8 s  from/id1#a.mp4"
    assert lines[1] == "id2#b  5 frames  0.4 s  from/id2#b.mp4"
    assert lines[2] == f"{packed}: 2 clips, 2 ids, 15 frames; height x width: 48 x 64 (2)"


def test_list_cannot_turn_the_text_around(packed, capsys):
    path = packed / "clips.jsonl"
    path.write_text(path.read_text().replace("from/", "\\u202efrom/"))
    assert run(packed) == 0
    printed = capsys.readouterr().out
    assert "\\u202e" in printed
    assert "\u202e" not in printed


def test_unpack_a_clip(packed, tmp_path, capsys):
    source = PackedClips(packed, (48, 64))
    assert run(packed, "--clip", "id2#b", "--output", tmp_path / "frames") == 0
    clip = open_clip(tmp_path / "frames")
    assert clip.frame_rate == Fraction(25, 2)
    np.testing.assert_array_equal(clip.read(range(5)), source.read(1, range(5)))
    assert run(packed, "--clip", "id1#a", "--output", tmp_path / "a.mp4") == 0
    assert frame_numbers(np.stack([*open_clip(tmp_path / "a.mp4")])) == [*range(10)]
    assert "10 frames of id1#a" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--clip", "id1", "--output", "x"), "--clip id1: not in .*, which has id1#a, id2#b"),
        (("--clip", "id1#a"), "--clip and --output: give both, or neither"),
        (("--output", "x"), "--clip and --output: give both, or neither"),
    ],
)
def test_bad_input(packed, capsys, arguments, expected):
    assert run(packed, *arguments) == 2
    with pytest.raises(ValueError, match=expected):
        raise ValueError(error_line(capsys, PROG))


def test_not_a_pack(packed, capsys):
    assert run(packed.parent) == 2
    assert "no packed clips (no pack.json); give train/" in error_line(capsys, PROG)


def test_a_damaged_clip_leaves_nothing(packed, tmp_path, capsys):
    shard = packed / "00000.tar"
    content = bytearray(shard.read_bytes())
    content[content.index(b"\xff\xd8\xff", 8000) + 500] ^= 1
    shard.write_bytes(content)
    failed = [
        run(packed, "--clip", name, "--output", tmp_path / "out.mp4") for name in ("id1#a", "id2#b")
    ]
    assert sorted(failed) == [0, 2]
    assert "is damaged; copy the folder again" in error_line(capsys, PROG)


def test_list_of_an_unfinished_pack(packed, capsys):
    header = packed / "pack.json"
    header.write_text(json.dumps({"format": 1, "image_size": [48, 64]}))
    assert run(packed) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["id1#a", "id2#b"]
    assert lines[2] == f"{packed}: 2 clips so far; packing has not finished"
    assert run(packed, "--clip", "id1#a", "--output", packed.parent / "a.mp4") == 2
    assert "packing ended early, after 2 clips" in error_line(capsys, PROG)


@pytest.mark.parametrize("rate", ["1/1" + "0" * 400, "1" + "0" * 400])
def test_a_frame_rate_that_nothing_has_is_damage(packed, capsys, rate):
    table = packed / "clips.jsonl"
    clips = [json.loads(line) for line in table.read_text().splitlines()]
    clips[0]["frame_rate"] = rate
    table.write_text("".join(json.dumps(clip) + "\n" for clip in clips))
    assert run(packed) == 2
    line = error_line(capsys, PROG)
    assert f"{table}: damaged; line 1: frame_rate of id1#a" in line


@pytest.mark.parametrize("rate", ["Infinity", "1e999", "NaN"])
def test_a_frame_rate_that_is_no_number_is_damage(packed, capsys, rate):
    table = packed / "clips.jsonl"
    lines = table.read_text().splitlines()
    first = json.loads(lines[0]) | {"frame_rate": "RATE"}
    lines[0] = json.dumps(first).replace('"RATE"', rate)
    table.write_text("".join(f"{line}\n" for line in lines))
    assert run(packed) == 2
    assert f"{table}: damaged" in error_line(capsys, PROG)


def test_a_reader_that_closes_the_pipe(packed):
    """`| head` closes the pipe early."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "datasets.unpack", str(packed)]
    ended = subprocess.run(
        command, cwd=REPOSITORY, env=environment(), stdout=writer, stderr=subprocess.PIPE
    )
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, b"")  # as if by SIGPIPE
