"""Checks the number of samples that an mp4 or mov file states before FFmpeg allocates memory.

If all samples have one size the file states only their number. FFmpeg allocates 36 bytes for each,
again for every repetition by an edit list, so a file of 900 bytes can fill all memory. But an
honest file has at least a byte for each sample; old sound formats, which count the samples of the
sound wave, have at least a fifteenth of a byte.

FFmpeg reads tables of samples in boxes of many kinds and at any depth (ISO/IEC 14496-12, 4.2).
Therefore the names of the tables are searched for in all bytes of the file, whatever box they are
in. Only the contents of `mdat` boxes at the top level are left out, which are most of the file:
FFmpeg skips them, unless an index (`sidx`) points into them, which is refused.
"""

import os
import struct
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import numpy as np

MAX_SAMPLES_PER_BYTE: Final = 32
MAX_FREE: Final = 2**20  # samples that a file of any size may state; they take 40 MB
MAX_OUTSIDE: Final = 2**28  # bytes outside of `mdat`; also bytes of tables
MAX_BOXES: Final = 2**20  # boxes at the top level; also tables

_HEADER: Final = struct.Struct(">I4s")
_SIDX_HEAD: Final = 12  # bytes of `sidx` before its times: version, track, units of time
_CHUNK: Final = 2**20  # bytes that are read at a time
_SOUND_SAMPLES: Final = 160  # samples of sound for which FFmpeg makes one entry of its index

_SIZES: Final = {b"stsz": 8, b"stz2": 8, b"trun": 4, b"senc": 4}  # bytes from name to number
_ENTRIES: Final = (b"iinf", b"iloc", b"sgpd")  # FFmpeg makes all entries before it reads them
_TIMES: Final = (b"stts", b"ctts")  # rows of a number of samples and a time
_CHUNKS: Final = (b"stco", b"co64")
_COMPRESSED: Final = (b"cmov", b"cmvd")
_TOP_LEVEL: Final = (b"moof", b"sidx")  # boxes to which FFmpeg seeks
_NAMES: Final = (*_SIZES, *_ENTRIES, *_TIMES, *_CHUNKS, *_COMPRESSED, *_TOP_LEVEL, b"stsc", b"elst")


