"""Decodes frames of a video file by their number, and checks that each is the right one.

A frame is returned only if its time is the one that the index lists for its number.
"""

from bisect import bisect_left
from collections.abc import Iterator, MutableMapping
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import av

from common.limits import LIMITS, Limits
from media.container import Damaged, decode, open_video
from media.video_index import Index

NEVER = 2**62  # in `starts`: no frame can be decoded from this key

Numbered = tuple[int, av.VideoFrame]


class Misplaced(Damaged):
    """The decoded frame is not the one that the index lists."""


class Decoder:
    """Decodes the frames that `index` lists; the file is open inside a `with` block.

    A seek may arrive at another packet than the one asked for, and decoding may not work from the
    packet of a key. So the time of every frame is compared with the index, and if it is another,
    decoding starts at an earlier key, and at last at the start of the file.

    `starts` maps the number of a key to that of the first frame decoded from it: the key's own
    frame, or a later one where an intra refresh is spread over several frames.
    """

    def __init__(
        self,
        path: Path,
        index: Index,
        starts: MutableMapping[int, int],
        limits: Limits = LIMITS,
    ) -> None:
        self._path = path
        self._limits = limits
        self._index = index
        self._starts = starts
        self._file = ExitStack()
        self._is_at_start = False

    def __enter__(self) -> Self:
        self._rewind()
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def frames_near(self, first: int) -> Iterator[Numbered]:
        """Yield consecutive frames with their numbers, from `first` or shortly before on.

        If the file merely ends early, so do the frames.

        Raises:
            Misplaced: the next frame is not found even from the start of the file, so the index
                is wrong.
            Damaged: the next frame cannot be decoded.
        """
        following: int | None = None  # number of the frame to yield next
        is_misplaced = False  # whether the last key tried gave another frame
        for key in self._index.keys_before(first):
            wanted = first if following is None else following
            if self._starts.get(key, -1) > wanted:
                continue
            is_first = True
            is_misplaced = False
            try:
                for number, frame in self._frames_of(key):
                    if is_first:
                        is_first = False
                        self._starts[key] = number
                        if number > wanted:
                            break
                    if following is None or number == following:
                        yield number, frame
                        following = number + 1
                else:
                    if following is not None:
                        return
            except Misplaced:
                is_misplaced = True
            except Damaged:
                if following is not None:
                    raise
            if is_first:
                self._starts[key] = NEVER
        raise Misplaced if is_misplaced else Damaged

    def _frames_of(self, key: int) -> Iterator[Numbered]:
        """Decode from a key on; raise Misplaced at the first frame whose time is not in order."""
        times = self._index.frames
        begin = self._index.keys[key]
        number: int | None = None
        for frame in decode(self._packets_of(key), begin):
            if frame.pts is None:
                raise Misplaced
            if number is None:
                number = bisect_left(times, frame.pts)
            if number == len(times) or frame.pts != times[number]:
                raise Misplaced
            yield number, frame
            number += 1

    def _packets_of(self, key: int) -> Iterator[av.Packet]:
        """Yield the packets from the key's own on.

        The first key is searched from the start of the file, others by a seek.
        """
        time = self._index.keys[key]
        if key == 0:
            self._rewind()
        self._is_at_start = False
        try:
            if key > 0:
                self._container.seek(self._index.seek_times[key], stream=self._stream)
            packets = self._container.demux(self._stream)
            for packet in packets:
                if packet.is_keyframe and packet.pts is not None:
                    if packet.pts == time:
                        yield packet
                        break
                    if packet.pts > time:
                        raise Misplaced
            else:
                raise Misplaced
        except av.FFmpegError as error:
            raise Damaged from error
        yield from packets

    def _rewind(self) -> None:
        """Go to the start by opening the file again; a seek loses packets in some containers."""
        if not self._is_at_start:
            self._file.close()
            self._container, self._stream = self._file.enter_context(
                open_video(self._path, self._limits)
            )
            self._is_at_start = True
