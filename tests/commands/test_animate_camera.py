"""animate.py by a camera: a file that is played in real time stands for it."""

import http.client
import json
import os
import re
import signal
import threading
from fractions import Fraction

import numpy as np
import pytest

import animate
from animation import background_swap
from animation.live import session
from animation.live.page import Page
from media.video import open_clip
from tests.helpers.animations import pngs, run_to_folder, write_files
from tests.helpers.media import write_clip
from tests.helpers.runs import call, error_line, step_file


@pytest.fixture(scope="module")
def files(tmp_path_factory, tiny_run):
    folder = write_files(tmp_path_factory.mktemp("files"), step_file(tiny_run, 8))
    write_clip(folder / "clip.mp4", 12, (32, 32), Fraction(50))
    return folder


@pytest.fixture
def pages(monkeypatch):
    """The pages that are opened."""
    opened = []

    class Noted(Page):
        def __init__(self, port):
            super().__init__(port)
            opened.append(self)

    monkeypatch.setattr(session, "Page", Noted)
    return opened


def live(files, *arguments, driving="clip.mp4", model="all"):
    checkpoint = ("--checkpoint", files / f"{model}.pt", "--source", files / "source.png")
    return call(animate, *checkpoint, "--driving", f"camera:{files / driving}", *arguments)


def summary(text):
    """Frames shown, pictures dropped and pictures made, of the line at the end."""
    (found,) = re.findall(
        r"(\d+) frames in [\d.]+ s: [\d.]+ frames/s.*; (\d+) of (\d+) pictures", text
    )
    return tuple(map(int, found))


def test_a_file_in_real_time(files, tmp_path, capsys, monkeypatch):
    """Each picture is shown or dropped; the recording has those that were shown, at the times at
    which they came.
    """
    output = tmp_path / "out.mp4"
    came = []
    original = session._Display.add

    def add(display, frame, shot_time, *others):
        came.append(shot_time)
        original(display, frame, shot_time, *others)

    monkeypatch.setattr(session._Display, "add", add)
    assert live(files, "--port", 0, "--output", output) == 0
    printed = capsys.readouterr().out
    assert re.search(r"http://127\.0\.0\.1:\d+/ shows the animation", printed)
    num_frames, num_dropped, num_shots = summary(printed)
    assert num_shots == 12
    assert num_frames == len(came) == num_shots - num_dropped
    clip = open_clip(output)
    assert clip.num_frames == num_frames
    # mp4 has times in units of 1/90000 s, and frames at least 1 ms apart.
    assert [float(time) for time in clip.times] == pytest.approx(
        [time - came[0] for time in came], abs=2e-3
    )


def test_the_frames_are_those_of_animate(files, tmp_path):
    """At two pictures a second none is dropped."""
    write_clip(files / "slow.mp4", 3, (32, 32), Fraction(2), codec_options={"qp": "0"})
    options = ("--layout", "side-by-side", "--background", files / "other.png")
    assert (
        live(files, "--port", 0, "--output", tmp_path / "live", *options, driving="slow.mp4") == 0
    )
    expected = run_to_folder(
        files, "all", tmp_path / "whole", "--driving", files / "slow.mp4", *options
    )
    assert len(expected) == 3
    # A folder has evenly spaced frames: each is the one that is shown at its time.
    found = pngs(tmp_path / "live")
    assert all(np.any([np.all(frame == other) for other in expected]) for frame in found)
    assert np.array_equal(found[0], expected[0])


