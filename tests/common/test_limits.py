"""Small files that state huge sizes are refused before decoding, in a helpful message."""

import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

import media.clip_checks
import media.video_index
from common.errors import UserError
from common.limits import LIMITS, Limits, chosen_limits
from datasets.clips import ClipFolder, inspect_clips
from datasets.pack_writer import PackWriter, write_fragment
from datasets.packed import PackedClips
from media.backgrounds import open_background
from media.images import read_image
from media.picture_files import FORMATS
from media.sound import open_sound
from media.timing import Clock
from media.video import VideoError, open_clip
from tests.helpers.hostile import (
    add_text,
    write_large_gif,
    write_large_png,
    write_tiled_tiff,
)
from tests.helpers.media import (
    numbered_frame,
    write_clip,
    write_frame_folder,
    write_strip,
    write_tone,
)

CLOCK = Clock(Fraction(25))
REMEDY = "raise the limit with --max-pixels, or for training with data.max_pixels"


def as_background(path, limits=LIMITS):
    return open_background(str(path), (32, 32), "crop", CLOCK, "loop", limits)


def as_clip(path, limits=LIMITS):
    return list(open_clip(path, limits=limits))


@pytest.mark.parametrize(
    ("write", "name", "read", "limit"),
    [
        (write_large_gif, "a.gif", read_image, LIMITS.picture),
        (write_large_gif, "a.gif", open_clip, LIMITS.frame),
        (write_large_gif, "a.gif", as_background, LIMITS.frame),
        (write_large_gif, "a.png", as_background, LIMITS.picture),
        (write_large_png, "a.png", read_image, LIMITS.picture),
        (write_large_png, "a.png", open_clip, LIMITS.picture),
        (write_large_png, "a.png", as_background, LIMITS.picture),
    ],
)
def test_a_file_that_states_a_large_picture(tmp_path, write, name, read, limit):
    path = write(tmp_path / name, 16000, 15000)
    assert path.stat().st_size < 100
    with pytest.raises(UserError) as raised:
        read(path)
    message = str(raised.value)
    assert f"{path}: " in message
    assert f"16000 x 15000 pixels, 240,000,000 in all; at most {limit:,} are read" in message
    assert REMEDY in message
    assert "\n" not in message


def test_a_picture_that_pillow_itself_refuses(tmp_path):
    """The user sees this program's message instead of Pillow's."""
    with pytest.raises(UserError) as raised:
        read_image(write_large_png(tmp_path / "a.png", 40000, 40000))
    assert "too many pixels, 1,600,000,000 in all" in str(raised.value)
    assert REMEDY in str(raised.value)
    assert "decompression bomb" not in str(raised.value)


def test_the_largest_pictures_of_phones_and_cameras_are_read(tmp_path):
    """A phone takes pictures of 104 megapixels, a camera video in 8K."""
    assert LIMITS.picture > 12000 * 9000
    assert LIMITS.frame > 7680 * 4320
    assert chosen_limits(None) == LIMITS


@pytest.fixture
def clips(tmp_path):
    """Write a clip of each kind, with frames of 48 x 48 pixels."""
    folder = tmp_path / "clips"
    write_clip(folder / "a.mp4", 3, (48, 48))
    write_clip(folder / "a.gif", 3, (48, 48))
    write_clip(folder / "a.ts", 12, (48, 48))  # FFmpeg needs so many
    write_frame_folder(folder / "frames", 3, (48, 48))
    write_strip(folder / "strip.png", 3, 48)
    return folder


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.ts", "frames", "strip.png"])
def test_the_limit_is_exact_and_can_be_raised(clips, name):
    most = 48 * 48 * (3 if name == "strip.png" else 1)
    assert len(as_clip(clips / name, chosen_limits(most))) == (12 if name == "a.ts" else 3)
    with pytest.raises(VideoError, match=f"at most {most - 1:,} are read"):
        as_clip(clips / name, chosen_limits(most - 1))


def test_sound_and_background_of_a_large_clip(clips):
    tight = chosen_limits(48 * 48 - 1)
    with pytest.raises(UserError, match="48 x 48 pixels"):
        as_background(clips / "a.mp4", tight)
    assert as_background(clips / "a.mp4", chosen_limits(48 * 48)).original_size == (48, 48)


def test_large_clips_of_a_data_set_are_named(tmp_path):
    write_clip(tmp_path / "train" / "good.mp4", 3)
    write_large_gif(tmp_path / "train" / "bad.gif", 16000, 16000)
    report = inspect_clips(ClipFolder(tmp_path, "train", (32, 32)))
    assert list(report.unreadable) == ["bad"]
    assert "256,000,000" in report.unreadable["bad"]


def test_square_pixels_count(tmp_path):
    """The limit holds for frames after they are stretched to square pixels."""
    path = write_clip(tmp_path / "a.mp4", 2, (48, 64), pixel_aspect=Fraction(2))
    with pytest.raises(VideoError, match="frames of 128 x 48 pixels"):
        open_clip(path, limits=Limits(frame=48 * 64))


def test_a_stream_that_grows_on_its_way(tmp_path, caplog):
    """The decoder refuses the large frames; the frames before them are used."""
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_mux_stream("mpeg4", width=64, height=48)
        stream.time_base = Fraction(1, 1000)
        for part, (height, width) in enumerate([(48, 64), (2400, 2400)]):
            encoder = av.VideoCodecContext.create("mpeg4", "w")
            encoder.height, encoder.width, encoder.pix_fmt = height, width, "yuv420p"
            encoder.time_base, encoder.framerate = Fraction(1, 25), Fraction(25)
            picture = av.VideoFrame.from_ndarray(
                np.full((height, width, 3), 100, np.uint8), format="rgb24"
            )
            for number in range(2 * part, 2 * part + 2):
                picture.pts, picture.time_base = number, Fraction(1, 25)
                for packet in encoder.encode(picture):
                    packet.stream = stream
                    container.mux(packet)
    frames = as_clip(path, Limits(frame=10_000))
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 2
    assert "frames after 2 of 4 cannot be decoded" in caplog.text
    assert len(as_clip(path)) == 4


