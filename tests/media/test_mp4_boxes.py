"""Tests the limit on the samples that an mp4 file states, in each box that can state them."""

import struct
import zlib
from pathlib import Path

import pytest

from media.mp4_boxes import MAX_FREE, check_samples
from media.video import VideoError
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


SIZES = box(b"stsz", words(0, 1, MANY))
HOSTILE = {
    "sizes": movie(SIZES),
    "small sizes": movie(box(b"stz2", words(0, 8, MANY))),
    "times": movie(box(b"stts", words(0, 2, MANY // 2, 1, MANY // 2, 1))),
    "delays": movie(box(b"ctts", words(0, 1, MANY, 1))),
    "edits": movie(box(b"stsz", words(0, 1, 20_000)), box(b"elst", words(0, 5_000))),
    "fragments": box(b"moof", box(b"traf", box(b"trun", words(0, MANY)))),
    "long boxes": box(b"ftyp", b"isom") + long_box(b"moov", box(b"trak", SIZES)),
    "a box up to the end": b"\0\0\0\0moov" + SIZES,
    "a compressed header": box(
        b"moov", box(b"cmov", box(b"cmvd", words(9999) + zlib.compress(movie(SIZES))))
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_more_than_the_file_can_hold(tmp_path, kind):
    path = tmp_path / "a.mp4"
    path.write_bytes(HOSTILE[kind])
    with pytest.raises(
        VideoError, match=r"a\.mp4: not a video that is read: it states 100,000,000"
    ):
        check_samples(path)


def test_boxes_without_end(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(box(b"free", b"") * (2**20 + 1))
    with pytest.raises(VideoError, match=r"more than 1,048,576 boxes"):
        check_samples(path)


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
        box(b"moov", box(b"cmov", box(b"cmvd", words(9)))),
    ],
)
def test_torn_boxes_are_left_to_ffmpeg(tmp_path, content):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    check_samples(path)
    check_samples(tmp_path / "missing.mp4")


@pytest.mark.parametrize(
    "options",
    [{}, {"movflags": "frag_keyframe+empty_moov"}, {"movflags": "faststart"}],
    ids=["plain", "fragmented", "header first"],
)
def test_honest_files(tmp_path: Path, options):
    check_samples(write_clip(tmp_path / "a.mp4", 60, gop=6, container_options=options))
    for suffix in SOUND_CODECS:  # .mov counts each sample of sound
        check_samples(write_sound_clip(tmp_path / f"sound{suffix}", [3]))
