"""Tests the limit on the samples that an mp4 file states, in each box that can state them."""

import os
import struct
import zlib
from itertools import pairwise
from pathlib import Path

import pytest

from media.mp4_boxes import MAX_FREE, check_samples
from media.sound import open_sound
from media.video import VideoError, open_clip
from tests.helpers.media import SOUND_CODECS, write_clip, write_sound_clip

MANY = 100_000_000


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def long_box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4sQ", 1, kind, 16 + len(content)) + content


def words(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}I", *numbers)


def movie(*leaves: bytes) -> bytes:
    content = b"".join(leaves)
    for kind in (b"stbl", b"minf", b"mdia", b"trak", b"moov"):
        content = box(kind, content)
    return box(b"ftyp", b"isom") + content


def table(kind: bytes, *numbers: int) -> bytes:
    return box(kind, words(0, *numbers))


SIZES = table(b"stsz", 1, MANY)
START = box(b"ftyp", b"isom")
HOSTILE = {
    "sizes": movie(SIZES),
    "small sizes": movie(table(b"stz2", 8, MANY)),
    "times": movie(table(b"stts", 2, MANY // 2, 1, MANY // 2, 1)),
    "times behind the end of their box": movie(table(b"stts", 1), words(MANY, 1)),
    "delays": movie(table(b"ctts", 1, MANY, 1)),
    "edits": movie(table(b"stsz", 1, 20_000), table(b"elst", 5_000)),
    "sound": movie(table(b"stsc", 1, 1, 2_000_000_000, 1), table(b"stco", 8, *[9] * 8)),
    "fragments": box(b"moof", box(b"traf", table(b"trun", MANY))),
    "long boxes": START + long_box(b"moov", box(b"trak", SIZES)),
    "a box up to the end": b"\0\0\0\0moov" + SIZES,
    "a hidden header": START + box(b"hoov", SIZES),
    "a free header": START + box(b"free", SIZES) + box(b"mdat", bytes(9)),
    "in the description of samples": movie(box(b"stsd", words(0, 1) + box(b"raw ", SIZES))),
    "names that overlap": START + b"\0\0\0\0moov" + b"\0stt" + SIZES[4:] + bytes(99),
    "across two reads": START + box(b"free", bytes(2**20 - 26) + SIZES + bytes(2**20)),
    "beside pictures": START + box(b"mdat", b"stsz") + box(b"free", b"") + movie(SIZES),
    "after what is no box": START + movie(b"") + words(7) + b"mdat" + SIZES,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_more_than_the_file_can_hold(tmp_path, kind):
    path = tmp_path / "a.mp4"
    path.write_bytes(HOSTILE[kind])
    with pytest.raises(ValueError, match=r"it states \d{3},\d{3},\d{3} samples, and has"):
        check_samples(path)


def test_a_compressed_header(tmp_path):
    """It may hold others, and take any time and memory until one is reached."""
    path = tmp_path / "a.mov"
    header = box(b"cmvd", words(9999) + zlib.compress(movie(SIZES)))
    path.write_bytes(START + box(b"moov", box(b"cmov", box(b"dcom", b"zlib") + header)))
    with pytest.raises(ValueError, match="its header is compressed"):
        check_samples(path)


def test_boxes_and_tables_without_end(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(box(b"free", b"") * (2**20 + 1))
    with pytest.raises(ValueError, match=r"more than 1,048,576 boxes"):
        check_samples(path)
    path.write_bytes(box(b"moov", b"stco" * (2**20 + 1)))
    with pytest.raises(ValueError, match=r"more than 1,048,576 tables"):
        check_samples(path)
    path.write_bytes(box(b"moov", table(b"stts", 2**32 - 1) * 100_000))
    with pytest.raises(ValueError, match=r"more than 268,435,456 bytes of tables|it states"):
        check_samples(path)


@pytest.mark.parametrize("kind", [b"moov", b"stts", b"cmvd", b"free"])
def test_a_sparse_file(tmp_path, kind):
    path = tmp_path / "a.mp4"
    path.write_bytes(START + struct.pack(">I4sQ", 1, kind, 2**39) + b"\xff" * 8)
    os.truncate(path, 2**40)
    with pytest.raises(ValueError, match=r"more than 268,435,456 bytes beside its pictures"):
        check_samples(path)


def test_pictures_are_not_read(tmp_path):
    """Names among them mean nothing, and they may be large."""
    path = tmp_path / "a.mp4"
    path.write_bytes(movie(table(b"stsz", 1, 5)) + long_box(b"mdat", SIZES))
    check_samples(path)
    data = struct.pack(">I4sQ", 1, b"mdat", 2**40) + SIZES
    path.write_bytes(movie(table(b"stsz", 1, 5)) + data)
    os.truncate(path, 2**39)
    check_samples(path)
    path.write_bytes(movie(SIZES) + data)
    os.truncate(path, 2**39)
    with pytest.raises(ValueError, match="it states 100,000,000 samples"):
        check_samples(path)  # it has no more bytes than before


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello, this is text",
        box(b"moov", b"\0\0"),
        movie(box(b"stsz", b"\0")),
        movie(box(b"stts", words(0, 2**32 - 1, 5, 1, 7))),
        movie(box(b"stsz", words(0, 1, MAX_FREE))),
        b"\0\0\0\3moov",
        b"\0\0\0\1moov\0\0\0\0\0\0\0\2",
    ],
)
def test_torn_boxes_are_left_to_ffmpeg(tmp_path, content):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    check_samples(path)


@pytest.mark.parametrize(
    "options",
    [{}, {"movflags": "frag_keyframe+empty_moov"}, {"movflags": "faststart"}],
    ids=["plain", "fragmented", "header first"],
)
def test_honest_files(tmp_path: Path, options):
    check_samples(write_clip(tmp_path / "a.mp4", 60, gop=6, container_options=options))
    for suffix in SOUND_CODECS:  # .mov counts each sample of sound
        check_samples(write_sound_clip(tmp_path / f"sound{suffix}", [3]))


def test_hostile_files_are_not_opened(tmp_path):
    """Of any name: FFmpeg tells formats apart by their contents."""
    for name in ("a.mp4", "a.mkv", "a.gif"):
        (tmp_path / name).write_bytes(HOSTILE["a hidden header"])
        for read in (open_clip, open_sound):
            with pytest.raises(
                VideoError, match=rf"{name}: not a video that is read: it states 100,000,000"
            ):
                read(tmp_path / name)


def test_other_formats_may_hold_such_names(tmp_path):
    content = HOSTILE["sizes"] + b"cmov"
    path = write_clip(tmp_path / "a.mkv", 3)
    path.write_bytes(path.read_bytes() + content)
    assert open_clip(path).num_frames == 3


def index(*distances: int, version: int = 0) -> bytes:
    """A box `sidx` of parts that begin so many bytes behind it."""
    times = struct.pack(">II" if version == 0 else ">QQ", 0, distances[0])
    sizes = [after - before for before, after in pairwise((*distances, distances[-1] + 1))]
    parts = b"".join(words(size, 1, 0) for size in sizes)
    head = bytes([version]) + bytes(3) + words(1, 1000)
    return box(b"sidx", head + times + struct.pack(">HH", 0, len(sizes)) + parts)


FRAGMENT = box(b"moof", box(b"traf", table(b"trun", 2))) + box(b"mdat", bytes(40))


@pytest.mark.parametrize("version", [0, 1])
def test_an_index_into_pictures(tmp_path, version):
    """FFmpeg reads boxes there when it seeks."""
    path = tmp_path / "a.mp4"
    hidden = box(b"mdat", box(b"moof", box(b"traf", table(b"trun", MANY))))
    size = len(FRAGMENT)
    path.write_bytes(movie(b"") + index(0, size, version=version) + FRAGMENT + hidden)
    check_samples(path)
    for distance in (size + 8, size + 4):
        path.write_bytes(movie(b"") + index(0, distance, version=version) + FRAGMENT + hidden)
        with pytest.raises(ValueError, match=r"its index .sidx. points into the middle of boxes"):
            check_samples(path)


def test_fragments_inside_other_boxes(tmp_path):
    """There they end with the other box; but where FFmpeg goes back to them they do not."""
    path = tmp_path / "a.mp4"
    for inner in (FRAGMENT, index(0)):
        path.write_bytes(movie(inner))
        with pytest.raises(ValueError, match=r"its box (moof|sidx) is inside another"):
            check_samples(path)
