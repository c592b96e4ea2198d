"""Reduces frames to the 256 colours that a frame of a GIF can have."""

from fractions import Fraction
from typing import Final

import av
from av.filter import Graph

from media.frames import Frame

GIF_TIME_BASE: Final = Fraction(1, 100)  # seconds


class PaletteConverter:
    """Converts each frame to a palette of its own, so that a GIF is written frame by frame."""

    def __init__(self, height: int, width: int) -> None:
        graph = Graph()
        rgb24 = av.VideoFormat("rgb24")
        source = graph.add_buffer(width=width, height=height, format=rgb24, time_base=GIF_TIME_BASE)
        split = graph.add("split")
        generate = graph.add("palettegen", "stats_mode=single")
        use = graph.add("paletteuse", "new=1:dither=sierra2_4a")
        source.link_to(split)
        split.link_to(use, 0, 0)
        split.link_to(generate, 1, 0)
        generate.link_to(use, 0, 1)
        use.link_to(graph.add("buffersink"))
        graph.configure()
        self._graph = graph
        self._num_frames = 0

    def __call__(self, frame: Frame) -> av.VideoFrame:
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
        picture.pts, picture.time_base = self._num_frames, GIF_TIME_BASE  # for the filters alone
        self._num_frames += 1
        self._graph.vpush(picture)
        return self._graph.vpull()
