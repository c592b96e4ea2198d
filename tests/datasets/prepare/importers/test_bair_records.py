"""TFRecord files as BAIR's, written here by hand."""

import os
import struct

import numpy as np
import pytest

from common.limits import Limits
from datasets.prepare.importers.bair_records import find_records, read_record, record_clips
from media.video import VideoError
from tests.helpers.clip_files import (
    example,
    field,
    masked_crc,
    robot_record,
    varint,
    write_records,
)
from tests.helpers.media import numbered_frame


def test_check_value_of_the_crc():
    assert masked_crc(b"123456789") == ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) % 2**32


def test_every_record_and_every_frame(tmp_path):
    path = write_records(tmp_path / "a.tfrecords", [robot_record(5), robot_record(30, 12)])
    (first, second) = find_records(path)
    np.testing.assert_array_equal(
        read_record(path, *first), [numbered_frame(n, (16, 16)) for n in (5, 6, 7)]
    )
    frames = read_record(path, *second)  # 10 comes behind 9, not behind 1
    np.testing.assert_array_equal(frames[10], numbered_frame(40, (16, 16)))
    assert len(frames) == 12


def test_size_of_the_data_set(tmp_path):
    """30 frames of 64 x 64: lengths and tags of more than one byte."""
    path = write_records(tmp_path / "a.tfrecords", [robot_record(0, 30, 64)])
    ((offset, num_bytes),) = find_records(path)
    assert num_bytes > 2 * 30 * 64 * 64 * 3
    assert read_record(path, offset, num_bytes).shape == (30, 64, 64, 3)


def test_fields_of_every_kind_are_passed_over(tmp_path):
    unknown = varint(7 << 3) + varint(1 << 60)
    unknown += varint(8 << 3 | 1) + bytes(8) + varint(9 << 3 | 5) + bytes(4)
    path = write_records(tmp_path / "a.tfrecords", [unknown + robot_record(1) + unknown])
    (span,) = find_records(path)
    assert len(read_record(path, *span)) == 3


@pytest.mark.parametrize(
    ("keep", "num_whole", "expected"),
    [
        (slice(None, -30), 1, "ends within a record"),
        (slice(None, -3), 1, "ends within a record"),  # of the last checksum
        (slice(3, None), 0, "no record at byte 0"),
    ],
)
def test_files_that_are_cut_off(tmp_path, keep, num_whole, expected):
    path = write_records(tmp_path / "a.tfrecords", [robot_record(5), robot_record(6)])
    path.write_bytes(path.read_bytes()[keep])
    found = []
    with pytest.raises(VideoError, match=rf"a\.tfrecords: {expected}.*; download the file again"):
        found.extend(find_records(path))
    spans = find_records(path)
    assert len([next(spans) for _ in range(num_whole)]) == num_whole


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (example({"0/image_aux1/encoded": bytes(100)}), "100 bytes are no square RGB frame"),
        (example({"0/image_aux1/encoded": b""}), "0 bytes are no square RGB frame"),
        (example({"image": b"x"}), "no feature 0/image_aux1/encoded; it holds image"),
        (
            example({"0/image_aux1/encoded": bytes(12), "1/image_aux1/encoded": bytes(27)}),
            "its frames differ in size",
        ),
        (robot_record(0)[:-10], r"not a tf\.train\.Example"),
        (b"\xff" * 20, r"not a tf\.train\.Example"),
        (b"", "it holds nothing"),
    ],
)
def test_records_of_other_layouts(tmp_path, record, expected):
    path = write_records(tmp_path / "a.tfrecords", [record])
    (span,) = find_records(path)
    with pytest.raises(VideoError, match=expected):
        read_record(path, *span)


@pytest.mark.parametrize(
    ("num_bytes", "message"),
    [
        (2**29, "536,870,912 bytes; at most 67,108,864 are read"),
        (2**35, "states 34,359,738,384 bytes, but only "),
    ],
)
def test_a_record_of_which_most_is_a_hole(tmp_path, num_bytes, message):
    """Its length costs nothing to state; the other files are read all the same."""
    path = tmp_path / "a.tfrecords"
    head = struct.pack("<Q", num_bytes)
    path.write_bytes(head + struct.pack("<I", masked_crc(head)))
    os.truncate(path, 12 + num_bytes + 4)
    ((_, footage),) = record_clips(path, "a")
    with pytest.raises(VideoError, match=message):
        footage.open()


def test_limits_of_a_record(tmp_path):
    small = write_records(tmp_path / "a.tfrecords", [robot_record(5)])
    ((_, footage),) = record_clips(small, "a")
    assert len(list(footage.open(Limits(256, 256)).frames)) == 3
    with pytest.raises(VideoError, match="a frame of 16 x 16 pixels, 256 in all; at most 255"):
        footage.open(Limits(255, 255))
    empties = write_records(tmp_path / "b.tfrecords", [b"\x0a\0" * 70_000])
    ((_, footage),) = record_clips(empties, "b")
    with pytest.raises(VideoError, match=r"not a tf\.train\.Example"):
        footage.open()


def test_a_record_of_many_messages(tmp_path):
    """Each has few fields, but all together would take a minute."""
    values = field(1, field(1, b"") * 10_000)
    entry = field(1, b"image") + field(2, values) * 10
    path = write_records(tmp_path / "a.tfrecords", [field(1, field(1, entry))])
    ((_, footage),) = record_clips(path, "a")
    with pytest.raises(VideoError, match=r"not a tf\.train\.Example"):
        footage.open()


def test_a_file_of_many_records(tmp_path):
    """An empty one has 16 bytes, but a clip in the list takes a kilobyte."""
    path = write_records(tmp_path / "a.tfrecords", [b""])
    path.write_bytes(path.read_bytes() * 70_000)
    *clips, (name, last) = record_clips(path, "a")
    assert (len(clips), name) == (65_536, "a_65536")
    with pytest.raises(VideoError, match=r"a\.tfrecords: more than 65,536 records"):
        last.open()


def test_a_feature_with_a_long_name(tmp_path):
    path = write_records(tmp_path / "a.tfrecords", [example({"n" * 10**6: b"x"})])
    (span,) = find_records(path)
    with pytest.raises(VideoError, match=r"it holds n{60}$"):
        read_record(path, *span)


def test_a_number_without_end(tmp_path):
    """It would take hours to add up."""
    path = write_records(tmp_path / "a.tfrecords", [b"\x80" * 2_000_000])
    ((offset, num_bytes),) = find_records(path)
    with pytest.raises(VideoError, match=r"not a tf\.train\.Example"):
        read_record(path, offset, num_bytes)
