import logging
import pickle
import tracemalloc
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from media.container import decode
from media.sound import open_sound
from media.video import MissingFrame, VideoError, open_clip
from media.video_index import average_frame_rate
from media.video_writer import VideoWriter
from tests.helpers.media import (
    damage,
    frame_number,
    frame_numbers,
    numbered_frame,
    truncate,
    write_clip,
    write_frame_folder,
    write_recording,
    write_strip,
)

NTSC = Fraction(30000, 1001)
B_FRAMES = {"bf": "3"}
INTRA_REFRESH = {"bf": "2", "x264-params": "intra-refresh=1"}
CONTAINERS = {
    "h264.mp4": {"codec_options": B_FRAMES},
    "open_gop.mp4": {"codec_options": {**B_FRAMES, "x264-params": "open-gop=1"}},
    "fragmented.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "late_start.mp4": {"times": [*range(1000, 1040)]},
    "cut.mp4": {"times": [*range(-10, 30)], "codec_options": B_FRAMES},
    "h264.mov": {"codec_options": B_FRAMES},
    "h264.mkv": {"codec_options": B_FRAMES},
    "late_start.mkv": {"times": [*range(1000, 1040)]},
    "vp9.webm": {},
    "vp8.webm": {"codec": "libvpx", "codec_options": {"auto-alt-ref": "1", "lag-in-frames": "9"}},
    "mpeg4.avi": {},
    "mpeg4_b.avi": {"codec_options": {"bf": "2"}},
    "h264.avi": {"codec": "libx264", "codec_options": B_FRAMES},
    "mjpeg.avi": {"codec": "mjpeg", "pixel_format": "yuvj420p"},
    "animation.gif": {},
    "phone.m4v": {"codec_options": B_FRAMES},
    "phone.3gp": {"codec_options": B_FRAMES},
    "h264.flv": {"codec_options": B_FRAMES},
    "h264.ts": {"codec_options": B_FRAMES},
    "open_gop.ts": {"codec_options": {**B_FRAMES, "x264-params": "open-gop=1"}},
    "camcorder.mts": {"codec_options": B_FRAMES, "times": [*range(90000, 90040)]},
    "mpeg2.ts": {"codec": "mpeg2video", "codec_options": {"bf": "2"}},
    "mpeg2.mpg": {"codec_options": {"bf": "2"}},
    "dvd.vob": {"codec_options": {"bf": "2"}},
    "mpeg4.asf": {},
    "mpeg4_b.asf": {"codec_options": {"bf": "2"}},
    "h264.asf": {"codec": "libx264", "codec_options": B_FRAMES},
    "wmv2.wmv": {},
    "intra_refresh.mp4": {"codec_options": INTRA_REFRESH},
    "intra_refresh.ts": {"codec_options": INTRA_REFRESH},
    "hevc.mp4": {"codec": "libx265", "codec_options": {"x265-params": "log-level=none"}},
    "hevc.ts": {"codec": "libx265", "codec_options": {"x265-params": "log-level=none"}},
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_random_access_equals_full_decode(tmp_path, caplog, name):
    reader = open_clip(write_clip(tmp_path / name, 40, gop=12, **CONTAINERS[name]))
    frames = np.stack(list(reader))

    first = 10 if name == "cut.mp4" else 0
    assert frame_numbers(frames) == list(range(first, 40))
    assert reader.num_frames == len(frames)
    assert reader.size == frames.shape[1:3] == (48, 64)
    wanted = [len(frames) - 1, 0, 13, 12, 13, 11, 25, 1]
    np.testing.assert_array_equal(reader.read(wanted), frames[wanted])
    for index in range(len(frames)):
        np.testing.assert_array_equal(reader.read([index])[0], frames[index])
    for begin in (1, 12, 17, len(frames) - 1):
        np.testing.assert_array_equal(np.stack(list(reader.frames_from(begin))), frames[begin:])
    assert caplog.messages == []  # no false warning of damage


@pytest.mark.parametrize("folder", ["heads/test", "taichi/test", "clips"])
def test_random_access_equals_full_decode_on_real_clips(shared_data, folder):
    path = sorted((shared_data / folder).iterdir())[0]
    reader = open_clip(path)
    wanted = [reader.num_frames - 1, 7, 60, 7]
    expected = {i: frame for i, frame in enumerate(reader) if i in wanted}
    np.testing.assert_array_equal(reader.read(wanted), np.stack([expected[i] for i in wanted]))


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.webm", "a.avi"])
def test_frame_rate_is_exact(tmp_path, name):
    assert open_clip(write_clip(tmp_path / name, 40, rate=NTSC)).frame_rate == NTSC


def test_variable_frame_rate_gives_the_average(tmp_path):
    times = [0, 1, 2, 3, 10, 11, 12, 13, 14, 19]  # 10 frames in 20 / 25 s
    path = write_clip(tmp_path / "a.mp4", times=times, codec_options={"bf": "0"})
    reader = open_clip(path)
    assert reader.frame_rate == pytest.approx(12.5, rel=0.06)
    assert frame_numbers(reader.read(range(10))) == list(range(10))


def test_a_rate_in_the_header_that_the_frames_do_not_keep(tmp_path):
    times = [4 * number for number in range(30)]
    reader = open_clip(write_clip(tmp_path / "a.mkv", times=times, codec_options={"bf": "0"}))
    with av.open(str(tmp_path / "a.mkv")) as container:
        assert container.streams.video[0].average_rate == 25
    assert reader.frame_rate == Fraction(25, 4)


def test_the_average_of_times_in_ms_is_a_simple_fraction():
    """The clip is an hour long, and FFmpeg's fractions end at 2**31."""
    times = [round(number * 1001 / 30) for number in range(107892)]
    assert average_frame_rate(times, Fraction(1, 1000), Fraction(1000)) == NTSC


@pytest.mark.parametrize("num_frames", [5, 90])
def test_recording_of_a_browser(tmp_path, num_frames):
    """FFmpeg returns a rate of 1000, from the unit of the times, and the times jitter."""
    jitter = np.random.default_rng(0).integers(-8, 9, num_frames)
    times = [round(number * 1001 / 30) + int(jitter[number]) + 8 for number in range(num_frames)]
    reader = open_clip(write_recording(tmp_path / "a.webm", times))
    assert reader.frame_rate == pytest.approx(29.97, rel=0.5 / num_frames)
    assert reader.num_frames == num_frames
    assert frame_numbers(np.stack(list(reader))) == [n % 64 for n in range(num_frames)]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.gif"])
def test_times_are_those_of_the_file(tmp_path, name):
    shown = [3, 4, 6, 7, 12, 13]
    options = {} if name == "a.gif" else {"codec_options": {"bf": "0"}}
    reader = open_clip(write_clip(tmp_path / name, times=shown, **options))
    assert list(reader.times) == [Fraction(time - 3, 25) for time in shown]
    assert len(reader.times) == reader.num_frames


@pytest.mark.parametrize("write", [write_frame_folder, write_strip])
def test_times_of_pictures_are_evenly_spaced(tmp_path, write):
    reader = open_clip(write(tmp_path / "a.png", 3), NTSC)
    assert list(reader.times) == [0, 1 / NTSC, 2 / NTSC]


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_is_applied(tmp_path, rotation):
    reader = open_clip(write_clip(tmp_path / "phone.mp4", 4, rotation=rotation))
    assert reader.size == (48, 64)
    assert frame_numbers(reader.read([0, 1, 2, 3])) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [
        ("deep.mp4", "libx264", "yuv420p10le"),
        ("full_range.mp4", "libx264", "yuvj444p"),
        ("deep.mkv", "ffv1", "gbrp16le"),
        ("deep.mov", "png", "rgb48be"),
        ("alpha.mov", "png", "rgba"),
    ],
)
def test_colours_survive_any_sample_format(tmp_path, name, codec, pixel_format):
    path = write_clip(tmp_path / name, 3, codec=codec, pixel_format=pixel_format)
    frame = open_clip(path).read([1])[0].astype(int)
    difference = frame - numbered_frame(1)
    assert abs(difference[30:, 4:-4]).mean() < 4
    assert abs(difference.mean()) < 1  # it is not darker on average


