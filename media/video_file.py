"""VideoFile, the reader of the frames of a video file."""

import logging
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from functools import cached_property
from itertools import chain, dropwhile, islice
from pathlib import Path

import av

from common.limits import LIMITS, Limits
from media.clip_checks import check_range, stack_frames
from media.container import Damaged, MissingFrame, VideoError, decode, open_video
from media.decoding import Decoder, Misplaced, Numbered
from media.deinterlace import deinterlaced
from media.frame_conversion import Look, frame_to_rgb, look_at, remarks_on
from media.frames import Frame, Frames
from media.images import fit_frames
from media.timing import Times, are_even
from media.video_index import Index, scan_packets, with_decoded_index

logger = logging.getLogger(__name__)


class VideoFile:
    """A VideoReader of a video file, which finds frames by the time stamps of the packets.

    If time stamps are missing or a guess (as in AVI), the clip is decoded from the start and its
    frames are counted. If a packet turns out to hold no frame, the whole clip is decoded once to
    number its frames anew.
    """

    def __init__(self, path: Path, limits: Limits = LIMITS) -> None:
        self.path = path
        self._limits = limits
        self._scan = scan_packets(path, limits)
        self._starts: dict[int, int] = {}  # shared by all decoders of this index; see `Decoder`
        self._is_checked = False  # whether the whole file was decoded to check the index
        self._num_listed = 0  # number of frames of an earlier index, which was wrong
        self._reported = False
        self._remarks: list[str] = []

    @property
    def frame_rate(self) -> Fraction:
        return self._scan.frame_rate

    @cached_property
    def num_frames(self) -> int:
        while self._scan.frame_index is not None:
            count = len(self._scan.frame_index.frames)
            try:
                # A damaged file mostly lacks its end. To test the last frame takes one GOP.
                list(self._find(self._scan.frame_index, [count - 1]))
            except Misplaced:
                continue  # the index has been replaced
            except MissingFrame:
                break
            self._report_damage(count)
            return count
        return sum(1 for _ in self._decode_from(0))

    @cached_property
    def times(self) -> Sequence[Fraction]:
        known = self._scan.times or ()
        shown = [(time - known[0]) * self._scan.time_base for time in known[: self.num_frames]]
        while len(shown) < self.num_frames:  # frames whose times the file does not state
            shown.append((shown[-1] + 1 / self.frame_rate) if shown else Fraction(0))
        return shown

    @cached_property
    def uneven_times(self) -> Times | None:
        rate, scan = self.frame_rate, self._scan
        last = max(scan.last_duration or 0, 1 / rate)
        known = (scan.times or ())[: self.num_frames]
        if are_even(known, rate * scan.time_base) and last <= 2 / rate:
            return None
        return [*self.times, self.times[-1] + last]

    @property
    def size(self) -> tuple[int, int]:
        if self._look is None:
            next(self._decode_from(0))
            raise AssertionError("the first frame could not be decoded before")
        return self._look.size

    @property
    def is_damaged(self) -> bool:
        """Whether frames at the end were found to be missing, which a warning has told."""
        return self._reported

    @property
    def remarks(self) -> Sequence[str]:
        if self._look is not None:
            self._note(*self._look.remarks)
        return self._remarks

    @cached_property
    def _look(self) -> Look | None:
        """The look of the first frame; None if it cannot be decoded."""
        if self._scan.look is not None:
            return self._scan.look
        try:
            return look_at(next(self._decode_from(0)), self._scan.pixel_aspect)
        except VideoError:
            return None

    def __iter__(self) -> Iterator[Frame]:
        return self.frames_from(0)

    def frames_from(self, first: int) -> Iterator[Frame]:
        return map(self._fitted, self._decode_from(first))

    def read(self, frames: Sequence[int]) -> Frames:
        try:
            images = self._read(frames)
        except Misplaced:  # the index has been replaced
            images = self._read(frames)
        return stack_frames(self.path, [images[number] for number in frames])

    def _read(self, frames: Sequence[int]) -> Mapping[int, Frame]:
        """Read frames by number; raises Misplaced at most once, after the index was replaced."""
        wanted = sorted(set(frames))
        index = self._scan.frame_index
        if index is not None:
            check_range(self.path, frames, max(len(index.frames), self._num_listed))
            found = self._find(index, wanted)
        else:
            found = self._count_up_to(wanted)
        return {number: self._fitted(frame) for number, frame in found}

    def _fitted(self, frame: av.VideoFrame) -> Frame:
        """Convert a frame to RGB as a player shows it, in the size of the first frame.

        The size of a recorded call changes; players fit such frames into the first one's size.
        """
        look = self._look
        picture = frame_to_rgb(
            frame, self._scan.pixel_aspect, None if look is None else look.matrix
        )
        if look is None or picture.shape[:2] == look.size:
            return picture
        self._note("frames of several sizes; all are fitted into that of the first")
        return fit_frames(picture[None], look.size, "pad")[0]

    def _find(self, index: Index, wanted: Sequence[int]) -> Iterator[Numbered]:
        """Yield the frames with these numbers, which must ascend.

        Raises:
            Misplaced: the index was wrong and has been replaced.
            MissingFrame: a frame cannot be decoded.
        """
        with Decoder(self.path, index, self._starts, self._limits) as decoder:
            number = -1  # number of the last frame that was decoded
            frames: Iterator[Numbered] = iter(())
            for target in wanted:
                if target >= len(index.frames):
                    raise self._missing(target, len(index.frames) - 1)
                nearest = index.keys[index.nearest_key(target)]
                if number < 0 or nearest > index.frames[number]:
                    frames = self._whole_frames(decoder, target)
                    number = -1
                while number < target:
                    following = None
                    try:
                        following = next(frames, None)
                    except Misplaced:
                        if self._correct(index):
                            raise
                    except Damaged:
                        pass
                    if following is None:
                        raise self._missing(target, number)
                    number, frame = following
                yield number, frame

    def _missing(self, frame: int, earlier: int) -> MissingFrame:
        return MissingFrame(f"{self.path}: frame {frame} cannot be decoded", frame, earlier)

    def _correct(self, wrong: Index) -> bool:
        """Try to replace the index `wrong`, by decoding the whole file once; False if in vain."""
        if self._scan.frame_index is not wrong:
            return True  # another read has replaced it
        if self._is_checked:
            return False
        scan = with_decoded_index(self.path, self._scan, self._limits)
        self._is_checked = True
        if scan is None:
            return False
        self._num_listed = len(wrong.frames)
        self._scan = scan
        self._starts = {}
        for name in ("num_frames", "times", "uneven_times"):
            self.__dict__.pop(name, None)  # cached values that followed from the wrong index
        return True

    def _count_up_to(self, wanted: Sequence[int]) -> Iterator[Numbered]:
        """Yield the frames with these numbers, which must ascend, decoding from the start."""
        numbers = set(wanted)
        count = 0
        if wanted[0] >= 0:
            for number, frame in enumerate(islice(self._decode_from(0), wanted[-1] + 1)):
                count += 1
                if number in numbers:
                    yield number, frame
        if count <= wanted[-1]:
            check_range(self.path, wanted, self.num_frames)

    def _decode_from(self, first: int) -> Iterator[av.VideoFrame]:
        """Yield every frame from `first` on, up to the end or to one that cannot be decoded."""
        position = first  # number of the next frame
        is_any = False
        # Without an index the packets were counted, and some of them may hold no frame.
        is_known = self._scan.frame_index is not None or self._scan.is_cut_short
        while True:
            index = self._scan.frame_index
            try:
                for frame in (
                    self._from_start(first) if index is None else self._from_index(index, position)
                ):
                    yield frame
                    position += 1
                    is_any = True
            except Misplaced:
                if index is not None and self._correct(index):
                    position = self._position_behind(index, position - 1)
                    continue
                is_known = True
            except Damaged:
                is_known = True
            break
        if position == 0:
            raise VideoError(f"{self.path}: none of its frames can be decoded")
        if not is_any:
            raise self._missing(first, first - 1)
        if is_known:
            self._report_damage(position)

    def _position_behind(self, wrong: Index, position: int) -> int:
        """Number of the frame that follows the one that the wrong index had at `position`."""
        index = self._scan.frame_index
        assert index is not None
        return 0 if position < 0 else bisect_right(index.frames, wrong.frames[position])

    def _from_index(self, index: Index, first: int) -> Iterator[av.VideoFrame]:
        if first == len(index.frames) < self._num_listed:
            return
        check_range(self.path, [first], len(index.frames))
        with Decoder(self.path, index, self._starts, self._limits) as decoder:
            for number, frame in self._whole_frames(decoder, first):
                if number >= first:
                    yield frame

    def _from_start(self, first: int) -> Iterator[av.VideoFrame]:
        with open_video(self.path, self._limits) as (container, stream):
            packets = dropwhile(lambda packet: not packet.is_keyframe, container.demux(stream))
            for _, frame in islice(self._deinterlaced(enumerate(decode(packets))), first, None):
                yield frame

    def _whole_frames(self, decoder: Decoder, first: int) -> Iterator[Numbered]:
        """Yield frames with their numbers, from `first` or earlier on.

        From `first` on, interlaced frames are deinterlaced.
        """
        frames = decoder.frames_near(first)
        nearest = next(frames, None)
        if nearest is not None and nearest[0] == first > 0 and nearest[1].interlaced_frame:
            frames = decoder.frames_near(first - 1)  # deinterlacing needs the frame before
            nearest = next(frames, None)
        while nearest is not None and nearest[0] < first - 1:  # no need to deinterlace these
            yield nearest
            nearest = next(frames, None)
        if nearest is not None:
            yield from self._deinterlaced(chain([nearest], frames))

    def _deinterlaced(self, frames: Iterator[Numbered]) -> Iterator[Numbered]:
        return deinterlaced(map(self._seen, frames))

    def _seen(self, numbered: Numbered) -> Numbered:
        """Note the remarks on a frame, and return it."""
        self._note(*remarks_on(numbered[1]))
        return numbered

    def _note(self, *remarks: str) -> None:
        self._remarks += [remark for remark in remarks if remark not in self._remarks]

    def _report_damage(self, count: int) -> None:
        promised = self._scan.num_promised
        if count < promised and not self._reported:
            logger.warning(
                "%s: frames after %d of %d cannot be decoded; using %d",
                *(self.path, count, promised, count),
            )
            self._reported = True
