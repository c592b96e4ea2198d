"""The process that opens files of strangers; `media/watched.py` starts it and says what it does.

    python -m media.watched_process

A message is the number of its bytes and JSON. The answer to a request is any number of messages
`pixels`, which say how large the picture is that will be decoded, and then one with the result.
"""

import json
import math
import os
import queue
import signal
import sys
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

import av
from av.container import InputContainer

from common.errors import UserError
from common.limits import MAX_FRAMES, Limits
from media import picture_files, watched
from media.container import best_video, open_container, prepare_decoder
from media.frames import Frame

IDLE_SECONDS: Final = 60  # after so long without a request the process ends
MAX_DEMUXED: Final = 2**28  # bytes of packets of a clip that are read
MAX_SEEKS: Final = 65536
NUM_SEEKS: Final = 3  # in other formats than mp4

_PACKET: Final = 64  # bytes that a packet takes beside its content
_NEXT_KEY: Final = 256  # packets that are read after a seek, if no key frame comes earlier

Report = Callable[[int], None]


def main() -> int:
    """Answer requests from stdin until it is closed."""
    output = os.fdopen(_duplicate(1), "wb")
    _silence()
    _be_first_to_end()
    watched.is_watched = True
    requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_read_requests, args=(requests,), daemon=True).start()
    _send(output, {"ready": True})
    while True:
        _set_alarm(IDLE_SECONDS)
        request = requests.get()
        _set_alarm(0)
        try:
            _serve(request, output)
        except Exception:  # a fault of this program; Python's own end waits for the reading thread
            os._exit(1)


def _serve(request: dict[str, Any], output: BinaryIO) -> None:
    """Open a file within the limits of the request, and send the answer."""
    began = time.process_time()
    _limit_time(began + request["opening_seconds"])
    if request["folder"] is not None:
        with suppress(OSError):  # a folder that was left for good; the path may be absolute
            os.chdir(request["folder"])

    def report(num_pixels: int) -> None:
        _limit_time(began + request["seconds"])
        _send(output, {"pixels": num_pixels})

    reply, picture = _answer(request, report)
    _send(output, reply)
    if picture is not None:
        output.write(picture.reshape(-1).data)
        output.flush()


def _read_requests(requests: queue.SimpleQueue[dict[str, Any]]) -> None:
    """Pass requests on; end the process, whatever it does, when nobody is left to ask."""
    with suppress(Exception):
        while len(head := sys.stdin.buffer.read(watched.HEAD.size)) == watched.HEAD.size:
            requests.put(json.loads(sys.stdin.buffer.read(*watched.HEAD.unpack(head))))
    os._exit(0)


def _send(output: BinaryIO, message: dict[str, Any]) -> None:
    content = json.dumps(message).encode()
    output.write(watched.HEAD.pack(len(content)) + content)
    output.flush()


def _duplicate(descriptor: int) -> int:
    """Duplicate a descriptor; never as 2, which is free if stderr was closed."""
    try:
        import fcntl
    except ImportError:  # Windows
        return os.dup(descriptor)
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)


def _silence() -> None:
    """Let nothing that a decoder prints reach the terminal, or the answers."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in {1, 2} - {nothing}:
        os.dup2(nothing, descriptor)
    if nothing > 2:
        os.close(nothing)


def _be_first_to_end() -> None:
    """Ignore Ctrl-C, write no core, and be the first that the system ends if it lacks memory."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in ("SIGALRM", "SIGXCPU"):  # they end this process, even if the other one blocks them
        if hasattr(signal, name):  # not on Windows
            signal.signal(getattr(signal, name), signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [getattr(signal, name)])
    with suppress(OSError):  # Linux alone has it
        Path("/proc/self/oom_score_adj").write_text("1000")
    with suppress(ImportError, ValueError, OSError):
        import resource  # Windows has none

        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _set_alarm(seconds: int) -> None:
    if hasattr(signal, "alarm"):  # not on Windows
        signal.alarm(seconds)


def _limit_time(seconds: float) -> None:
    """Let the system end this process after so many seconds of processor time since its start."""
    with suppress(ImportError, ValueError, OSError):
        import resource  # Windows has none

        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        limit = math.ceil(seconds)
        if hard != resource.RLIM_INFINITY:  # there it would be killed, as for lack of memory
            limit = min(limit, max(hard - 1, 1))
        resource.setrlimit(resource.RLIMIT_CPU, (limit, hard))


def _answer(request: dict[str, Any], report: Report) -> tuple[dict[str, Any], Frame | None]:
    path = Path(request["path"])
    limits = None if request["limits"] is None else Limits(*request["limits"])
    if request["kind"] == "clip":
        with suppress(Exception):  # the process that asks meets it too, and words it
            try_clip(path, limits, report)
        return {}, None
    assert limits is not None
    try:
        if request["kind"] == "facts":
            return picture_files.facts(path, limits)._asdict(), None
        picture = picture_files.decode(path, limits, report)
    except UserError as error:
        return {"error": str(error)}, None
    return {"size": picture.shape[:2]}, picture


def try_clip(path: Path, limits: Limits | None, report: Report) -> None:
    """Open and read a clip as its readers do, but decode its first frame alone.

    Raises:
        Exception: of any kind, if the file cannot be read.
    """
    with open_container(path, limits) as container:
        video = best_video(container)
        report(video.width * video.height if video is not None else 0)
        waiting = set()
        for stream in (video, container.streams.best("audio")):
            if stream is not None and stream.codec_context is not None:
                prepare_decoder(stream.codec_context, limits)
                waiting.add(stream.index)
        keys = array("q")
        for packet in _packets(container):
            index = packet.stream.index
            if video is not None and index == video.index and packet.is_keyframe:
                keys.append(packet.pts if packet.pts is not None else 0)
            if index in waiting:
                with suppress(av.FFmpegError):
                    if packet.decode():
                        waiting.remove(index)
        if video is not None:
            _try_seeks(container, video, keys)


def _packets(container: InputContainer) -> Iterator[av.Packet]:
    """Yield the first packets of all streams."""
    num_bytes = num_packets = 0
    with suppress(av.FFmpegError):
        for packet in container.demux():
            num_packets += 1
            num_bytes += packet.size + _PACKET
            yield packet
            if num_bytes > MAX_DEMUXED or num_packets > MAX_FRAMES:
                return


def _try_seeks(container: InputContainer, video: av.VideoStream, keys: Sequence[int]) -> None:
    """Seek to the key frames, as those who read single frames do.

    The index of an mp4 may lead FFmpeg to tables of samples that it does not meet on its way.
    """
    num_seeks = MAX_SEEKS if "mp4" in container.format.name else NUM_SEEKS
    step = max(1, math.ceil(len(keys) / num_seeks))
    for time_of_key in sorted(keys)[::-1][::step]:
        with suppress(av.FFmpegError):
            container.seek(time_of_key, stream=video)
            for number, packet in enumerate(container.demux(video)):
                if number == _NEXT_KEY or (number > 0 and packet.is_keyframe):
                    break


if __name__ == "__main__":
    sys.exit(main())