def test_a_pack_of_large_frames(tmp_path):
    part = tmp_path / "part"
    with PackWriter(tmp_path / "train", (48, 64)) as writer:
        table = write_fragment(part, "a", [numbered_frame(0)] * 2, 95)
        writer.append("a", Fraction(25), "a.mp4", part, table)
        writer.finish()
    assert PackedClips(tmp_path / "train", (48, 64)).num_frames(0) == 2
    with pytest.raises(UserError, match="64 x 48 pixels"):
        PackedClips(tmp_path / "train", (48, 64), limits=chosen_limits(1000))


def test_a_large_file_of_a_picture(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(numbered_frame(0, (16, 16))).save(path)
    with path.open("ab") as file:
        file.truncate(9000)
    assert read_image(path).shape == (16, 16, 3)
    with pytest.raises(UserError, match=r"a picture of 9,000 bytes, .* at most 2,048 are read"):
        read_image(path, chosen_limits(16 * 16))


def test_tiles_larger_than_the_picture(tmp_path):
    with pytest.raises(UserError, match="tiles of 65520 x 65520 pixels"):
        read_image(write_tiled_tiff(tmp_path / "a.tif", 65520))
    assert read_image(write_tiled_tiff(tmp_path / "b.tif", 16)).shape == (1, 1, 3)


@pytest.mark.parametrize("read", [read_image, open_clip, as_background])
def test_notes_that_grow_when_they_are_read(tmp_path, read):
    path = add_text(write_strip(tmp_path / "a.png", 3), 100_000_000)
    assert path.stat().st_size < 200_000
    with pytest.raises(UserError, match="not an image that can be read") as raised:
        read(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("form", ["EPS", "PCX", "SGI", "IM", "PDF"])
def test_formats_that_nobody_asked_for(tmp_path, form):
    """Pillow would start Ghostscript to read EPS."""
    assert form not in FORMATS
    Image.fromarray(numbered_frame(0)).save(tmp_path / "a.png", form)
    with pytest.raises(UserError, match="not an image: "):
        read_image(tmp_path / "a.png")


def test_memory_of_a_large_picture(tmp_path):
    """Decoding takes 7 bytes a pixel, and some 40 MB for the band being converted."""
    grey = Image.new("L", (6000, 5000), 90)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.merge("RGB", [grey] * 3).save(tmp_path / "a.jpg", exif=exif)
    Image.merge("RGBA", [grey] * 4).save(tmp_path / "b.png", compress_level=1)
    grey.save(tmp_path / "c.png", compress_level=1)
    code = (
        "import resource, sys, tracemalloc; from media import watched\n"
        "from media.images import read_image\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024\n"
        "read_image(sys.argv[1]); watched.end_all(); before = peak(); tracemalloc.start()\n"
        "for path in sys.argv[2:]: print(read_image(path).shape)\n"
        "watched.end_all()\n"
        "print(tracemalloc.get_traced_memory()[1] / 30e6, (peak() - before) / 30e6)"
    )
    grey.crop((0, 0, 8, 8)).save(tmp_path / "small.png")
    paths = [str(tmp_path / name) for name in ("small.png", "a.jpg", "b.png", "c.png")]
    command = [sys.executable, "-c", code, *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *shapes, peaks = done.stdout.splitlines()
    assert shapes == ["(6000, 5000, 3)", "(5000, 6000, 3)", "(5000, 6000, 3)"]
    own, others = map(float, peaks.split())
    assert 2 < own < 4
    assert 6 < others < 9


class TestNumbers:
    """Limits on the numbers of samples and frames, and on their times."""

    def test_some_samples_may_be_missing(self, tmp_path):
        """A file that was cut off states more samples than it has."""
        path = write_clip(tmp_path / "a.mp4", 12, container_options={"movflags": "faststart"})
        path.write_bytes(path.read_bytes()[:-200])
        assert open_clip(path).num_frames >= 1

    @pytest.mark.parametrize("name", ["a.mp4", "frames", "strip.png"])
    def test_more_frames_than_are_read(self, clips, monkeypatch, name):
        monkeypatch.setattr(media.clip_checks, "MAX_FRAMES", 2)
        monkeypatch.setattr(media.video_index, "MAX_FRAMES", 2)
        with pytest.raises(VideoError, match="more than 2 frames"):
            open_clip(clips / name)

    def test_a_frame_now_and_then(self, tmp_path):
        """A rate of one frame an hour must not be rounded to 0."""
        reader = open_clip(write_clip(tmp_path / "a.mp4", times=[0, 90_000, 180_000]))
        assert reader.frame_rate == Fraction(1, 3600)
        assert list(reader.times) == [0, 3600, 7200]

    @pytest.mark.parametrize(
        ("rate", "is_read"), [(1, False), (8000, True), (192_000, True), (900_000, False)]
    )
    def test_samples_a_second(self, tmp_path, rate, is_read):
        path = write_tone(tmp_path / "a.wav")
        content = bytearray(path.read_bytes())
        content[24:28] = rate.to_bytes(4, "little")
        path.write_bytes(content)
        if is_read:
            assert open_sound(path) is not None
        else:
            with pytest.raises(UserError, match=f"1 channels of {rate} samples a second"):
                open_sound(path)
