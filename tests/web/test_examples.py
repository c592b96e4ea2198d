"""Examples that are drawn when the page is started."""

import numpy as np
import pytest

from configs.schema import PuppetsConfig
from datasets.puppets.clips import Puppets
from media.images import read_image
from media.video import open_clip
from web import examples
from web.examples import draw_examples


@pytest.mark.parametrize(
    ("size", "drawn"), [((64, 64), (256, 256)), ((32, 64), (256, 512)), ((320, 256), (320, 256))]
)
def test_shape_of_the_examples(tmp_path, monkeypatch, size, drawn):
    monkeypatch.setattr(examples, "NUM_FRAMES", 2)
    found = draw_examples(tmp_path, size, PuppetsConfig())
    assert [len(paths) for paths in found] == [3, 3, 3]
    pictures = [read_image(path) for path in (*found.sources, *found.backgrounds)]
    assert {picture.shape[:2] for picture in pictures} == {drawn}
    assert {open_clip(path).size for path in found.clips} == {drawn}
    assert {open_clip(path).num_frames for path in found.clips} == {2}


def test_they_are_the_unseen_puppets_of_the_data(tmp_path, monkeypatch):
    monkeypatch.setattr(examples, "NUM_FRAMES", 2)
    found = draw_examples(tmp_path, (256, 256), PuppetsConfig(seed=3, motion_scale=0.5))
    puppets = Puppets("test", 9, 2, (256, 256), 3, 0.5)
    for index, path in enumerate((*found.sources, *found.backgrounds), 3):
        assert np.array_equal(read_image(path), puppets.read(index, [0])[0])
