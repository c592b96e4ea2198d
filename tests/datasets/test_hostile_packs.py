"""Untrusted packs: what they state is checked before anything is opened or written."""

import io
import json
import os
import tracemalloc
import zlib
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

import reconstruct
from common.errors import UserError
from datasets.pack_writer import CLIPS, FRAME, FRAMES, PACK, PackWriter, read_pack
from datasets.packed import PackedClips
from media.video import VideoError
from tests.datasets.test_packed import SIZE, add, contents, pack
from tests.helpers.hostile_media import write_with_times
from tests.helpers.media import frame_numbers
from tests.helpers.runs import call, error_line, step_file


@pytest.fixture
def packed(tmp_path):
    return pack(tmp_path / "train")


def change_line(folder, **fields):
    """Change the first line of clips.jsonl."""
    first, *others = (folder / CLIPS).read_text().splitlines()
    lines = [json.dumps(json.loads(first) | fields), *others]
    (folder / CLIPS).write_text("".join(f"{line}\n" for line in lines))


@pytest.mark.parametrize("is_finished", [True, False])
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"name": "../../x"}, r"line 1: '\.\./\.\./x' cannot be a name: it begins with a dot"),
        ({"name": "a/../../x"}, r"line 1: 'a/\.\./\.\./x' cannot be a name: it has a slash"),
        ({"name": "a\u001b[2J"}, r"line 1: 'a\\x1b\[2J' cannot be a name: it has a control"),
        ({"name": ["a"]}, "line 1: found list in place of a name"),
        ({"name": "n" * 5000}, "it has 5000 bytes, more than 4096"),
        ({"name": "id10#c"}, "id10#c is listed twice"),
        ({"shard": "/victim.tar"}, "line 1: its shard has no name such as 00000"),
        ({"shard": "../00000.tar"}, "line 1: its shard has no name such as 00000"),
        ({"shard": "pack.json"}, "line 1: its shard has no name such as 00000"),
        ({"shard": 0}, "line 1: its shard has no name such as 00000"),
        ({"end": 0}, "line 1: num_frames, end or source of id2#b cannot be right"),
        ({"end": -512}, "line 1: num_frames, end or source of id2#b cannot be right"),
        ({"end": 1.5}, "line 1: num_frames, end or source of id2#b cannot be right"),
        (
            {"end": 10**40},
            "line 1: not readable as JSON: 10000000000000000000 is too large a number",
        ),
        ({"num_frames": True}, "line 1: num_frames, end or source of id2#b cannot be right"),
        ({"num_frames": 2**22 + 1}, "line 1: num_frames, end or source of id2#b cannot be right"),
        ({"source": "s" * 70_000}, "line 1: it has more than 65,536 bytes"),
        ({"num_frames": -5}, "line 1: num_frames, end or source of id2#b cannot be right"),
        ({"source": 1}, "line 1: num_frames, end or source of id2#b cannot be right"),
        (
            {"frame_rate": "1e999999999"},
            "line 1: frame_rate of id2#b: 1e999999999 is not a frame rate",
        ),
        ({"frame_rate": "0"}, "line 1: frame_rate of id2#b: 0 frames a second"),
        ({"more": 1}, "line 1: its fields are not name, num_frames"),
    ],
)
def test_impossible_lines_of_clips(packed, fields, expected, is_finished):
    change_line(packed, **fields)
    if not is_finished:
        (packed / PACK).write_text(json.dumps({"format": 1, "image_size": SIZE}))
    before = contents(packed)
    for open_pack in (PackedClips, PackWriter):
        with pytest.raises(
            UserError, match=rf"clips\.jsonl: damaged; .*{expected}.*; copy"
        ) as told:
            open_pack(packed, SIZE)
        assert str(told.value).isprintable()
        assert len(str(told.value)) < 400
    assert contents(packed) == before


def test_a_clip_that_ends_behind_its_shard(packed):
    last = (packed / CLIPS).read_text().splitlines()[-1]
    (packed / CLIPS).write_text(
        (packed / CLIPS).read_text().replace(last, json.dumps(json.loads(last) | {"end": 10**9}))
    )
    with pytest.raises(UserError, match=r"id2#a is listed twice, or ends at byte 1000000000 of"):
        PackedClips(packed, SIZE)


@pytest.mark.parametrize(
    "header",
    [
        {"image_size": [0, 32]},
        {"image_size": [10**9, 10**9]},
        {"image_size": ["48", "64"]},
        {"shards": {"../00000.tar": 5}},
        {"shards": {"00000.tar": "5"}},
        {"shards": ["00000.tar"]},
        {"shards": 1},
    ],
)
def test_impossible_headers(packed, header):
    (packed / PACK).write_text(json.dumps(json.loads((packed / PACK).read_text()) | header))
    with pytest.raises(UserError, match=r"pack\.json: damaged; copy"):
        PackedClips(packed, SIZE)


