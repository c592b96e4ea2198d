import os
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from media.frame_conversion import ACCURATE
from media.sound import open_sound
from media.video import open_clip
from media.video_writer import VideoWriter, takes_sound
from tests.helpers.media import decode_sound, frame_numbers, numbered_frame, write_sound_clip

NTSC = Fraction(30000, 1001)


def write(path, num_frames=12, size=(48, 64), rate=Fraction(25)):
    with VideoWriter(path, rate) as writer:
        for number in range(num_frames):
            writer.write(numbered_frame(number, size))
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.gif", "A.MP4", "folder"])
def test_what_is_written_can_be_read(tmp_path, name):
    path = write(tmp_path / "new" / name)
    reader = open_clip(path)
    frames = np.stack(list(reader))
    assert frame_numbers(frames) == list(range(12))
    assert reader.frame_rate == 25
    expected = np.stack([numbered_frame(number) for number in range(12)])
    difference = frames.astype(int) - expected
    assert abs(difference[:, 28:, 16:-16]).mean() < (0.01 if name == "folder" else 8)
    assert abs(difference.mean()) < 1
    assert names(tmp_path / "new") == [name]


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "folder"])
def test_frame_rate_stays_exact(tmp_path, name):
    assert open_clip(write(tmp_path / name, 40, rate=NTSC)).frame_rate == NTSC


def test_gif_keeps_the_rate_on_average(tmp_path):
    reader = open_clip(write(tmp_path / "a.gif", 30, rate=Fraction(30)))  # not in 1/100 s
    assert (reader.num_frames, reader.frame_rate) == (30, 30)


@pytest.mark.parametrize("name", ["a.mp4", "a.webm"])
def test_odd_sizes_gain_a_copied_edge(tmp_path, name):
    frame = open_clip(write(tmp_path / name, 3, size=(47, 61))).read([2])[0]
    assert frame.shape == (48, 62, 3)
    assert frame_numbers(frame[None]) == [2]
    assert abs(frame[47].astype(int) - frame[46]).mean() < 8


def test_a_folder_of_any_name(tmp_path):
    for _ in range(2):
        with VideoWriter(tmp_path / "a.b", Fraction(25), as_folder=True) as writer:
            writer.write(numbered_frame(3))
    assert names(tmp_path) == ["a.b"]
    assert names(tmp_path / "a.b") == ["00000.png", "frame_rate.json"]


@pytest.mark.parametrize("name", ["a.gif", "folder"])
def test_odd_sizes_stay_in_kinds_that_allow_them(tmp_path, name):
    assert open_clip(write(tmp_path / name, 3, size=(47, 61))).size == (47, 61)


def test_mp4_says_how_its_colours_are_coded(tmp_path):
    with av.open(str(write(tmp_path / "a.mp4"))) as container:
        context = container.streams.video[0].codec_context
        assert context.pix_fmt == "yuv420p"
        assert (context.colorspace, context.color_range) == (6, 1)  # BT.601, limited


@pytest.mark.parametrize("colour", [(200, 30, 60), (20, 180, 90), (250, 250, 250), (40, 60, 220)])
def test_colours_survive(tmp_path, colour):
    frame = np.full((32, 32, 3), colour, np.uint8)
    with VideoWriter(tmp_path / "a.mp4", Fraction(25)) as writer:
        writer.write(frame)
    assert abs(open_clip(tmp_path / "a.mp4").read([0])[0].astype(int) - frame).max() <= 3


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.gif", "folder"])
def test_an_exception_leaves_nothing_behind(tmp_path, name):
    path = write(tmp_path / name, 3)

    def fail_half_way():
        with VideoWriter(path, Fraction(25)) as writer:
            writer.write(numbered_frame(40))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert names(tmp_path) == [name]
    assert frame_numbers(open_clip(path).read([0, 1, 2])) == [0, 1, 2]


@pytest.mark.parametrize("name", ["a.mp4", "folder"])
def test_an_earlier_result_is_replaced(tmp_path, name):
    write(tmp_path / name, 9)
    reader = open_clip(write(tmp_path / name, 4))
    assert reader.num_frames == 4
    assert names(tmp_path) == [name]


