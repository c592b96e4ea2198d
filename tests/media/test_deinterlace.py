"""Tests of interlaced video, whose frames show two moments in alternate lines."""

import logging
from fractions import Fraction

import av
import numpy as np
import pytest

from media import deinterlace
from media.video import MissingFrame, open_clip
from tests.helpers.shared import SHARED

SIZE = (48, 64)
INTERLACED = {"flags": "+ildct+ilme"}
KINDS = {
    "h264.mp4": ("libx264", {"x264-params": "tff=1", "bf": "2"}),
    "h264.ts": ("libx264", {"x264-params": "bff=1", "bf": "2"}),
    "mpeg2.mpg": ("mpeg2video", {**INTERLACED, "bf": "2"}),
    "mpeg4.avi": ("mpeg4", {**INTERLACED, "bf": "2"}),
}


def moving_bar(moment):
    """Make a picture, H x W x 3, of a bright bar that moves right by two pixels a moment."""
    frame = np.full((*SIZE, 3), 30, np.uint8)
    frame[:, 4 + 2 * moment : 16 + 2 * moment] = 220
    return frame


def woven(number):
    """Make frame n: moment 2 n in the even lines and 2 n + 1 in the odd ones."""
    frame = moving_bar(number % 20)
    frame[1::2] = moving_bar(number % 20 + 1)[1::2]
    return frame


def comb(frame):
    """Measure how much neighbouring lines differ; 0 for a bar of a single moment."""
    return float(np.abs(np.diff(frame[..., 0].astype(float), axis=0)).mean())


def write_interlaced(path, frames, codec, options):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, 25, options)
        stream.height, stream.width = SIZE
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = 8
        stream.bit_rate = 4_000_000
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p")
            picture.pts, picture.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("name", KINDS)
def test_every_reader_gets_the_same_whole_frames(tmp_path, caplog, name):
    path = write_interlaced(tmp_path / name, [woven(number) for number in range(20)], *KINDS[name])
    reader = open_clip(path)
    with caplog.at_level(logging.WARNING):
        frames = np.stack(list(reader))
    assert len(frames) == reader.num_frames == 20
    assert [*reader.remarks] == ["interlaced; made whole (bwdif)"]
    assert caplog.messages == []
    assert max(comb(frame) for frame in frames) < comb(woven(3)) / 4
    for number in range(20):
        np.testing.assert_array_equal(reader.read([number])[0], frames[number])
        rest = np.stack(list(reader.frames_from(number)))
        np.testing.assert_array_equal(rest, frames[number:])
    wanted = [19, 8, 7, 0, 16, 17]
    np.testing.assert_array_equal(reader.read(wanted), frames[wanted])


def test_a_random_read_deinterlaces_only_what_it_needs(tmp_path, monkeypatch):
    """A read does not filter every frame since the key frame."""
    frames = [woven(number) for number in range(20)]
    reader = open_clip(write_interlaced(tmp_path / "a.mp4", frames, *KINDS["h264.mp4"]))
    expected = list(reader)
    pushed = []
    push = deinterlace._Weaver.push

    def counting(weaver, frame):
        pushed.append(frame)
        return push(weaver, frame)

    monkeypatch.setattr(deinterlace._Weaver, "push", counting)
    np.testing.assert_array_equal(reader.read([12])[0], expected[12])
    assert len(pushed) == 2  # the frame and the one before


@pytest.mark.parametrize("options", [("select", "expr=0"), ("bwdif", "mode=unknown")])
def test_a_filter_that_fails_is_damage(tmp_path, monkeypatch, options):
    """A failing filter counts as a damaged frame, though FFmpeg's EAGAIN is also an OSError."""
    frames = [woven(number) for number in range(4)]
    reader = open_clip(write_interlaced(tmp_path / "a.mp4", frames, *KINDS["h264.mp4"]))
    monkeypatch.setattr(deinterlace, "FILTER", options)
    with pytest.raises(MissingFrame, match="frame 2 cannot be decoded"):
        reader.read([2])


def test_frames_that_are_not_marked_stay_as_they_are(tmp_path, caplog):
    """A clip that shows lines, such as a venetian blind, is not interlaced."""
    lines = [woven(number) for number in range(4)]
    path = write_interlaced(tmp_path / "a.mp4", lines, "libx264", {"qp": "4"})
    frames = np.stack(list(open_clip(path)))
    assert min(comb(frame) for frame in frames) > comb(woven(3)) / 2
    assert caplog.messages == []


def test_both_kinds_in_one_clip(tmp_path):
    """In broadcasts interlaced parts begin and end anywhere."""
    parts = [
        write_interlaced(
            tmp_path / f"{name}.ts", [woven(number) for number in range(20)], "libx264", options
        )
        for name, options in [("a", {}), ("b", {"x264-params": "tff=1"}), ("c", {})]
    ]
    path = tmp_path / "joined.mkv"
    with av.open(str(path), "w") as output:
        streams = []
        for place, part in enumerate(parts):
            with av.open(str(part)) as container:
                source = container.streams.video[0]
                streams = streams or [output.add_stream_from_template(source)]
                for packet in container.demux(source):
                    if packet.size:
                        packet.pts += place * 20 * 3600
                        packet.dts += place * 20 * 3600
                        packet.stream = streams[0]
                        output.mux(packet)
    reader = open_clip(path)
    frames = np.stack(list(reader))
    combs = [comb(frame) > comb(woven(3)) / 3 for frame in frames]
    assert len(frames) == 60
    assert combs == [True] * 20 + [False] * 20 + [True] * 20
    for number in range(60):
        np.testing.assert_array_equal(reader.read([number])[0], frames[number])


def test_a_file_that_failed():
    path = SHARED / "inputs" / "interlaced.mp4"
    if not path.exists():
        pytest.skip("no such file here")
    frames = np.stack(list(open_clip(path)))
    with av.open(str(path)) as container:
        before = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == len(before) == 50
    assert np.mean([comb(frame) for frame in frames]) < np.mean([comb(f) for f in before]) / 2