def test_a_file_of_brackets_is_refused(packed):
    for name in (CLIPS, PACK):
        (packed / name).write_text("[" * 200_000 + "\n")
        with pytest.raises(UserError, match=rf"{name}: damaged"):
            PackedClips(packed, SIZE)


@pytest.mark.parametrize(
    ("name", "begin", "part", "expected"),
    [
        (PACK, b"[1", b",[]", r"pack\.json: is larger than the 1,048,576 bytes"),
        (CLIPS, b"[1", b",[]", "line 1: it has more than 65,536 bytes"),
        (CLIPS, b"\n", b"\n", "line 1: not readable as JSON"),
    ],
    ids=["header", "one line", "many lines"],
)
def test_lists_take_little_more_memory_than_their_bytes(packed, name, begin, part, expected):
    """A list of two bytes takes 64, and a line of one byte takes 8, where all are kept at once."""
    content = begin + part * 1_200_000 + b"]\n"
    (packed / name).write_bytes(content)
    tracemalloc.start()
    with pytest.raises(UserError, match=expected):
        read_pack(packed)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 9_000_000


@pytest.mark.parametrize("name", [PACK, CLIPS])
def test_no_device_or_pipe_is_read(packed, name):
    (packed / name).unlink()
    (packed / name).symlink_to("/dev/zero")
    with pytest.raises(UserError, match=rf"{name}: is not a plain file; .*copy"):
        PackedClips(packed, SIZE)


@pytest.mark.parametrize("field", ["offset", "size"])
def test_frames_that_lie_behind_the_shard(packed, field):
    """The four gigabytes of such a frame are not allocated."""
    table = np.fromfile(packed / FRAMES, FRAME)
    table[field] = np.iinfo(table[field].dtype).max
    table.tofile(packed / FRAMES)
    with pytest.raises(VideoError, match=r"00000\.tar: too short for frame 0 of id2#b; copy"):
        PackedClips(packed, SIZE).read(1, [0])


@pytest.mark.parametrize(
    ("size", "mode", "options", "found"),
    [
        ((640, 480), "RGB", {}, "640 x 480, RGB"),
        (SIZE[::-1], "L", {}, "64 x 48, L"),
        (SIZE[::-1], "RGB", {"progressive": True}, "a JPEG of another kind than packs have"),
        (SIZE[::-1], "RGB", {"exif": b"Exif\0\0II*\0"}, "a JPEG of another kind than packs have"),
        (SIZE[::-1], "RGB", {"comment": b"a"}, "a JPEG of another kind than packs have"),
        (None, "", {}, "a JPEG of another kind than packs have"),
    ],
)
def test_a_picture_of_another_kind_is_not_shown(tmp_path, size, mode, options, found):
    """It is not decoded. Its checksum is right, since the maker of the pack has computed it."""
    content = io.BytesIO(b"no picture")
    if size is not None:
        content = io.BytesIO()
        Image.new(mode, size).save(content, "jpeg", **options)
    data = content.getvalue()
    with PackWriter(tmp_path, SIZE) as writer:
        add(writer, "a", 2)
        part = tmp_path / "part"
        part.write_bytes(data + bytes(-len(data) % 512))
        table = np.array([(0, len(data), zlib.crc32(data))], FRAME)
        writer.append("b", Fraction(25), "", part, table)
        writer.finish()
    source = PackedClips(tmp_path, SIZE)
    assert frame_numbers(source.read(0, [1])) == [1]
    with pytest.raises(VideoError, match=rf"0 of b is no picture of 64 x 48 pixels .*{found}"):
        source.read(1, [0])


@pytest.mark.parametrize("name", [CLIPS, FRAMES, "00000.tar"])
def test_a_link_in_place_of_a_file_is_not_written_through(tmp_path, name):
    with PackWriter(tmp_path / "train", SIZE) as writer:
        add(writer, "a", 3)
    outside = tmp_path / "victim"
    (tmp_path / "train" / name).rename(outside)
    (tmp_path / "train" / name).symlink_to(outside)
    before = outside.read_bytes()
    with (
        PackWriter(tmp_path / "train", SIZE) as writer,
        pytest.raises(UserError, match=f"{name}: is a link, and nothing is written to it"),
    ):
        add(writer, "b", 3)
    assert outside.read_bytes() == before


