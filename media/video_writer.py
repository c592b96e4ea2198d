"""Writes videos as mp4, webm, gif, or a folder of lossless frames; complete, or not at all."""

import re
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Protocol, Self

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from numpy.typing import NDArray

from common.errors import UserError
from common.files import create, make_folder, temporary_name
from common.json_files import MIN_RATE, nearest_rate
from common.safe_paths import exists, is_folder, resolve
from media.container import location, os_reason
from media.frame_conversion import ACCURATE
from media.frame_folder import RATE_FILE, stated_frame_rate, write_frame_rate
from media.frames import Frame
from media.gif_palette import GIF_TIME_BASE, PaletteConverter
from media.images import encode_image
from media.sound import FORMATS, Sound, SoundTrack
from media.system_files import is_system_file
from media.timing import MAX_SECONDS, UNEVEN_TIME_BASE, Clock, Times, check_times
from media.video_codecs import CODECS, TRANSPARENT_CODECS, Codec, codable, options_for

MAX_GIF_RATE = 50  # frames per second; browsers play faster GIFs more slowly
MIN_GIF_STEP = 2  # in units of GIF_TIME_BASE; see MAX_GIF_RATE
MIN_UNEVEN_STEP = 90  # in units of UNEVEN_TIME_BASE: 1 ms, the unit of webm
FRAME_NAME = re.compile(r"\d{5,}\.png")
SMPTE170M = 6  # the BT.601 matrix as H.264 and VP9 number it


class VideoWriter:
    """Writes uint8 frames, H x W x 3, to `path`, whose suffix chooses the kind of video.

        with VideoWriter(path, Fraction(25)) as writer:
            writer.write(frame)

    The suffixes are .mp4 (H.264), .webm (VP9), .mov (ProRes) and .gif. Without a suffix, for a
    folder that exists, or with `as_folder`, the result is a folder with 00000.png and so on. A file
    with the frame rate in it marks the folder as a result, which a later run may replace. All but
    gif have even sizes only, so frames of odd sizes get one more row or column. The result appears
    under its name when the `with` block ends well; after an exception nothing is left, and an
    earlier result stays.

    Args:
        transparent: frames are RGBA, H x W x 4, with colours not multiplied by alpha; for .webm,
            .mov and folders. The colour of pixels with alpha 0 is kept in folders only.
        sound: for .mp4, .mov and .webm. It begins with the first frame and ends with the last one,
            at most a packet (some 20 ms) later, or where its file ends.
        times: the times of frames that are not evenly spaced; None if they are.

    Attributes:
        is_folder: whether a folder of frames is written, not a file.

    Raises:
        UserError: from the constructor if nothing could be written: no name, an unknown suffix, a
            folder that is not writable or holds other things than an earlier result, a frame rate
            too high for GIF, transparency or sound for a kind that has none. Later only for what
            cannot be known before, such as a full disk.
    """

    def __init__(
        self,
        path: Path | str,
        frame_rate: Fraction,
        *,
        transparent: bool = False,
        as_folder: bool = False,
        sound: Sound | None = None,
        times: Times | None = None,
    ) -> None:
        self.path = Path(path)
        if self.path.name in ("", ".."):
            raise UserError(
                f"{self.path}: names no file or new folder; write out.mp4, or out for a folder of "
                "png frames"
            )
        self._num_channels = 4 if transparent else 3
        suffix = self.path.suffix.lower()
        codecs = TRANSPARENT_CODECS if transparent else CODECS
        self._codec = codecs.get(suffix)
        if as_folder or not suffix or is_folder(self.path):
            self._codec = None
            _check_replaceable(self.path)
        elif self._codec is None:
            is_known = suffix in CODECS
            problem = f"{suffix} has no transparency" if is_known else f"cannot write {suffix}"
            raise UserError(
                f"{path}: {problem}; use {', '.join(codecs)}, or a name without suffix for a "
                "folder of png frames"
            )
        if times is not None:  # which count; their average may be one that nothing can have
            slowest = MIN_RATE if self._codec is None else Fraction(1, MAX_SECONDS)
            frame_rate = max(nearest_rate(frame_rate), slowest)
        if self._codec is not None:
            frame_rate = codable(frame_rate, self.path)
        if suffix == ".gif" and frame_rate > MAX_GIF_RATE:
            raise UserError(
                f"{path}: a GIF shows at most {MAX_GIF_RATE} frames per second, not "
                f"{float(frame_rate):g}; write .mp4 or .webm"
            )
        if sound is not None and (self._codec is None or suffix not in FORMATS):
            raise UserError(f"{path}: has no sound; write .mp4 or .webm, or leave the sound out")
        self._sound = sound
        self.frame_rate = frame_rate
        self._clock = Clock(frame_rate, times)
        self.is_folder = self._codec is None
        check_times(self.path, self._clock, is_folder=self.is_folder)
        _check_writable(self.path)
        # If the folder is a link, the folder that it leads to is replaced.
        self._target = resolve(self.path) if is_folder(self.path) else self.path
        self._temporary = temporary_name(self._target, suffix)
        self._sink: _Sink | None = None

    def __enter__(self) -> Self:
        return self

    def write(self, frame: Frame) -> None:
        """Append one frame; all have the size of the first."""
        if frame.shape[2] != self._num_channels:
            raise ValueError(f"expected {self._num_channels} channels, found {frame.shape[2]}")
        try:
            if self._sink is None:
                self._sink = self._open_sink(frame)
            self._sink.write(frame)
        except (OSError, av.FFmpegError) as error:
            raise self._failure(error) from error

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if self._sink is not None:
                self._sink.close(complete=kind is None)
            if kind is None:
                if self._sink is None:
                    raise UserError(f"{self.path}: there were no frames to write")
                _replace(self._temporary, self._target)
        except (OSError, av.FFmpegError) as failure:
            raise self._failure(failure) from failure
        finally:
            _remove(self._temporary)

    def _open_sink(self, frame: Frame) -> "_Sink":
        if self._codec is None:
            return _FolderSink(self._temporary, self._clock)
        size = frame.shape[:2]
        codec = self._codec._replace(options=options_for(self._codec, size, self.path))
        create(self._temporary)
        return _ContainerSink(self._temporary, codec, self._clock, size, self._sound)

    def _failure(self, error: Exception) -> UserError:
        reason = os_reason(error) if isinstance(error, OSError) else str(error)
        return UserError(f"{self.path}: cannot be written: {reason}")