def test_a_link_in_its_place_is_replaced(tmp_path):
    """The file that the link leads to does not change."""
    name = "a.mp4"
    (tmp_path / "other").mkdir()
    (tmp_path / "here").mkdir()
    other = write(tmp_path / "other" / name, 9)
    (tmp_path / "here" / name).symlink_to(other)
    assert open_clip(write(tmp_path / "here" / name, 4)).num_frames == 4
    assert not (tmp_path / "here" / name).is_symlink()
    assert open_clip(other).num_frames == 9
    assert names(tmp_path / "here") == [name]


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "folder"])
def test_the_temporary_name_is_unpredictable(tmp_path, name):
    """A link under a predictable name would be written through, or block the writer."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    stem, dot, suffix = name.partition(".")
    foreseen = tmp_path / f".{stem}.{os.getpid()}.tmp{dot}{suffix}"
    foreseen.symlink_to(victim)
    made = []
    for _ in range(2):
        with VideoWriter(tmp_path / name, Fraction(25)) as writer:
            for number in range(80):  # the encoder delays the first ones
                writer.write(numbered_frame(number))
            made.append({path.name for path in tmp_path.iterdir()})
    assert victim.read_text() == "mine"
    (first,), (second,) = (found - {"victim", foreseen.name, name} for found in made)
    assert first != second


def test_the_longest_name(tmp_path):
    """The name of the unfinished result is not longer."""
    name = "é" * 125 + ".mp4"
    assert open_clip(write(tmp_path / name, 2)).num_frames == 2
    assert names(tmp_path) == [name]


@pytest.mark.parametrize("name", ["thesis.tex", "00001.png", "frame_rate.json"])
def test_a_folder_that_is_no_earlier_result_is_left_alone(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match=rf"holds {name}, which no earlier run wrote; choose ano"):
        VideoWriter(tmp_path, Fraction(25))
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]


def test_an_earlier_result_with_other_things_is_left_alone(tmp_path):
    folder = write(tmp_path / "folder", 2)
    (folder / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"holds thesis\.tex"):
        VideoWriter(folder, Fraction(25))
    assert names(folder) == ["00000.png", "00001.png", "frame_rate.json", "thesis.tex"]


@pytest.mark.parametrize("has_earlier", [False, True])
def test_files_added_in_the_meantime_stay(tmp_path, has_earlier):
    folder = tmp_path / "folder"
    folder.mkdir()
    if has_earlier:
        write(folder, 9)
    with VideoWriter(folder, Fraction(25)) as writer:
        writer.write(numbered_frame(40))
        (folder / "thesis.tex").write_text("mine")
        (folder / "notes").mkdir()
        (folder / "notes" / "00000.png").write_text("mine")
    assert names(tmp_path) == ["folder"]
    assert names(folder) == ["00000.png", "frame_rate.json", "notes", "thesis.tex"]
    assert (folder / "thesis.tex").read_text() == "mine"
    assert (folder / "notes" / "00000.png").read_text() == "mine"
    assert frame_numbers([np.asarray(Image.open(folder / "00000.png"))]) == [40]


def test_a_folder_that_is_a_link_is_filled_where_it_lies(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "folder").symlink_to(tmp_path / "disk")
    for count in (5, 3):
        write(tmp_path / "folder", count)
    assert (tmp_path / "folder").is_symlink()
    assert names(tmp_path / "disk") == ["00000.png", "00001.png", "00002.png", "frame_rate.json"]
    assert names(tmp_path) == ["disk", "folder"]


@pytest.mark.parametrize("name", ["a.mp4", "folder"])
def test_what_a_process_of_the_same_id_left_is_not_in_the_way(tmp_path, name):
    """In containers a killed process may have had the same id, such as 1."""
    path = tmp_path / name
    left = tmp_path / f".{path.stem}.{os.getpid()}.tmp{path.suffix}"
    left.mkdir()
    assert open_clip(write(path, 3)).num_frames == 3
    assert left.exists()  # in somebody else's folder


@pytest.mark.parametrize("rate", [Fraction("29.970029970029970029"), 25 + Fraction(1, 10**400)])
def test_a_frame_rate_of_many_digits(tmp_path, rate):
    """A rate that FFmpeg cannot represent is replaced by the nearest one that it can."""
    reader = open_clip(write(tmp_path / "a.mp4", 3, rate=rate))
    assert reader.frame_rate == pytest.approx(rate, abs=1e-4)
    reader = open_clip(write(tmp_path / "folder", 3, rate=rate))
    assert reader.frame_rate == pytest.approx(rate, abs=1e-9)


@pytest.mark.parametrize("rate", [Fraction(10**400), Fraction(1, 10**400), Fraction(2**31)])
@pytest.mark.parametrize("name", ["a.mp4", "a.webm"])
def test_a_frame_rate_that_no_video_can_have(tmp_path, rate, name):
    with pytest.raises(UserError, match=f"{name}: a video file cannot have the frame rate of"):
        VideoWriter(tmp_path / name, rate)
    assert names(tmp_path) == []


def test_an_empty_folder_is_used(tmp_path):
    (tmp_path / "folder").mkdir()
    assert open_clip(write(tmp_path / "folder", 3)).num_frames == 3


@pytest.mark.parametrize(
    ("name", "rate", "message"),
    [
        ("a.xyz", 25, r"cannot write \.xyz; use \.mp4, \.webm, \.mov, \.gif"),
        ("a.gif", 60, "at most 50 frames per second, not 60"),
        ("file/a.mp4", 25, "cannot be written"),
        ("file", 25, "a file has this name"),
        ("/proc/a.mp4", 25, "cannot be written"),
        ("..", 25, r"\.\.: names no file or new folder; write out\.mp4"),
        ("/", 25, r"/: names no file or new folder"),
    ],
)
def test_bad_outputs_are_refused_at_once(tmp_path, name, rate, message):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=message):
        VideoWriter(tmp_path / name, Fraction(rate))
    assert names(tmp_path) == ["file"]


def test_this_folder_is_no_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (".", ""):
        with pytest.raises(UserError, match=r"^\.: names no file or new folder"):
            VideoWriter(path, Fraction(25))


def test_no_frames_is_an_error(tmp_path):
    with (
        pytest.raises(UserError, match="no frames to write"),
        VideoWriter(tmp_path / "a.mp4", Fraction(25)),
    ):
        pass
    assert names(tmp_path) == []


def rgba_frame(number, size=(64, 80)):
    """Make a frame, H x W x 4: a disc with a soft edge, moved by `number`, on a numbered frame."""
    height, width = size
    y, x = np.ogrid[:height, :width]
    distance = np.hypot(y - height / 2, x - width / 2 - number % 8)
    alpha = np.clip((height / 3 - distance) * 40 + 128, 0, 255).astype(np.uint8)
    return np.dstack([numbered_frame(number, size), alpha])


def write_transparent(path, frames):
    with VideoWriter(path, Fraction(25), transparent=True) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def decode_alpha(path):
    """Decode RGBA by libvpx, since FFmpeg's own VP9 decoder leaves alpha out."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.metadata["alpha_mode"] == "1"
        decoder = av.CodecContext.create("libvpx-vp9", "r")
        packets = list(container.demux(stream))
        decoded = [
            frame for packet in packets for frame in decoder.decode(packet if packet.size else None)
        ]
    assert {(frame.format.name, frame.colorspace, frame.color_range) for frame in decoded} == {
        ("yuva420p", 6, 1)  # BT.601, limited
    }
    images = [frame.to_ndarray(format="rgba", interpolation=ACCURATE) for frame in decoded]
    return np.stack(images).astype(int)


