"""Reads a camera in a thread, and keeps only its newest picture."""

import threading

from common.errors import UserError
from media.camera import Camera, Shot


class NewestShot:
    """The newest shot of a camera; a shot that was not taken when the next one came is dropped.

    So the delay does not grow when the camera is faster than the one who takes its shots.

    Attributes:
        num_shots: number of shots that the camera has made.
        num_dropped: number of those that were dropped.
        is_over: whether the camera has ended and its last shot was taken.
    """

    def __init__(self, camera: Camera) -> None:
        self.num_shots = 0
        self.num_dropped = 0
        self._camera = camera
        self._changed = threading.Condition()
        self._shot: Shot | None = None
        self._error: BaseException | None = None
        self._has_ended = False
        self._is_closed = False
        # A daemon: a camera that sends nothing more keeps it waiting for ever.
        self._thread = threading.Thread(target=self._read, name="camera", daemon=True)

    def start(self) -> None:
        """Begin to read the camera."""
        self._thread.start()

    def close(self) -> None:
        """Let the thread end after the next shot."""
        self._is_closed = True

    @property
    def is_over(self) -> bool:
        return self._has_ended and self._shot is None

    def take(self, seconds: float) -> Shot | None:
        """The newest shot that was not taken before; waits for one for at most `seconds`.

        Returns:
            None if none has come, or none will come.

        Raises:
            UserError: the camera is lost; its last shot was taken before.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._shot is not None or self._has_ended, seconds)
            shot, self._shot = self._shot, None
        if shot is None and self._error is not None:
            raise self._error
        return shot

    def _read(self) -> None:
        try:
            for shot in self._camera:
                with self._changed:
                    if self._is_closed:
                        return
                    self.num_shots += 1
                    self.num_dropped += self._shot is not None
                    self._shot = shot
                    self._changed.notify()
            if self.num_shots == 0:
                raise UserError(f"{self._camera.name}: sends no pictures")
        except BaseException as error:  # raised where the shots are taken
            self._error = error
        finally:
            with self._changed:
                self._has_ended = True
                self._changed.notify()