class _Sink(Protocol):
    def write(self, frame: Frame) -> None: ...

    def close(self, complete: bool) -> None: ...


class _FolderSink:
    def __init__(self, folder: Path, clock: Clock) -> None:
        folder.mkdir()
        write_frame_rate(folder, clock.frame_rate)
        self._folder = folder
        self._clock = clock
        self._num_frames = 0
        self._num_written = 0

    def write(self, frame: Frame) -> None:
        self._num_frames += 1
        end = self._clock.begin(self._num_frames)
        while self._num_written / self._clock.frame_rate < end:
            content = encode_image(frame, ".png")
            (self._folder / f"{self._num_written:05d}.png").write_bytes(content)
            self._num_written += 1

    def close(self, complete: bool) -> None:
        pass


class _ContainerSink:
    def __init__(
        self,
        path: Path,
        codec: Codec,
        clock: Clock,
        size: tuple[int, ...],
        sound: Sound | None,
    ) -> None:
        height, width = self._size = size
        self._clock = clock
        self._num_frames = 0
        self._min_step = 1
        self._earliest = 0  # smallest time stamp that the next frame may have
        self._durations: dict[int, int] = {}  # of frames inside the encoder, by their time stamp
        options = {"movflags": "faststart"} if path.suffix in (".mp4", ".mov") else {}
        self._opened = ExitStack()
        opened = av.open(location(path), "w", options=options)
        self._container = self._opened.enter_context(opened)
        coding = codec.options
        if clock.times is not None and codec.name == "libx264":
            # With B-frames the last packet need not hold the last frame, whose end is the video's.
            coding = {**coding, "bf": "0"}
        stream = self._container.add_stream(codec.name, clock.frame_rate, coding)
        assert isinstance(stream, av.VideoStream)
        stream.pix_fmt = codec.pixel_format
        context = stream.codec_context
        self._convert: Callable[[Frame], av.VideoFrame]
        if codec.name == "gif":
            self._convert = PaletteConverter(height, width)
            self._time_base = GIF_TIME_BASE
            self._min_step = MIN_GIF_STEP
        else:
            height, width = height + height % 2, width + width % 2
            self._convert = partial(_to_yuv, pixel_format=codec.pixel_format)
            self._time_base = 1 / clock.frame_rate
            if clock.times is not None:
                self._time_base, self._min_step = UNEVEN_TIME_BASE, MIN_UNEVEN_STEP
            context.colorspace, context.color_range = SMPTE170M, ColorRange.MPEG
            context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.IEC61966_2_1
        context.time_base = self._time_base
        stream.height, stream.width = height, width
        self._stream = stream
        self._sound = None
        if sound is not None:
            self._sound = SoundTrack(self._container, path.suffix, sound)
            self._opened.enter_context(closing(self._sound))

    def write(self, frame: Frame) -> None:
        assert frame.shape[:2] == self._size, "PyAV would squash it"
        picture = self._convert(frame)
        # Times are rounded, not delays: so the average rate is right even in units of 1/100 s.
        picture.pts = max(self._time_stamp(self._num_frames), self._earliest)
        self._earliest = picture.pts + self._min_step
        self._num_frames += 1
        lasts = self._time_stamp(self._num_frames) - picture.pts
        self._durations[picture.pts] = max(lasts, self._min_step)
        picture.time_base = self._time_base
        self._mux(self._stream.encode(picture))
        if self._sound is not None:
            for packet in self._sound.packets_before(self._clock.begin(self._num_frames)):
                self._container.mux(packet)

    def _mux(self, packets: list[av.Packet]) -> None:
        """Write packets with their durations, which encoders do not know.

        The duration of the last packet determines the end of the video.
        """
        for packet in packets:
            assert packet.pts is not None
            packet.duration = self._durations.pop(packet.pts, packet.duration)
            self._container.mux(packet)

    def _time_stamp(self, position: int) -> int:
        return round(self._clock.begin(position) / self._time_base)

    def close(self, complete: bool) -> None:
        with self._opened:
            if complete:
                self._mux(self._stream.encode())


