"""Cameras: a file in real time, a stream from this machine, and what is refused."""

import http.server
import sys
import threading
import time
from fractions import Fraction

import av
import pytest

from common.errors import UserError
from common.limits import Limits
from media import camera as cameras
from media.camera import is_camera, open_camera
from media.images import encode_image
from tests.helpers.hostile_media import write_with_times
from tests.helpers.media import frame_number, numbered_frame, write_clip, write_frame_folder


def test_names_of_cameras():
    assert [is_camera(name) for name in ("camera:0", "camera:clip.mp4")] == [True, True]
    assert [is_camera(name) for name in (None, "./camera:0", "clip.mp4")] == [False] * 3


def test_a_file_is_played_in_real_time(tmp_path):
    """No frame comes before its time, and the frames are those of the file, in order."""
    clip = write_clip(tmp_path / "clip.mp4", 8, rate=Fraction(50))
    camera = open_camera(f"camera:{clip}")
    assert camera.frame_rate == 50
    began = time.perf_counter()
    shots = list(camera)
    assert [frame_number(shot.convert()) for shot in shots] == list(range(8))
    assert all(shot.time - began >= n / 50 for n, shot in enumerate(shots))


def test_a_frame_that_comes_in_thousands_of_years_is_waited_for(tmp_path, monkeypatch):
    """Python's `sleep` refuses to wait so long at a time."""
    clip = write_with_times(tmp_path / "gap.mkv", (0, 40, 10**14))

    class Waiting(Exception):
        pass

    def sleep(seconds, real=time.sleep):
        if seconds > 10**9:
            real(seconds)  # which raises
        if seconds > 1:
            raise Waiting
        real(seconds)

    shots = iter(open_camera(f"camera:{clip}"))
    monkeypatch.setattr(cameras.time, "sleep", sleep)
    assert [next(shots).convert().shape for _ in range(2)] == [(48, 64, 3)] * 2
    with pytest.raises(Waiting):
        next(shots)


def test_a_folder_of_frames_is_played_too(tmp_path):
    write_frame_folder(tmp_path / "frames", 2, (32, 32))
    assert len(list(open_camera(f"camera:{tmp_path / 'frames'}"))) == 2


class Server(http.server.BaseHTTPRequestHandler):
    """Sends some pictures as a network camera does, and ends."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=b")
        self.end_headers()
        for number in range(12):
            picture = encode_image(numbered_frame(number), ".jpg")
            if number == 5:
                picture = picture[:20] + bytes(len(picture) - 20)  # damaged on its way
            head = f"--b\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
            self.wfile.write(head.encode() + picture + b"\r\n")

    def log_message(self, *_):
        pass


@pytest.fixture
def address():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()


def test_a_stream_of_pictures(address):
    """The damaged picture is left out, and those after it are shown; the end of it is a loss."""
    numbers = []
    with pytest.raises(UserError, match="the camera is lost"):  # noqa: PT012
        for shot in open_camera(f"camera:{address}"):
            numbers.append(frame_number(shot.convert()))
    assert numbers == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]


def test_pictures_of_a_stream_have_a_limit(address):
    with pytest.raises(UserError, match="pictures of 64 x 48 pixels, 3,072 in all; at most 3,000"):
        open_camera(f"camera:{address}", Limits(3000, 3000))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("camera:", "names no camera; write camera:0"),
        ("camera:no.mp4", "no.mp4: "),
        ("camera:file:///etc/passwd", "an address of another kind; use rtsp"),
        ("camera:concat://a.mp4", "an address of another kind"),
        ("camera:http://127.0.0.1:1/", "cannot be opened: connection refused"),
    ],
)
def test_what_is_no_camera(name, message):
    with pytest.raises(UserError, match=message) as caught:
        open_camera(name)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="names of cameras of Linux")
def test_a_camera_that_is_not_there():
    with pytest.raises(UserError, match="camera:87: the camera cannot be opened: no such file"):
        open_camera("camera:87")
    with pytest.raises(UserError, match="camera:/dev/null: the camera cannot be opened"):
        open_camera("camera:/dev/null")


def test_the_number_of_a_camera_on_each_system(monkeypatch):
    """What FFmpeg is asked for; no camera is opened."""
    asked = []

    def opened(name, **options):
        asked.append((name, options["format"]))
        raise av.FileNotFoundError(2, "no such camera")

    found = [av.DeviceInfo("@device", "Mic", False, ["audio"])]
    found += [av.DeviceInfo("@device", name, False, ["video"]) for name in ("Front", "Back")]
    monkeypatch.setattr(cameras.av, "open", opened)
    monkeypatch.setattr(cameras.av, "enumerate_input_devices", lambda _: found)
    for platform in ("linux", "darwin", "win32"):
        monkeypatch.setattr(cameras.sys, "platform", platform)
        with pytest.raises(UserError, match="cannot be opened"):
            open_camera("camera:1")
    assert asked == [("/dev/video1", "v4l2"), ("1", "avfoundation"), ("video=Back", "dshow")]
    with pytest.raises(UserError, match="camera:2: there are 2 cameras here, counted from 0"):
        open_camera("camera:2")
    monkeypatch.setattr(cameras.sys, "platform", "plan9")
    with pytest.raises(UserError, match="cameras of plan9 are not known"):
        open_camera("camera:0")


def test_a_camera_that_is_lost(monkeypatch, address):
    """Pictures that came before are shown; then there is one line."""
    camera = open_camera(f"camera:{address}")
    decoded, left = cameras._decoded, iter(range(3))

    def breaks(packet):
        if next(left, None) is None:
            raise av.OSError(19, "No such device")
        return decoded(packet)

    monkeypatch.setattr(cameras, "_decoded", breaks)
    shots = iter(camera)
    assert [frame_number(next(shots).convert()) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(UserError, match=r"the camera is lost: no such device"):
        next(shots)
