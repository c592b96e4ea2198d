"""Small files that take much memory or time to open are refused, whatever their trick is."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common import safe_paths
from common.errors import UserError
from common.limits import LIMITS
from media import picture_files, watched
from media.images import read_image, write_image
from media.sound import open_sound
from media.video import VideoError, open_clip
from tests.helpers import hostile_media
from tests.helpers.hostile_media import write_chapters, write_comment, write_exif, write_keys
from tests.helpers.media import numbered_frame, write_clip, write_strip
from tests.helpers.runs import REPOSITORY

MEMORY = "takes more than 0.1 GiB of memory to open"
TIME = r"takes more than \d s of processor time to open"


@pytest.fixture(autouse=True)
def tight_limits(monkeypatch):
    """A tenth of the memory, and a second instead of half a minute."""
    monkeypatch.setattr(watched, "MEMORY", 10**8)
    monkeypatch.setattr(watched, "SECONDS", 1)
    monkeypatch.setattr(watched, "OPENING_SECONDS", 1)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("many_samples", MEMORY),
        ("many_edits", MEMORY),
        ("many_items", MEMORY),
        ("hidden_fragment", MEMORY),
        ("chapters", MEMORY),
        ("laces", MEMORY),
        ("keys", TIME),
        ("tags", TIME),
    ],
)
@pytest.mark.parametrize("read", [open_clip, open_sound])
def test_clips(tmp_path, name, reason, read):
    path = tmp_path / "a.mp4"
    getattr(hostile_media, f"write_{name}")(path)
    with pytest.raises(UserError, match=f"a.mp4: {reason}; write it anew") as raised:
        read(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("exif", MEMORY),
        ("many_pictures", MEMORY),
        ("tiff", MEMORY),
        ("precincts", "takes more than 0.2 GiB of memory to open"),
        ("comment", TIME),
        ("scans", TIME),
    ],
)
def test_pictures(tmp_path, name, reason):
    path = tmp_path / "a.jpg"
    getattr(hostile_media, f"write_{name}")(path)
    with pytest.raises(UserError, match=f"a.jpg: {reason}; write it anew") as raised:
        read_image(path)
    assert "\n" not in str(raised.value)


def test_a_hole_in_a_file_gives_it_no_time(tmp_path):
    path = write_keys(tmp_path / "a.mp4")
    with path.open("ab") as file:
        file.truncate(2**40)
    with pytest.raises(VideoError, match=f"a.mp4: {TIME}"):
        open_clip(path)


def test_a_strip(tmp_path):
    with pytest.raises(VideoError, match=f"a.png: {MEMORY}"):
        open_clip(write_exif(tmp_path / "a.png"))
    assert open_clip(write_strip(tmp_path / "b.png", 3)).num_frames == 3


def test_a_large_picture_may_take_the_memory_that_it_needs(tmp_path, monkeypatch):
    monkeypatch.setattr(watched, "MEMORY", 20_000_000)
    picture = np.random.default_rng(0).integers(0, 255, (3000, 3000, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png", compress_level=0)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), picture)


def test_a_clip_is_tried_once(tmp_path, monkeypatch):
    tried = []
    ask = watched._ask
    monkeypatch.setattr(watched, "_ask", lambda *args: (tried.append(args[1]), ask(*args))[1])
    path = write_clip(tmp_path / "a.mp4", 6)
    assert open_clip(path).num_frames == 6
    assert len(list(open_clip(path))) == 6
    assert tried == [path]
    write_clip(path, 7)
    assert open_clip(path).num_frames == 7
    assert tried == [path, path]
    write_chapters(path)
    for _ in range(2):  # it did not pass
        with pytest.raises(VideoError, match=MEMORY):
            open_clip(path)
    assert len(tried) == 4


def test_a_crash(tmp_path, monkeypatch):
    """Of a decoder, as the signal of a wrong address imitates it here."""
    watched.end_all()
    monkeypatch.setattr(watched, "SECONDS", 60)
    write_image(tmp_path / "b.png", numbered_frame(3))
    read_image(tmp_path / "b.png")
    (process,) = watched._all
    threading.Timer(0.3, os.kill, (process._process.pid, signal.SIGSEGV)).start()
    with pytest.raises(UserError, match=r"a.gif: crashes the decoder \(signal 11\)"):
        read_image(write_comment(tmp_path / "a.gif"))
    np.testing.assert_array_equal(read_image(tmp_path / "b.png"), numbered_frame(3))


def test_an_idle_process_that_has_ended(tmp_path):
    watched.end_all()
    write_image(tmp_path / "a.png", numbered_frame(3))
    read_image(tmp_path / "a.png")
    (process,) = watched._all
    os.kill(process._process.pid, signal.SIGALRM)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), numbered_frame(3))


def test_an_answer_that_nobody_waited_for(tmp_path, monkeypatch):
    """After Ctrl-C the next picture must not be the one before."""
    for number in (3, 4):
        write_image(tmp_path / f"{number}.png", numbered_frame(number))

    def interrupted(_process):
        monkeypatch.undo()
        raise KeyboardInterrupt

    read_image(tmp_path / "3.png")
    monkeypatch.setattr(watched._Process, "_wait_for_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read_image(tmp_path / "3.png")
    np.testing.assert_array_equal(read_image(tmp_path / "4.png"), numbered_frame(4))


def test_threads(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(20)]
    for number, path in enumerate(paths):
        write_image(path, numbered_frame(number))
    with ThreadPoolExecutor(4) as pool:
        pictures = list(pool.map(read_image, paths))
    for number, picture in enumerate(pictures):
        np.testing.assert_array_equal(picture, numbered_frame(number))


def test_a_forked_process_has_a_watched_process_of_its_own(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", 6)
    write_image(tmp_path / "a.png", numbered_frame(3))
    read_image(tmp_path / "a.png")
    open_clip(clip)
    used = {process._process.pid for process in watched._all}
    child = os.fork()
    if child == 0:  # leave by os._exit alone: pytest must not run twice
        code = 1
        with suppress(BaseException):
            open_clip(clip).num_frames  # noqa: B018
            assert watched._all == []  # the clip was tried before
            assert (read_image(tmp_path / "a.png") == numbered_frame(3)).all()
            assert used.isdisjoint(process._process.pid for process in watched._all)
            code = 0
        os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), numbered_frame(3))
    assert {process._process.pid for process in watched._all} == used


def _is_running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for processes")
def test_it_ends_with_a_killed_program_even_while_it_decodes(tmp_path):
    write_comment(tmp_path / "a.gif")
    code = (
        "import os, sys, threading; from media import watched\n"
        "def end(): print(watched._all[0]._process.pid, flush=True); os.kill(os.getpid(), 9)\n"
        "threading.Timer(2, end).start()\n"
        "from media.images import read_image; read_image('a.gif')"
    )
    command = [sys.executable, "-c", code]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == -9
    pid = int(done.stdout)
    deadline = time.monotonic() + 5
    while _is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _is_running(pid)


def test_signals_of_the_terminal_do_not_reach_it(tmp_path):
    watched.end_all()
    write_image(tmp_path / "a.png", numbered_frame(3))
    read_image(tmp_path / "a.png")
    (process,) = watched._all
    assert os.getsid(process._process.pid) == process._process.pid


def test_files_in_the_current_folder_are_not_run(tmp_path, monkeypatch):
    watched.end_all()
    for name in ("json", "numpy", "media", "av"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(3)")
    write_image(tmp_path / "a.png", numbered_frame(3))
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(read_image("a.png"), numbered_frame(3))


def test_it_cannot_be_started(tmp_path, monkeypatch):
    watched.end_all()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(UserError, match="the process that opens files does not start"):
        read_image(tmp_path / "a.png")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    with pytest.raises(UserError, match="none: cannot be started to open files"):
        open_clip(write_keys(tmp_path / "a.mp4"))


def test_an_exception_is_told_by_its_exit_code(tmp_path):
    """The process closes its output before it ends, so its code must be waited for."""
    write_image(tmp_path / "a.png", numbered_frame(3))
    with pytest.raises(UserError, match=r"a.png: crashes the decoder \(exit code 1\)"):
        watched._ask("picture", tmp_path / "a.png", ("not", "limits", "at all"), 2**20)


def test_a_folder_that_cannot_be_entered(tmp_path, monkeypatch):
    write_image(tmp_path / "a.png", numbered_frame(3))
    monkeypatch.setattr(os, "getcwd", lambda: str(tmp_path / "gone"))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), numbered_frame(3))


def test_blocked_signals_still_end_it(tmp_path):
    old = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGXCPU, signal.SIGALRM])
    try:
        watched.end_all()
        with pytest.raises(UserError, match=TIME):
            read_image(write_comment(tmp_path / "a.gif"))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)
        watched.end_all()


def test_a_process_that_waits_for_ever(tmp_path, monkeypatch):
    """As one that is stopped does; it takes no processor time."""
    monkeypatch.setattr(watched, "WALL_FACTOR", 1)
    write_image(tmp_path / "a.png", numbered_frame(3))
    read_image(tmp_path / "a.png")
    os.kill(watched._idle[-1]._process.pid, signal.SIGSTOP)
    with pytest.raises(UserError, match=r"a.png: takes more than 1 s to open; write it anew"):
        read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), numbered_frame(3))


def test_a_pipe_that_takes_the_place_of_a_checked_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(safe_paths, "require_plain_file", lambda path: None)
    os.mkfifo(tmp_path / "a.png")
    writer = os.open(tmp_path / "a.png", os.O_RDWR)  # so that nothing can wait for it
    os.write(writer, bytes(4096))
    for read in (picture_files.facts, lambda *args: picture_files.decode(*args, print)):
        with pytest.raises(UserError, match=r"a.png: is not a plain file"):
            read(tmp_path / "a.png", LIMITS)
    os.close(writer)


@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-", "<&- 2>&-"])
def test_closed_streams(tmp_path, closed):
    write_image(tmp_path / "a.png", numbered_frame(3))
    write_clip(tmp_path / "a.mp4", 6)
    code = (
        "from media.images import read_image; from media.video import open_clip\n"
        "assert open_clip('a.mp4').num_frames == 6; raise SystemExit(read_image('a.png').shape[0])"
    )
    command = ["sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, code]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    assert subprocess.run(command, cwd=tmp_path, env=environment).returncode == 48


def test_a_hard_limit_of_time(tmp_path):
    """There the system kills, as it does for lack of memory."""
    write_comment(tmp_path / "a.gif")
    code = "from media.images import read_image; read_image('a.gif')"
    command = ["sh", "-c", 'ulimit -t 2; exec "$0" -c "$1"', sys.executable, code]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert "s of processor time to open, or than `ulimit -t` allows; write" in done.stderr
