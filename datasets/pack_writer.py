"""The format of a folder of packed clips, its writer, and the reader of its list of clips.

    pack.json      format and image size; the bytes of each shard once the pack is finished
    clips.jsonl    a line for each clip: name, number of frames, frame rate, shard, end, source
    frames.bin     16 bytes for each frame, clip after clip: see FRAME
    00000.tar ...  shards: frames as JPEG files name/00000.jpg, which any tar lists and unpacks

A clip is appended to its shard, then to frames.bin, and last to clips.jsonl; it counts only if its
line is there. The next writer cuts off what an interrupted one wrote after that.

A pack may be untrusted: every name and number in it is checked when it is read, and a link in place
of one of its files is never written through.
"""

import json
import os
import re
import shutil
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import IO, Any, NamedTuple, Self
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.errors import UserError
from common.files import replacing
from common.json_files import parse_json, parse_rate
from common.limits import MAX_FRAMES
from common.safe_paths import MAX_TEXT, check_name, exists, is_file, open_to_write, read_plain_file
from media.container import os_reason
from media.frames import Frame

PACK_FORMAT = 1
PACK, CLIPS, FRAMES = "pack.json", "clips.jsonl", "frames.bin"
SHARD_BYTES = 2**32  # so there are few files, but none is too large to be copied
PACK_AGAIN = "copy the folder again, or remove it and prepare the clips again"

# Offset of a frame's JPEG file in its shard, its size in bytes, and its CRC-32.
FRAME = np.dtype([("offset", "<u8"), ("size", "<u4"), ("crc", "<u4")])
FrameTable = NDArray[np.void]  # with elements of type FRAME

_SHARD = re.compile(r"[0-9]{5,9}\.tar")
_MAX_SIDE = 65500  # pixels; the limit of JPEG
_LARGEST = 2**63  # bytes of a file
_MAX_HEADER = 2**20  # bytes of pack.json
_MAX_LIST = 2**28  # bytes of clips.jsonl: one to three million clips, which take 1.5 GB of memory
_MAX_LINE = 2**16  # bytes of a line of it: two texts of MAX_TEXT bytes, escaped


class PackedClip(NamedTuple):
    """A line of clips.jsonl."""

    name: str
    num_frames: int
    frame_rate: Fraction
    shard: str
    end: int  # offset of the clip's end in its shard, in bytes
    source: str  # describes for people what it was made from


class Pack(NamedTuple):
    """The content of pack.json and clips.jsonl; `shards` is None until the pack is finished."""

    image_size: tuple[int, int]
    shards: dict[str, int] | None
    clips: list[PackedClip]


def is_pack(folder: Path) -> bool:
    """Whether `folder` holds packed clips, finished or not."""
    return is_file(folder / PACK)


def read_pack(folder: Path) -> Pack:
    """Read the header and the list of clips of a pack; an incomplete last line is ignored.

    Raises:
        UserError: a file is missing, damaged or of another format, or states a name or number that
            cannot be right.
    """
    path = folder / PACK
    try:
        image_size, shards = _parse_header(path, parse_json(_read(path, _MAX_HEADER)))
        path = folder / CLIPS
        content = b"" if shards is None and not exists(path) else _read(path, _MAX_LIST)
    except OSError as error:
        raise UserError(f"{path}: {os_reason(error)}; {PACK_AGAIN}") from None
    except UserError:
        raise
    except (ValueError, TypeError, KeyError, ArithmeticError):
        raise UserError(f"{path}: damaged; {PACK_AGAIN}") from None
    clips = []
    for number, line in enumerate(BytesIO(content), 1):  # one after the other, to save memory
        if not line.endswith(b"\n"):
            break
        try:
            clips.append(_parse_clip(_parse_line(line)))
        except ValueError as error:
            raise UserError(f"{path}: damaged; line {number}: {error}; {PACK_AGAIN}") from None
    _check_places(path, clips, shards)
    for name in (FRAMES, *sorted({clip.shard for clip in clips})):
        if exists(folder / name) and not is_file(folder / name):  # also if nothing is read of it
            raise UserError(f"{folder / name}: is not a plain file; {PACK_AGAIN}")
    return Pack(image_size, shards, clips)


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        return read_plain_file(path, max_bytes)
    except UserError as error:
        raise UserError(f"{error}; {PACK_AGAIN}") from None


def _parse_header(path: Path, header: Any) -> tuple[tuple[int, int], dict[str, int] | None]:
    """Return the image size, and the shards of a finished pack with their sizes in bytes."""
    if header["format"] != PACK_FORMAT:
        raise UserError(
            f"{path}: format {header['format']!r:.20}, this version reads {PACK_FORMAT}; "
            f"{PACK_AGAIN}"
        )
    height, width = header["image_size"]
    shards = header.get("shards")
    sizes = {} if shards is None else dict(shards)
    if not (_is_count(height, _MAX_SIDE) and _is_count(width, _MAX_SIDE)):
        raise ValueError
    if not all(_SHARD.fullmatch(name) and _is_count(size) for name, size in sizes.items()):
        raise ValueError
    return (height, width), None if shards is None else sizes