@pytest.mark.parametrize("shard", ["999999999.tar", "00002.tar"])
def test_a_shard_after_which_none_can_follow(tmp_path, shard):
    """Clips added to such a pack went to 1000000000.tar, which made all of it unreadable."""
    folder = tmp_path / "train"
    with PackWriter(folder, SIZE) as writer:
        add(writer, "a", 2)
    change_line(folder, shard=shard)
    (folder / "00000.tar").rename(folder / shard)
    with pytest.raises(UserError, match=rf"of {shard}, which cannot be right"):
        PackWriter(folder, SIZE, shard_bytes=1)


def test_a_clip_of_years_does_not_end_an_evaluation(tiny_run, tmp_path, capsys):
    write_with_times(tmp_path / "data" / "test" / "a.mkv", range(0, 10**10, 5 * 10**9))
    write_with_times(tmp_path / "data" / "test" / "b.mkv", [0, 40, 10**13])
    data = ("--data-root", tmp_path / "data", "--output", tmp_path / "out")
    assert call(reconstruct, "--checkpoint", step_file(tiny_run, 8), *data) == 0
    assert len([*(tmp_path / "out").rglob("*.mp4")]) == 2
    lines = [line for line in capsys.readouterr().out.splitlines() if "frame rate" in line]
    assert lines == [
        "clip a: impossible frame rate; 2e-07 frames a second, now 4.63e-05",
        "clip b: impossible frame rate; 2e-10 frames a second, now 4.63e-05",
    ]


def test_an_evaluation_writes_nowhere_else(tiny_run, tmp_path, capsys):
    (tmp_path / "data").mkdir()
    pack(tmp_path / "data" / "test")
    change_line(tmp_path / "data" / "test", name="../../../x")
    victim = tmp_path / "x.mp4"
    victim.write_text("mine")
    data = ("--data-root", tmp_path / "data", "--output", tmp_path / "a" / "b" / "out")
    assert call(reconstruct, "--checkpoint", step_file(tiny_run, 8), *data) == 2
    assert "'../../../x' cannot be a name: it begins with a dot" in error_line(
        capsys, "reconstruct.py"
    )
    assert victim.read_text() == "mine"
    assert not (tmp_path / "a").exists()


def test_a_frame_larger_than_its_picture_could_need(packed, monkeypatch):
    shard = packed / "00000.tar"
    header = json.loads((packed / PACK).read_text())
    os.truncate(shard, 2**33)
    (packed / PACK).write_text(json.dumps(header | {"shards": {"00000.tar": 2**33}}))
    table = np.fromfile(packed / FRAMES, FRAME)
    table["size"][0] = 2**32 - 1
    table.tofile(packed / FRAMES)
    monkeypatch.setattr(os, "pread", lambda *_: pytest.fail("it was read"))
    with pytest.raises(VideoError, match=r"frame 0 of id2#b has 4,294,967,295 bytes, too many"):
        PackedClips(packed, SIZE).read(1, [0])


@pytest.mark.parametrize("name", [FRAMES, "00000.tar"])
@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_told_even_if_nothing_is_read_of_it(packed, name, make):
    (packed / name).unlink()
    make(packed / name)
    with pytest.raises(UserError, match=f"{name}: is not a plain file; copy the folder again"):
        read_pack(packed)


@pytest.mark.parametrize("name", ["00001.tar", "000000.tar", "000001.tar"])
def test_shards_begin_with_the_first(packed, name):
    """Whoever continues such a pack would write to other names."""
    header = json.loads((packed / PACK).read_text())
    header["shards"] = {name: header["shards"]["00000.tar"]}
    (packed / PACK).write_text(json.dumps(header))
    (packed / "00000.tar").rename(packed / name)
    (packed / CLIPS).write_text((packed / CLIPS).read_text().replace("00000.tar", name))
    with pytest.raises(UserError, match=f"of {name}, which cannot be right"):
        read_pack(packed)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, kind) for name in (CLIPS, FRAMES, "00000.tar") for kind in ("link", "hard link")),
        *((name, "short") for name in (FRAMES, "00000.tar")),
    ],
)
def test_a_pack_that_cannot_go_on_stays_as_it_is(packed, tmp_path, name, kind):
    """A finished pack with such a file would count as unfinished for ever."""
    path, other = packed / name, tmp_path / "other"
    if kind == "short":
        path.write_bytes(path.read_bytes()[:-2000])
    elif kind == "link":
        path.rename(other)
        path.symlink_to(other)
    else:
        other.hardlink_to(path)
    before = contents(packed)
    with pytest.raises(UserError), PackWriter(packed, SIZE) as writer:
        add(writer, "new", 2)
    (packed / ".part").unlink()
    assert contents(packed) == before
