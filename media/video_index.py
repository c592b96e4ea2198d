"""Finds the frames of a video file from its packets, in most cases without decoding any."""

import re
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from fractions import Fraction
from functools import partial
from itertools import dropwhile, islice, pairwise
from operator import add
from pathlib import Path
from typing import NamedTuple

import av
from av.container import InputContainer

from common.limits import LIMITS, MAX_FRAMES, Limits
from media.clip_checks import check_num_frames
from media.container import DEFAULT_FRAME_RATE, Damaged, decode, open_video
from media.frame_conversion import Look, look_at, pixel_aspect

# Containers that state only the decoding time of a packet. Presentation times are FFmpeg's guess,
# which is wrong if the codec reorders frames.
WITHOUT_PRESENTATION_TIMES = ("avi", "asf")
SEEK_BY_DECODING_TIME = ("mpegts", "mpeg", "asf")

# A frame may be off by this part of the time between two frames and still count as evenly spaced.
# Files that count in ms round by less, and nobody sees or hears it.
MAX_UNEVENNESS = Fraction(1, 4)

# A file may end so many seconds after its last frame before it counts as damaged.
MAX_HELD = Fraction(1, 4)
NUM_CHECKED = 64  # frames that are decoded if the order of the packets is suspect

# An MPEG-4 packet of up to so many bytes may hold no frame but say "as before" (vop_coded = 0 in
# ISO/IEC 14496-2, 6.2.5).
MAX_NOT_CODED = 16

# A duration in Matroska: 00:00:04.040000000
_DURATION = re.compile(r"(\d{1,9}):(\d{1,9}):(\d{1,9}\.?\d{0,9})", re.ASCII)

Opening = Callable[[], AbstractContextManager[tuple[InputContainer, av.VideoStream]]]
Timestamps = Sequence[int]  # in units of the stream; arrays, which take 8 bytes for each


class Index(NamedTuple):
    """The presentation times of all frames and of the key frames, ascending.

    Attributes:
        frames: time of each frame.
        keys: times of the frames at which, by the file, decoding can start.
        seek_times: times with which to seek in the container for the keys.
    """

    frames: Timestamps
    keys: Timestamps
    seek_times: Timestamps

    def nearest_key(self, position: int) -> int:
        """Number of the last key that is not after frame `position`."""
        return bisect_right(self.keys, self.frames[position]) - 1

    def keys_before(self, position: int) -> Iterator[int]:
        """Yield the keys from which to decode frame `position`: the nearest, then earlier ones."""
        nearest = self.nearest_key(position)
        step = 0
        while nearest - step > 0:
            yield nearest - step
            step = 2 * step + 1
        yield 0


class Scan(NamedTuple):
    """Facts on a video file from its header, its packets and its first frame.

    Attributes:
        frame_rate: frames per second; the measured average if the header states another rate.
        pixel_aspect: the width of a pixel over its height.
        frame_index: None if times are missing, ambiguous or guessed.
        times: when each frame is shown, in units of the stream, ascending; None if unknown. Their
            number may differ from that of the frames that can be decoded.
        time_base: seconds of a unit of the stream.
        num_promised: the number of frames that the file should have; if it is damaged, fewer can
            be decoded.
        is_cut_short: whether the file lacks data that its header promises, or is damaged.
        last_duration: for how many seconds the last frame is shown; None if unknown.
        look: how the first frame is shown; None if it cannot be decoded, or there is no index.
    """

    frame_rate: Fraction
    pixel_aspect: Fraction
    frame_index: Index | None
    times: Timestamps | None
    time_base: Fraction
    num_promised: int
    is_cut_short: bool
    last_duration: Fraction | None
    look: Look | None


class _Packets(NamedTuple):
    """The packets of a video stream. Packets that are not to be shown count as keys only."""

    times: list[int | None]  # presentation times, in the order of the file
    decoding_times: list[int | None]
    keys: list[tuple[int | None, int | None]]  # presentation and decoding time of each key
    durations: list[int]  # 0 if the file does not say
    end: int  # time at which the last packet ends
    is_damaged: bool
    are_frames: bool  # whether each packet surely holds a frame


