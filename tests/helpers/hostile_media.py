"""Small clips and pictures that take much memory or time to open, each in a way of its own."""

import io
import struct
import zlib
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from tests.helpers.media import write_clip

MANY = 20_000_000


def write_with_times(path: Path, milliseconds: Iterable[int]) -> Path:
    """Write a clip, .mkv, whose frames are shown at these times."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", 25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for time in milliseconds:
            frame = av.VideoFrame(64, 48, "yuvj420p")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def box(kind: bytes, content: bytes) -> bytes:
    """A box of an mp4 file."""
    return struct.pack(">I4s", 8 + len(content), kind) + content


def words(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}I", *numbers)


def change_boxes(content: bytes, change: Callable[[bytes, bytes], bytes]) -> bytes:
    """Replace the content of each box, at any depth, by `change` of its kind and content."""
    result, position = b"", 0
    while position < len(content):
        size, kind = struct.unpack_from(">I4s", content, position)
        inside = content[position + 8 : position + size]
        if kind in (b"moov", b"trak", b"edts", b"mdia", b"minf", b"stbl", b"moof", b"traf"):
            inside = change_boxes(inside, change)
        result += box(kind, change(kind, inside))
        position += size
    return result


def _changed_clip(path: Path, change: Callable[[bytes, bytes], bytes]) -> Path:
    write_clip(path, 3)
    path.write_bytes(change_boxes(path.read_bytes(), change))
    return path


def state_samples(path: Path, num_samples: int = MANY) -> Path:
    """Change an mp4 file to state so many samples of one byte in each track; returns `path`."""
    counts = {
        b"stsz": words(0, 1, num_samples),
        b"stts": words(0, 1, num_samples, 1),
        b"stsc": words(0, 1, 1, num_samples, 1),
    }
    path.write_bytes(change_boxes(path.read_bytes(), lambda kind, old: counts.get(kind, old)))
    return path


def write_many_samples(path: Path) -> Path:
    return state_samples(write_clip(path, 2))


def write_many_edits(path: Path) -> Path:
    """A clip of 3 frames that an edit list shows a million times."""
    edits = words(0, 10**6) + words(120, 0, 0x10000) * 10**6
    return _changed_clip(path, lambda kind, old: edits if kind == b"elst" else old)


def write_many_items(path: Path) -> Path:
    items = box(b"hdlr", bytes(8) + b"pict" + bytes(13)) + box(b"iinf", words(1 << 24, MANY))
    path.write_bytes(box(b"ftyp", b"mif1\0\0\0\0mif1heic") + box(b"meta", bytes(4) + items))
    return path


def write_keys(path: Path, num_keys: int = 60_000) -> Path:
    """A clip with so many notes, each of which FFmpeg compares with all others."""
    names = b"".join(box(b"mdta", b"k%07d" % number) for number in range(num_keys))
    data = box(b"data", words(1, 0) + b"v")
    values = b"".join(struct.pack(">II", 25, n + 1) + data for n in range(num_keys))
    handler = box(b"hdlr", bytes(8) + b"mdta" + bytes(13))
    keys = box(b"keys", words(0, num_keys) + names)
    notes = box(b"meta", handler + keys + box(b"ilst", values))
    return _changed_clip(path, lambda kind, old: old + notes if kind == b"moov" else old)


def write_chapters(path: Path, num_chapters: int = 30_000) -> Path:
    """A clip whose chapters all have the same long title, which FFmpeg copies for each."""
    title = struct.pack(">H", 65_000) + b"a" * 65_000
    write_clip(path, 3)
    content = path.read_bytes()

    def with_titles_at(place: int) -> bytes:
        track = _text_track(num_chapters, len(title), place)

        def change(kind: bytes, old: bytes) -> bytes:
            if kind == b"trak":
                return box(b"tref", box(b"chap", words(2))) + old
            return old + track if kind == b"moov" else old

        return change_boxes(content, change)

    path.write_bytes(with_titles_at(len(with_titles_at(0)) + 8) + box(b"mdat", title))
    return path


def _text_track(num_samples: int, size: int, place: int) -> bytes:
    """A track of texts, which are all the same bytes of the file."""
    tables = (
        box(b"stsd", words(0, 1) + box(b"text", bytes(6) + b"\0\1" + bytes(43)))
        + box(b"stts", words(0, 1, num_samples, 40))
        + box(b"stsc", words(0, 1, 1, 1, 1))
        + box(b"stsz", words(0, size, num_samples))
        + box(b"stco", words(0, num_samples) + words(place) * num_samples)
    )
    data = box(b"dinf", box(b"dref", words(0, 1) + box(b"url ", words(1))))
    matrix = words(0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    header = box(b"tkhd", words(3, 0, 0, 2, 0, 1000) + bytes(16) + matrix + words(0, 0))
    times = box(b"mdhd", words(0, 0, 0, 1000, 1000, 0)) + box(
        b"hdlr", bytes(8) + b"text" + bytes(13)
    )
    return box(b"trak", header + box(b"mdia", times + box(b"minf", data + box(b"stbl", tables))))


def write_hidden_fragment(path: Path, num_samples: int = MANY) -> Path:
    """A clip in fragments whose index leads to another one, hidden among its pictures."""
    write_clip(
        path,
        12,
        gop=3,
        container_options={"movflags": "frag_keyframe+empty_moov+default_base_moof"},
    )
    content = path.read_bytes()
    begin = content.index(b"moof") - 4
    header = box(b"mfhd", words(0, 9))
    run = box(b"tfhd", words(0x020000, 1)) + box(b"trun", words(0, num_samples))
    hidden = box(b"moof", header + box(b"traf", run))
    fragments = content[begin:]
    mfra = fragments.rfind(b"mfra")
    fragments = fragments[: mfra - 4] if mfra >= 0 else fragments
    parts = [len(fragments) + 8, len(hidden)]
    rows = b"".join(words(size, 3 * 512, 0x90000000) for size in parts)
    index = words(0, 1, 12800) + words(0, 0) + struct.pack(">HH", 0, len(parts)) + rows
    path.write_bytes(content[:begin] + box(b"sidx", index) + fragments + box(b"mdat", hidden))
    return path


# Matroska


def _size(number: int) -> bytes:
    width = next(w for w in range(1, 9) if number < (1 << (7 * w)) - 1)
    return ((1 << (7 * width)) | number).to_bytes(width)


def _element(name: str, content: bytes) -> bytes:
    return bytes.fromhex(name) + _size(len(content)) + content


def _number(name: str, value: int) -> bytes:
    return _element(name, value.to_bytes(max(1, (value.bit_length() + 7) // 8)))


def _matroska(path: Path, *, encodings: bytes = b"", other: bytes = b"", block: bytes) -> Path:
    head = _element("1A45DFA3", _element("4282", b"matroska") + _number("4287", 4))
    size = _element("E0", _number("B0", 64) + _number("BA", 64))
    codec = _element("86", b"V_MPEG4/ISO/AVC")
    track = _number("D7", 1) + _number("73C5", 1) + _number("83", 1) + codec + encodings + size
    content = (
        _element("1549A966", _number("2AD7B1", 1_000_000))
        + _element("1654AE6B", _element("AE", track))
        + other
        + _element("1F43B675", _number("E7", 0) + _element("A3", block))
    )
    path.write_bytes(head + _element("18538067", content))
    return path


def write_laces(path: Path) -> Path:
    """256 frames in one block, of 9.9 MB each when they are decompressed."""
    deflated = zlib.compress(bytes(9_900_000), 9)
    compression = _element("5034", _number("4254", 0))
    encoding = _number("5031", 0) + _number("5032", 1) + _number("5033", 0) + compression
    block = b"\x81\0\0\x84\xff" + deflated * 256
    return _matroska(path, encodings=_element("6D80", _element("6240", encoding)), block=block)


def write_tags(path: Path, num_tags: int = 60_000) -> Path:
    tags = (
        _element("67C8", _element("45A3", b"k%07d" % number) + _element("4487", b"v"))
        for number in range(num_tags)
    )
    other = _element("1254C367", _element("7373", b"".join(tags)))
    return _matroska(path, other=other, block=b"\x81\0\0\x80\x10")


# Pictures


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def tags_on_each_other(num_tags: int, num_bytes: int) -> bytes:
    """A TIFF of one pixel with so many more tags, which all state the same bytes."""
    tags = [(256, 4, 1, 1), (257, 4, 1, 1), (258, 4, 1, 8), (259, 4, 1, 1), (262, 4, 1, 1)]
    tags += [(273, 4, 1, 8), (277, 4, 1, 1), (278, 4, 1, 1), (279, 4, 1, 1)]
    tags += [(1000 + number, 7, num_bytes, 16) for number in range(num_tags)]
    entries = b"".join(struct.pack("<HHLL", *tag) for tag in sorted(tags))
    head = b"II*\0" + struct.pack("<L", 16 + num_bytes) + bytes(8) + bytes(num_bytes)
    return head + struct.pack("<H", len(tags)) + entries + bytes(4)


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, 2 + len(content)) + content


def write_exif(path: Path) -> Path:
    """A JPEG of a megabyte, whose Exif data state 20 GB in all."""
    content = tags_on_each_other(40_000, 500_000)
    parts = (content[i : i + 65_000] for i in range(0, len(content), 65_000))
    segments = b"".join(_segment(0xE1, b"Exif\0\0" + part) for part in parts)
    path.write_bytes(b"\xff\xd8" + segments + jpeg()[20:])
    return path


def write_many_pictures(path: Path) -> Path:
    """A JPEG whose list of further pictures (MPF) states the same fractions in each tag."""
    entries = b"".join(struct.pack("<HHLL", n, 5, 4000, 32_414) for n in range(2700))
    content = b"II*\0" + struct.pack("<LH", 8, 2700) + entries + bytes(4) + b"\xff" * 32_000
    path.write_bytes(b"\xff\xd8" + _segment(0xE2, b"MPF\0" + content) + jpeg()[20:])
    return path


def write_tiff(path: Path) -> Path:
    path.write_bytes(tags_on_each_other(20_000, 500_000))
    return path


def write_comment(path: Path) -> Path:
    """A GIF with a comment of 60,000 parts, which Pillow adds to each other one by one."""
    buffer = io.BytesIO()
    Image.new("P", (4, 4)).save(buffer, "GIF")
    content = buffer.getvalue()
    begin = 13 + (3 << (content[10] & 7) + 1)
    comment = b"!\xfe" + (b"\xff" + b"a" * 255) * 60_000 + b"\0"
    path.write_bytes(content[:begin] + comment + content[begin:])
    return path


def write_scans(path: Path, num_scans: int = 2000) -> Path:
    """A JPEG of 16 megapixels with thousands of scans, each of which goes over all of it."""
    buffer = io.BytesIO()
    Image.new("L", (4000, 4000)).save(buffer, "JPEG", progressive=True)
    content = buffer.getvalue()
    begin = content.rindex(b"\xff\xda")
    path.write_bytes(content[:-2] + content[begin:-2] * num_scans + content[-2:])
    return path


def write_precincts(path: Path) -> Path:
    """A JPEG 2000 of 182 bytes, in which each of 16 megapixels is a precinct of its own."""

    def segment(marker: int, content: bytes) -> bytes:
        return _segment(marker, content)

    side = 4000
    size = struct.pack(">HIIIIIIIIH", 0, side, side, 0, 0, side, side, 0, 0, 1) + b"\7\1\1"
    coding = bytes([1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0])
    data = bytes(100)
    tile = struct.pack(">HIBB", 0, 14 + len(data), 0, 1)
    path.write_bytes(
        b"\xff\x4f"
        + segment(0x51, size)
        + segment(0x52, coding)
        + segment(0x5C, b"\x40\x48")
        + segment(0x90, tile)
        + b"\xff\x93"
        + data
        + b"\xff\xd9"
    )
    return path
