"""Opens cameras: those of this machine, streams at an address, and files played in real time.

`camera:0` is the first camera of this machine, `camera:/dev/video2` a device by its name,
`camera:rtsp://...` a stream, and `camera:clip.mp4` a clip whose frames come at their own times.
"""

import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import av
import numpy as np
from av.container import InputContainer

from common.errors import UserError
from common.limits import LIMITS, Limits, check_pixels
from media.container import (
    DEFAULT_FRAME_RATE,
    FORMATS,
    best_video,
    os_reason,
    prepare_decoder,
)
from media.frame_conversion import frame_to_rgb, pixel_aspect, square_size
from media.frames import Frame
from media.video import VideoReader, open_clip

PREFIX: Final = "camera:"
OPENING_SECONDS: Final = 10.0  # for a stream to answer, and then for each of its pictures
WARM_UP_SECONDS: Final = 1.0  # in which a camera adjusts its exposure; its pictures are left out
_LONGEST_SLEEP: Final = 60.0  # seconds at a time, of a played clip

# FFmpeg's protocols of addresses; none of them opens a file, and no format opens a further address.
_PROTOCOLS: Final = ("rtsp", "rtp", "udp", "tcp", "http", "https", "tls")
_STREAM_FORMATS: Final = (*FORMATS, "rtsp", "mpjpeg", "mjpeg")
# FFmpeg's format of cameras by the platform, and what it must be told. avfoundation would ask for
# 29.97 frames a second, which few cameras have.
_DEVICE_FORMATS: Final = {
    "linux": ("v4l2", {}),
    "darwin": ("avfoundation", {"framerate": "30"}),
    "win32": ("dshow", {}),
}


class Shot(NamedTuple):
    """A picture of a camera.

    time: when it reached this program, in seconds of `time.perf_counter`.
    convert: returns it as uint8 RGB, H x W x 3. It takes time, which pictures that nobody looks at
        do not need.
    """

    time: float
    convert: Callable[[], Frame]


class Camera(Protocol):
    """An opened camera, which is iterated once, in one thread; an iteration waits for pictures.

    name: as the user gave it.
    frame_rate: frames per second as the camera states them; it may deliver fewer.
    """

    name: str
    frame_rate: Fraction

    def __iter__(self) -> Iterator[Shot]: ...


def is_camera(name: str | None) -> bool:
    """Whether a value of --driving names a camera; a file of such a name is written ./camera:0."""
    return name is not None and name.startswith(PREFIX)


def open_camera(name: str, limits: Limits = LIMITS) -> Camera:
    """Open the camera that `name` says; see the module.

    A device or a stream is decoded by this program itself, unlike a file: it is for cameras that
    the user trusts.

    Raises:
        UserError: there is no such camera, it cannot be opened, or the clip cannot be read.
    """
    what = name.removeprefix(PREFIX)
    if "://" in what:
        return _Stream(name, _open_address(name, what), limits, 0)
    is_number = what.isdecimal() and what.isascii()
    if not is_number and not what.startswith("/dev/"):
        if not what:
            raise UserError(f"{name}: names no camera; write camera:0, or camera:clip.mp4")
        return _PlayedClip(name, open_clip(what, limits=limits))
    return _Stream(name, _open_device(name, what), limits, WARM_UP_SECONDS)


def _open_address(name: str, address: str) -> InputContainer:
    if address.partition("://")[0].lower() not in _PROTOCOLS:
        raise UserError(f"{name}: an address of another kind; use {', '.join(_PROTOCOLS)}")
    lists = {
        "format_whitelist": ",".join(_STREAM_FORMATS),
        "protocol_whitelist": ",".join(_PROTOCOLS),
    }
    try:
        return av.open(address, container_options=lists, timeout=OPENING_SECONDS)
    except av.FFmpegError as error:
        raise UserError(f"{name}: cannot be opened: {_reason(error)}") from None


def _open_device(name: str, what: str) -> InputContainer:
    try:
        kind, options = _DEVICE_FORMATS[sys.platform]
    except KeyError:
        raise UserError(f"{name}: cameras of {sys.platform} are not known; give a file") from None
    try:
        return av.open(_device(kind, what), format=kind, container_options=options)
    except av.FFmpegError as error:
        found = ", ".join(map(str, sorted(Path("/dev").glob("video*")))) or "none"
        found = f"; cameras found here: {found}" if kind == "v4l2" else ""
        raise UserError(f"{name}: the camera cannot be opened: {_reason(error)}{found}") from None
    except ValueError as error:
        raise UserError(f"{name}: this build of FFmpeg reads no cameras: {error}") from None


def _device(kind: str, what: str) -> str:
    """The name that FFmpeg's format `kind` has for a camera that the user called by its number."""
    if not what.isdecimal() or kind == "avfoundation":
        return what
    if kind == "v4l2":
        return f"/dev/video{what}"
    cameras = [found for found in av.enumerate_input_devices(kind) if "video" in found.media_types]
    if int(what) >= len(cameras):
        raise UserError(f"camera:{what}: there are {len(cameras)} cameras here, counted from 0")
    return f"video={cameras[int(what)].description}"


def _reason(error: av.FFmpegError) -> str:
    if isinstance(error, av.ExitError):
        return f"no answer for {OPENING_SECONDS:g} s"
    return os_reason(error) if isinstance(error, OSError) else str(error)


class _Stream:
    """The pictures of a device or of a stream."""

    def __init__(
        self, name: str, container: InputContainer, limits: Limits, warm_up: float
    ) -> None:
        self.name = name
        stream = best_video(container)
        if stream is None or stream.codec_context is None:
            container.close()
            raise UserError(f"{name}: sends no video that can be decoded")
        size = square_size(stream.width, stream.height, pixel_aspect(stream))
        check_pixels(Path(name), *size, limits.frame, "pictures")
        prepare_decoder(stream.codec_context, limits)
        self.frame_rate = stream.average_rate or DEFAULT_FRAME_RATE
        self._container = container
        self._stream = stream
        self._warm_up = warm_up

    def __iter__(self) -> Iterator[Shot]:
        """Raises UserError when the camera is lost."""
        aspect = pixel_aspect(self._stream)
        begin = time.perf_counter() + self._warm_up
        with self._container:
            try:
                for packet in self._container.demux(self._stream):
                    arrived = time.perf_counter()
                    for picture in _decoded(packet):
                        if arrived >= begin:
                            yield Shot(arrived, partial(frame_to_rgb, picture, aspect))
            except av.FFmpegError as error:
                raise UserError(f"{self.name}: the camera is lost: {_reason(error)}") from None


def _decoded(packet: av.Packet) -> list[av.VideoFrame]:
    """The pictures of a packet; none if it is damaged, as the first ones of a camera may be."""
    try:
        return [frame for frame in packet.decode() if isinstance(frame, av.VideoFrame)]
    except av.InvalidDataError:
        return []


class _PlayedClip:
    """Plays a clip once: each frame comes at its time, or as soon after it as it is decoded."""

    def __init__(self, name: str, clip: VideoReader) -> None:
        self.name = name
        self.frame_rate = clip.frame_rate
        self._clip = clip

    def __iter__(self) -> Iterator[Shot]:
        times = self._clip.times
        began = time.perf_counter()
        for shown, frame in zip(times, self._clip, strict=False):  # a damaged clip ends earlier
            # A file may say that a frame comes in 3,000 years, which `sleep` refuses.
            while (wait := began + float(shown) - time.perf_counter()) > 0:
                time.sleep(min(wait, _LONGEST_SLEEP))
            yield Shot(time.perf_counter(), partial(np.asarray, frame))
