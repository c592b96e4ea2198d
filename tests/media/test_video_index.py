"""Files whose packets state no times of the frames, or wrong ones."""

from fractions import Fraction

import av
import numpy as np
import pytest

from datasets.clips import ClipFolder
from media import video_index
from media.video import MissingFrame, open_clip
from media.video_index import scan_packets
from tests.helpers.media import frame_number, frame_numbers, write_clip
from tests.helpers.shared import SHARED

B_FRAMES = {"bf": "3"}


def remux(source, target, change=lambda packet: [packet], time_base=None):
    """Copy packets into another container after `change` has changed each of them."""
    with av.open(str(source)) as container, av.open(str(target), "w") as output:
        stream = container.streams.video[0]
        copied = output.add_stream_from_template(stream)
        if time_base is not None:
            copied.time_base = time_base
        for packet in container.demux(stream):
            for changed in change(packet) if packet.size else ():
                changed.stream = copied
                output.mux(changed)
    return target


def check_random_access(reader):
    """Compare single frames, and all from some frame on, with the iteration, which is returned."""
    frames = np.stack(list(reader))
    assert reader.num_frames == len(reader.times) == len(frames)
    for number in range(len(frames)):
        np.testing.assert_array_equal(reader.read([number])[0], frames[number])
    for begin in range(0, len(frames), 7):
        np.testing.assert_array_equal(np.stack(list(reader.frames_from(begin))), frames[begin:])
    return frames


def test_copied_into_avi_with_a_clock_of_half_frames(tmp_path, caplog):
    """Tools that copy H.264 leave every second entry of the file's table empty."""
    source = write_clip(tmp_path / "a.ts", 40, gop=12, codec_options=B_FRAMES)
    reader = open_clip(remux(source, tmp_path / "a.avi", time_base=Fraction(1, 50)))
    assert frame_numbers(check_random_access(reader)) == list(range(40))
    assert reader.frame_rate == 25
    assert list(reader.times) == [Fraction(number, 25) for number in range(40)]
    assert caplog.messages == []


def test_dropped_frames_of_avi_take_their_time(tmp_path, caplog):
    """A packet of size 0 repeats the frame before."""
    shown = [0, 1, 2, 5, 6, 9, 10, 11]
    reader = open_clip(write_clip(tmp_path / "a.avi", times=shown))
    assert frame_numbers(check_random_access(reader)) == list(range(8))
    assert list(reader.times) == [Fraction(time, 25) for time in shown]
    assert caplog.messages == []


def test_frames_that_are_only_referred_to(tmp_path, caplog):
    """VP8 has hidden frames for better prediction ("altref"); here one before each key frame."""

    def with_hidden(packet):
        if packet.is_keyframe:
            contents = bytearray(bytes(packet))
            contents[0] &= ~0x10
            hidden = av.Packet(bytes(contents))
            hidden.pts, hidden.dts, hidden.time_base = packet.pts, packet.dts, packet.time_base
            hidden.is_keyframe = True
            yield hidden
        yield packet

    source = write_clip(tmp_path / "a.webm", 40, gop=12, codec="libvpx")
    path = remux(source, tmp_path / "hidden.webm", with_hidden)
    assert frame_numbers(check_random_access(open_clip(path))) == list(range(40))
    assert scan_packets(path).frame_index is not None
    assert caplog.messages == []


