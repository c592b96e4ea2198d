"""The frames of a video file."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from functools import cached_property
from itertools import chain, dropwhile, islice
from pathlib import Path
from typing import NamedTuple

import av

from datasets import remarks
from datasets.clip_checks import check_range, stack_frames
from datasets.container import Damaged, MissingFrame, VideoError, decode, open_video
from datasets.decoding import Decoder, Numbered
from datasets.deinterlace import deinterlaced
from datasets.hdr import hdr_kind
from datasets.images import fit_frames
from datasets.picture import Orientation, frame_to_rgb, orientation, pixel_aspect
from datasets.source import Frame, Frames
from datasets.video_index import (
    Index,
    Scan,
    average_frame_rate,
    header_frame_rate,
    scan_packets,
)

logger = logging.getLogger(__name__)


class _Look(NamedTuple):
    """How the first frame is to be seen, and so are all others; None if it cannot be decoded.

    Of messages in the stream that turn the picture only key frames carry a copy.
    """

    size: tuple[int, int] | None  # height, width
    matrix: Orientation | None


class VideoFile:
    """Frames of a container, found by the time stamps of its packets.

    Where those are missing or a guess (as in AVI), the clip is decoded from the start and its
    frames are counted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with open_video(path) as (_, stream):
            self._header_rate = header_frame_rate(stream)
            self._pixel_aspect = pixel_aspect(stream)
        self._starts: dict[int, int] = {}  # what decoders learnt about the keys of the index
        self._reported = False
        self._told: set[str] = set()

    @cached_property
    def frame_rate(self) -> Fraction:
        if self._scan.times is None:
            return self._header_rate
        return average_frame_rate(self._scan.times, self._scan.time_base, self._header_rate)

    @cached_property
    def num_frames(self) -> int:
        if self._scan.frame_index is not None:
            count = len(self._scan.frame_index.frames)
            # Damage is mostly an end that is missing: the last frame tells, and costs one GOP.
            with suppress(MissingFrame):
                list(self._find(self._scan.frame_index, [count - 1]))
                self._report_damage(count)
                return count
        return sum(1 for _ in self._decode_from(0))

    @cached_property
    def times(self) -> Sequence[Fraction]:
        known = self._scan.times or []
        shown = [(time - known[0]) * self._scan.time_base for time in known[: self.num_frames]]
        while len(shown) < self.num_frames:  # of frames whose times the file does not state
            shown.append((shown[-1] + 1 / self.frame_rate) if shown else Fraction(0))
        return shown

    @property
    def size(self) -> tuple[int, int]:
        if self._look.size is None:
            next(self._decode_from(0))
            raise AssertionError("the first frame could not be decoded before")
        return self._look.size

    @cached_property
    def _look(self) -> "_Look":
        try:
            first = next(self._decode_from(0))
        except VideoError:
            return _Look(None, None)
        matrix = orientation(first)
        height, width = frame_to_rgb(first, self._pixel_aspect, matrix).shape[:2]
        return _Look((height, width), matrix)

    def __iter__(self) -> Iterator[Frame]:
        return self.frames_from(0)

    def frames_from(self, first: int) -> Iterator[Frame]:
        return map(self._fitted, self._decode_from(first))

    def read(self, frames: Sequence[int]) -> Frames:
        wanted = sorted(set(frames))
        if self._scan.frame_index is not None:
            check_range(self.path, frames, len(self._scan.frame_index.frames))
            found = self._find(self._scan.frame_index, wanted)
        else:
            check_range(self.path, frames, self.num_frames)
            found = self._count_up_to(wanted)
        images = {number: self._fitted(frame) for number, frame in found}
        return stack_frames(self.path, [images[number] for number in frames])

    def _fitted(self, frame: av.VideoFrame) -> Frame:
        """As it is meant to be seen; of the size of the first, as screens show a call."""
        picture = self._picture(frame)
        if self._look.size is None or picture.shape[:2] == self._look.size:
            return picture
        self._tell("its frames change their size; all are fitted into that of the first")
        return fit_frames(picture[None], self._look.size, "pad")[0]

    def _picture(self, frame: av.VideoFrame) -> Frame:
        kind = hdr_kind(frame)
        if kind is not None:
            self._tell(f"{kind}, a high dynamic range; tone-mapped to the standard one (BT.709)")
        return frame_to_rgb(frame, self._pixel_aspect, self._look.matrix)

    def _find(self, index: Index, wanted: Sequence[int]) -> Iterator[Numbered]:
        """The frames of these numbers, which ascend."""
        with Decoder(self.path, index, self._starts) as decoder:
            number = -1  # of the last frame that was decoded
            frames: Iterator[Numbered] = iter(())
            for target in wanted:
                nearest = index.keys[next(index.keys_before(target))].time
                if number < 0 or nearest > index.frames[number]:
                    frames = self._whole_frames(decoder, target)
                    number = -1
                while number < target:
                    following = _next_or_none(frames)
                    if following is None:
                        message = f"{self.path}: frame {target} cannot be decoded"
                        raise MissingFrame(message, target, number)
                    number, frame = following
                yield number, frame

    def _count_up_to(self, wanted: Sequence[int]) -> Iterator[Numbered]:
        numbers = set(wanted)
        for number, frame in enumerate(islice(self._decode_from(0), wanted[-1] + 1)):
            if number in numbers:
                yield number, frame

    def _decode_from(self, first: int) -> Iterator[av.VideoFrame]:
        """Every frame from `first` on, up to the end or to one that cannot be decoded."""
        count = first
        # Not every packet that is counted need hold a frame.
        is_known = self._scan.frame_index is not None or self._scan.is_cut_short
        try:
            for frame in (
                self._from_index(first) if self._scan.frame_index else self._from_start(first)
            ):
                yield frame
                count += 1
        except Damaged:
            is_known = True
        if count == 0:
            raise VideoError(f"{self.path}: none of its frames can be decoded")
        if count == first:
            raise MissingFrame(f"{self.path}: frame {first} cannot be decoded", first, first - 1)
        if is_known:
            self._report_damage(count)

    def _from_index(self, first: int) -> Iterator[av.VideoFrame]:
        index = self._scan.frame_index
        assert index is not None
        check_range(self.path, [first], len(index.frames))
        with Decoder(self.path, index, self._starts) as decoder:
            for number, frame in self._whole_frames(decoder, first):
                if number >= first:
                    yield frame

    def _from_start(self, first: int) -> Iterator[av.VideoFrame]:
        with open_video(self.path) as (container, stream):
            packets = dropwhile(lambda packet: not packet.is_keyframe, container.demux(stream))
            for _, frame in islice(self._deinterlaced(enumerate(decode(packets))), first, None):
                yield frame

    def _whole_frames(self, decoder: Decoder, first: int) -> Iterator[Numbered]:
        """Frames with their numbers from `first`, or shortly before, on; none is interlaced."""
        frames = decoder.frames_near(first)
        nearest = next(frames, None)
        if nearest is None:
            return
        number, frame = nearest
        if number == first > 0 and frame.interlaced_frame:
            frames = decoder.frames_near(first - 1)  # on which it depends
        else:
            frames = chain([nearest], frames)
        yield from self._deinterlaced(frames)

    def _deinterlaced(self, frames: Iterator[Numbered]) -> Iterator[Numbered]:
        return deinterlaced(map(self._seen, frames))

    def _seen(self, numbered: Numbered) -> Numbered:
        if numbered[1].interlaced_frame:
            self._tell("interlaced; its frames are made whole (bwdif)")
        return numbered

    @cached_property
    def _scan(self) -> Scan:
        return scan_packets(self.path)

    def _tell(self, what: str) -> None:
        """Once for a clip."""
        if what not in self._told:
            self._told.add(what)
            remarks.logger.warning("%s: %s", self.path, what)

    def _report_damage(self, count: int) -> None:
        promised = self._scan.num_promised
        if count < promised and not self._reported:
            logger.warning(
                "%s: frames after %d of %d cannot be decoded; using %d",
                *(self.path, count, promised, count),
            )
            self._reported = True


def _next_or_none(frames: Iterator[Numbered]) -> Numbered | None:
    try:
        return next(frames, None)
    except Damaged:
        return None