def test_webm_keeps_alpha_in_step_with_the_colours(tmp_path):
    written = np.stack([rgba_frame(number) for number in range(64)]).astype(int)  # alt-ref frames
    decoded = decode_alpha(write_transparent(tmp_path / "a.webm", written.astype(np.uint8)))
    assert decoded.shape == written.shape
    difference = abs(decoded - written)
    assert difference[..., 3].mean(axis=(1, 2)).max() < 0.5
    assert difference[..., 3].max() < 16
    opaque = written[..., 3] == 255
    assert abs((decoded - written)[opaque][:, :3].mean()) < 1
    assert difference[opaque][:, :3].mean() < 4
    assert decoded[..., 3][written[..., 3] == 0].max() <= 8  # nothing is visible there


def test_webm_pads_alpha_too(tmp_path):
    frame = rgba_frame(0, (47, 61))
    frame[..., 3] = np.where(np.arange(47) < 20, 0, 255)[:, None]
    decoded = decode_alpha(write_transparent(tmp_path / "a.webm", [frame, frame]))
    assert decoded.shape == (2, 48, 62, 4)
    assert decoded[:, 47:, :, 3].min() > 250
    assert decoded[:, 24:, 61, 3].min() > 250
    assert decoded[:, :16, 61, 3].max() < 5