def test_a_new_reference(files, pages, capsys, monkeypatch):
    """The picture after the button is pressed shows the source as it is at the start."""
    write_clip(files / "long.mp4", 300, (32, 32), Fraction(25))
    begun = []
    shown = []

    def press(page):
        connection = http.client.HTTPConnection(page.address[7:-1], timeout=10)
        connection.request("POST", "/reference")
        assert connection.getresponse().status == 200
        connection.close()

    def begin(feed):
        driving = original_begin(feed)
        if driving is not None:
            begun.append(driving)
            if len(begun) == 2:
                os.kill(os.getpid(), signal.SIGINT)
        return driving

    def add(display, frame, *others):
        assert pages[0].has_reference
        shown.append(len(begun))
        if len(shown) == 3:
            press(pages[0])
        original(display, frame, *others)

    original, original_begin = session._Display.add, session._Feed.begin
    monkeypatch.setattr(session._Feed, "begin", begin)
    monkeypatch.setattr(session._Display, "add", add)
    assert live(files, "--port", 0, driving="long.mp4") == 0
    assert len(begun) == 2
    assert shown[:4] == [1, 1, 1, 2]
    assert summary(capsys.readouterr().out)[0] == len(shown)


def test_notes_that_arise_while_it_runs(files, capsys, monkeypatch):
    """They come once, before the summary."""
    monkeypatch.setattr(background_swap, "VISIBLE", 1.0)  # no opacity is above it
    assert live(files, "--port", 0, "--background", "#00ff00") == 0
    lines = capsys.readouterr().out.splitlines()
    (place,) = (i for i, line in enumerate(lines) if "no figure in" in line)
    assert re.search(r"no figure in (\d+) of \1 frames; other --masks may find it", lines[place])
    assert any(" pictures" in line for line in lines[place + 1 :])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_the_summary(files, pages, tmp_path, capsys, monkeypatch, number):
    write_clip(files / "long.mp4", 300, (32, 32), Fraction(25))
    original = session._Display.add

    def add(display, *given):
        original(display, *given)
        if display.measures.num_frames == 3:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(session._Display, "add", add)
    output = tmp_path / "out.webm"
    assert live(files, "--port", 0, "--output", output, driving="long.mp4") == 0
    assert summary(capsys.readouterr().out)[0] == 3
    assert open_clip(output).num_frames == 3
    assert [thread.name for thread in threading.enumerate() if "serve" in thread.name] == []


def test_the_line_of_each_second(files, pages, capsys, monkeypatch):
    write_clip(files / "lines.mp4", 6, (32, 32), Fraction(5))
    monkeypatch.setattr(session, "LINE_SECONDS", 0.0)
    assert live(files, "--port", 0, "--smooth", driving="lines.mp4") == 0
    lines = re.findall(
        r"^[\d.]+ frames/s, latency \d+ ms .* dropped$", capsys.readouterr().out, re.M
    )
    assert len(lines) >= 2
    assert pages[0].line == lines[-1]


def test_a_camera_that_is_lost(files, tmp_path, capsys, monkeypatch):
    """The recording is kept, and the summary comes before the error."""

    class Lost:
        name, frame_rate = "camera:0", Fraction(25)

        def __iter__(self):
            for number, shot in enumerate(clip):
                if number == 5:
                    raise session.UserError("camera:0: the camera is lost: no such device")
                yield shot

    clip = session.open_camera(f"camera:{files / 'clip.mp4'}")
    monkeypatch.setattr(session, "open_camera", lambda *_: Lost())
    assert live(files, "--port", 0, "--output", tmp_path / "out.mp4") == 2
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1].startswith("animate.py: error: camera:0: the camera is ")
    assert open_clip(tmp_path / "out.mp4").num_frames == summary(captured.out)[0]


def test_a_camera_that_falls_silent(files, capsys, monkeypatch):
    class Silent:
        name, frame_rate = "camera:0", Fraction(25)

        def __iter__(self):
            threading.Event().wait(60)
            yield from ()

    monkeypatch.setattr(session, "PATIENCE", 0.3)
    monkeypatch.setattr(session, "open_camera", lambda *_: Silent())
    assert live(files, "--port", 0) == 2
    assert "camera:0: has sent no picture for 0.3 s" in error_line(capsys, "animate.py")


def test_a_port_that_is_taken(files, capsys):
    with Page(0) as page:
        port = page.address.rstrip("/").rpartition(":")[2]
        assert live(files, "--port", port) == 2
    assert error_line(capsys, "animate.py").endswith("or 0 for any that is free")


