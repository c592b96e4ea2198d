"""Tiny clips for tests. Each frame shows its number in a form that survives lossy coding."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange
from numpy.typing import NDArray
from PIL import Image

NUM_BITS = 6
DEFAULT_CODECS = {
    ".mp4": ("libx264", "yuv420p"),
    ".mov": ("libx264", "yuv420p"),
    ".mkv": ("libx264", "yuv420p"),
    ".webm": ("libvpx-vp9", "yuv420p"),
    ".avi": ("mpeg4", "yuv420p"),
    ".gif": ("gif", "rgb8"),
    ".m4v": ("libx264", "yuv420p"),
    ".3gp": ("libx264", "yuv420p"),
    ".flv": ("libx264", "yuv420p"),
    ".ts": ("libx264", "yuv420p"),
    ".mts": ("libx264", "yuv420p"),
    ".mpg": ("mpeg2video", "yuv420p"),
    ".vob": ("mpeg2video", "yuv420p"),
    ".asf": ("mpeg4", "yuv420p"),
    ".wmv": ("wmv2", "yuv420p"),
}


def numbered_frame(number: int, size: tuple[int, int] = (48, 64)) -> NDArray[np.uint8]:
    """A frame, H x W x 3, with the low bits of `number` as bars in its upper half, and a moving
    ramp in its lower half.
    """
    height, width = size
    bars = np.arange(width) * NUM_BITS // width
    frame = np.empty((height, width, 3), np.uint8)
    frame[: height // 2] = np.where(number >> bars & 1, 220, 30)[None, :, None]
    ramp = np.linspace(20, 230, width).astype(np.uint8)
    frame[height // 2 :] = np.stack(
        [np.roll(ramp, number), ramp[::-1], ramp // 2 + number % 2**NUM_BITS], 1
    )
    return frame


def frame_number(frame: NDArray[np.uint8]) -> int:
    """Read the number that `numbered_frame` has drawn, modulo 64."""
    height, width = frame.shape[:2]
    centres = (np.arange(NUM_BITS) * 2 + 1) * width // (2 * NUM_BITS)
    return int((frame[height // 4, centres].mean(axis=-1) > 125) @ (1 << np.arange(NUM_BITS)))


def frame_numbers(frames: NDArray[np.uint8]) -> list[int]:
    return [frame_number(frame) for frame in frames]


def write_clip(
    path: Path,
    num_frames: int = 12,
    size: tuple[int, int] = (48, 64),
    rate: Fraction = Fraction(25),
    gop: int = 4,
    codec: str | None = None,
    pixel_format: str | None = None,
    *,
    times: list[int] | None = None,
    rotation: int = 0,
    pixel_aspect: Fraction = Fraction(1),
    codec_options: Mapping[str, str] | None = None,
    container_options: Mapping[str, str] | None = None,
) -> Path:
    """Write `numbered_frame`s 0 .. num_frames - 1 in any container and return `path`.

    Args:
        times: presentation times in units of 1 / rate (default 0, 1, 2 ..).
        rotation: degrees by which the stored frames are turned clockwise; metadata tells the player
            to turn them back.
        pixel_aspect: width of a pixel divided by its height.
    """
    default_codec, default_format = DEFAULT_CODECS[path.suffix]
    pixel_format = pixel_format or default_format
    path.parent.mkdir(parents=True, exist_ok=True)
    codec = codec or default_codec
    options = (
        {"sc_threshold": "0"} if codec == "libx264" else {}
    )  # no key frames except every `gop`
    options.update(codec_options or {})
    with av.open(str(path), "w", options=dict(container_options or {})) as container:
        stream = container.add_stream(codec, rate, options)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = size if rotation % 180 == 0 else size[::-1]
        stream.pix_fmt = pixel_format
        stream.codec_context.gop_size = gop
        stream.codec_context.sample_aspect_ratio = pixel_aspect
        if rotation:
            stream.set_display_rotation(rotation)
        for number, time in enumerate(times or range(num_frames)):
            stored = np.rot90(numbered_frame(number, size), -rotation // 90)
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(stored), format="rgb24")
            if pixel_format.startswith("yuv"):
                picture = picture.reformat(format=pixel_format, dst_color_range=ColorRange.MPEG)
            else:
                picture = picture.reformat(format=pixel_format)
            picture.pts, picture.time_base = time, 1 / rate
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def write_recording(path: Path, times: Sequence[int]) -> Path:
    """Write `numbered_frame`s, shown at `times` (ms), as browsers record: a webm without frame rate
    and duration in its header; return `path`.
    """
    encoder = av.VideoCodecContext.create("libvpx", "w")
    encoder.height, encoder.width, encoder.pix_fmt = 48, 64, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, 1000), Fraction(30)
    encoder.options = {"lag-in-frames": "0", "deadline": "realtime"}
    with av.open(str(path), "w", options={"live": "1"}) as container:
        stream = container.add_mux_stream("vp8", width=64, height=48)
        stream.time_base = Fraction(1, 1000)
        for number, time in enumerate(times):
            picture = av.VideoFrame.from_ndarray(numbered_frame(number), format="rgb24")
            picture.pts, picture.time_base = time, Fraction(1, 1000)
            for packet in encoder.encode(picture):
                packet.stream = stream
                container.mux(packet)
    return path


SOUND_CODECS = {".mp4": "aac", ".mov": "pcm_s16le", ".mkv": "aac", ".webm": "libopus"}


def write_sound_clip(
    path: Path,
    events: Sequence[int],
    num_frames: int = 50,
    rate: Fraction = Fraction(25),
    codec: str | None = None,
    sample_rate: int = 48000,
    *,
    picture_begins: int = 0,
    times: Sequence[int] | None = None,
    sound: tuple[float, float] | None = None,
    container_options: Mapping[str, str] | None = None,
) -> Path:
    """Write a black clip that flashes white and clicks at the frames `events`; return `path`.

    Between clicks the sound is noise, so that no two packets are the same.

    Args:
        picture_begins: frames by which the picture, with its events, begins after the clock.
        times: when the frames are shown, in units of 1 / rate; default: one after the other.
        sound: first and last second of the sound; default: from 0 to the end of the picture.
    """
    times = [picture_begins + n for n in times or range(num_frames)]
    begin, end = sound or (0, float((times[-1] + 1) / rate))
    num_samples = round((end - begin) * sample_rate)
    samples = np.random.default_rng(0).normal(0, 0.01, (1, num_samples)).astype(np.float32)
    for event in events:
        click = round(times[event] / rate * sample_rate - begin * sample_rate)
        if click >= 0:
            samples[:, click : click + 24], samples[:, click + 24 : click + 48] = 0.9, -0.9
    video_codec, pixel_format = DEFAULT_CODECS[path.suffix]
    with av.open(str(path), "w", options=dict(container_options or {})) as container:
        stream = container.add_stream(video_codec, rate)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = 32, 32, pixel_format
        stream.codec_context.gop_size = 12
        track = container.add_stream(
            codec or SOUND_CODECS[path.suffix], sample_rate, {"strict": "-2"}
        )
        assert isinstance(track, av.AudioStream)
        # FFmpeg's vorbis encoder supports only stereo.
        track.layout = "mono" if codec != "vorbis" else "stereo"
        for number, time in enumerate(times):
            grey = np.full((32, 32, 3), 255 if number in events else 0, np.uint8)
            picture = av.VideoFrame.from_ndarray(grey, format="rgb24")
            picture.pts, picture.time_base = time, 1 / rate
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
        frame = av.AudioFrame.from_ndarray(samples, "fltp", "mono")
        frame.sample_rate = sample_rate
        frame.pts, frame.time_base = round(begin * sample_rate), Fraction(1, sample_rate)
        container.mux(track.encode(frame))
        container.mux(track.encode())
    return path


def write_tone(path: Path, seconds: float = 1.0) -> Path:
    """Write a .wav file of 440 Hz and return `path`."""
    samples = 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * 16000)) / 16000)
    with av.open(str(path), "w") as container:
        track = container.add_stream("pcm_s16le", 16000)
        assert isinstance(track, av.AudioStream)
        track.layout = "mono"
        frame = av.AudioFrame.from_ndarray((samples * 32767).astype(np.int16)[None], "s16", "mono")
        frame.sample_rate = 16000
        container.mux(track.encode(frame))
        container.mux(track.encode())
    return path


def decode_sound(path: Path) -> tuple[NDArray[np.float64], int]:
    """Decode the sound of a file; returns samples on its clock, 0 where there is no sound, and
    their rate.
    """
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
        to_float = av.AudioResampler("fltp", "mono")
        pieces = [piece for frame in frames for piece in to_float.resample(frame)]
    sample_rate = pieces[0].sample_rate
    begins = [round((piece.time or 0) * sample_rate) for piece in pieces]
    samples = np.zeros(begins[-1] + pieces[-1].samples)
    for begin, piece in zip(begins, pieces, strict=True):
        assert begin > -sample_rate / 1000, "but for rounding, nothing is before time 0"
        samples[max(begin, 0) : begin + piece.samples] = piece.to_ndarray()[0, max(-begin, 0) :]
    return samples, sample_rate


def click_times(path: Path) -> list[float]:
    """The times at which a file clicks, in seconds."""
    samples, sample_rate = decode_sound(path)
    loud = np.flatnonzero(abs(samples) > 0.3) / sample_rate
    return [float(t) for t, before in zip(loud, [-1, *loud], strict=False) if t - before > 0.1]


def flash_times(path: Path) -> list[float]:
    """The times at which a file flashes, in seconds."""
    with av.open(str(path)) as container:
        return [
            float(frame.time)
            for frame in container.decode(video=0)
            if frame.to_ndarray(format="gray").mean() > 128
        ]


def write_frame_folder(path: Path, num_frames: int = 12, size: tuple[int, int] = (48, 64)) -> Path:
    """Write frame0.png, frame1.png .. without leading zeros and return `path`."""
    path.mkdir(parents=True)
    for number in range(num_frames):
        Image.fromarray(numbered_frame(number, size)).save(path / f"frame{number}.png")
    return path


def write_strip(path: Path, num_frames: int = 12, side: int = 48) -> Path:
    """Write square frames side by side and return `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = [numbered_frame(number, (side, side)) for number in range(num_frames)]
    Image.fromarray(np.concatenate(frames, axis=1)).save(path)
    return path


def leave_behind(folder: Path) -> None:
    """Write files and folders that archives, viewers and file servers leave beside clips."""
    for name in ("__MACOSX", "@eaDir"):
        (folder / name).mkdir(parents=True)
        (folder / name / "._a.mp4").write_bytes(b"attributes")
    (folder / "@eaDir" / "a.mp4").mkdir()
    Image.fromarray(numbered_frame(0)).save(folder / "@eaDir" / "a.mp4" / "thumb.jpg")
    for name in ("._a.mp4", ".DS_Store", "Thumbs.db", "desktop.ini"):
        (folder / name).write_bytes(b"attributes")


def truncate(path: Path, fraction: float) -> Path:
    """Keep the first part of a file, as an interrupted download does, and return `path`."""
    contents = path.read_bytes()
    path.write_bytes(contents[: int(len(contents) * fraction)])
    return path


def damage(path: Path, first: int, last: int) -> Path:
    """Overwrite the data of frames `first` .. `last` of a clip and return `path`.

    The container still lists these frames. The clip must not have B-frames.
    """
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        spans = [(packet.pos, packet.size) for packet in packets[first : last + 1]]
    contents = bytearray(path.read_bytes())
    noise = np.random.default_rng(0)
    for start, size in spans:
        assert start is not None
        contents[start : start + size] = noise.bytes(size)
    path.write_bytes(contents)
    return path