def _to_yuv(frame: Frame, pixel_format: str) -> av.VideoFrame:
    """Convert to YUV of limited range with the BT.601 matrix, which players assume without tags."""
    height, width, num_channels = frame.shape
    is_opaque = num_channels == 3
    even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    rgb = even if is_opaque else _hidden_colour_replaced(even)
    return av.VideoFrame.from_ndarray(rgb, format="rgb24" if is_opaque else "rgba").reformat(
        format=pixel_format,
        dst_colorspace=Colorspace.ITU601,
        dst_color_range=ColorRange.MPEG,
        interpolation=ACCURATE,
    )


def _hidden_colour_replaced(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Replace the colour of pixels with alpha 0 by the mean visible colour.

    The invisible colour would cost bits (noise 60 times as many as the figure), and since colour is
    stored at half the resolution it would bleed into the figure's edge.
    """
    alpha = rgba[..., 3].astype(np.float64)
    mean = np.tensordot(alpha, rgba[..., :3], 2) / max(alpha.sum(), 1)
    replaced = rgba.copy()
    replaced[rgba[..., 3] == 0, :3] = np.rint(mean)
    return replaced


def takes_sound(path: Path | str) -> bool:
    """Whether a VideoWriter for `path` can write sound."""
    path = Path(path)
    return path.suffix.lower() in FORMATS and not is_folder(path)


def _check_replaceable(folder: Path) -> None:
    """Raise UserError if `folder` is a file, or holds anything that no VideoWriter wrote."""
    if not exists(folder):
        return
    if not is_folder(folder):
        raise UserError(f"{folder}: a file has this name; choose another, or a suffix such as .mp4")
    names = sorted(entry.name for entry in folder.iterdir())
    is_ours = stated_frame_rate(folder) is not None
    foreign = [
        name for name in names if not (is_ours and (is_result(name) or is_system_file(name)))
    ]
    if foreign:
        raise UserError(
            f"{folder}: this folder holds {foreign[0]}, which no earlier run wrote; choose "
            "another folder, or an empty one"
        )


def _check_writable(path: Path) -> None:
    try:
        make_folder(path.parent)
        with tempfile.TemporaryFile(dir=path.parent), suppress(FileNotFoundError):
            path.lstat()  # other errors are about the name, such as its length
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {os_reason(error)}") from None


def is_result(name: str) -> bool:
    """Whether `name` is that of a file that a VideoWriter writes into a folder of frames."""
    return name == RATE_FILE or FRAME_NAME.fullmatch(name) is not None


def _replace(source: Path, target: Path) -> None:
    """Rename `source` to `target`, which replaces an earlier file or folder of frames.

    Other files that somebody has put into that folder in the meantime are moved into the new one.
    """
    if not is_folder(target):
        source.replace(target)
        return
    earlier = temporary_name(target)
    target.rename(earlier)
    source.rename(target)
    for entry in earlier.iterdir():
        if is_result(entry.name) and not is_folder(entry):
            entry.unlink()
        else:
            entry.rename(target / entry.name)
    earlier.rmdir()


def _remove(path: Path) -> None:
    if is_folder(path):
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
