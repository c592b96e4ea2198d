from fractions import Fraction
from functools import partial

import av
import numpy as np
import pytest

from common.errors import UserError
from media import sound
from media.excerpt import Excerpt
from media.sound import Sound, open_sound
from media.video import open_clip
from media.video_writer import VideoWriter, takes_sound
from tests.helpers.media import (
    click_times,
    decode_sound,
    flash_times,
    truncate,
    write_clip,
    write_frame_folder,
    write_sound_clip,
    write_strip,
)

RATE = Fraction(25)
EVENTS = [12, 28, 39]
SOURCES = {
    "aac.mp4": {},
    "mp3.mp4": {"codec": "libmp3lame"},
    "aac_8khz.mp4": {"sample_rate": 8000},
    "fragmented.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "late_picture.mp4": {"picture_begins": 9},
    "late_sound.mp4": {"sound": (0.4, 2.0)},
    "pcm.mov": {},
    "aac.mkv": {},
    "opus.webm": {},
    "vorbis.webm": {"codec": "vorbis"},
    "late_picture.webm": {"picture_begins": 9},
    "late_sound.webm": {"sound": (0.4, 2.0)},
    "no_duration.webm": {"container_options": {"live": "1"}},
}


def copy(source, target, start=0, end=None, sound=None):
    """Copy the frames and sound of `source` between two times, as animate.py does."""
    clip = Excerpt(open_clip(source), Fraction(start), end)
    sound = sound or open_sound(source).cut(clip.start)
    with VideoWriter(target, clip.frame_rate, sound=sound) as writer:
        for frame in clip:
            writer.write(frame)
    return target


def packets(path):
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def sound_codec(path):
    with av.open(str(path)) as container:
        return container.streams.audio[0].codec_context.codec.canonical_name


def sound_span(path):
    """Return the time of the first audible sample and the end of the last, in seconds."""
    samples, sample_rate = decode_sound(path)
    return np.flatnonzero(abs(samples) > 0.003)[0] / sample_rate, len(samples) / sample_rate


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
@pytest.mark.parametrize("name", SOURCES)
def test_sound_stays_with_the_picture(tmp_path, name, suffix):
    """Clicks sound with flashes though frame 17 is not a key frame; the flash of 12 is cut off."""
    source = write_sound_clip(tmp_path / name, EVENTS, **SOURCES[name])
    for first, expected in ((0, [0.48, 1.12, 1.56]), (17, [0.44, 0.88])):
        result = copy(source, tmp_path / f"out{suffix}", first / RATE)
        assert flash_times(result) == pytest.approx(expected, abs=1e-6)
        assert click_times(result) == pytest.approx(expected, abs=0.0015)
        begin, end = sound_span(result)
        is_late = name.startswith("late_sound") and first == 0
        assert begin == pytest.approx(0.393 if is_late else 0, abs=0.015)
        assert -0.001 < end - (2 - first / 25) < 0.024


@pytest.mark.parametrize(
    ("name", "suffix", "copied"),
    [
        ("aac.mp4", ".mp4", "aac"),
        ("mp3.mp4", ".mp4", "mp3"),
        ("aac.mkv", ".mp4", "aac"),
        ("opus.webm", ".webm", "opus"),
        ("vorbis.webm", ".webm", "vorbis"),
    ],
)
def test_sound_of_a_fitting_codec_is_copied(tmp_path, name, suffix, copied):
    source = write_sound_clip(tmp_path / name, EVENTS, **SOURCES[name])
    original = packets(source)
    whole = packets(copy(source, tmp_path / f"whole{suffix}"))
    assert whole == original[: len(whole)]
    assert len(whole) >= len(original) - 2
    part = copy(source, tmp_path / f"part{suffix}", Fraction(18, 25), Fraction(36, 25))
    assert sound_codec(part) == copied
    begin = original.index(packets(part)[0])
    assert packets(part) == original[begin : begin + len(packets(part))]


