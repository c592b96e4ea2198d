"""Where the frames of a video file are, found from its packets, mostly without decoding any."""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from itertools import dropwhile, islice, pairwise
from pathlib import Path
from typing import NamedTuple

import av
from av.container import InputContainer

from datasets.container import DEFAULT_FRAME_RATE, Damaged, decode, open_video

# Containers that state one time a packet, in the order of decoding: when a frame is shown is
# FFmpeg's guess, and a wrong one where the codec reorders frames.
WITHOUT_PRESENTATION_TIMES = ("avi", "asf")
SEEK_BY_DECODING_TIME = ("mpegts", "mpeg", "asf")

# Seconds at the end of a file without a frame that are not taken for damage.
MAX_HELD = Fraction(1, 4)
NUM_CHECKED = 64  # frames that are decoded where the order of the packets is suspect


class Key(NamedTuple):
    """A packet at which decoding can start, so the file says."""

    time: int  # when its frame is shown
    seek_time: int  # by which the container finds it


class Index(NamedTuple):
    """Presentation times in units of the stream, ascending."""

    frames: Sequence[int]
    keys: Sequence[Key]

    def keys_before(self, position: int) -> Iterator[int]:
        """Numbers of keys from which to get frame `position`: the nearest, then further back."""
        time = self.frames[position]
        nearest = bisect_right(self.keys, time, key=lambda key: key.time) - 1
        step = 0
        while nearest - step > 0:
            yield nearest - step
            step = 2 * step + 1
        yield 0


class Scan(NamedTuple):
    """What the packets of a file tell.

    Attributes:
        frame_index: None where times are missing, ambiguous or guessed.
        times: when each frame is shown, in units of the stream, ascending; None if that is unknown.
            It may differ in number from the frames that can be decoded.
        num_promised: the number of frames that the file should have; more than can be had if it
            is damaged.
        is_cut_short: the file lacks data that its header promises, or has been damaged on its way.
    """

    frame_index: Index | None
    times: Sequence[int] | None
    time_base: Fraction
    num_promised: int
    is_cut_short: bool


class _Packets(NamedTuple):
    times: list[int | None]  # of the frames to be shown, in the order of the file
    decoding_times: list[int | None]  # of the same
    keys: list[tuple[int | None, int | None]]  # when shown, when decoded
    end: int
    is_damaged: bool


def scan_packets(path: Path) -> Scan:
    """Find the frames of a whole file.

    Decodes only where the packets leave open which of them are shown, or in which order.

    Raises:
        VideoError: there is no video in it.
    """
    with open_video(path) as (container, stream):
        time_base = stream.time_base or 1 / DEFAULT_FRAME_RATE
        packets = _read_packets(container, stream)
        is_ordered = _states_order(path, container, stream, packets)
        names = container.format.name, stream.codec_context.name
        index = _make_index(path, *names, packets) if is_ordered else None
        stated_end, rate = _stated_end(stream), header_frame_rate(stream)
        num_stated = stream.frames if container.format.name != "avi" else 0  # it counts pauses
    times = index.frames if index is not None else _ascending(packets.decoding_times)
    num_frames = len(times) if times is not None else len(packets.times)
    if not packets.is_damaged and (stated_end - packets.end) * time_base < MAX_HELD:
        return Scan(index, times, time_base, num_frames, is_cut_short=False)
    promised = num_frames + 1
    if times is not None:
        rate = average_frame_rate(times, time_base, rate)
        promised = max(promised, round((stated_end - times[0]) * time_base * rate))
    return Scan(index, times, time_base, max(promised, num_stated), is_cut_short=True)


def _read_packets(container: InputContainer, stream: av.VideoStream) -> _Packets:
    times: list[int | None] = []
    decoding_times: list[int | None] = []
    keys: list[tuple[int | None, int | None]] = []
    end = 0
    is_damaged = False
    is_vp8 = stream.codec_context.name == "vp8"
    with suppress(av.FFmpegError):
        for packet in container.demux(stream):
            if not packet.size or packet.is_corrupt:
                is_damaged |= packet.is_corrupt and bool(keys)
                continue
            if packet.is_keyframe:
                keys.append((packet.pts, packet.dts))
            is_hidden = packet.is_discard  # by an edit list, because others refer to it
            if not is_hidden and not (is_vp8 and _is_hidden_vp8(packet)):
                times.append(packet.pts)
                decoding_times.append(packet.dts)
                end = max(end, (packet.pts or packet.dts or 0) + (packet.duration or 0))
    return _Packets(times, decoding_times, keys, end, is_damaged)


def _is_hidden_vp8(packet: av.Packet) -> bool:
    """By the bit show_frame (RFC 6386, 9.1): such a frame is only referred to."""
    return not memoryview(packet)[0] & 0x10