@pytest.mark.parametrize("port", ["-1", "65536", "99999999", "1.5", "http"])
def test_a_port_that_there_cannot_be(files, capsys, port):
    with pytest.raises(SystemExit) as ended:
        live(files, "--port", port)
    assert ended.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == f"animate.py: error: argument --port: {port}: must be a port, from 0 to 65535"


def test_a_motion_without_a_reference(files, pages):
    assert live(files, "--port", 0, "--motion", "absolute") == 0
    assert not pages[0].has_reference


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pairs", "pairs.csv"], "--pairs names its clips itself: it does not go with a camera"),
        (["--start", "0"], "--start is for clips"),
        (["--save-masks"], "--save-masks writes a second clip"),
        (["--detector", "dlib"], "--detector measures clips"),
        (["--compile"], "--compile compiles for many frames"),
        (["--skip-existing"], "--skip-existing is for many animations"),
        (["--audio", "a.wav"], "--audio a.wav: a camera's animation is silent"),
        (["--batch-size", "4"], "--batch-size: a camera's frames are animated one by one"),
        (["--reference-frame", "auto"], "--reference-frame auto: the pictures of a camera come"),
        (["--reference-frame", "3"], "set the reference on the page"),
        (["--crop", "auto"], "--crop auto looks for the figure in the whole clip"),
        (["--background", "transparent"], "--background transparent: the page shows JPEG"),
        (["--masks", "a.mp4"], "--masks a.mp4: a camera's frames have no masks yet"),
        (["--show-masks"], "--show-masks adds columns; use it with --layout side-by-side or demo"),
    ],
)
def test_what_does_not_go_with_a_camera(files, capsys, options, message):
    assert live(files, "--port", 0, *options) == 2
    assert message in error_line(capsys, "animate.py")


def test_no_source_or_a_folder_of_them(files, capsys):
    checkpoint = ("--checkpoint", files / "all.pt", "--driving", "camera:0")
    assert call(animate, *checkpoint) == 2
    assert "--source is missing" in error_line(capsys, "animate.py")
    assert call(animate, *checkpoint, "--source", files) == 2
    assert "a camera animates one image" in error_line(capsys, "animate.py")


def test_the_recording_may_not_replace_an_input(files, capsys):
    for option in ("--source", "--more-sources", "--background", "--background-masks"):
        name = files / "input.png"
        name.write_bytes((files / "other.png").read_bytes())
        assert live(files, "--background", files / "other.png", option, name, "--output", name) == 2
        line = error_line(capsys, "animate.py")
        assert f"--output {name} would replace {option} {name}" in line
    assert live(files, "--output", files / "clip.mp4") == 2
    assert "clip.mp4 would replace --driving" in error_line(capsys, "animate.py")


def test_the_port_is_for_a_camera(files, capsys):
    given = ("--source", files / "source.png", "--driving", files / "clip.mp4", "--output", "a.mp4")
    assert call(animate, "--checkpoint", files / "all.pt", *given, "--port", 1) == 2
    assert "--port is for the page of a camera" in error_line(capsys, "animate.py")


def test_the_page_shows_the_animation(files, pages, monkeypatch):
    """A viewer gets JPEG pictures, and the state, while it runs."""
    got = {}
    original = session._Display.add

    def add(display, *given):
        original(display, *given)
        if not got:
            connection = http.client.HTTPConnection(pages[0].address[7:-1], timeout=10)
            connection.request("GET", "/stream")
            answer = connection.getresponse()
            got["kind"], got["start"] = answer.headers["Content-Type"], answer.read(200)
            connection.close()
            connection.request("GET", "/state")
            got["state"] = json.loads(connection.getresponse().read())
            connection.close()

    monkeypatch.setattr(session._Display, "add", add)
    assert live(files, "--port", 0) == 0
    assert got["kind"].startswith("multipart/x-mixed-replace")
    assert b"Content-Type: image/jpeg\r\n" in got["start"]
    assert b"\r\n\r\n\xff\xd8\xff" in got["start"]
    assert got["state"]["has_reference"] is True
