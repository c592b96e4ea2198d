"""The curves and pictures of a run for TensorBoard, written at once: what cannot be written is an
error of the line that could not, not of a thread.
"""

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

_NAME = re.compile(r"events\.out\.tfevents\.(\d{10})\..*")
_RGB = 3  # channels of a picture
_VERSION = "brain.Event:2"


class EventFile:
    """A new event file in a run folder; of earlier ones what came after `first_step` is forgotten.

    TensorBoard reads the files of a folder in the order of their names, which begin with a time,
    and forgets where a file says so. A clock that was set back must not put this file before
    earlier ones: it gets a time behind all of theirs.

    Raises:
        UserError: the file cannot be written, here and in each method.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        with named_failures(folder):
            matches = [(path, _NAME.fullmatch(path.name)) for path in folder.iterdir()]
            earlier = [(path, int(match[1])) for path, match in matches if match is not None]
            number = max([int(time.time()), *(begun + 1 for _, begun in earlier)])
            self._latest = max([float(number), *(path.stat().st_mtime for path, _ in earlier)])
        self._path = folder / f"events.out.tfevents.{number:010d}.{socket.gethostname()}"
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
        """Add a picture of `size` (height, width)."""
        height, width = size
        image = Summary.Image(height=height, width=width, colorspace=_RGB, encoded_image_string=png)
        self._write(step=step, summary=Summary(value=[Summary.Value(tag=tag, image=image)]))

    def close(self) -> None:
        with suppress(OSError):  # told when it was written
            self._file.close()

    def _write(self, **content: object) -> None:
        self._latest = max(self._latest, time.time())
        event = Event(wall_time=self._latest, **content)
        with named_failures(self._path):
            self._records.write(event.SerializeToString())
            self._records.flush()
