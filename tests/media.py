"""Tiny clips for tests, whose frames carry their number so that coding losses cannot hide it."""

from collections.abc import Mapping
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
}


def numbered_frame(number: int, size: tuple[int, int] = (48, 64)) -> NDArray[np.uint8]:
    """H x W x 3: the low bits of `number` as bars in the upper half, a moving ramp in the lower."""
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
    """The number that `numbered_frame` wrote, modulo 64."""
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
    codec_options: Mapping[str, str] | None = None,
    container_options: Mapping[str, str] | None = None,
) -> Path:
    """Write `numbered_frame`s 0 .. num_frames - 1 in any container and return `path`.

    `times` are presentation times in units of 1 / rate (default 0, 1, 2 ..); `rotation` stores the
    frames turned clockwise by so many degrees, with a note for the player to turn them back.
    """
    default_codec, default_format = DEFAULT_CODECS[path.suffix]
    pixel_format = pixel_format or default_format
    path.parent.mkdir(parents=True, exist_ok=True)
    codec = codec or default_codec
    options = {"sc_threshold": "0"} if codec == "libx264" else {}  # key frames at `gop` alone
    options.update(codec_options or {})
    with av.open(str(path), "w", options=dict(container_options or {})) as container:
        stream = container.add_stream(codec, rate, options)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = size if rotation % 180 == 0 else size[::-1]
        stream.pix_fmt = pixel_format
        stream.codec_context.gop_size = gop
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


def truncate(path: Path, fraction: float) -> Path:
    """Keep the first part of a file, as an interrupted download does, and return `path`."""
    contents = path.read_bytes()
    path.write_bytes(contents[: int(len(contents) * fraction)])
    return path


def damage(path: Path, first: int, last: int) -> Path:
    """Overwrite the data of frames `first` .. `last` of a clip and return `path`.

    The container still announces them. The clip must not have B-frames.
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