def check_samples(path: Path) -> None:
    """Check that a file does not state more samples than it can hold.

    Use it only for files that FFmpeg reads as mp4 or mov. In others the names of tables occur by
    chance.

    Raises:
        ValueError: the file states too much, or cannot be checked; does not name the file.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        num_stated = _count_samples(file, status.st_size)
    num_bytes = status.st_size
    if sys.platform != "win32":  # a sparse file has fewer bytes than its size
        num_bytes = min(num_bytes, 512 * status.st_blocks)
    if num_stated > MAX_SAMPLES_PER_BYTE * num_bytes + MAX_FREE:
        raise ValueError(f"it states {num_stated:,} samples, and has {num_bytes:,} bytes")


def _count_samples(file: BinaryIO, num_bytes: int) -> int:
    """Return an upper bound of the entries of FFmpeg's index of the file."""
    numbers: Counter[bytes] = Counter()
    num_left = MAX_OUTSIDE  # bytes of tables that may still be read
    longest = 0  # samples of a chunk
    for number, (name, place) in enumerate(_find_names(file, num_bytes)):
        if number == MAX_BOXES:
            raise ValueError(f"as an mp4 it has more than {MAX_BOXES:,} tables of samples")
        if name in _COMPRESSED:
            raise ValueError(
                "its header is compressed, as that of old QuickTime files; write it anew, for "
                "example with ffmpeg -i OLD -c copy NEW.mov"
            )
        if name in _TOP_LEVEL:
            continue
        file.seek(place)
        content = file.read(16).ljust(16, b"\0")
        words = np.frombuffer(content, ">u4").tolist()
        # FFmpeg reads a table beyond the end of its box, up to the end of the file.
        if name in _SIZES:
            numbers[b"sizes"] += words[_SIZES[name] // 4]
        elif name in _ENTRIES:
            numbers[b"entries"] += _count_entries(name, content)
        elif name == b"elst":
            numbers[b"edits"] += words[1]
        elif name in _CHUNKS:
            numbers[b"chunks"] += min(words[1], (num_bytes - place) // 4)
        else:
            width = 3 if name == b"stsc" else 2
            num_rows = min(words[1], max(num_bytes - place - 8, 0) // (4 * width))
            num_left -= 4 * width * num_rows
            if num_left < 0:
                raise ValueError(f"as an mp4 it has more than {MAX_OUTSIDE:,} bytes of tables")
            file.seek(place + 8)
            for rows in _read_rows(file, num_rows, width):
                if name == b"stsc":
                    longest = max(longest, int(rows[:, 1].max()))
                else:
                    numbers[name] += int(rows[:, 0].sum(dtype=np.uint64))
    numbers[b"sound"] = numbers[b"chunks"] * -(-longest // _SOUND_SAMPLES)
    most = max(numbers[name] for name in (b"sizes", b"entries", b"sound", *_TIMES))
    return most * max(numbers[b"edits"], 1)


def _count_entries(name: bytes, content: bytes) -> int:
    """Return the number of entries that a table states; its place depends on the version."""
    version = content[0]
    if name == b"sgpd":
        begin, width = (8, 4) if version == 0 else (12, 4)
    elif name == b"iinf":
        begin, width = (4, 2) if version == 0 else (4, 4)
    else:  # iloc
        begin, width = (6, 2) if version < 2 else (6, 4)
    return int.from_bytes(content[begin : begin + width])


def _read_rows(file: BinaryIO, num_rows: int, width: int) -> Iterator[np.ndarray]:
    """Yield parts of a table of `num_rows` rows of `width` numbers of 32 bits."""
    while num_rows > 0:
        content = file.read(4 * width * min(num_rows, _CHUNK // 16))
        rows = np.frombuffer(content[: len(content) // (4 * width) * 4 * width], ">u4")
        if len(rows) == 0:  # the file was cut meanwhile
            return
        rows = rows.reshape(-1, width)
        num_rows -= len(rows)
        yield rows


def _find_names(file: BinaryIO, num_bytes: int) -> Iterator[tuple[bytes, int]]:
    """Yield every name of a table outside of `mdat`, with the position after the name.

    Raises:
        ValueError: there are too many bytes outside, or FFmpeg could read boxes in `mdat`.
    """
    boxes = _read_top_level(file, num_bytes)
    if sum(end - begin for begin, end in boxes.outside) > MAX_OUTSIDE:
        raise ValueError(
            f"as an mp4 it has more than {MAX_OUTSIDE:,} bytes beside its pictures and sound"
        )
    if not {target for target in boxes.targets if target < num_bytes} <= boxes.begins:
        raise ValueError(
            "its index (sidx) points into the middle of boxes; write it anew, for example with "
            "ffmpeg -i OLD -c copy NEW.mp4"
        )
    for begin, end in boxes.outside:
        while begin < end:
            file.seek(begin)
            chunk = file.read(min(_CHUNK, end - begin))
            for name in _NAMES:
                at = chunk.find(name)
                while at >= 0:  # names can overlap
                    place = begin + at + len(name)
                    if name in _TOP_LEVEL and place - _HEADER.size not in boxes.begins:
                        raise ValueError(f"its box {name.decode()} is inside another box")
                    yield name, place
                    at = chunk.find(name, at + 1)
            if begin + len(chunk) >= end or len(chunk) < 4:
                break
            begin += len(chunk) - 3  # a name may cross the end of the chunk


class _TopLevel(NamedTuple):
    """Boxes at the top level of a file.

    Attributes:
        begins: positions of the boxes.
        outside: begin and end of each part of the file outside of the contents of `mdat`.
        targets: positions to which indexes (`sidx`) point.
    """

    begins: set[int]
    outside: list[tuple[int, int]]
    targets: list[int]


def _read_top_level(file: BinaryIO, num_bytes: int) -> _TopLevel:
    """Find the boxes at the top level.

    Raises:
        ValueError: there are too many, or an index is cut off.
    """
    begins: set[int] = set()
    outside: list[tuple[int, int]] = []
    targets: list[int] = []
    begin = position = 0
    while position + _HEADER.size <= num_bytes:
        if max(len(begins), len(targets)) >= MAX_BOXES:
            raise ValueError(f"as an mp4 it has more than {MAX_BOXES:,} boxes")
        file.seek(position)
        head = file.read(2 * _HEADER.size).ljust(2 * _HEADER.size, b"\0")
        stated, kind = _HEADER.unpack(head[: _HEADER.size])
        size, content = stated, position + _HEADER.size
        if stated == 1:
            size = int.from_bytes(head[_HEADER.size :])
            content += _HEADER.size
        elif stated == 0:  # the box reaches to the end
            size = num_bytes - position
        if position + size < content:  # not a box; FFmpeg stops here
            break
        begins.add(position)
        if kind == b"mdat":
            outside.append((begin, min(content, num_bytes)))
            begin = min(position + size, num_bytes)
        elif kind == b"sidx":
            if stated == 0 or position + size > num_bytes:
                raise ValueError("its index (sidx) is cut off")
            targets += _read_targets(file, content, position + size)
        position += size
    return _TopLevel(begins, [*outside, (begin, num_bytes)], targets)


def _read_targets(file: BinaryIO, content: int, end: int) -> list[int]:
    """Return the positions to which a box `sidx` points (ISO/IEC 14496-12, 8.16.3)."""
    file.seek(content)
    version = file.read(_SIDX_HEAD)[:1]
    # Bytes of the first time, and of the distance to the first part.
    width = 4 if version == b"\0" else 8
    distance = int.from_bytes(file.read(2 * width)[width:])
    num_parts = int.from_bytes(file.read(4)[2:])
    parts = file.read(12 * num_parts)
    rows = np.frombuffer(parts[: len(parts) // 12 * 12], ">u4").reshape(-1, 3)
    targets = [end + distance]
    for size in (rows[:, 0] & (2**31 - 1)).tolist():
        targets.append(targets[-1] + size)
    return [target % 2**64 for target in targets[:-1]]  # FFmpeg computes with 64 bits
