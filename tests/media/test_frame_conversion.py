"""Tests that decoded frames are converted to what a player shows."""

import re
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext

from media.video import open_clip
from tests.helpers.media import frame_numbers, numbered_frame, write_clip
from tests.helpers.shared import SHARED
from tests.media.test_video_index import remux

ORIENTATIONS = {  # (a, b, c, d) of a display matrix -> its effect on the stored picture
    (1, 0, 0, 1): lambda stored: stored,
    (-1, 0, 0, 1): np.fliplr,
    (1, 0, 0, -1): np.flipud,
    (-1, 0, 0, -1): lambda stored: np.rot90(stored, 2),
    (0, 1, -1, 0): lambda stored: np.rot90(stored, -1),  # clockwise
    (0, -1, 1, 0): np.rot90,
    (0, 1, 1, 0): lambda stored: stored.swapaxes(0, 1),
    (0, -1, -1, 0): lambda stored: np.rot90(stored, 2).swapaxes(0, 1),
}


def write_lossless(path, frame):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", 25)
        stream.height, stream.width = frame.shape[:2]
        stream.pix_fmt = "rgb24"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("matrix", ORIENTATIONS)
def test_orientation_by_the_header(tmp_path, matrix):
    a, b, c, d = (65536 * number for number in matrix)
    stored = numbered_frame(11, (24, 48))
    path = write_lossless(tmp_path / "a.mov", stored)
    contents = bytearray(path.read_bytes())
    place = contents.index(b"tkhd") + 44
    contents[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(contents)

    shown = ORIENTATIONS[matrix](stored)
    # Apply the definition of the matrix to each pixel, around the centre of the picture.
    height, width = stored.shape[:2]
    for p, q in [(0, 0), (width - 1, 0), (5, 7)]:
        x, y = 2 * p - width + 1, 2 * q - height + 1
        right, down = matrix[0] * x + matrix[2] * y, matrix[1] * x + matrix[3] * y
        row, column = (down + shown.shape[0] - 1) // 2, (right + shown.shape[1] - 1) // 2
        assert (shown[row, column] == stored[q, p]).all()
    reader = open_clip(path)
    np.testing.assert_array_equal(reader.read([0])[0], shown)
    assert reader.size == shown.shape[:2]


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("flip", [None, "horizontal", "vertical"])
def test_orientation_by_a_message_of_h264(tmp_path, degrees, flip):
    """The picture is flipped first, then turned anticlockwise (H.264, D.2.27)."""
    source = write_clip(tmp_path / "plain.ts", 20, codec_options={"bf": "0"})
    path = tmp_path / "a.ts"
    options = f"display_orientation=insert:rotate={degrees}"
    with av.open(str(source)) as container, av.open(str(path), "w") as output:
        stream = container.streams.video[0]
        copied = output.add_stream_from_template(stream)
        rewrite = BitStreamFilterContext(
            f"h264_metadata={options}" + (f":flip={flip}" if flip else ""), stream
        )
        for packet in container.demux(stream):
            for changed in rewrite.filter(packet if packet.size else None):
                changed.stream = copied
                output.mux(changed)
    stored = open_clip(source).read([1])[0]
    flipped = {None: stored, "horizontal": np.fliplr(stored), "vertical": np.flipud(stored)}[flip]
    shown = np.rot90(flipped, degrees // 90)
    np.testing.assert_array_equal(open_clip(path).read([1])[0], shown)


def hevc_orientation(degrees, flip):
    """Make the NAL unit of a persistent SEI message, display orientation (H.265, D.2.17)."""
    bits = f"0{flip == 'horizontal':d}{flip == 'vertical':d}{degrees * 65536 // 360:016b}1"
    bits += "1000"  # pads to a whole byte
    payload = int(bits, 2).to_bytes(3)
    header = bytes([39 << 1, 1])  # the NAL unit type PREFIX_SEI_NUT
    return b"\0\0\0\1" + header + bytes([47, len(payload)]) + payload + b"\x80"


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("flip", [None, "horizontal", "vertical"])
def test_orientation_by_a_message_of_hevc(tmp_path, degrees, flip):
    if "libx265" not in av.codecs_available:
        pytest.skip("no encoder for HEVC here")
    options = {"x265-params": "log-level=none:bframes=0"}
    source = write_clip(tmp_path / "plain.ts", 9, codec="libx265", codec_options=options)

    def with_message(packet):
        contents = bytes(packet)
        units = [found.start() for found in re.finditer(b"\0\0\1", contents)]
        first = next(place for place in units if contents[place + 3] >> 1 < 32)  # a picture's
        changed = av.Packet(
            contents[:first] + hevc_orientation(degrees, flip)[1:] + contents[first:]
        )
        changed.pts, changed.dts, changed.time_base = packet.pts, packet.dts, packet.time_base
        changed.is_keyframe = packet.is_keyframe
        return [changed]

    path = remux(source, tmp_path / "a.ts", with_message)
    stored = open_clip(source).read([1])[0]
    flipped = {None: stored, "horizontal": np.fliplr(stored), "vertical": np.flipud(stored)}[flip]
    shown = np.rot90(flipped, degrees // 90)
    np.testing.assert_array_equal(open_clip(path).read([1])[0], shown)


@pytest.mark.parametrize(
    ("name", "aspect", "size"),
    [
        ("a.mp4", Fraction(4, 3), (48, 85)),  # HDV
        ("a.ts", Fraction(2), (48, 128)),
        ("a.mkv", Fraction(8, 9), (54, 64)),  # DVD: becomes higher, nothing is lost
        ("a.mpg", Fraction(4, 3), (48, 85)),
        ("a.mp4", Fraction(9, 1), (48, 64)),  # so wide a pixel is a mistake
    ],
)
def test_pixels_become_square(tmp_path, name, aspect, size):
    reader = open_clip(write_clip(tmp_path / name, 20, pixel_aspect=aspect))
    assert abs(reader.size[0] - size[0]) <= 1
    assert abs(reader.size[1] - size[1]) <= 1
    assert reader.read([0]).shape == (1, *reader.size, 3)
    assert frame_numbers(reader.read([2, 1])) == [2, 1]


@pytest.mark.parametrize(
    ("aspect", "size"),
    [
        (Fraction(15, 16), (48, 48)),  # FFmpeg's note of a data set's box
        (Fraction(16, 15), (48, 48)),
        (Fraction(4, 3), (48, 64)),
    ],
)
def test_square_frames_of_data_sets_stay_square(tmp_path, aspect, size):
    clip = write_clip(tmp_path / "a.mp4", 3, (48, 48), pixel_aspect=aspect)
    assert open_clip(clip).size == size


def write_call(path):
    """Write 16 frames whose size changes, as in a call over the internet."""
    sizes = [(48, 64), (24, 32), (64, 48), (48, 64)]
    with av.open(str(path), "w") as container:
        stream = container.add_mux_stream("vp8", width=64, height=48)
        stream.time_base = Fraction(1, 1000)
        for part, (height, width) in enumerate(sizes):
            encoder = av.VideoCodecContext.create("libvpx", "w")
            encoder.height, encoder.width, encoder.pix_fmt = height, width, "yuv420p"
            encoder.time_base, encoder.framerate = Fraction(1, 1000), Fraction(25)
            encoder.options = {"lag-in-frames": "0", "deadline": "realtime"}
            for number in range(4 * part, 4 * part + 4):
                picture = av.VideoFrame.from_ndarray(
                    numbered_frame(number, (height, width)), format="rgb24"
                )
                picture.pts, picture.time_base = 40 * number, Fraction(1, 1000)
                for packet in encoder.encode(picture):
                    packet.stream = stream
                    container.mux(packet)
    return path


def test_frames_that_change_their_size_get_that_of_the_first(tmp_path, caplog):
    """Frames are fitted whole and in proportion, and the remark is made once."""
    reader = open_clip(write_call(tmp_path / "call.webm"))
    assert reader.size == (48, 64)
    frames = np.stack(list(reader))
    assert frame_numbers(frames[[0, 3, 4, 7, 12, 15]]) == [0, 3, 4, 7, 12, 15]
    tall = frames[9]  # with bars
    assert (tall[:, :14] < 8).all()
    assert (tall[:, -14:] < 8).all()
    assert (tall[:, 14:-14].max(axis=(1, 2)) > 100).all()
    for number in range(16):
        np.testing.assert_array_equal(reader.read([number])[0], frames[number])
    assert [*reader.remarks] == ["frames of several sizes; all are fitted into that of the first"]
    assert caplog.messages == []


@pytest.mark.parametrize("name", ["anamorphic.mp4", "mirrored-matrix.mp4", "size-changes.webm"])
def test_files_that_failed(name):
    path = SHARED / "inputs" / name
    if not path.exists():
        pytest.skip("no such file here")
    reader = open_clip(path)
    frames = np.stack(list(reader))
    assert reader.size == frames.shape[1:3] == (240, 320)
    wanted = [reader.num_frames - 1, 0, reader.num_frames // 2]
    np.testing.assert_array_equal(reader.read(wanted), frames[wanted])