@pytest.mark.parametrize(
    ("suffix", "encoded"), [(".mp4", "aac"), (".mov", "aac"), (".webm", "opus")]
)
def test_sound_of_other_codecs_is_encoded_anew(tmp_path, suffix, encoded):
    source = write_sound_clip(tmp_path / "a.mov", EVENTS)
    assert sound_codec(copy(source, tmp_path / f"out{suffix}")) == encoded


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_sound_is_as_loud_as_it_was(tmp_path, suffix):
    """Stereo at 44.1 kHz with another tone on each side is encoded anew."""
    time = np.arange(2 * 44100) / 44100
    tones = np.stack([0.5 * np.sin(2 * np.pi * 440 * time), 0.1 * np.sin(2 * np.pi * 880 * time)])
    write_audio(tmp_path / "a.wav", tones, 44100)
    clip = write_clip(tmp_path / "a.mp4", 25)
    result = copy(clip, tmp_path / f"out{suffix}", sound=open_sound(tmp_path / "a.wav"))
    with av.open(str(result)) as container:
        to_float = av.AudioResampler("fltp", "stereo", 48000)
        frames = [part for frame in container.decode(audio=0) for part in to_float.resample(frame)]
    heard = np.concatenate([frame.to_ndarray() for frame in frames], axis=1)[:, 4800:43200]
    spectrum = abs(np.fft.rfft(heard * np.hanning(38400))) / (38400 / 4)
    assert spectrum.argmax(axis=1).tolist() == [440 * 38400 // 48000, 880 * 38400 // 48000]
    assert spectrum.max(axis=1) == pytest.approx([0.5, 0.1], rel=0.05)


def write_audio(path, samples, sample_rate, codec=None, bit_rate=None, cover=False):
    """Write a sound file, with a cover picture or none; samples: channels x N in [-1, 1]."""
    codecs = {".wav": "pcm_s16le", ".mp3": "libmp3lame", ".m4a": "aac", ".aac": "aac"}
    layout = ("mono", "stereo")[len(samples) - 1]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec or codecs[path.suffix], sample_rate)
        stream.layout = layout
        if bit_rate is not None:
            stream.bit_rate = bit_rate
        if cover:
            picture = container.add_stream("png" if path.suffix != ".mp4" else "mjpeg", 1)
            picture.width = picture.height = 16
            picture.pix_fmt = "rgb24" if path.suffix != ".mp4" else "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic
            black = np.zeros((16, 16, 3), np.uint8)
            container.mux(picture.encode(av.VideoFrame.from_ndarray(black, format="rgb24")))
        frame = av.AudioFrame.from_ndarray(samples.astype(np.float32), "fltp", layout)
        frame.sample_rate, frame.pts, frame.time_base = sample_rate, 0, Fraction(1, sample_rate)
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def clicking(seconds, sample_rate):
    """Make 3 s of sound, 1 x N, that clicks at the given times."""
    samples = np.zeros((1, 3 * sample_rate))
    for second in seconds:
        click = round(second * sample_rate)
        samples[:, click : click + 24], samples[:, click + 24 : click + 48] = 0.9, -0.9
    return samples


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.m4a", "a.aac"])
def test_another_file_is_heard_from_its_beginning(tmp_path, name, suffix):
    path = write_audio(tmp_path / name, clicking([0.5, 1.25], 48000), 48000)
    clip = write_clip(tmp_path / "clip.mp4", 50)
    result = copy(clip, tmp_path / f"out{suffix}", sound=open_sound(path))
    # Raw AAC does not state the delay of its encoder, a packet of 1024 samples.
    late = 1024 / 48000 if name == "a.aac" else 0
    assert click_times(result) == pytest.approx([0.5 + late, 1.25 + late], abs=0.0015)
    assert 0 <= sound_span(result)[1] - 2 < 0.03
    later = copy(clip, tmp_path / f"later{suffix}", sound=open_sound(path).cut(Fraction(3, 4)))
    assert click_times(later) == pytest.approx([0.5 + late], abs=0.0015)


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp3", "libmp3lame"), ("a.mp4", "aac"), ("a.flac", "flac")]
)
def test_a_picture_on_the_cover_is_no_beginning_and_no_clip(tmp_path, name, codec):
    path = write_audio(tmp_path / name, clicking([0.5], 48000), 48000, codec, cover=True)
    result = copy(
        write_clip(tmp_path / "clip.mp4", 50), tmp_path / "out.mp4", sound=open_sound(path)
    )
    assert click_times(result) == pytest.approx([0.5], abs=0.0015)
    path = path.rename(tmp_path / "renamed.mp4")
    with pytest.raises(UserError, match=r"mp4: holds sound and a cover picture, but no video$"):
        open_clip(path)


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
@pytest.mark.parametrize(
    ("name", "codec"), [("a.avi", "wmav2"), ("a.wma", "wmav2"), ("a.asf", "wmav1")]
)
def test_a_decoder_that_is_a_packet_late(tmp_path, name, codec, suffix):
    """FFmpeg decodes WMA a packet late, and the last frame has no time; all keep their time."""
    samples = clicking([0.5, 1.25], 48000)[:, : 2 * 48000]
    path = write_audio(tmp_path / name, samples, 48000, codec, bit_rate=96000)
    with av.open(str(path)) as container:
        decoded = list(container.decode(audio=0))
    assert decoded[-1].pts is None
    clip = write_clip(tmp_path / "clip.mp4", 60)
    result = copy(clip, tmp_path / f"out{suffix}", sound=open_sound(path))
    late = 2048 / 48000  # the encoder's delay, which the file does not state
    assert click_times(result) == pytest.approx([0.5 + late, 1.25 + late], abs=0.002)
    assert -0.01 < sound_span(result)[1] - 2 < 0.1