@pytest.mark.parametrize("pixel_format", ["gray", "gray16le"])
def test_grey_video_becomes_rgb(tmp_path, pixel_format):
    path = write_clip(tmp_path / "a.mkv", 3, codec="ffv1", pixel_format=pixel_format)
    frame = open_clip(path).read([2])[0]
    assert frame_number(frame) == 2
    assert (frame[..., 0] == frame[..., 2]).all()
    assert abs(frame[: 48 // 2].max() - 220) <= 1


def test_transparency_is_composited_on_white(tmp_path):
    path = tmp_path / "a.mov"
    rgba = np.zeros((16, 16, 4), np.uint8)
    rgba[:8] = [200, 0, 0, 255]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", 25)
        stream.height, stream.width, stream.pix_fmt = 16, 16, "rgba"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(rgba, format="rgba")))
        container.mux(stream.encode())
    frame = open_clip(path).read([0])[0]
    assert frame[0, 0].tolist() == [200, 0, 0]
    assert frame[15, 0].tolist() == [255, 255, 255]


def test_odd_sizes(tmp_path):
    path = write_clip(tmp_path / "a.mkv", 3, (47, 61), codec="ffv1", pixel_format="yuv444p")
    reader = open_clip(path)
    assert reader.size == (47, 61)
    assert frame_numbers(reader.read([2, 1])) == [2, 1]


