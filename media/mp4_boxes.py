"""Checks the number of samples that an mp4 or mov file states before FFmpeg allocates memory.

If all samples have one size the file states only their number. FFmpeg allocates 36 bytes for each,
again for every repetition by an edit list, so a file of 900 bytes can fill all memory. But an
honest file has at least a byte for each sample; old sound formats, which count the samples of the
sound wave, have at least a fifteenth of a byte.

Boxes are read in the way FFmpeg reads them (ISO/IEC 14496-12, 4.2). Files of other formats have no
boxes and pass.
"""

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from media.container import VideoError

MAX_SAMPLES_PER_BYTE: Final = 32
MAX_FREE: Final = 2**20  # samples that a file of any size may state; they take 40 MB
MAX_BOXES: Final = 2**20
MAX_HEADER: Final = 2**26  # bytes of a decompressed header

_HEADER: Final = struct.Struct(">I4s")
_CONTAINERS: Final = frozenset(
    b"moov trak mdia minf stbl edts dinf moof traf mvex tref udta wave sinf schi ipro gmhd "
    b"cmov".split()
)


def check_samples(path: Path) -> None:
    """Raise VideoError if a file states more samples than it can hold."""
    try:
        num_bytes = path.stat().st_size
        with path.open("rb") as file:
            num_samples, num_edits = _count(file, num_bytes)
    except OSError:
        return  # the code that opens the file next says what is wrong
    except (_TooMany, zlib.error) as error:
        raise VideoError(f"{path}: not a video that is read: {error}") from None
    num_stated = num_samples * max(num_edits, 1)
    if num_stated > MAX_SAMPLES_PER_BYTE * num_bytes + MAX_FREE:
        raise VideoError(
            f"{path}: not a video that is read: it states {num_stated:,} samples, and has "
            f"{num_bytes:,} bytes"
        )


class _TooMany(Exception):
    """The file has more boxes than any honest one."""


def _count(file: BinaryIO, num_bytes: int) -> tuple[int, int]:
    """Return the numbers of samples and edits that the first `num_bytes` bytes of `file` state."""
    num_samples = num_timed = num_edits = 0
    for kind, size in _walk(file, num_bytes):
        if kind == b"elst":
            num_edits += _number(file, 4)
        elif kind in (b"stsz", b"stz2"):
            num_samples += _number(file, 8)
        elif kind == b"trun":
            num_samples += _number(file, 4)
        elif kind in (b"stts", b"ctts"):  # pairs of a number of samples and a time
            num_pairs = min(_number(file, 4), size // 8)
            content = file.read(8 * num_pairs)
            pairs = np.frombuffer(content[: len(content) // 8 * 8], ">u4")
            num_timed = max(num_timed, int(pairs[::2].sum(dtype=np.uint64)))
        elif kind == b"cmvd":
            header = zlib.decompressobj().decompress(file.read(size)[4:], MAX_HEADER)
            samples, edits = _count(BytesIO(header), len(header))
            num_samples, num_edits = num_samples + samples, num_edits + edits
    return max(num_samples, num_timed), num_edits


def _walk(file: BinaryIO, num_bytes: int) -> Iterator[tuple[bytes, int]]:
    """Yield kind and size of every box that contains no boxes, with `file` at its content."""
    waiting = [(0, num_bytes)]
    num_boxes = 0
    while waiting:
        position, end = waiting.pop()
        while position + _HEADER.size <= end:
            num_boxes += 1
            if num_boxes > MAX_BOXES:
                raise _TooMany(f"more than {MAX_BOXES:,} boxes")
            file.seek(position)
            size, kind = _HEADER.unpack(file.read(_HEADER.size).ljust(_HEADER.size, b"\0"))
            begin = position + _HEADER.size
            if size == 1:
                size = int.from_bytes(file.read(8))
                begin += 8
            elif size == 0:  # the box reaches to the end
                size = end - position
            if size < begin - position:  # not a box
                break
            following = min(position + size, end)
            if kind in _CONTAINERS:
                waiting.append((begin, following))
            elif begin <= following:
                yield kind, following - begin
            position = following


def _number(file: BinaryIO, skipped: int) -> int:
    """Skip bytes and read a number of 32 bits; bytes after the end of the file count as 0."""
    file.read(skipped)
    return int.from_bytes(file.read(4).ljust(4, b"\0"))