def scan_packets(path: Path, limits: Limits = LIMITS) -> Scan:
    """Find the frames of a whole file.

    Frames are decoded only if the packets alone do not tell which of them are shown, or in which
    order.

    Raises:
        VideoError: the file holds no video, or frames larger than `limits` allow.
    """
    opening = partial(open_video, path, limits)
    with opening() as (container, stream):
        time_base = stream.time_base or 1 / DEFAULT_FRAME_RATE
        rate, aspect = header_frame_rate(stream), pixel_aspect(stream)
        packets = _read_packets(container, stream)
        check_num_frames(path, len(packets.times))
        is_ordered = _states_order(opening, container, stream, packets)
        names = container.format.name, stream.codec_context.name
        stated_end = _stated_end(stream)
        num_stated = stream.frames if container.format.name != "avi" else 0  # avi counts pauses
    index: Index | None = None
    look: Look | None = None
    if is_ordered and any(time is not None for time, _ in packets.keys):
        index, look = _make_index(opening, *names, packets, aspect)
    times = index.frames if index is not None else _ascending(packets.decoding_times)
    num_promised = len(times) if times is not None else len(packets.times)
    is_cut_short = packets.is_damaged or (stated_end - packets.end) * time_base >= MAX_HELD
    if times is not None:
        complete = _without_gaps(times, packets) if is_cut_short else times
        rate = average_frame_rate(complete, time_base, rate)
    if is_cut_short:
        num_promised = max(num_promised + 1, num_stated)
        if times is not None:
            num_promised = max(num_promised, round((stated_end - times[0]) * time_base * rate))
    duration = _last_duration(packets)
    return Scan(
        frame_rate=rate,
        pixel_aspect=aspect,
        frame_index=index,
        times=times,
        time_base=time_base,
        num_promised=num_promised,
        is_cut_short=is_cut_short,
        last_duration=None if duration is None else duration * time_base,
        look=look if index is not None else None,
    )


def with_decoded_index(path: Path, scan: Scan, limits: Limits = LIMITS) -> Scan | None:
    """Decode the whole file, and return `scan` with an index of the frames that were decoded.

    None if `scan` has no index, if a frame cannot be decoded, or if the index was right.
    """
    wrong = scan.frame_index
    if wrong is None:
        return None
    index = _decoded_index(partial(open_video, path, limits), wrong.keys, wrong.seek_times)
    if index is None or index.frames == wrong.frames:
        return None
    num_frames = len(index.frames)
    num_promised = max(scan.num_promised, num_frames) if scan.is_cut_short else num_frames
    rate = average_frame_rate(index.frames, scan.time_base, scan.frame_rate)
    return scan._replace(
        frame_index=index, times=index.frames, num_promised=num_promised, frame_rate=rate
    )


def _read_packets(container: InputContainer, stream: av.VideoStream) -> _Packets:
    times: list[int | None] = []
    decoding_times: list[int | None] = []
    keys: list[tuple[int | None, int | None]] = []
    durations: list[int] = []
    end = 0
    is_damaged = False
    are_frames = True
    codec = stream.codec_context.name
    with suppress(av.FFmpegError):
        for packet in container.demux(stream):
            if not packet.size or packet.is_corrupt:
                is_damaged |= packet.is_corrupt and bool(keys)
                continue
            if packet.is_keyframe:
                keys.append((packet.pts, packet.dts))
            is_hidden = packet.is_discard  # an edit list hides it; other frames refer to it
            if not is_hidden and not (codec == "vp8" and _is_hidden_vp8(packet)):
                times.append(packet.pts)
                decoding_times.append(packet.dts)
                durations.append(packet.duration or 0)
                are_frames &= codec != "mpeg4" or packet.size > MAX_NOT_CODED
                end = max(end, (packet.pts or packet.dts or 0) + (packet.duration or 0))
                if len(times) > MAX_FRAMES:
                    break  # a small file may state any number of packets
    return _Packets(times, decoding_times, keys, durations, end, is_damaged, are_frames)


def _without_gaps(times: Timestamps, packets: _Packets) -> Timestamps:
    """Return the times before which no frame is missing, in a file that is cut short.

    Packets lost at the end would be decoded after the last one that is there, and a frame is never
    shown before it is decoded.
    """
    last_decoded = max(_known(packets.decoding_times), default=times[-1])
    return times[: max(bisect_right(times, last_decoded), 1)]


def _last_duration(packets: _Packets) -> int | None:
    """Duration of the last frame in units of the stream; None if unknown.

    Packets and their durations are in the order of decoding. So the last frame ends at the end of
    the last packet plus the delay between decoding and presentation.
    """
    times, decoding_times = _known(packets.times), _known(packets.decoding_times)
    if not 0 < len(times) == len(decoding_times) == len(packets.times) or not packets.keys:
        return None
    key, decoded_key = packets.keys[0]
    if key is None or decoded_key is None:
        return None
    # Frames that are shown earlier, or not at all, may come before the first key.
    delay = min(key - decoded_key, min(times) - min(decoding_times))
    end = max(map(add, decoding_times, packets.durations))
    return max(end + delay - max(times), 0)


def _is_hidden_vp8(packet: av.Packet) -> bool:
    """Whether the bit show_frame is 0 (RFC 6386, 9.1): other frames refer to this one."""
    return not memoryview(packet)[0] & 0x10


def _states_order(
    opening: Opening, container: InputContainer, stream: av.VideoStream, packets: _Packets
) -> bool:
    """Whether the presentation times of the packets are right."""
    decoding_times = _known(packets.decoding_times)
    if any(later < earlier for earlier, later in pairwise(decoding_times)):
        return False  # the clock was set back
    if not stream.codec_context.has_b_frames:
        return True
    if container.format.name in WITHOUT_PRESENTATION_TIMES:
        return False
    # The codec may reorder frames, but by the times it never did. Either that is true, or the file
    # was converted from a container without presentation times. Decoding some frames tells.
    is_suspect = _ascending(packets.times) is not None
    return not is_suspect or _ascending(_first_times(opening)) is not None