def test_folder_in_natural_order(tmp_path):
    reader = open_clip(write_frame_folder(tmp_path / "clip", 12))
    assert frame_numbers(np.stack(list(reader))) == list(range(12))
    assert frame_numbers(reader.read([11, 2, 2])) == [11, 2, 2]
    assert frame_numbers(np.stack(list(reader.frames_from(9)))) == [9, 10, 11]
    assert (reader.num_frames, reader.size, reader.frame_rate) == (12, (48, 64), 25)


def test_folder_of_any_pictures(tmp_path, caplog):
    """Entries that are left out are reported once."""
    folder = write_frame_folder(tmp_path / "clip", 3)
    for number, name in enumerate(("frame3.webp", "frame4.bmp", "frame5.TIFF"), 3):
        Image.fromarray(numbered_frame(number)).save(folder / name)
    for name in ("frame6.psd", "frame7.psd", "frame_rate.json", "notes.txt"):
        (folder / name).touch()
    reader = open_clip(folder)
    assert frame_numbers(np.stack(list(reader))) == [0, 1, 2, 3, 4, 5]
    assert open_clip(folder) is reader
    assert [*reader.remarks] == ["left out 2 .psd files"]
    assert caplog.messages == []


@pytest.mark.parametrize("name", ["12:30 talk.mp4", "file:a.mp4", "a%03d.mp4", "?.mkv", "-.webm"])
def test_special_characters_in_a_name_mean_nothing(tmp_path, monkeypatch, name):
    """A file name is not read as a protocol, a pattern or an option."""
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / f"a{Path(name).suffix}", 5).rename(tmp_path / name)
    assert frame_numbers(np.stack(list(open_clip(name)))) == [0, 1, 2, 3, 4]
    assert open_sound(name) is None
    with VideoWriter(f"{name}.mp4", Fraction(25)) as writer:
        writer.write(numbered_frame(0))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, f"{name}.mp4"])


@pytest.mark.parametrize(
    ("note", "rate"),
    [
        ('{"frames_per_second": "30000/1001"}', NTSC),
        ('{"frames_per_second": "1/0"}', 10),
        ('{"frames_per_second": null}', 10),
        ("[1, 2]", 10),
        ("hello", 10),
    ],
)
def test_folder_may_state_its_frame_rate(tmp_path, note, rate):
    folder = write_frame_folder(tmp_path / "clip", 2)
    (folder / "frame_rate.json").write_text(note)
    assert open_clip(folder, Fraction(10)).frame_rate == rate


def test_strip(tmp_path):
    reader = open_clip(write_strip(tmp_path / "strip.png", 5, side=48), Fraction(10))
    assert (reader.num_frames, reader.size, reader.frame_rate) == (5, (48, 48), 10)
    assert frame_numbers(reader.read([4, 0, 4])) == [4, 0, 4]
    assert frame_numbers(np.stack(list(reader))) == list(range(5))
    assert frame_numbers(np.stack(list(reader.frames_from(3)))) == [3, 4]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_broken_tail_uses_what_can_be_decoded_and_says_so_once(tmp_path, caplog, suffix):
    options = {"movflags": "faststart"} if suffix == ".mp4" else {}
    path = write_clip(tmp_path / f"a{suffix}", 60, gop=12, container_options=options)
    reader = open_clip(truncate(path, 0.6))
    with caplog.at_level(logging.WARNING):
        frames = np.stack(list(reader))
        again = open_clip(path)
        again.read([again.num_frames - 1, 0])

    assert 12 < len(frames) < 60
    assert again.num_frames == len(frames)
    count = len(frames)
    assert caplog.messages == [
        f"{path}: frames after {count} of 60 cannot be decoded; using {count}"
    ]