def _states_order(
    path: Path, container: InputContainer, stream: av.VideoStream, packets: _Packets
) -> bool:
    """Whether the times of the packets are those at which their frames are shown."""
    decoding_times = [time for time in packets.decoding_times if time is not None]
    if any(later < earlier for earlier, later in pairwise(decoding_times)):
        return False  # the clock was set back
    if not stream.codec_context.has_b_frames:
        return True
    if container.format.name in WITHOUT_PRESENTATION_TIMES:
        return False
    # The codec may reorder frames, and by their times it never did: either that is so, or they
    # come from one of those containers.
    is_suspect = _ascending(packets.times) is not None
    return not is_suspect or _ascending(_first_times(path)) is not None


def _make_index(path: Path, container: str, codec: str, packets: _Packets) -> Index | None:
    seeks_by_decoding_time = container in SEEK_BY_DECODING_TIME
    found = {
        Key(time, decoded if seeks_by_decoding_time and decoded is not None else time)
        for time, decoded in packets.keys
        if time is not None
    }
    keys = sorted(found)
    if not keys:
        return None
    # A clip cut out of a longer one may begin with frames whose references are gone.
    begin = keys[0].time if codec != "h264" else _first_whole(path, keys[0].time)
    frames = sorted({time for time in packets.times if time is not None and time >= begin})
    is_doubtful = len(set(packets.times) - {None}) < len(packets.times)
    if is_doubtful or container in SEEK_BY_DECODING_TIME:  # where a packet may be half a frame
        shown = _first_times(path, begin)
        if shown != frames[: len(shown)]:
            return _decoded_index(path, keys, begin)
    return Index(frames, keys) if frames else None


def _decoded_index(path: Path, keys: Sequence[Key], begin: int) -> Index | None:
    try:
        frames = _ascending([*_decoded_times(path, begin)])
    except Damaged:
        return None
    return Index(frames, keys) if frames is not None else None


def _first_times(path: Path, begin: int | None = None) -> list[int | None]:
    times: list[int | None] = []
    with suppress(Damaged):
        times.extend(islice(_decoded_times(path, begin), NUM_CHECKED))
    return times


def _first_whole(path: Path, key: int) -> int:
    """When the first frame is shown that is decoded from a first key at time `key`.

    That is later where the picture is refreshed in parts, over several frames.
    """
    with open_video(path) as (container, stream), suppress(Damaged):
        packets = container.demux(stream)
        following = dropwhile(lambda packet: packet.pts != key or not packet.is_keyframe, packets)
        for frame in decode(following, key):
            return key if frame.pts is None else frame.pts
    return key


def _decoded_times(path: Path, begin: int | None) -> Iterator[int | None]:
    """Times of the frames, from `begin` on, as they come out of the decoder; raises Damaged."""
    with open_video(path) as (container, stream):
        packets = dropwhile(lambda packet: not packet.is_keyframe, container.demux(stream))
        for frame in decode(packets, begin):
            yield frame.pts


def _ascending(times: Sequence[int | None]) -> Sequence[int] | None:
    """The same times, if all are known and each is later than the one before."""
    known = [time for time in times if time is not None]
    is_complete = len(known) == len(times) > 0
    return known if is_complete and all(a < b for a, b in pairwise(known)) else None


def _stated_end(stream: av.VideoStream) -> Fraction:
    """When the last frame should end by what the file's header says, in units of the stream."""
    if stream.duration is not None:
        return Fraction((stream.start_time or 0) + stream.duration)
    # Matroska
    tag = re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", ""))
    if tag is None or stream.time_base is None:
        return Fraction(0)
    return (int(tag[1]) * 3600 + int(tag[2]) * 60 + Fraction(tag[3])) / stream.time_base


def header_frame_rate(stream: av.VideoStream) -> Fraction:
    """Frames per second, exact, by the file's header; a guess where that says nothing."""
    # The average that FFmpeg gives for a GIF covers its first frames only.
    if stream.codec_context.name == "gif" and stream.frames and stream.duration:
        assert stream.time_base is not None
        return Fraction(stream.frames) / (stream.duration * stream.time_base)
    return stream.average_rate or stream.guessed_rate or DEFAULT_FRAME_RATE


def average_frame_rate(times: Sequence[int], time_base: Fraction, stated: Fraction) -> Fraction:
    """`stated`, or the average of `times` where the two are more than a frame apart at the end.

    What Matroska states need not be kept, and of a browser's recording, which states nothing,
    FFmpeg says 1000. `times` are in units of `time_base` seconds.
    """
    num_intervals = len(times) - 1
    seconds = (times[-1] - times[0]) * time_base
    if abs(seconds * stated - num_intervals) <= 1:
        return stated
    # Times in ms cannot tell more; it makes 30000/1001 of what is close to it.
    return (num_intervals / seconds).limit_denominator(1001)
