"""Tags that share the same bytes are refused before Pillow reads them."""

import os
import struct

import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from media.images import read_image


def tags_on_each_other(num_tags, num_bytes):
    """Write a TIFF of one pixel with so many more tags, which all state the same bytes."""
    tags = [(256, 4, 1, 1), (257, 4, 1, 1), (258, 4, 1, 8), (259, 4, 1, 1), (262, 4, 1, 1)]
    tags += [(273, 4, 1, 8), (277, 4, 1, 1), (278, 4, 1, 1), (279, 4, 1, 1)]
    tags += [(40000 + i, 7, num_bytes, 16) for i in range(num_tags)]
    entries = b"".join(struct.pack("<HHLL", *tag) for tag in tags)
    head = b"II*\0" + struct.pack("<L", 16 + num_bytes) + bytes(8) + bytes(num_bytes)
    return head + struct.pack("<H", len(tags)) + entries + bytes(4)


def test_a_tiff(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(tags_on_each_other(0, 100))
    assert read_image(path).shape == (1, 1, 3)
    path.write_bytes(tags_on_each_other(50, 2**18))
    with pytest.raises(UserError, match="its tags state more bytes than it has"):
        read_image(path)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
def test_exif(tmp_path, name):
    image = Image.fromarray(np.zeros((8, 8, 3), np.uint8))
    path = tmp_path / name
    image.save(path, exif=b"Exif\0\0" + tags_on_each_other(20, 50_000))
    with pytest.raises(UserError, match="its tags state more bytes than it has"):
        read_image(path)
    exif = Image.Exif()
    exif[0x0112] = 6  # the picture is to be turned
    exif[0x9286] = "a note of some length " * 40
    image.crop((0, 0, 8, 4)).save(path, exif=exif)
    assert read_image(path).shape == (8, 4, 3)


def test_a_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(UserError, match="is not a plain file"):
        read_image(tmp_path / "a.png")