def _parse_line(line: bytes) -> Any:
    if len(line) > _MAX_LINE:  # before it becomes lists, which take thirty times as much memory
        raise ValueError(f"it has more than {_MAX_LINE:,} bytes")
    return parse_json(line)


def _parse_clip(found: Any) -> PackedClip:
    """Check a parsed line of clips.jsonl.

    Raises:
        ValueError: it is not such a line; says why.
    """
    if not isinstance(found, dict) or found.keys() != set(PackedClip._fields):
        raise ValueError(f"its fields are not {', '.join(PackedClip._fields)}")
    clip = PackedClip(**found)
    check_name(clip.name, MAX_TEXT)
    if not (isinstance(clip.shard, str) and _SHARD.fullmatch(clip.shard)):
        raise ValueError("its shard has no name such as 00000.tar")
    is_counted = _is_count(clip.num_frames, MAX_FRAMES) and _is_count(clip.end)
    if not (is_counted and isinstance(clip.source, str)):
        raise ValueError(f"num_frames, end or source of {clip.name} cannot be right")
    try:
        return clip._replace(frame_rate=parse_rate(clip.frame_rate))
    except ValueError as error:
        raise ValueError(f"frame_rate of {clip.name}: {error}") from None


def _is_count(number: object, largest: int = _LARGEST) -> bool:
    """Whether it is a whole number from 1 to `largest`."""
    return isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= largest


def _check_places(path: Path, clips: list[PackedClip], shards: Mapping[str, int] | None) -> None:
    """Check that no clip is listed twice, and that each follows the one before it in its shard or
    begins the next shard: whoever continues the pack would write to names that are not read.

    shards: the shards of a finished pack; a clip must end within its shard.
    """
    names = {clip.name for clip in clips}
    number, begin = 0, 0  # of the shard, and of the clip in it
    for clip in clips:
        if clip.shard == _shard_name(number + 1) and begin > 0:
            number, begin = number + 1, 0
        size = _LARGEST if shards is None else shards.get(clip.shard, 0)
        is_next = clip.shard == _shard_name(number)
        if not begin < clip.end <= size or clip.name not in names or not is_next:
            raise UserError(
                f"{path}: damaged; {clip.name} is listed twice, or ends at byte {clip.end} of "
                f"{clip.shard}, which cannot be right; {PACK_AGAIN}"
            )
        names.remove(clip.name)
        begin = clip.end


def _shard_name(number: int) -> str:
    return f"{number:05d}.tar"


def write_fragment(path: Path, name: str, frames: Iterable[Frame], quality: int) -> FrameTable:
    """Write `frames`, uint8 H x W x 3, to a file that can be appended to a shard.

    The frames are JPEG files with colour at full resolution. Optimized Huffman tables would save
    5%, but Pillow fails to make them if a frame has many details.

    Returns:
        The table of the frames, with offsets in this file.

    Raises:
        UserError: `path` is not a plain file.
    """
    table = []
    with open_to_write(path, "wb") as file:
        for number, frame in enumerate(frames):
            buffer = BytesIO()
            Image.fromarray(frame).save(buffer, "jpeg", quality=quality, subsampling="4:4:4")
            jpeg = buffer.getvalue()
            member = tarfile.TarInfo(f"{name}/{number:05d}.jpg")
            member.size = len(jpeg)
            file.write(member.tobuf(tarfile.GNU_FORMAT))
            table.append((file.tell(), len(jpeg), crc32(jpeg)))
            file.write(jpeg)
            file.write(bytes(-len(jpeg) % tarfile.BLOCKSIZE))
    return np.array(table, FRAME)


