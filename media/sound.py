"""Takes the sound of a file into a video that is being written, in step with its frames."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain, count
from math import ceil, floor
from pathlib import Path
from typing import NamedTuple, Self

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.container import InputContainer, OutputContainer
from av.filter import Graph

from common.errors import UserError
from common.limits import LIMITS, Limits
from common.safe_paths import is_folder
from media.container import best_video, container_reason, open_container
from media.image_clips import STRIP_SUFFIX
from media.timing import MAX_SECONDS
from media.video_index import scan_packets


class _Format(NamedTuple):
    copied: tuple[str, ...]  # codecs whose packets are copied
    encoder: str  # encoder for sound of all other codecs
    hides_lead: bool  # whether players skip sound that begins before time 0
    max_step: int | None  # seconds from a copied packet to the next; None: any number


FORMATS = {
    ".mp4": _Format(("aac", "mp3"), "aac", hides_lead=True, max_step=MAX_SECONDS),
    ".mov": _Format(("aac", "mp3"), "aac", hides_lead=True, max_step=MAX_SECONDS),
    ".webm": _Format(("opus", "vorbis"), "libopus", hides_lead=False, max_step=None),
}
SAMPLE_RATE = 48000  # samples a second of encoded sound; both encoders accept it
# Rates that are read, of the header and of each packet. One of 65,535 samples, one a second, would
# be resampled to three billion.
SAMPLE_RATES = range(1000, 768_001)
MAX_CHANNELS = 64
BIT_RATE = 64000  # bits a second for each channel
MIN_COPIED_RATE = 16000  # at lower rates packets last longer than two frames, and mp4 has no MP3
MAX_ERROR = 0.03  # seconds; a gap that would shift the sound by more is filled with silence
# Seconds of silence in place of gaps, and one more for each frame of the video. A file of some
# kilobytes may have gaps of years, in its pictures too, and to encode an hour takes half a minute.
MAX_SILENCE = 3600
# Seconds of encoded sound, and one more for each frame of the video. A packet of 14 bytes may hold
# a minute: a file of some megabytes has thousands of hours, under pictures that last for hours.
MAX_ENCODED = 12 * 3600
MAX_DISTANCE = 10**9  # seconds, 31 years, from the start of a sound to packets that are read
_REMEDY = "leave it out with --audio none, or choose a part with --start and --end"
WARM_UP = Fraction(1, 10)  # seconds; an Opus decoder takes 0.08 until its output is right


@dataclass(frozen=True)
class Sound:
    """The sound of a file from `start` on, in seconds on the file's own clock.

    `start` may be before the file's sound begins; until then it is silent. `limits` are those with
    which the file is opened.
    """

    path: Path
    start: Fraction
    limits: Limits = LIMITS

    def cut(self, start: Fraction) -> Self:
        """Return this sound from `start` seconds after its beginning on."""
        return replace(self, start=self.start + start)


def open_sound(path: Path | str, limits: Limits = LIMITS) -> Sound | None:
    """Open the sound of a video or sound file; in a video it starts with the first picture.

    None if there is no sound, as in a folder or a strip of frames.

    Raises:
        UserError: `path` is missing, holds no media, its sound cannot be decoded, or its frames are
            larger than `limits` allow.
    """
    path = Path(path)
    if is_folder(path) or path.suffix.lower() == STRIP_SUFFIX:
        return None
    with _open(path, limits) as container:
        stream = container.streams.best("audio")
        if not isinstance(stream, av.AudioStream):
            return None
        if stream.codec_context is None:
            raise UserError(f"{path}: its sound cannot be decoded: the codec is unknown")
        sample_rate, channels = stream.codec_context.sample_rate, stream.codec_context.channels
        if sample_rate not in SAMPLE_RATES or channels > MAX_CHANNELS:
            raise UserError(
                f"{path}: its sound has {channels} channels of {sample_rate} samples a second; at "
                f"most {MAX_CHANNELS} of {SAMPLE_RATES[0]} to {SAMPLE_RATES[-1]} are read"
            )
        return Sound(path, _beginning(path, container, stream, limits), limits)


class SoundTrack:
    """Adds sound to a video that is being written; memory does not grow with its length.

    Packets of AAC and MP3 are copied into mp4, those of Opus and Vorbis into webm; other sound is
    encoded anew, and so is sound with gaps of hours in mp4. A copied track in mp4 begins with the
    packet before the cut, and an edit list hides the excess to the sample; in webm it begins with
    the packet after the cut, some 20 ms late. Sound and pictures stay in step in any case, in webm
    to 1 ms, the unit of its times.
    """

    def __init__(self, output: OutputContainer, suffix: str, sound: Sound) -> None:
        kind = FORMATS[suffix]
        self._input = _open(sound.path, sound.limits)
        stream = self._input.streams.best("audio")
        assert isinstance(stream, av.AudioStream), "open_sound has looked"
        packets = _packets(self._input, stream, sound.start)
        codec = stream.codec_context
        lead = Fraction(2 * codec.frame_size if kind.hides_lead else codec.delay, codec.rate)
        fits = codec.codec.canonical_name in kind.copied and codec.sample_rate >= MIN_COPIED_RATE
        self._is_encoded = not (
            fits and (kind.max_step is None or _has_steps(sound, lead, kind.max_step))
        )
        if not self._is_encoded:
            packets = _from_lead(packets, lead)
            self._packets = _copied(packets, output.add_stream_from_template(stream))
        else:
            target = output.add_stream(kind.encoder, SAMPLE_RATE)
            assert isinstance(target, av.AudioStream)
            target.layout = "mono" if codec.channels == 1 else "stereo"
            target.bit_rate = BIT_RATE * target.channels
            decoded = _decoded(packets, codec, sound.start, self._add_silence)
            self._packets = _encoded(decoded, target)
        self._path = sound.path
        self._num_frames = self._num_silent = 0  # frames of the video; seconds of silence
        self._next = next(self._packets, None)

    def _add_silence(self) -> None:
        """Count a second of silence in place of a gap; raise UserError if there are too many."""
        self._num_silent += 1
        if self._num_silent > MAX_SILENCE + self._num_frames:
            raise UserError(
                f"{self._path}: its sound has gaps of more than {MAX_SILENCE // 60} minutes, and "
                f"hardly any pictures meanwhile; {_REMEDY}"
            )

    def packets_before(self, end: Fraction) -> Iterator[av.Packet]:
        """Yield the next packets of another frame, up to those that begin at its `end` (seconds).

        Raises:
            UserError: too much sound would be encoded, or silence in place of gaps.
        """
        self._num_frames += 1
        while self._next is not None and _begin(self._next) < end:
            if self._is_encoded and _begin(self._next) > MAX_ENCODED + self._num_frames:
                raise UserError(
                    f"{self._path}: its sound lasts for more than {MAX_ENCODED // 3600} hours, "
                    f"with hardly any pictures meanwhile; {_REMEDY}"
                )
            yield self._next
            self._next = next(self._packets, None)

    def close(self) -> None:
        self._input.close()


def _begin(packet: av.Packet) -> Fraction:
    assert packet.pts is not None
    return packet.pts * packet.time_base


def _open(path: Path, limits: Limits = LIMITS) -> InputContainer:
    try:
        return open_container(path, limits)
    except av.FFmpegError as error:
        reason = container_reason(path, error)
        raise UserError(f"{path}: cannot be read as sound or video: {reason}") from None


def _beginning(
    path: Path, container: InputContainer, sound: av.AudioStream, limits: Limits
) -> Fraction:
    """Time of the first picture in seconds; of the first sound if there are no pictures."""
    if best_video(container) is not None:
        scan = scan_packets(path, limits)
        return (scan.times[0] if scan.times is not None else 0) * scan.time_base
    assert sound.time_base is not None
    return (sound.start_time or 0) * sound.time_base


def _packets(
    container: InputContainer, stream: av.AudioStream, start: Fraction
) -> Iterator[av.Packet]:
    """Yield all packets with their times counted from `start`; the last packet is empty.

    They are read from the beginning of the file, because after a seek in MP3 times are a guess.
    Packets decades away are left out: FFmpeg has 64 bits for a time, also in units of a sample.
    """
    assert stream.time_base is not None
    offset = round(start / stream.time_base)
    farthest = floor(MAX_DISTANCE / stream.time_base)
    try:
        for packet in container.demux(stream):
            if packet.pts is not None:
                time = packet.pts - offset
                if abs(time) > farthest:
                    continue
                packet.pts = packet.dts = time
            yield packet
    except av.FFmpegError:
        return  # the file is cut off


def _from_lead(packets: Iterator[av.Packet], lead: Fraction) -> Iterator[av.Packet]:
    """Yield the packets that begin at -`lead` seconds or later, in ascending order."""
    earliest = previous = None
    for packet in packets:
        if packet.pts is None or packet.is_corrupt:
            continue
        if earliest is None:  # in whole numbers, since there are many packets
            # Times are rounded to units of the file, so being early by half a unit is allowed.
            earliest = ceil(-lead / packet.time_base - Fraction(1, 2))
        if packet.pts >= earliest and (previous is None or packet.pts > previous):
            previous = packet.pts
            yield packet


def _has_steps(sound: Sound, lead: Fraction, largest: int) -> bool:
    """Whether no packet from -`lead` on lasts, or is from the next, more than `largest` seconds.

    An mp4 has 31 bits for it, in samples. FFmpeg lets all sound after a longer gap follow at once.
    """
    with _open(sound.path, sound.limits) as container:
        stream = container.streams.best("audio")
        assert isinstance(stream, av.AudioStream), "open_sound has looked"
        assert stream.time_base is not None
        limit = floor(largest / stream.time_base)
        previous = None
        for packet in _from_lead(_packets(container, stream, sound.start), lead):
            assert packet.pts is not None
            step = 0 if previous is None else packet.pts - previous
            if max(step, packet.duration or 0) > limit:
                return False
            previous = packet.pts
    return True


def _copied(packets: Iterator[av.Packet], target: av.AudioStream) -> Iterator[av.Packet]:
    for packet in packets:
        packet.stream = target
        yield packet


def _encoded(frames: Iterator[AudioFrame], target: av.AudioStream) -> Iterator[av.Packet]:
    for frame in _resampled(frames, target):
        yield from target.encode(frame)
    if target.codec_context.is_open:
        yield from target.encode(None)


def _decoded(
    packets: Iterator[av.Packet],
    codec: AudioCodecContext,
    start: Fraction,
    add_silence: Callable[[], object],
) -> Iterator[AudioFrame]:
    """Decode packets; the times of the frames are in samples from `start`.

    A frame without a time follows the one before it. Whole seconds of a gap become silence;
    `add_silence` is called before each. A frame whose rate is not read is left out like a damaged
    one: some codecs state the rate in each packet. Frames last at most a second.
    """
    following = -start  # seconds
    for packet in packets:
        length = (packet.duration or 0) * packet.time_base
        if packet.pts is not None and _begin(packet) + length < -WARM_UP:
            continue
        frames: list[AudioFrame] = []
        with suppress(av.FFmpegError):  # a damaged packet is left out
            frames = codec.decode(packet)
        for frame in frames:
            if frame.sample_rate not in SAMPLE_RATES:
                continue
            # Decoders with a delay of a packet, such as WMA's, give no time for the last frame.
            begin = following
            if frame.pts is not None and frame.time_base is not None:
                begin = frame.pts * frame.time_base
            end = begin + Fraction(frame.samples, frame.sample_rate)
            if end < -WARM_UP:
                following = end
                continue
            # A second at a time: the filter would keep the silence of a whole gap in memory.
            for second in count(max(ceil(following), 0)):
                if second + 1 >= begin:
                    break
                add_silence()
                yield _silence(frame, second)
            frame.time_base = Fraction(1, frame.sample_rate)
            frame.pts = round(begin * frame.sample_rate)
            following = end
            yield from _seconds(frame)


def _seconds(frame: AudioFrame) -> Iterator[AudioFrame]:
    """Cut a frame into seconds: a packet may last for hours, and would be resampled as a whole."""
    if frame.samples <= frame.sample_rate:
        yield frame
        return
    sample_rate, form, layout = _kind(frame)
    graph = Graph()
    source = graph.add_abuffer(
        sample_rate=sample_rate, format=form, layout=layout, time_base=frame.time_base
    )
    cut = graph.add("asetnsamples", f"n={sample_rate}:p=0")
    graph.link_nodes(source, cut, graph.add("abuffersink")).configure()
    graph.push(frame)
    graph.push(None)
    yield from _drain(graph)


def _silence(like: AudioFrame, second: int) -> AudioFrame:
    """Make a second of silence in the format of the frame `like`, at the given second."""
    frame = AudioFrame(like.format.name, like.layout.name, like.sample_rate)
    for plane in frame.planes:
        plane.update((b"\x80" if like.format.bytes == 1 else b"\0") * plane.buffer_size)
    frame.sample_rate = like.sample_rate
    frame.time_base = Fraction(1, like.sample_rate)
    frame.pts = second * like.sample_rate
    return frame


def _resampled(frames: Iterator[AudioFrame], target: av.AudioStream) -> Iterator[AudioFrame]:
    """Convert frames to the target's rate and layout, from time 0 on; fill gaps with silence."""
    graph, kind, num_samples = None, None, 0
    for frame in chain(frames, [None]):
        found = None if frame is None else _kind(frame)
        if graph is not None and found != kind:  # broadcasts change format between programmes
            graph.push(None)
            for piece in _drain(graph):
                num_samples += piece.samples
                yield piece
            graph = None
        if frame is None:
            return
        if graph is None:
            graph, kind = _resampling(frame, target, num_samples), found
        graph.push(frame)
        for piece in _drain(graph):
            num_samples += piece.samples
            yield piece


def _kind(frame: AudioFrame) -> tuple[int, str, str]:
    return frame.sample_rate, frame.format.name, frame.layout.name


def _resampling(frame: AudioFrame, target: av.AudioStream, first: int) -> Graph:
    """Build a resampling filter for frames like this one; its output begins at sample `first`."""
    sample_rate, form, layout = _kind(frame)
    graph = Graph()
    chained = [
        graph.add_abuffer(
            sample_rate=sample_rate, format=form, layout=layout, time_base=frame.time_base
        ),
        graph.add("aresample", f"{target.rate}:first_pts={first}:min_hard_comp={MAX_ERROR}"),
        graph.add("aformat", f"channel_layouts={target.layout.name}"),
        graph.add("abuffersink"),
    ]
    graph.link_nodes(*chained).configure()
    return graph


def _drain(graph: Graph) -> Iterator[AudioFrame]:
    while True:
        try:
            frame = graph.pull()
        except (BlockingIOError, EOFError):
            return
        assert isinstance(frame, AudioFrame)
        yield frame
