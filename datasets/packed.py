"""Reads packed clips: the index once, and then single JPEG files of frames."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from io import BytesIO
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO, Final
from zlib import crc32

import numpy as np
from PIL import Image

from common.errors import UserError
from common.limits import LIMITS, MAX_BYTES_PER_PIXEL, Limits, check_pixels
from common.safe_paths import open_to_read, refuse_holes
from datasets.clips import ClipReport, with_identities
from datasets.pack_writer import FRAME, FRAMES, PACK_AGAIN, FrameTable, read_pack
from media.container import os_reason
from media.frames import Frame, Frames
from media.images import Fit, fit_frames
from media.video import VideoError, natural_order

_CHUNK: Final = 2**20  # bytes
_HEAD_BYTES: Final = 2**16  # of a frame's JPEG, at most; its tables take less than a thousand
# Markers of segments of a JPEG (ITU-T T.81, table B.1): JFIF, tables, size, restarts, scan.
_START_OF_SCAN: Final = 0xDA
_SEGMENTS: Final = (0xE0, 0xDB, 0xC4, 0xC0, 0xDD, _START_OF_SCAN)


class PackedClips:
    """A ClipSource of the clips that `python -m datasets.prepare` packed into a folder.

    Clips are in natural order of their names; identities are as in `clips.ClipFolder`. Frames of
    another size than `image_size` are fitted. No directory is listed, and a frame costs one read.

    Raises:
        UserError: the pack is not finished; a file of it is missing, cut off or damaged; or
            `id_sampling` is on but no name has an identity.
    """

    def __init__(
        self,
        folder: Path | str,
        image_size: tuple[int, int],
        fit: Fit = "crop",
        id_sampling: bool = False,
        limits: Limits = LIMITS,
    ) -> None:
        self.folder = Path(folder)
        self.image_size = image_size
        self._fit: Fit = fit
        pack = read_pack(self.folder)
        if pack.shards is None:
            raise UserError(
                f"{self.folder}: packing ended early, after {len(pack.clips)} clips; start the "
                "same `python -m datasets.prepare` again, it continues"
            )
        begins = [0, *accumulate(clip.num_frames for clip in pack.clips)]
        _check_sizes(self.folder, {**pack.shards, FRAMES: begins[-1] * FRAME.itemsize})
        order = sorted(range(len(pack.clips)), key=lambda i: natural_order(pack.clips[i].name))
        height, width = self.packed_size = pack.image_size
        check_pixels(self.folder, width, height, limits.picture, "frames")
        self._shard_bytes = pack.shards
        self.packed = [pack.clips[i] for i in order]
        self.clips = with_identities([clip.name for clip in self.packed], id_sampling, self.folder)
        self._begins = [begins[i] for i in order]  # row of each clip's first frame in the table
        self._table: FrameTable | None = None
        self._shards: dict[str, BinaryIO] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave out open files when pickled; another process opens its own."""
        return self.__dict__ | {"_table": None, "_shards": {}}

    def content_checksum(self) -> int:
        """CRC-32 of the frames' table, which holds a checksum of every frame."""
        found = 0
        with open_to_read(self.folder / FRAMES) as file:
            refuse_holes(self.folder / FRAMES, file)
            while content := file.read(_CHUNK):  # it may be larger than the memory
                found = crc32(content, found)
        return found

    def num_frames(self, index: int) -> int:
        """Number of frames of clip `index`."""
        return self.packed[index].num_frames

    def frame_rate(self, index: int) -> Fraction:
        """Frames per second of clip `index`, exact."""
        return self.packed[index].frame_rate

    def stream(self, index: int) -> Iterator[Frame]:
        """Iterate over the frames of clip `index`, fitted to the image size: uint8, H x W x 3."""
        for frame in range(self.num_frames(index)):
            yield self.read(index, [frame])[0]

    def read(self, index: int, frames: Sequence[int]) -> Frames:
        """Read frames of clip `index`, fitted to the image size: uint8, N x H x W x 3.

        Raises:
            VideoError: there is no such frame, or its bytes are damaged.
        """
        images = np.stack([self._decode(index, frame) for frame in frames])
        return fit_frames(images, self.image_size, self._fit)

    def jpeg(self, index: int, frame: int) -> bytes:
        """Read the bytes of one frame's JPEG file.

        Raises:
            VideoError: as `read`.
        """
        clip = self.packed[index]
        if not 0 <= frame < clip.num_frames:
            raise VideoError(
                f"{self.folder}: {clip.name} has no frame {frame}, only {clip.num_frames}"
            )
        if self._table is None:
            self._table = np.memmap(self.folder / FRAMES, FRAME, mode="r")
        offset, size, checksum = self._table[self._begins[index] + frame].item()
        path = self.folder / clip.shard
        if offset + size > self._shard_bytes[clip.shard]:  # before memory is allocated for them
            raise VideoError(f"{path}: too short for frame {frame} of {clip.name}; {PACK_AGAIN}")
        height, width = self.packed_size
        if size > _HEAD_BYTES + MAX_BYTES_PER_PIXEL * height * width:
            raise VideoError(
                f"{path}: frame {frame} of {clip.name} has {size:,} bytes, too many for a picture "
                f"of {width} x {height}; {PACK_AGAIN}"
            )
        try:
            shard = self._shards.get(clip.shard)
            if shard is None:  # if several threads come here, the file of the first is kept
                shard = self._shards.setdefault(clip.shard, open_to_read(path))
            # `pread` takes an offset; forked processes share the file's position.
            data = os.pread(shard.fileno(), size, offset)
        except OSError as error:
            raise VideoError(f"{path}: cannot be read: {os_reason(error)}") from None
        except UserError as error:
            raise VideoError(str(error)) from None
        if crc32(data) != checksum:
            raise VideoError(f"{path}: frame {frame} of {clip.name} is damaged; {PACK_AGAIN}")
        return data

    def inspect(self) -> ClipReport:
        """Describe the clips from the index alone."""
        return ClipReport(
            folder=self.folder,
            num_clips=len(self.clips),
            num_identities=len({clip.identity for clip in self.clips}),
            num_frames=sum(clip.num_frames for clip in self.packed),
            sizes=Counter({self.packed_size: len(self.clips)}),
            unreadable={},
            too_short=[clip.name for clip in self.packed if clip.num_frames < 2],
        )

    def _decode(self, index: int, frame: int) -> Frame:
        """Decode one frame; it must have the size that the pack states."""
        problem = ""
        try:
            jpeg = self.jpeg(index, frame)
            if not is_simple_jpeg(jpeg):
                raise ValueError("a JPEG of another kind than packs have")
            with Image.open(BytesIO(jpeg), formats=("JPEG",)) as image:
                if image.size == self.packed_size[::-1] and image.mode == "RGB":
                    return np.asarray(image)
                problem = f"{image.width} x {image.height}, {image.mode}"
        except VideoError:
            raise
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            problem = str(error)
        raise VideoError(
            f"{self.folder}: frame {frame} of {self.packed[index].name} is no picture of "
            f"{self.packed_size[1]} x {self.packed_size[0]} pixels ({problem}); {PACK_AGAIN}"
        )


def is_simple_jpeg(content: bytes) -> bool:
    """Whether a JPEG has no other segments than those that packs are written with.

    It is decoded in this process, so it must not have notes that could take gigabytes, or many
    scans, each of which goes over the whole picture.
    """
    place = 2
    while len(content) > place + 3 and content[place] == 0xFF and content[place + 1] in _SEGMENTS:
        if content[place + 1] == _START_OF_SCAN:
            return content.count(bytes((0xFF, _START_OF_SCAN)), place) == 1
        place += 2 + int.from_bytes(content[place + 2 : place + 4])
    return False


def _check_sizes(folder: Path, expected: Mapping[str, int]) -> None:
    """Raise UserError unless the files in `folder` have the expected numbers of bytes."""
    for name, num_bytes in expected.items():
        path = folder / name
        try:
            found = path.stat().st_size
        except OSError as error:
            raise UserError(f"{path}: {os_reason(error)}; {PACK_AGAIN}") from None
        if found != num_bytes:
            raise UserError(f"{path}: has {found} bytes instead of {num_bytes}; {PACK_AGAIN}")
