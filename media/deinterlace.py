"""Deinterlaces video: makes a whole picture of frames whose odd and even lines show two moments."""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction

import av
from av.filter import Graph

from media.container import Damaged
from media.decoding import Numbered

# Bob Weaver: the result depends on a frame, the one before it and the one after it.
FILTER = ("bwdif", "mode=send_frame:parity=auto:deint=all")


def deinterlaced(frames: Iterator[Numbered]) -> Iterator[Numbered]:
    """Yield the same frames, with those that are marked as interlaced deinterlaced.

    The first frame is treated as the first of its clip, and a frame before one that cannot be
    decoded as the last.

    Raises:
        Damaged: `frames` raise it, or the filter fails.
    """
    weaver: _Weaver | None = None
    before: av.VideoFrame | None = None
    due = -1  # number of the next frame that the filter returns
    failure: Damaged | None = None
    while True:
        try:
            following = next(frames, None)
        except Damaged as error:
            following, failure = None, error
        if weaver is not None:
            is_last = following is None or not weaver.fits(following[1])
            yield due, weaver.push(None if is_last or following is None else following[1])
            if is_last or (following is not None and not following[1].interlaced_frame):
                weaver = None
        if following is None:
            if failure is not None:
                raise failure
            return
        number, frame = following
        if not frame.interlaced_frame:
            yield number, frame
        elif weaver is None:
            weaver = _Weaver(frame)
            weaver.begin([frame] if before is None or not weaver.fits(before) else [before, frame])
        due, before = number, frame


class _Weaver:
    """The filter for frames of one size and format. It returns a frame when the next one comes."""

    def __init__(self, first: av.VideoFrame) -> None:
        self._kind = _kind(first)
        graph = Graph()
        graph.threads = 1
        with _failures_as_damage():
            source = graph.add_buffer(
                width=first.width,
                height=first.height,
                format=first.format,
                time_base=first.time_base or Fraction(1, 1000),
            )
            graph.link_nodes(source, graph.add(*FILTER), graph.add("buffersink")).configure()
        self._graph = graph

    def fits(self, frame: av.VideoFrame) -> bool:
        """Whether the frame has the size and format of this filter."""
        return _kind(frame) == self._kind

    def begin(self, frames: list[av.VideoFrame]) -> None:
        """Put the first frame in; of two frames the first is only the context of the second."""
        with _failures_as_damage():
            for frame in frames:
                self._graph.vpush(frame)
            if len(frames) == 2:
                self._graph.vpull()

    def push(self, frame: av.VideoFrame | None) -> av.VideoFrame:
        """Put the next frame in and return the one before; None means that no frame follows."""
        with _failures_as_damage():
            self._graph.vpush(frame)
            return self._graph.vpull()


@contextmanager
def _failures_as_damage() -> Iterator[None]:
    try:
        yield
    except av.FFmpegError as error:
        raise Damaged from error


def _kind(frame: av.VideoFrame) -> tuple[int, int, str]:
    return frame.width, frame.height, frame.format.name