@pytest.mark.parametrize(
    "options", [{}, {"x264-params": "open-gop=1"}, {"x264-params": "intra-refresh=1"}]
)
@pytest.mark.parametrize("share", [0.3, 0.5])
def test_cut_out_of_a_stream(tmp_path, caplog, options, share):
    """The frames that can be decoded are the whole clip, and it does not count as damaged."""
    path = write_clip(tmp_path / "a.ts", 60, gop=12, codec_options={**B_FRAMES, **options})
    contents = path.read_bytes()
    path.write_bytes(contents[round(len(contents) * share) // 188 * 188 :])
    frames = check_random_access(open_clip(path))
    first = frame_number(frames[0])
    assert 12 < first < 60
    assert frame_numbers(frames) == list(range(first, 60))
    assert caplog.messages == []


def test_decoding_times_that_pass_for_presentation_times(tmp_path):
    """Some tools convert AVI like this."""

    def without_order(packet):
        packet.pts = packet.dts
        yield packet

    source = write_clip(tmp_path / "a.ts", 40, gop=12, codec_options=B_FRAMES)
    reader = open_clip(remux(source, tmp_path / "a.mkv", without_order))
    assert frame_numbers(check_random_access(reader)) == list(range(40))
    assert reader.frame_rate == 25


def test_a_clock_that_is_set_back(tmp_path):
    """Players and cameras join two recordings in one file."""
    parts = [write_clip(tmp_path / f"{name}.ts", 20, gop=8) for name in "ab"]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    numbers = frame_numbers(check_random_access(open_clip(path)))
    assert numbers[:16] == [*range(16)]  # frames at the seam may be lost
    assert numbers[-20:] == [*range(20)]


def write_dropped(tmp_path, suffix, num_frames=100, gop=200, dropped=(40, 80)):
    """Write MPEG-4 as encoders do that drop frames: such packets say "not coded"."""
    options = {"sc_threshold": "1000000000"}  # key frames only every `gop`
    source = write_clip(
        tmp_path / "a.mkv", num_frames, gop=gop, codec="mpeg4", codec_options=options
    )
    numbers = iter(range(num_frames))

    def drop(packet):
        if next(numbers) not in dropped:
            return [packet]
        # ISO/IEC 14496-2, 6.2.5: start code, vop_coding_type, modulo_time_base up to a 0, a marker,
        # vop_time_increment (5 bits for 25 frames a second), a marker, vop_coded, stuffing
        bits = "".join(f"{byte:08b}" for byte in bytes(packet)[4:12])
        bits = bits[: bits.index("0", 2) + 8] + "0"
        bits += "0" + "1" * (-(len(bits) + 1) % 8)
        contents = bytes(packet)[:4] + int(bits, 2).to_bytes(len(bits) // 8)
        changed = av.Packet(contents)
        changed.pts, changed.dts, changed.time_base = packet.pts, packet.dts, packet.time_base
        return [changed]

    return remux(source, tmp_path / f"dropped{suffix}", drop)


def numbers_by_ffmpeg(path):
    """Number the frames that FFmpeg decodes from the start, without a seek."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return frame_numbers(frames)


@pytest.mark.parametrize("suffix", [".avi", ".mp4", ".mkv"])
@pytest.mark.parametrize("is_foreseen", [True, False])
@pytest.mark.parametrize("gop", [200, 15])
def test_packets_without_a_frame(tmp_path, caplog, monkeypatch, suffix, is_foreseen, gop):
    """The packets may not show it; the first read that notices decodes the whole file."""
    if not is_foreseen:
        monkeypatch.setattr(video_index, "MAX_NOT_CODED", 0)
    reader = open_clip(write_dropped(tmp_path, suffix, gop=gop))
    expected = [number for number in range(100) if number not in (40, 80)]
    numbers = frame_numbers(check_random_access(reader))
    assert len(numbers) == 98
    assert numbers == numbers_by_ffmpeg(reader.path)
    assert list(reader.times) == [Fraction(number, 25) for number in expected]
    assert caplog.messages == []


@pytest.mark.parametrize("begin", [30, 40, 60, 82])
def test_playing_goes_on_behind_a_packet_without_a_frame(tmp_path, monkeypatch, begin):
    """Frames requested by the number of their packet follow each other."""
    monkeypatch.setattr(video_index, "MAX_NOT_CODED", 0)
    reader = open_clip(write_dropped(tmp_path, ".mp4", gop=15))
    numbers = frame_numbers(np.stack(list(reader.frames_from(begin))))
    num_dropped = sum(number >= begin for number in (40, 80))
    assert len(numbers) == 100 - begin - num_dropped
    assert numbers == numbers_by_ffmpeg(reader.path)[-len(numbers) :]


def test_frames_of_an_earlier_count_can_still_be_requested(tmp_path, monkeypatch):
    monkeypatch.setattr(video_index, "MAX_NOT_CODED", 0)
    reader = open_clip(write_dropped(tmp_path, ".mp4", gop=15))
    assert reader.num_frames == 100
    numbers = numbers_by_ffmpeg(reader.path)
    assert frame_numbers(reader.read([41, 39])) == [numbers[41], numbers[39]]
    assert reader.num_frames == 98
    with pytest.raises(MissingFrame) as caught:
        reader.read([99])
    assert caught.value.earlier == 97


def test_training_goes_on_with_the_number_of_frames_that_it_knows(tmp_path, caplog, monkeypatch):
    """When the frames of a clip are counted anew, the last one replaces those that are gone."""
    monkeypatch.setattr(video_index, "MAX_NOT_CODED", 0)
    (tmp_path / "train").mkdir()
    path = write_dropped(tmp_path, ".mp4", gop=15)
    path.rename(tmp_path / "train" / "a.mp4")
    source = ClipFolder(tmp_path, "train", (48, 64))
    assert source.num_frames(0) == 100
    source.read(0, [41])
    assert source.num_frames(0) == 100
    np.testing.assert_array_equal(source.read(0, [99]), source.read(0, [97]))
    assert len(caplog.messages) == 1
    assert "frame 99 cannot be decoded; earlier frames replace such" in caplog.text


@pytest.mark.parametrize(
    ("name", "num_frames"),
    [
        ("mpegts-named.mp4", 75),
        ("asf-named.avi", 75),
        ("intra-refresh.mp4", 100),
        ("h264-copied.avi", 100),
        ("vp8-altref.webm", 100),
    ],
)
def test_files_that_failed(caplog, name, num_frames):
    path = SHARED / "inputs" / name
    if not path.exists():
        pytest.skip("no such file here")
    reader = open_clip(path)
    assert len(check_random_access(reader)) == num_frames
    assert reader.frame_rate == 25
    assert caplog.messages == []
