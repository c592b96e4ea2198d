from fractions import Fraction

import av
import pytest

from media.timing import Clock, remarks_on_rate
from media.video import open_clip
from media.video_index import scan_packets
from tests.helpers.media import (
    numbered_frame,
    truncate,
    write_clip,
    write_frame_folder,
    write_recording,
    write_strip,
)

NTSC = Fraction(30000, 1001)


def seconds(numbers, units=1000):
    return [Fraction(number, units) for number in numbers]


def test_a_clock_by_hand():
    assert Clock(Fraction(25)).begin(10) == Fraction(2, 5)
    clock = Clock(Fraction(4), seconds([0, 100, 700, 1000]))
    assert [clock.begin(n) for n in range(6)] == seconds([0, 100, 700, 1000, 1250, 1500])


def test_a_rate_that_is_rounded_needs_no_remark():
    rate = Fraction(30) + Fraction(1, 10**70)
    assert remarks_on_rate(rate, Fraction(30)) == remarks_on_rate(NTSC, NTSC) == []
    assert len(remarks_on_rate(Fraction(10**6), Fraction(10**5))) == 1


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm", "a.mov", "a.avi"])
@pytest.mark.parametrize("rate", [Fraction(25), NTSC, Fraction(24), Fraction(60)])
def test_an_even_rate_needs_no_times(tmp_path, name, rate):
    """Frames count as even if the file rounds their times to 1 ms."""
    assert open_clip(write_clip(tmp_path / name, 40, (16, 16), rate)).uneven_times is None


def write_stating(path, rate, times):
    """Write frames at `times` in ms, with any `rate` in the header."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate, {"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for time in times:
            picture = av.VideoFrame(32, 16, "yuv420p")
            picture.pts, picture.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("num_frames", [60, 300, 500])
@pytest.mark.parametrize(("rate", "stated"), [(NTSC, 30), (30, Fraction(1000, 33)), (60, 60)])
def test_a_rate_stated_inexactly_makes_no_times_uneven(tmp_path, num_frames, rate, stated):
    """Screen recorders round the rate, or the time between two frames."""
    times = [round(number * 1000 / rate) for number in range(num_frames)]
    clip = open_clip(write_stating(tmp_path / "a.mkv", Fraction(stated), times))
    assert clip.uneven_times is None
    assert abs(times[-1] / 1000 * clip.frame_rate - (num_frames - 1)) <= Fraction(1, 4)


@pytest.mark.parametrize("write", [write_frame_folder, write_strip])
def test_pictures_are_evenly_spaced(tmp_path, write):
    assert open_clip(write(tmp_path / "a.png", 3)).uneven_times is None


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.gif"])
def test_dropped_frames_leave_gaps(tmp_path, name):
    shown = [0, 1, 2, 3, 9, 10, 11, 12]
    options = {} if name == "a.gif" else {"codec_options": {"bf": "0"}}
    clip = open_clip(write_clip(tmp_path / name, times=shown, **options))
    assert clip.uneven_times[:-1] == seconds(shown, 25)


def test_browsers_record_frames_only_when_the_picture_changes(tmp_path):
    times = [0, 33, 66, 900, 933, 2000]
    clip = open_clip(write_recording(tmp_path / "a.webm", times))
    assert clip.uneven_times == seconds([*times, 2400])  # nothing is known of the last one


def write_with_durations(path, durations, bframes=0):
    """Write frames that last so many ms each; the file states the duration of the last one."""
    codec, form = {".gif": ("gif", "rgb8")}.get(path.suffix, ("libx264", "yuv420p"))
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, 10, {"bf": str(bframes)} if codec != "gif" else {})
        stream.width, stream.height, stream.pix_fmt = 64, 48, form
        stream.codec_context.time_base = Fraction(1, 1000)
        begins = [sum(durations[:number]) for number in range(len(durations))]
        lasting = dict(zip(begins, durations, strict=True))
        packets = []
        for number, begin in enumerate(begins):
            picture = av.VideoFrame.from_ndarray(numbered_frame(number), format="rgb24")
            picture = picture.reformat(format=form)
            picture.pts, picture.time_base = begin, Fraction(1, 1000)
            packets += stream.encode(picture)
        for packet in [*packets, *stream.encode()]:
            packet.duration = lasting[packet.pts]
            container.mux(packet)
    return path


def test_a_gif_rounds_to_10_ms(tmp_path):
    assert (
        open_clip(write_with_durations(tmp_path / "a.gif", [30, 30, 40] * 9)).uneven_times is None
    )


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.gif"])
def test_a_pause_at_the_end_counts(tmp_path, name):
    path = write_with_durations(tmp_path / name, [100] * 7 + [2000])
    assert scan_packets(path).last_duration == 2
    assert open_clip(path).uneven_times == seconds([*range(0, 800, 100), 2700])


def test_the_end_of_packets_in_another_order(tmp_path):
    durations = [100, 100, 300, 100, 100, 500, 100, 100, 100, 100, 100, 100]
    path = write_with_durations(tmp_path / "a.mp4", durations, bframes=2)
    assert scan_packets(path).last_duration == Fraction(1, 10)


def test_a_missing_end_is_no_pause(tmp_path):
    """The header still states the length of the whole video."""
    path = write_clip(tmp_path / "a.mp4", 60, container_options={"movflags": "faststart"})
    clip = open_clip(truncate(path, 0.6))
    assert clip.num_frames < 50
    assert clip.uneven_times is None


def test_times_that_are_known_are_not_read_again(tmp_path, monkeypatch):
    clip = open_clip(write_with_durations(tmp_path / "a.mp4", [100] * 7 + [2000]))
    assert clip.num_frames == 8
    monkeypatch.setattr(av, "open", None)
    assert clip.uneven_times == seconds([*range(0, 800, 100), 2700])
    assert clip.uneven_times is clip.uneven_times
