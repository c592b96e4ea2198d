"""Whole pictures from interlaced video, whose frames hold two moments in alternate lines."""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction

import av
from av.filter import Graph

from media.container import Damaged
from media.decoding import Numbered

# Bob Weaver: a frame follows from itself, the one before and the one behind, and from no others.
FILTER = ("bwdif", "mode=send_frame:parity=auto:deint=all")


def deinterlaced(frames: Iterator[Numbered]) -> Iterator[Numbered]:
    """The same frames, but those that are marked as interlaced as whole pictures.

    The first is right if nothing comes before it in its clip. The one before a frame that cannot
    be decoded is filtered as the last of a clip is.

    Raises:
        Damaged: as `frames` do; or the filter fails.
    """
    weaver: _Weaver | None = None
    before: av.VideoFrame | None = None
    due = -1  # number of the frame that comes out next
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
    """The filter for frames of one kind; each comes out when the next one goes in."""

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
        return _kind(frame) == self._kind

    def begin(self, frames: list[av.VideoFrame]) -> None:
        """With one frame, or with two of which the first is only there for the second."""
        with _failures_as_damage():
            for frame in frames:
                self._graph.vpush(frame)
            if len(frames) == 2:
                self._graph.vpull()

    def push(self, frame: av.VideoFrame | None) -> av.VideoFrame:
        """What went in before; None if nothing follows."""
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