def _make_index(
    opening: Opening, container: str, codec: str, packets: _Packets, aspect: Fraction
) -> tuple[Index | None, Look | None]:
    """Make the index, and the look of its first frame."""
    seeks_by_decoding_time = container in SEEK_BY_DECODING_TIME
    found = {
        (time, decoded if seeks_by_decoding_time and decoded is not None else time)
        for time, decoded in packets.keys
        if time is not None
    }
    keys, seek_times = (array("q", times) for times in zip(*sorted(found), strict=True))
    first = _first_whole(opening, keys[0])
    look = None if first is None else look_at(first, aspect)
    begin = keys[0]
    # A clip cut out of a longer one may begin with frames whose references are gone.
    if codec == "h264" and first is not None and first.pts is not None:
        begin = first.pts
    frames = array("q", sorted({time for time in _known(packets.times) if time >= begin}))
    is_doubtful = len(set(packets.times) - {None}) < len(packets.times)
    is_wrong = not packets.are_frames
    if is_doubtful or container in SEEK_BY_DECODING_TIME:  # there a packet may be half a frame
        shown = _first_times(opening, begin)
        is_wrong |= shown != [*frames[: len(shown)]]
    if is_wrong:
        return _decoded_index(opening, keys, seek_times), look
    return (Index(frames, keys, seek_times) if frames else None), look


def _decoded_index(opening: Opening, keys: Timestamps, seek_times: Timestamps) -> Index | None:
    try:
        frames = _ascending([*_decoded_times(opening, keys[0])])
    except Damaged:
        return None
    return Index(frames, keys, seek_times) if frames is not None else None


def _first_times(opening: Opening, begin: int | None = None) -> list[int | None]:
    times: list[int | None] = []
    with suppress(Damaged):
        times.extend(islice(_decoded_times(opening, begin), NUM_CHECKED))
    return times


def _first_whole(opening: Opening, key: int) -> av.VideoFrame | None:
    """Decode the first frame from the first key, at time `key`; None if there is none.

    Its time is later than `key` if the picture is refreshed in parts, over several frames.
    """
    with opening() as (container, stream), suppress(Damaged):
        packets = container.demux(stream)
        following = dropwhile(lambda packet: packet.pts != key or not packet.is_keyframe, packets)
        return next(decode(following, key), None)
    return None


def _decoded_times(opening: Opening, begin: int | None) -> Iterator[int | None]:
    """Decode the file from `begin` on and yield the times of its frames; raises Damaged."""
    with opening() as (container, stream):
        packets = dropwhile(lambda packet: not packet.is_keyframe, container.demux(stream))
        for frame in decode(packets, begin):
            yield frame.pts


def _known(times: Sequence[int | None]) -> list[int]:
    return [time for time in times if time is not None]


def _ascending(times: Sequence[int | None]) -> Timestamps | None:
    """Return the times if all are known and each is later than the one before; else None."""
    known = array("q", _known(times))
    is_complete = len(known) == len(times) > 0
    return known if is_complete and all(a < b for a, b in pairwise(known)) else None


def _stated_end(stream: av.VideoStream) -> Fraction:
    """When the last frame should end by the file's header, in units of the stream."""
    if stream.duration is not None:
        return Fraction((stream.start_time or 0) + stream.duration)
    tag = _DURATION.fullmatch(stream.metadata.get("DURATION", ""))
    if tag is None or stream.time_base is None:
        return Fraction(0)
    return (int(tag[1]) * 3600 + int(tag[2]) * 60 + Fraction(tag[3])) / stream.time_base


def header_frame_rate(stream: av.VideoStream) -> Fraction:
    """Frames per second, exact, by the file's header; a guess if the header states none."""
    # The average that FFmpeg gives for a GIF covers its first frames only.
    if stream.codec_context.name == "gif" and stream.frames and stream.duration:
        assert stream.time_base is not None
        return Fraction(stream.frames) / (stream.duration * stream.time_base)
    return stream.average_rate or stream.guessed_rate or DEFAULT_FRAME_RATE


def average_frame_rate(
    times: Timestamps | Sequence[Fraction], time_base: Fraction, stated: Fraction
) -> Fraction:
    """Return the rate `stated` if it agrees with `times`, else their average, per second.

    They agree if the last frame is off by at most MAX_UNEVENNESS. Matroska files may not keep the
    rate that they state, and for a browser's recording, which states none, FFmpeg returns 1000.
    `times` are in units of `time_base` seconds.
    """
    num_intervals = len(times) - 1
    seconds = (times[-1] - times[0]) * time_base
    if abs(seconds * stated - num_intervals) <= MAX_UNEVENNESS:
        return stated
    # Rounded to what timestamps in ms can tell; a rate close to 30000/1001 becomes exactly that.
    interval = seconds / num_intervals
    if interval > 1:  # a time lapse
        return 1 / interval.limit_denominator(1001)
    return (1 / interval).limit_denominator(1001)
