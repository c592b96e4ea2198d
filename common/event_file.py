"""Writes the curves and pictures of a run for TensorBoard.

Each call writes its record at once, so a full disk raises an error in that call. TensorBoard's own
writer would raise it later, in a background thread.
"""

import os
import re
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from common.files import named_failures

_NAME = re.compile(r"events\.out\.tfevents\.([0-9]{10})\..*")
_LATEST = 2**32  # seconds since 1970, in 2106; later times are not those of a run
_RGB = 3  # channels of a picture
_VERSION = "brain.Event:2"


class EventFile:
    """A new TensorBoard event file in a run folder.

    A resumed run writes another file beside the earlier ones. TensorBoard then drops what they
    recorded after `first_step`. It reads the files of a folder in the order of their names, which
    begin with a time, so this file gets a time after all earlier ones even if the clock was set
    back.

    Raises:
        UserError: from the constructor and from each method: the file cannot be written.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        with named_failures(folder):
            matches = [(path, _NAME.fullmatch(path.name)) for path in folder.iterdir()]
            found = [(path, int(match[1])) for path, match in matches if match is not None]
            # A link may lead nowhere.
            earlier = [(path.lstat().st_mtime, begun) for path, begun in found if begun < _LATEST]
            number = max([int(time.time()), *(begun + 1 for _, begun in earlier)])
            changed = (at for at, _ in earlier if at < _LATEST)
            self._latest = max([float(number), *changed])
        while os.path.lexists(path := _path(folder, number)):
            number += 1
        self._path = path
        with named_failures(self._path):
            self._file = self._path.open("xb")
        self._records = RecordWriter(self._file)
        self._write(file_version=_VERSION)
        self._write(step=first_step + 1, session_log=SessionLog(status=SessionLog.START))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point to each curve."""
        points = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._write(step=step, summary=Summary(value=points))

    def picture(self, step: int, tag: str, size: tuple[int, int], png: bytes) -> None:
        """Add the picture `png`, a PNG file of `size` (height, width)."""
        height, width = size
        image = Summary.Image(height=height, width=width, colorspace=_RGB, encoded_image_string=png)
        self._write(step=step, summary=Summary(value=[Summary.Value(tag=tag, image=image)]))

    def close(self) -> None:
        with suppress(OSError):  # the method that wrote has reported the error
            self._file.close()

    def _write(self, **content: object) -> None:
        self._latest = max(self._latest, time.time())
        event = Event(wall_time=self._latest, **content)
        with named_failures(self._path):
            self._records.write(event.SerializeToString())
            self._records.flush()


def _path(folder: Path, number: int) -> Path:
    return folder / f"events.out.tfevents.{number:010d}.{socket.gethostname()}"