class PackWriter:
    """Starts the pack in `folder`, or continues an earlier one, and appends clips.

        with PackWriter(folder, (256, 256)) as writer:
            table = write_fragment(part, name, frames, quality)
            writer.append(name, frame_rate, source, part, table)
            writer.finish()

    No file is changed before the first call of `append` or `finish`. Only one writer may be at work
    in a folder.

    Raises:
        UserError: the earlier pack is damaged or has another image size; later, on a full disk.
    """

    def __init__(
        self, folder: Path, image_size: tuple[int, int], shard_bytes: int = SHARD_BYTES
    ) -> None:
        self.folder = folder
        self.image_size = image_size
        self._shard_bytes = shard_bytes
        pack = read_pack(folder) if is_pack(folder) else Pack(image_size, None, [])
        if pack.clips and pack.image_size != image_size:
            raise UserError(
                f"{folder}: holds frames of {pack.image_size[0]} x {pack.image_size[1]}, not "
                f"{image_size[0]} x {image_size[1]} (height x width); choose another folder"
            )
        self.clips = pack.clips
        self._is_finished = pack.shards is not None
        self._is_open = False
        self._files = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._failures_named():  # closing may write the rest of a buffer
            self._files.close()

    def append(
        self, name: str, frame_rate: Fraction, source: str, part: Path, table: FrameTable
    ) -> None:
        """Append a clip from the file `part`, which `write_fragment` wrote.

        Raises:
            UserError: `part` is not the file that `table` describes, or the disk is full.
        """
        with self._failures_named():
            found, expected = part.stat().st_size, _num_bytes(table)
            if found != expected:
                raise UserError(
                    f"{part}: has {found} bytes instead of {expected}; another program writes to "
                    f"{self.folder}, end it and start again"
                )
            self._open()
            shard, begin = self._clips_end()
            if begin >= self._shard_bytes:
                self._end_shard(shard)
                shard, begin = _shard_name(int(shard.removesuffix(".tar")) + 1), 0
            with part.open("rb") as file, _cut(self.folder / shard, begin) as shard_file:
                shutil.copyfileobj(file, shard_file, 2**20)
                end = shard_file.tell()
            placed = table.copy()
            placed["offset"] += np.uint64(begin)
            self._frames.write(placed.tobytes())
            self._frames.flush()
            clip = PackedClip(name, len(table), frame_rate, shard, end, source)
            line = json.dumps(clip._asdict() | {"frame_rate": str(frame_rate)}, ensure_ascii=False)
            self._lines.write(f"{line}\n".encode())
            self._lines.flush()
        self.clips.append(clip)

    def finish(self) -> None:
        """End the last shard and mark the pack as complete, so that it can be read."""
        if self._is_finished or not self.clips:
            return
        with self._failures_named():
            self._open()
            self._end_shard(self._clips_end()[0])
            names = sorted({clip.shard for clip in self.clips})
            sizes = {name: (self.folder / name).stat().st_size for name in names}
        self._write_header({"shards": sizes})
        self._is_finished = True

    def _open(self) -> None:
        """Open the files to append to, cut off after the last complete clip."""
        if self._is_open:
            return
        shard, end = self._clips_end()
        for name in () if is_pack(self.folder) else (CLIPS, FRAMES, shard):
            if exists(self.folder / name):
                raise UserError(
                    f"{self.folder}: holds {name}, which no earlier run wrote; move it away"
                )
        num_frames = sum(clip.num_frames for clip in self.clips)
        lines = self.folder / CLIPS
        num_bytes = lines.read_bytes().rfind(b"\n") + 1 if self.clips else 0
        if self.clips:  # before the header is written, which takes the pack out of use
            _check_length(lines, num_bytes)
            _check_length(self.folder / FRAMES, num_frames * FRAME.itemsize)
            _check_length(self.folder / shard, end)
        self._write_header({})
        self._is_finished = False
        self._lines = self._files.enter_context(_cut(lines, num_bytes))
        self._frames = self._files.enter_context(
            _cut(self.folder / FRAMES, num_frames * FRAME.itemsize)
        )
        _cut(self.folder / shard, end).close()
        self._is_open = True

    def _clips_end(self) -> tuple[str, int]:
        """Return the shard of the last clip, and the offset at which the clip ends in it."""
        return (self.clips[-1].shard, self.clips[-1].end) if self.clips else (_shard_name(0), 0)

    def _end_shard(self, name: str) -> None:
        with open_to_write(self.folder / name, "ab") as shard:
            shard.write(bytes(2 * tarfile.BLOCKSIZE))  # the mark at the end of an archive

    def _write_header(self, more: Mapping[str, object]) -> None:
        header = {"format": PACK_FORMAT, "image_size": list(self.image_size), **more}
        with replacing(self.folder / PACK) as path:
            path.write_text(json.dumps(header, indent=1) + "\n", encoding="utf-8")

    @contextmanager
    def _failures_named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f"{self.folder}: cannot be written: {os_reason(error)}") from error


def _num_bytes(table: FrameTable) -> int:
    """Number of bytes of the part of a shard that holds these frames."""
    end = int(table["offset"][-1]) + int(table["size"][-1])
    return end + -end % tarfile.BLOCKSIZE


def _cut(path: Path, num_bytes: int) -> IO[bytes]:
    """Open `path` to append after its first `num_bytes` bytes, and cut off the rest.

    For `num_bytes` 0 the file is made if it is missing.

    Raises:
        UserError: the file is shorter, or not a plain file.
    """
    if num_bytes:
        _check_length(path, num_bytes)
    file = open_to_write(path, "r+b" if num_bytes else "wb")
    file.seek(num_bytes)
    file.truncate()
    return file


def _check_length(path: Path, num_bytes: int) -> None:
    """Raise UserError if `path` is shorter, or if nothing may be written to it."""
    with open_to_write(path, "r+b") as file:
        if file.seek(0, os.SEEK_END) < num_bytes:
            raise UserError(f"{path}: shorter than {CLIPS} says; {PACK_AGAIN}")
