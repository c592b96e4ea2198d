"""Videos of large frames, of which encoders keep many."""

from fractions import Fraction

import numpy as np
import pytest

from common.errors import UserError
from common.limits import MAX_FRAME_PIXELS
from media import video_codecs
from media.video import open_clip
from media.video_codecs import CODECS, TRANSPARENT_CODECS, options_for
from media.video_writer import VideoWriter


def write(path, num_frames=3, side=64):
    with VideoWriter(path, Fraction(25)) as writer:
        for _ in range(num_frames):
            writer.write(np.zeros((side, side, 3), np.uint8))


@pytest.mark.parametrize("name", ["out.mp4", "out.webm"])
def test_frames_that_are_too_large(tmp_path, monkeypatch, name):
    """A picture of 134 megapixels, pasted back, took 20 GB with libx264."""
    monkeypatch.setattr(video_codecs, "MAX_FRAME_PIXELS", 64 * 64 - 1)
    with pytest.raises(UserError, match=rf"{name}: frames of 64 x 64 pixels.*at most 4,095 in all"):
        write(tmp_path / name)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", ["out.mov", "out.gif", "out"])
def test_kinds_that_keep_one_frame_may_be_larger(tmp_path, monkeypatch, name):
    monkeypatch.setattr(video_codecs, "MAX_FRAME_PIXELS", 64 * 64 - 1)
    write(tmp_path / name)
    assert open_clip(tmp_path / name).size == (64, 64)


@pytest.mark.parametrize("codec", [CODECS[".mp4"], CODECS[".webm"], TRANSPARENT_CODECS[".webm"]])
def test_encoders_keep_fewer_frames_of_large_ones(tmp_path, codec):
    assert options_for(codec, (2160, 3840), tmp_path) == codec.options  # 4K
    side = int(MAX_FRAME_PIXELS**0.5)
    changed = options_for(codec, (side, side), tmp_path).items() - codec.options.items()
    assert changed == {(codec.ahead.option, str(codec.ahead.num_frames // 4))}


@pytest.mark.parametrize("name", ["out.mp4", "out.webm"])
@pytest.mark.parametrize("many", [64 * 64 // 8, 1])
def test_all_frames_are_written(tmp_path, monkeypatch, name, many):
    monkeypatch.setattr(video_codecs, "MANY_PIXELS", many)
    write(tmp_path / name, 60)
    assert open_clip(tmp_path / name).num_frames == 60