def test_hidden_colours_do_not_bleed(tmp_path):
    figure = np.zeros((64, 64, 4), np.uint8)
    figure[..., :3] = (200, 60, 40)
    figure[16:47, 16:47, 3] = 255  # odd: the edge cuts blocks of one colour
    noisy = np.stack([figure] * 8)
    hidden = noisy[..., 3] == 0
    noisy[hidden, :3] = np.random.default_rng(0).integers(0, 256, (hidden.sum(), 3))
    plain = write_transparent(tmp_path / "plain.webm", [figure] * 8)
    path = write_transparent(tmp_path / "noisy.webm", noisy)
    assert path.stat().st_size == plain.stat().st_size
    decoded = decode_alpha(path)
    assert abs(decoded[:, 16:47, 16:47, :3] - (200, 60, 40)).max() <= 6


@pytest.mark.filterwarnings("error")
def test_an_invisible_frame_can_be_written(tmp_path):
    decoded = decode_alpha(
        write_transparent(tmp_path / "a.webm", [np.zeros((32, 32, 4), np.uint8)])
    )
    assert decoded[..., 3].max() <= 2


def test_folder_of_transparent_frames_is_lossless(tmp_path):
    written = [rgba_frame(number, (47, 61)) for number in range(3)]
    folder = write_transparent(tmp_path / "folder", written)
    for number, frame in enumerate(written):
        with Image.open(folder / f"{number:05d}.png") as image:
            assert image.mode == "RGBA"
            np.testing.assert_array_equal(np.asarray(image), frame)


def test_mov_keeps_alpha_and_colours(tmp_path):
    """ProRes 4444: colours at the full resolution, so also those of the edge are right."""
    written = np.stack([rgba_frame(number) for number in range(4)]).astype(int)
    path = write_transparent(tmp_path / "a.mov", written.astype(np.uint8))
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "prores"
        frames = [*container.decode(video=0)]
    assert {frame.format.name[:7] for frame in frames} == {"yuva444"}
    images = [frame.to_ndarray(format="rgba", interpolation=ACCURATE) for frame in frames]
    decoded = np.stack(images).astype(int)
    assert decoded.shape == written.shape
    difference = abs(decoded - written)
    assert difference[..., 3].max() <= 1
    assert difference[written[..., 3] > 0][:, :3].mean() < 3


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.MP4"])
def test_kinds_without_transparency_are_refused_at_once(tmp_path, name):
    suffix = name[2:].lower()
    message = rf"{name}: \.{suffix} has no transparency; use \.webm, \.mov, or a name without"
    with pytest.raises(UserError, match=message):
        VideoWriter(tmp_path / name, Fraction(25), transparent=True)
    with pytest.raises(
        UserError, match=r"cannot write \.xyz; use \.webm, \.mov, or a name without"
    ):
        VideoWriter(tmp_path / "a.xyz", Fraction(25), transparent=True)


@pytest.mark.parametrize("transparent", [True, False])
def test_the_number_of_channels_is_checked(tmp_path, transparent):
    frame = numbered_frame(0) if transparent else rgba_frame(0)
    with (
        pytest.raises(ValueError, match=r"expected . channels, found ."),
        VideoWriter(tmp_path / "folder", Fraction(25), transparent=transparent) as writer,
    ):
        writer.write(frame)
    assert names(tmp_path) == []


@pytest.mark.parametrize(("name", "rounding"), [("a.mp4", 0), ("a.webm", 1e-3), ("a.gif", 1e-2)])
def test_a_minute_of_ntsc_does_not_drift(tmp_path, name, rounding):
    """1799 frames last 60.0266 s; the last frame and the sound come at the right time."""
    num_frames = 1799
    source = write_sound_clip(tmp_path / "a.mov", [], 1, sample_rate=16000, sound=(0, 62))
    sound = open_sound(source) if takes_sound(name) else None
    with VideoWriter(tmp_path / name, NTSC, sound=sound) as writer:
        for number in range(num_frames):
            writer.write(numbered_frame(number, (16, 16)))
    with av.open(str(tmp_path / name)) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert times == pytest.approx(
        [n * 1001 / 30000 for n in range(num_frames)], abs=rounding / 2 + 1e-6
    )
    reader = open_clip(tmp_path / name)
    assert reader.num_frames == num_frames
    assert abs(reader.num_frames / reader.frame_rate - num_frames / NTSC) < Fraction(1, 100)
    if sound is not None:
        samples, sample_rate = decode_sound(tmp_path / name)
        assert 0 <= len(samples) / sample_rate - num_frames * 1001 / 30000 < 0.024


# There are pauses and short frames; the last frame lasts from 1.55 to 4 s.
TIMES = [Fraction(number, 300) for number in (0, 10, 30, 300, 330, 450, 465, 1200)]