def test_sound_that_changes_its_kind_half_way(tmp_path):
    """Sound changes from mono at 48 kHz to stereo at 44.1 kHz, as between two broadcasts."""
    first = write_audio(tmp_path / "1.ac3", clicking([0.5], 48000)[:, :96000], 48000, "ac3")
    stereo = np.repeat(clicking([0.5], 44100)[:, :88200], 2, axis=0)
    second = write_audio(tmp_path / "2.ac3", stereo, 44100, "ac3")
    both = tmp_path / "both.ac3"
    both.write_bytes(first.read_bytes() + second.read_bytes())
    clip = write_clip(tmp_path / "clip.mp4", 100)
    clicks = click_times(copy(clip, tmp_path / "out.mp4", sound=open_sound(both)))
    assert clicks == pytest.approx([0.505, 2.521], abs=0.003)


def test_a_colon_in_a_name_is_no_protocol(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = write_sound_clip(tmp_path / "source.mp4", EVENTS)
    sound = source.rename(tmp_path / "12:30 talk.mp4").relative_to(tmp_path)
    with VideoWriter("12:45 copy.mp4", RATE, sound=open_sound(sound)) as writer:
        writer.write(np.zeros((16, 16, 3), np.uint8))
    assert (tmp_path / "12:45 copy.mp4").stat().st_size > 0


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_sound_that_ends_early_does_not_end_the_video(tmp_path, suffix):
    source = write_sound_clip(tmp_path / "a.mp4", EVENTS, sound=(0, 1.3))
    result = copy(source, tmp_path / f"out{suffix}")
    assert open_clip(result).num_frames == 50
    assert sound_span(result)[1] == pytest.approx(1.3, abs=0.03)


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
@pytest.mark.parametrize("name", ["a.mp4", "a.webm"])
def test_a_cut_behind_the_sound_leaves_a_silent_video(tmp_path, name, suffix):
    source = write_sound_clip(tmp_path / name, EVENTS, sound=(0, 0.5))
    result = copy(source, tmp_path / f"out{suffix}", 1)
    assert flash_times(result) == pytest.approx([0.12, 0.56])
    with av.open(str(result)) as container:
        assert [frame for frame in container.decode() if isinstance(frame, av.AudioFrame)] == []


def remux(source, target, num_copies):
    """Write each sound packet of `source` as often as `num_copies` of its time says."""
    with av.open(str(source)) as whole, av.open(str(target), "w") as container:
        streams = {s.index: container.add_stream_from_template(s) for s in whole.streams}
        for packet in whole.demux():
            if not packet.size:
                continue
            is_sound = packet.stream.type == "audio"
            count = num_copies(packet.pts * packet.time_base) if is_sound else 1
            packet.stream = streams[packet.stream.index]
            for _ in range(count):
                container.mux(packet)
    return target


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_a_pause_in_the_recording_stays_one(tmp_path, name, suffix):
    """Missing packets become silence, and later sound keeps its time."""
    source = write_sound_clip(tmp_path / f"whole{name[1:]}", EVENTS)
    paused = remux(source, tmp_path / name, lambda time: 0 if 0.6 < time < 1 else 1)
    clicks = click_times(copy(paused, tmp_path / f"out{suffix}"))
    assert clicks == pytest.approx([0.48, 1.12, 1.56], abs=0.03)


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_a_pause_of_seconds_stays_one(tmp_path, suffix):
    source = write_sound_clip(tmp_path / "whole.mkv", [12, 120], num_frames=150)
    paused = remux(source, tmp_path / "a.mkv", lambda time: 0 if 0.8 < time < 4.5 else 1)
    clicks = click_times(copy(paused, tmp_path / f"out{suffix}"))
    assert clicks == pytest.approx([0.48, 4.8], abs=0.03)


def test_a_long_pause_is_made_second_by_second(tmp_path):
    """To make a silence of 20,000 seconds at once took 3 GB."""
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        track = container.add_stream("pcm_s16le", 48000)
        track.layout = "mono"
        for second in (3, 200):
            frame = av.AudioFrame.from_ndarray(np.ones((1, 4800), np.int16), "s16", "mono")
            frame.sample_rate, frame.time_base = 48000, Fraction(1, 48000)
            frame.pts = second * 48000
            container.mux(track.encode(frame))
        container.mux(track.encode())
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        packets = sound._packets(container, stream, Fraction(0))
        end, num_loud = 0, 0
        silent = []
        add_silence = partial(silent.append, 1)
        for frame in sound._decoded(packets, stream.codec_context, Fraction(0), add_silence):
            assert frame.samples <= 48000
            assert 0 <= frame.pts - end < 2 * 48000
            end = frame.pts + frame.samples
            num_loud += bool(frame.to_ndarray().any())
    assert end == 200 * 48000 + 4800
    assert num_loud == 2
    assert len(silent) == pytest.approx(200, abs=5)


def write_black(path, num_frames, **options):
    with VideoWriter(path, Fraction(1), **options) as writer:
        for _ in range(num_frames):
            writer.write(np.zeros((32, 32, 3), np.uint8))


def test_a_pause_of_hours_is_one_line(tmp_path, monkeypatch):
    """A file of some kilobytes, with two pictures at its ends, took hours to be encoded."""
    monkeypatch.setattr(sound, "MAX_SILENCE", 60)
    path, target = tmp_path / "a.mkv", tmp_path / "out.mp4"
    with av.open(str(path), "w") as container:
        track = container.add_stream("pcm_s16le", 8000)
        track.layout = "mono"
        for second in (0, 20_000):
            frame = av.AudioFrame.from_ndarray(np.ones((1, 800), np.int16), "s16", "mono")
            frame.sample_rate, frame.time_base = 8000, Fraction(1, 8000)
            frame.pts = second * 8000
            container.mux(track.encode(frame))
        container.mux(track.encode())
    times = [Fraction(0), Fraction(1), Fraction(20_000)]
    with pytest.raises(UserError, match="--audio none"):
        write_black(target, 2, sound=open_sound(path), times=times)
    assert not target.exists()
    # A gap while the pictures go on is none too many: each frame allows for a second.
    write_black(target, 200, sound=open_sound(path))
    assert len(decode_sound(target)[0]) / 48000 == pytest.approx(200, abs=2)


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_packets_that_come_twice_are_heard_once(tmp_path, suffix):
    source = write_sound_clip(tmp_path / "whole.mkv", EVENTS)
    doubled = remux(source, tmp_path / "a.mkv", lambda time: 2 if 0.6 < time < 1 else 1)
    clicks = click_times(copy(doubled, tmp_path / f"out{suffix}"))
    assert clicks == pytest.approx([0.48, 1.12, 1.56], abs=0.03)


def test_damaged_sound_is_left_out(tmp_path):
    source = write_sound_clip(tmp_path / "a.mp4", EVENTS)
    with av.open(str(source)) as container:
        spans = [(packet.pos, packet.size) for packet in container.demux(audio=0) if packet.size]
    contents = bytearray(source.read_bytes())
    noise = np.random.default_rng(0)
    for position, size in spans[40:44]:
        contents[position : position + size] = noise.bytes(size)
    source.write_bytes(contents)
    assert open_clip(copy(source, tmp_path / "copied.mp4")).num_frames == 50
    clicks = click_times(copy(source, tmp_path / "encoded.webm"))
    assert clicks[0] == pytest.approx(0.48, abs=0.0015)
    assert clicks[-2:] == pytest.approx([1.12, 1.56], abs=0.03)


def test_sound_of_a_file_that_breaks_off(tmp_path):
    options = {"movflags": "faststart"}
    source = write_sound_clip(tmp_path / "a.mp4", EVENTS, num_frames=200, container_options=options)
    result = copy(truncate(source, 0.6), tmp_path / "out.mp4")
    assert click_times(result) == pytest.approx([0.48, 1.12, 1.56], abs=0.0015)


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_sound_and_picture_lie_side_by_side_in_the_file(tmp_path, suffix):
    """A player need not read ahead, and the writer need not hold one until the other comes."""
    source = write_sound_clip(tmp_path / "a.mp4", [], num_frames=400)
    result = copy(source, tmp_path / f"out{suffix}")
    now = {"video": 0.0, "audio": 0.0}
    with av.open(str(result)) as container:
        in_file = sorted((p for p in container.demux() if p.size), key=lambda packet: packet.pos)
        for packet in in_file:
            now[packet.stream.type] = float(packet.dts * packet.time_base)
            assert abs(now["video"] - now["audio"]) < 1.5


def test_cuts_add_up(tmp_path):
    sound = Sound(tmp_path / "a.mp4", Fraction(1, 3))
    assert sound.cut(Fraction(1, 2)).cut(Fraction(1, 7)).start == Fraction(41, 42)


def test_inputs_without_sound(tmp_path):
    assert open_sound(write_clip(tmp_path / "a.mp4")) is None
    assert open_sound(write_clip(tmp_path / "a.gif")) is None
    assert open_sound(write_frame_folder(tmp_path / "folder")) is None
    assert open_sound(write_strip(tmp_path / "a.png")) is None


@pytest.mark.parametrize(
    ("name", "contents", "message"),
    [
        ("missing.mp3", None, "no such file"),
        ("text.mp3", b"hello\n", "the file holds text"),
        ("empty.wav", b"", "the file is empty"),
        ("noise.mp4", bytes(range(256)) * 9, "not|unknown|damaged"),
    ],
)
def test_unreadable_sound_is_one_line(tmp_path, name, contents, message):
    path = tmp_path / name
    if contents is not None:
        path.write_bytes(contents)
    with pytest.raises(UserError, match=message) as caught:
        open_sound(path)
    assert str(caught.value).startswith(f"{path}: cannot be read as sound or video: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.gif", "folder", "folder.mp4"])
def test_kinds_without_sound_are_refused_at_once(tmp_path, name):
    (tmp_path / "folder.mp4").mkdir()
    path = tmp_path / name
    assert not takes_sound(path)
    with pytest.raises(UserError, match=f"{name}: has no sound; write .mp4 or .webm"):
        VideoWriter(path, RATE, sound=Sound(tmp_path / "a.mp3", Fraction(0)))
    assert takes_sound(tmp_path / "a.mp4")
    assert takes_sound(tmp_path / "A.WEBM")


def test_a_missing_sound_leaves_nothing_behind(tmp_path):
    source = write_sound_clip(tmp_path / "a.mp4", EVENTS)
    sound = open_sound(source)
    frames = list(open_clip(source))
    source.unlink()
    with pytest.raises(UserError), VideoWriter(tmp_path / "b.mp4", RATE, sound=sound) as writer:
        writer.write(frames[0])
    assert list(tmp_path.iterdir()) == []