@pytest.fixture
def long_clip(tmp_path):
    """Write 60 frames with a key frame every 12."""
    return write_clip(tmp_path / "a.mp4", 60, gop=12, codec_options={"bf": "0"})


def test_damaged_end_that_the_packets_hide(long_clip, caplog):
    reader = open_clip(damage(long_clip, 43, 59))
    assert frame_numbers(reader.read([42, 3])) == [42, 3]
    assert reader.num_frames == 43
    assert frame_numbers(np.stack(list(reader))) == [*range(43)]
    assert reader.num_frames == 43
    assert frame_numbers(reader.read([42])) == [42]
    assert caplog.messages == [f"{long_clip}: frames after 43 of 60 cannot be decoded; using 43"]


def test_damage_in_the_middle(long_clip, caplog):
    """Iteration ends at the damage, but later frames can be read."""
    reader = open_clip(damage(long_clip, 30, 30))
    for _ in range(2):  # earlier reads make no difference
        assert reader.num_frames == 60
        assert frame_numbers(reader.read([59, 29, 36])) == [59, 29, 36]
        for missing in (30, 35):
            with pytest.raises(MissingFrame, match=f"frame {missing} cannot be decoded") as caught:
                reader.read([36, missing, 2])
            assert (caught.value.frame, caught.value.earlier) == (missing, 29)
        assert frame_numbers(np.stack(list(reader))) == [*range(30)]
        assert frame_numbers(np.stack(list(reader.frames_from(36)))) == [*range(36, 60)]
        with pytest.raises(MissingFrame, match="frame 33 cannot be decoded") as caught:
            next(reader.frames_from(33))
        assert (caught.value.frame, caught.value.earlier) == (33, 32)
    assert caplog.messages == [f"{long_clip}: frames after 30 of 60 cannot be decoded; using 30"]


def test_damaged_key_frame(long_clip):
    reader = open_clip(damage(long_clip, 24, 24))
    with pytest.raises(MissingFrame) as caught:
        reader.read([25])
    assert caught.value.earlier == 23


def test_damaged_text_in_the_header_does_no_harm(tmp_path):
    path = write_clip(tmp_path / "a.mp4")
    contents = path.read_bytes()
    assert b"Lavf" in contents  # the name of the writing library
    path.write_bytes(contents.replace(b"Lavf", b"\xe8\xe8\xe8\xe8"))
    assert frame_numbers(open_clip(path).read([11, 0])) == [11, 0]


def test_memory_does_not_grow_with_length(tmp_path):
    path = write_clip(tmp_path / "long.mp4", 400, (64, 64))
    tracemalloc.start()
    try:
        count = sum(1 for _ in open_clip(path))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 400
    assert peak < 40 * 64 * 64 * 3  # a tenth of all frames


@pytest.mark.parametrize(
    ("use", "num_needed"),
    [
        (lambda reader: reader.read([12, 47]), (12 - 10 + 1) + (47 - 40 + 1)),
        (lambda reader: list(islice(reader.frames_from(47), 5)), 51 - 40 + 1),
    ],
)
def test_a_few_frames_do_not_decode_the_clip(tmp_path, monkeypatch, use, num_needed):
    path = write_clip(tmp_path / "a.mp4", 60, gop=10)
    reader = open_clip(path)
    assert reader.num_frames == 60  # counting decodes nothing
    assert reader.size == (48, 64)
    num_decoded = 0

    def counting_decode(packets, begin):
        nonlocal num_decoded
        for frame in decode(packets, begin):
            num_decoded += 1
            yield frame

    monkeypatch.setattr("media.decoding.decode", counting_decode)
    use(reader)
    assert num_decoded == num_needed


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "phone.mov"])
def test_a_first_read_opens_the_file_three_times(tmp_path, monkeypatch, name):
    """It is opened for the packets, for the first frame, and for the requested frames."""
    path = write_clip(tmp_path / name, 40, rotation=90 if name == "phone.mov" else 0)
    opened = []
    original = av.open

    def counting(*arguments, **options):
        container = original(*arguments, **options)
        opened.append(1)  # but not where mp4 is left out of the formats to be tried
        return container

    monkeypatch.setattr(av, "open", counting)
    assert open_clip(path).read([20]).shape == (1, 48, 64, 3)
    assert len(opened) == 3
    assert open_clip(path).size == (48, 64)
    assert len(opened) == 3