def write_uneven(path, times=TIMES, sound=None, rate=None):
    num_frames = len(times) - 1
    rate = rate or num_frames / times[-1]
    with VideoWriter(path, rate, times=times, sound=sound) as writer:
        for number in range(num_frames):
            writer.write(numbered_frame(number, (32, 32)))
    return path


@pytest.mark.parametrize(("name", "rounding"), [("a.mp4", 1e-5), ("a.webm", 1e-3), ("a.gif", 1e-2)])
def test_every_frame_at_its_own_time(tmp_path, name, rounding):
    path = write_uneven(tmp_path / name)
    reader = open_clip(path)
    assert frame_numbers(np.stack(list(reader))) == [*range(7)]
    expected = [float(time) for time in TIMES]
    assert [float(t) for t in reader.uneven_times] == pytest.approx(expected, abs=rounding)
    with av.open(str(path)) as container:
        assert container.duration / 1e6 == pytest.approx(4, abs=rounding)
        stream = container.streams.video[0]
        assert float(stream.average_rate) < 5
        assert float(stream.guessed_rate) <= 60


def test_frames_of_a_gif_are_not_so_near_that_browsers_slow_down(tmp_path):
    times = [Fraction(number, 1000) for number in (0, 4, 8, 12, 100, 200, 300)]
    with av.open(str(write_uneven(tmp_path / "a.gif", times))) as container:
        found = [packet.pts for packet in container.demux(video=0) if packet.size]
    assert found == [0, 2, 4, 6, 10, 20]


def test_a_folder_has_evenly_spaced_frames(tmp_path):
    """4 s become frames at 7 / 4 a second: those shown at 0, 0.57, 1.14, 1.71 .. s."""
    reader = open_clip(write_uneven(tmp_path / "folder"))
    assert frame_numbers(np.stack(list(reader))) == [0, 2, 4, 6, 6, 6, 6]
    assert reader.frame_rate == Fraction(7, 4)


def test_a_frame_that_lasts_for_days_does_not_fill_the_disk(tmp_path):
    """A clip of some kilobytes may say so; a folder would repeat it a million times."""
    times = [Fraction(number, 25) for number in range(50)] + [Fraction(20_000)]
    folder = tmp_path / "folder"
    with pytest.raises(UserError, match="would get 500,000 frames for its 50"):
        VideoWriter(folder, Fraction(25), times=times)
    assert not folder.exists()
    VideoWriter(folder, Fraction(25), times=[Fraction(0), Fraction(300)])  # a pause of minutes


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.mov", "a.gif", "folder"])
def test_times_whose_average_no_video_can_have(tmp_path, name):
    """A gap of years makes such an average; the times count."""
    path, times = tmp_path / name, [Fraction(0), Fraction(1, 25), Fraction(2, 25)]
    write_uneven(path, times, rate=Fraction(29, 10**10))
    assert open_clip(path).num_frames == (1 if name == "folder" else 2)


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.mov", "a.gif", "folder"])
def test_frames_that_are_evenly_spaced_by_days(tmp_path, name):
    """FFmpeg would say `Invalid argument`; a folder would have another rate."""
    with pytest.raises(UserError, match="1,000,000 seconds apart; at most"):
        VideoWriter(tmp_path / name, Fraction(1, 10**6))
    write(tmp_path / name, 3, rate=Fraction(1, 2**16))


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.mov", "a.gif"])
def test_a_frame_that_lasts_longer_than_a_file_can_say(tmp_path, name):
    """FFmpeg would say `Invalid argument`, after all frames were computed."""
    for begin, end in ((1, 30_000), (30_000, 30_001)):
        with pytest.raises(UserError, match=r"lasts (29,999|30,000) seconds"):
            write_uneven(tmp_path / name, [Fraction(0), Fraction(begin), Fraction(end)])
    write_uneven(tmp_path / name, [Fraction(0), Fraction(1), Fraction(20_000)])
    assert open_clip(tmp_path / name).num_frames == 2


@pytest.mark.parametrize("name", ["a.mp4", "a.webm"])
def test_sound_ends_with_uneven_frames(tmp_path, name):
    sound = open_sound(write_sound_clip(tmp_path / "a.mov", [], 1, sound=(0, 9)))
    samples, sample_rate = decode_sound(write_uneven(tmp_path / name, sound=sound))
    assert 0 <= len(samples) / sample_rate - 4 < 0.03


@pytest.mark.parametrize("name", ["a.mp4", "a.webm"])
def test_an_even_rate_is_written_as_one(tmp_path, name):
    path = write(tmp_path / name, 40, rate=NTSC)
    assert open_clip(path).uneven_times is None
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == NTSC
