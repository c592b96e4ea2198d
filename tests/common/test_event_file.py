"""TensorBoard files: restarts lose no curve or picture, whatever the clock says."""

import io
import logging
import os
import time

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter

from common.errors import UserError
from common.event_file import EventFile
from media.images import write_image


def write(folder, first_step, steps, offset=0.0):
    """Write a run from `first_step` on, whose curve `loss` is the step plus `offset`."""
    events = EventFile(folder, first_step)
    for step in steps:
        events.scalars(step, {"loss": step + offset})
    events.close()


def curve(folder):
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it reports the points that it drops
    points = EventAccumulator(str(folder)).Reload().Scalars("loss")
    return [(point.step, point.value) for point in points], [point.wall_time for point in points]


@pytest.mark.parametrize("shift", [-3600, 0, 3600, 10**9])
def test_a_clock_that_was_set_loses_no_point(tmp_path, monkeypatch, shift):
    """Without care a clock set back by an hour would make TensorBoard drop the resumed run."""
    write(tmp_path, 0, range(1, 9))
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + shift)
    write(tmp_path, 5, range(6, 11), offset=0.5)
    write(tmp_path, 8, range(9, 13), offset=0.25)  # starts within the same second
    points, wall_times = curve(tmp_path)
    assert points == [
        *((step, step) for step in range(1, 6)),
        *((step, step + 0.5) for step in range(6, 9)),
        *((step, step + 0.25) for step in range(9, 13)),
    ]
    assert wall_times == sorted(wall_times)


def test_files_of_earlier_versions_come_first(tmp_path):
    """The names of earlier versions hold the process id too."""
    write(tmp_path, 0, range(1, 9))
    (first,) = tmp_path.iterdir()
    number = int(time.time()) + 1000
    first.rename(tmp_path / f"events.out.tfevents.{number}.zhost.123.0")
    write(tmp_path, 4, range(5, 7), offset=0.5)
    assert curve(tmp_path)[0] == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5.5), (6, 6.5)]


@pytest.mark.parametrize("number", ["9999999999", str(2**32 - 1), str(2**32)])
def test_a_name_of_the_far_future_does_not_end_the_run(tmp_path, number):
    """The second start found a name with one digit more, made it, and the third could not."""
    (tmp_path / f"events.out.tfevents.{number}.host").write_bytes(b"")
    os.utime(tmp_path / f"events.out.tfevents.{number}.host", (2**40, 2**40))
    for start in range(3):
        write(tmp_path, start, [start + 1])
    assert len([*tmp_path.iterdir()]) == 4
    points, wall_times = curve(tmp_path)
    assert points == [(1, 1), (2, 2), (3, 3)]
    assert max(wall_times) < 2**33


def test_a_link_that_leads_nowhere_does_not_end_the_run(tmp_path):
    (tmp_path / "events.out.tfevents.1700000000.host").symlink_to(tmp_path / "none")
    write(tmp_path, 0, range(1, 3))
    names = {path.name for path in tmp_path.iterdir()}
    assert len(names) == 2


def test_a_killed_run_leaves_half_an_event(tmp_path):
    write(tmp_path, 0, range(1, 9))
    (first,) = tmp_path.iterdir()
    first.write_bytes(first.read_bytes()[:-5])
    write(tmp_path, 8, range(9, 11))
    assert [step for step, _ in curve(tmp_path)[0]] == [1, 2, 3, 4, 5, 6, 7, 9, 10]


def test_a_picture_is_its_png(tmp_path):
    frame = np.random.default_rng(0).integers(256, size=(8, 12, 3), dtype=np.uint8)
    write_image(tmp_path / "a.png", frame)
    events = EventFile(tmp_path, 0)
    events.picture(3, "train-motion", (8, 12), (tmp_path / "a.png").read_bytes())
    events.close()
    (picture,) = EventAccumulator(str(tmp_path)).Reload().Images("train-motion")
    assert (picture.step, picture.height, picture.width) == (3, 8, 12)
    (tmp_path / "b.png").write_bytes(picture.encoded_image_string)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "b.png")), frame)


def test_a_full_disk_is_reported_at_once_and_only_once(tmp_path, monkeypatch):
    events = EventFile(tmp_path, 0)
    events.close()
    monkeypatch.setattr(events, "_file", io.BufferedWriter(io.FileIO("/dev/full", "w")))
    monkeypatch.setattr(events, "_records", RecordWriter(events._file))
    with pytest.raises(UserError, match=r"tfevents.*: cannot be written \(No space left on dev"):
        events.scalars(1, {"loss": 1.0})
    events.close()  # it would write the rest
    assert events._file.closed