def test_a_read_without_an_index_ends_at_the_last_frame_asked_for(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "a.avi", 40, codec_options={"bf": "2"})
    reader = open_clip(path)
    assert reader.size == (48, 64)
    decoded = []

    def counting_decode(packets):
        for frame in decode(packets):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr("media.video_file.decode", counting_decode)
    assert frame_numbers(reader.read([3, 1])) == [3, 1]
    assert len(decoded) == 4


def test_many_readers_are_kept(tmp_path):
    """The cache holds all readers from one epoch to the next."""
    picture = Image.fromarray(np.zeros((2, 4, 3), np.uint8))
    paths = [tmp_path / f"{number}.png" for number in range(1100)]
    for path in paths:
        picture.save(path)
    readers = [open_clip(path) for path in paths]
    assert all(open_clip(path) is reader for path, reader in zip(paths, readers, strict=True))


def test_a_reader_takes_little_memory(tmp_path):
    """A data set has a reader for every clip."""
    path = write_clip(tmp_path / "a.mp4", 400, (16, 16), gop=12)
    open_clip(write_clip(tmp_path / "b.mp4", 4)).read([1])  # memory that is needed once
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        reader = open_clip(path)
        reader.read([reader.num_frames - 1])
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 16_000


def test_reader_travels_to_worker_processes(tmp_path):
    reader = open_clip(write_clip(tmp_path / "a.mp4"))
    copy = pickle.loads(pickle.dumps(reader))
    np.testing.assert_array_equal(copy.read([5]), reader.read([5]))


def test_a_replaced_file_is_read_anew(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 12)
    assert open_clip(path).num_frames == 12
    write_clip(path, 20)
    assert open_clip(path).num_frames == 20


def lfs_pointer(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")


def single_image(path):
    write_strip(path, num_frames=1)


def audio_only(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", 44100)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        silence.rate = 44100
        container.mux(stream.encode(silence))
        container.mux(stream.encode())


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("missing.mp4", lambda path: None, "no such file"),
        ("text.mp4", lambda path: path.write_text("hello\n"), "not a video: the file holds text"),
        ("empty.mp4", lambda path: path.touch(), "the file is empty"),
        ("pointer.mp4", lfs_pointer, "git lfs pull"),
        ("noise.mp4", lambda path: path.write_bytes(bytes(range(256)) * 9), "not a video"),
        ("cut_off.mp4", lambda path: truncate(write_clip(path), 0.5), "damaged"),
        ("sound.mp4", audio_only, "holds no video"),
        ("folder", lambda path: path.mkdir(), "no frames (png, jpg) in this folder"),
        ("single.png", single_image, "a single image (48 x 48)"),
        ("text.png", lambda path: path.write_text("hello"), "not an image: the file holds text"),
        ("table.csv", lambda path: path.write_text("1,2"), "not a clip; expected .mp4"),
    ],
)
def test_unreadable_clips_are_one_line(tmp_path, name, make, message):
    path = tmp_path / name
    make(path)
    with pytest.raises(VideoError) as caught:
        open_clip(path).read([0])
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_frames(tmp_path):
    path = write_clip(tmp_path / "a.mp4")
    contents = path.read_bytes()
    media, headers = contents.index(b"mdat") + 4, contents.index(b"moov") - 4
    path.write_bytes(contents[:media] + bytes(headers - media) + contents[headers:])
    reader = open_clip(path)
    for use in (lambda: next(iter(reader)), lambda: reader.read([0])):
        with pytest.raises(VideoError, match="none of its frames can be decoded"):
            use()


def test_frame_out_of_range(tmp_path):
    reader = open_clip(write_clip(tmp_path / "a.mp4", 12))
    for frame in (12, -1):
        with pytest.raises(VideoError, match=rf"there is no frame {frame}; it has 12"):
            reader.read([0, frame])
        with pytest.raises(VideoError, match=rf"there is no frame {frame}; it has 12"):
            next(reader.frames_from(frame))


def test_frames_of_several_sizes(tmp_path):
    folder = write_frame_folder(tmp_path / "clip", 2)
    write_strip(folder / "frame2.png", 1, side=32)
    with pytest.raises(VideoError, match="differ in size: 32 x 32, 48 x 64"):
        open_clip(folder).read([0, 1, 2])


def test_corrupt_frame_of_a_folder_is_named(tmp_path):
    folder = write_frame_folder(tmp_path / "clip", 3)
    truncate(folder / "frame1.png", 0.5)
    assert frame_numbers(open_clip(folder).read([0, 2])) == [0, 2]
    with pytest.raises(MissingFrame, match=r"frame1\.png: not an image"):
        open_clip(folder).read([1])
