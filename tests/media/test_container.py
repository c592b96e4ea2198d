"""Containers are opened as clips and sound; scripts that name other files are not."""

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from common.errors import UserError
from media.backgrounds import open_background
from media.container import FORMATS
from media.images import write_image
from media.sound import open_sound
from media.timing import Clock
from media.video import open_clip
from tests.helpers.media import numbered_frame, write_clip, write_frame_folder, write_tone

SOUNDS = {
    "a.wav": "pcm_s16le",
    "a.mp3": "libmp3lame",
    "a.m4a": "aac",
    "a.aac": "aac",
    "a.flac": "flac",
    "a.opus": "libopus",
    "a.aiff": "pcm_s16be",
    "a.caf": "pcm_s16le",
    "a.ac3": "ac3",
    "a.w64": "pcm_s16le",
    "a.mka": "aac",
}


def scripts(clip):
    """Write scripts that make FFmpeg open another file or a device."""
    return {
        "ffconcat": f"ffconcat version 1.0\nfile '{clip}'\n",
        "relative ffconcat": f"ffconcat version 1.0\nfile {clip.name}\n",
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1,\n{clip.name}\n#EXT-X-ENDLIST\n",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=a\nc=IN IP4 127.0.0.1\nt=0 0\n"
        "m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period>'
        f"<AdaptationSet><BaseURL>{clip.name}</BaseURL></AdaptationSet></Period></MPD>",
        "lavfi": "testsrc=size=64x64:rate=25",
    }


@pytest.mark.parametrize("kind", scripts(Path("a.mp4")))
@pytest.mark.parametrize("suffix", [".mp4", ".ts", ".mkv"])
def test_scripts_are_not_opened(tmp_path, kind, suffix):
    clip = write_clip(tmp_path / "other.mp4", 3)
    path = tmp_path / f"script{suffix}"
    path.write_text(scripts(clip)[kind])
    clock = Clock(Fraction(25))
    for read in (
        open_clip,
        open_sound,
        lambda path: open_background(str(path), (32, 32), "crop", clock, "loop"),
    ):
        with pytest.raises(UserError, match=r"script\.\w+: .*the file holds text"):
            read(path)


def test_the_script_would_work(tmp_path):
    """Without the list of formats FFmpeg follows the script of the test above."""
    clip = write_clip(tmp_path / "other.mp4", 3)
    path = tmp_path / "script.mp4"
    path.write_text(scripts(clip)["relative ffconcat"])
    with av.open(str(path)) as container:
        assert container.format.name == "concat"
        assert len(list(container.decode(video=0))) == 3


def test_formats_are_known_to_ffmpeg():
    """A misspelt format in the list would silently refuse honest files."""
    known = {part for name in av.formats_available for part in name.split(",")}
    assert set(FORMATS) <= known
    assert not {"concat", "hls", "dash", "sdp", "lavfi", "image2", "tee"} & set(FORMATS)


@pytest.mark.parametrize("name", SOUNDS)
def test_usual_kinds_of_sound_are_opened(tmp_path, name):
    path = tmp_path / name
    with av.open(str(path), "w", format={"a.aac": "adts", "a.m4a": "mp4"}.get(name)) as container:
        track = container.add_stream(SOUNDS[name], 48000)
        track.layout = "stereo"
        noise = np.random.default_rng(0).normal(0, 0.1, (2, 24000)).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(noise, "fltp", "stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
        container.mux(track.encode(frame))
        container.mux(track.encode())
    assert open_sound(path) is not None


def test_a_picture_is_no_sound(tmp_path):
    path = tmp_path / "a.jpg"
    write_image(path, numbered_frame(0))
    with pytest.raises(UserError, match=r"a\.jpg: cannot be read as sound or video: "):
        open_sound(path)


def test_a_tone_named_as_a_clip(tmp_path):
    path = write_tone(tmp_path / "a.wav").rename(tmp_path / "a.mp4")
    with pytest.raises(UserError, match="holds no video that can be decoded"):
        open_clip(path)


@pytest.mark.parametrize(
    "rate", ['"1e999999999"', "1e999999999", "9" * 9999, '"1/1e9999999"', "true", "[1]", "1e-9"]
)
def test_absurd_frame_rates_of_a_folder_are_ignored(tmp_path, rate):
    folder = write_frame_folder(tmp_path / "clip", 2)
    (folder / "frame_rate.json").write_text(f'{{"frames_per_second": {rate}}}')
    assert open_clip(folder, Fraction(10)).frame_rate == 10


@pytest.mark.parametrize("rate", ["25", "30000/1001", 29.97, 24, "0.5"])
def test_usual_frame_rates_of_a_folder(tmp_path, rate):
    folder = write_frame_folder(tmp_path / "clip", 2)
    (folder / "frame_rate.json").write_text(json.dumps({"frames_per_second": rate}))
    assert open_clip(folder, Fraction(10)).frame_rate == Fraction(str(rate))
