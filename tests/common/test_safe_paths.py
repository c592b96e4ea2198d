"""Names and paths of untrusted files: which are accepted, and that no link is followed."""

import os
import socket
from contextlib import nullcontext
from pathlib import Path

import pytest

from common import safe_paths
from common.errors import UserError
from common.safe_paths import (
    check_inner_path,
    check_name,
    open_to_read,
    open_to_write,
    printable,
    read_plain_file,
    refuse_holes,
    refuse_links,
    require_plain_file,
)


@pytest.mark.parametrize(
    "name", ["a", "id1#b.c", "é 日本 #1", "a..b", "-x", "=1+1", "con", "n" * 255, "é" * 127]
)
def test_names_that_are_accepted(name):
    assert check_name(name) == name


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "it is empty"),
        (".", "it begins with a dot"),
        ("..", "it begins with a dot"),
        (".hidden", "it begins with a dot"),
        ("../x", "it begins with a dot"),
        ("a/../../x", "it has a slash"),
        ("/etc/x", "it has a slash"),
        ("a\\b", "it has a slash"),
        ("a\0b", "it has a control character"),
        ("a\nb", "it has a control character"),
        ("a\x1b[2Jb", "it has a control character"),
        ("a\x9bb", "it has a control character"),
        ("a\u202egpj.mp4", "it has a control character"),
        ("a\u2028b", "it has a control character"),
        ("caf\udce9", "it has bytes that are not UTF-8"),
        ("n" * 256, "it has 256 bytes, more than 255"),
        ("é" * 128, "it has 256 bytes, more than 255"),
    ],
)
def test_names_that_are_refused(name, problem):
    with pytest.raises(ValueError, match=f"cannot be a name: {problem}$") as caught:
        check_name(name)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("name", [None, 1, ["a"], b"a"])
def test_values_that_are_not_text(name):
    with pytest.raises(ValueError, match="in place of a name"):
        check_name(name)


@pytest.mark.parametrize("path", ["a.mp4", "a/b.mp4", "./a//b.mp4", "a/b/"])
def test_paths_that_stay_inside(tmp_path, path):
    assert (tmp_path / check_inner_path(path)).is_relative_to(tmp_path)


@pytest.mark.parametrize("path", ["", ".", "..", "../a", "a/../../b", "/a", "a/.b", "a\0b"])
def test_paths_that_lead_elsewhere(path):
    with pytest.raises(ValueError, match=r"is absolute|cannot be a name"):
        check_inner_path(path)


def test_links_in_a_path_are_refused(tmp_path):
    (tmp_path / "folder" / "a").mkdir(parents=True)
    (tmp_path / "other" / "b").mkdir(parents=True)
    (tmp_path / "folder" / "link").symlink_to(tmp_path / "other")
    (tmp_path / "to_folder").symlink_to(tmp_path / "folder")
    refuse_links(tmp_path / "to_folder", Path("a/new/x"))  # the user's own folder may be one
    for inner in ("link", "link/b"):
        with pytest.raises(UserError, match="folder/link: is a link, and nothing is written thr"):
            refuse_links(tmp_path / "folder", Path(inner))


@pytest.mark.parametrize("mode", ["w", "a", "r+", "wb"])
def test_a_link_is_not_written_through(tmp_path, mode):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "file").symlink_to(victim)
    with pytest.raises(UserError, match="file: is a link, and nothing is written to it; remove"):
        open_to_write(tmp_path / "file", mode)
    (tmp_path / "dangling").symlink_to(tmp_path / "new")
    with pytest.raises(UserError, match="dangling: is a link"):
        open_to_write(tmp_path / "dangling", mode)
    assert victim.read_text() == "mine"
    assert not (tmp_path / "new").exists()


def test_a_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="pipe"):
        open_to_write(tmp_path / "pipe", "a")
    with pytest.raises(UserError, match="pipe: is not a plain file"):
        open_to_write(tmp_path / "pipe", "r+b")


def test_plain_files(tmp_path):
    for mode in ("w", "a", "a"):
        with open_to_write(tmp_path / "file", mode, newline="", encoding="utf-8") as file:
            file.write("é\n")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "é\n" * 3
    with pytest.raises(IsADirectoryError):
        open_to_write(tmp_path, "w")


def test_what_is_no_plain_file_is_not_read(tmp_path):
    """Nor waited for, nor read without end."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for name in ("pipe", "zero", "socket"):
            with pytest.raises(UserError, match=f"{name}: is not a plain file; write what"):
                require_plain_file(tmp_path / name)
            with pytest.raises(UserError, match=f"{name}: is not a plain file"):
                read_plain_file(tmp_path / name, 100)


def test_a_pipe_that_takes_the_place_of_a_checked_file(tmp_path, monkeypatch):
    monkeypatch.setattr(safe_paths, "require_plain_file", lambda path: None)
    os.mkfifo(tmp_path / "pipe")
    writer = os.open(tmp_path / "pipe", os.O_RDWR)  # so that nothing can wait for it
    os.write(writer, b"12345")
    for read in (open_to_read, lambda path: read_plain_file(path, 5)):
        with pytest.raises(UserError, match="pipe: is not a plain file"):
            read(tmp_path / "pipe")
    os.close(writer)


def test_no_more_is_read_than_was_asked_for(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_plain_file(tmp_path / "link", 5) == b"12345"
    with pytest.raises(UserError, match="file: is larger than the 4 bytes that are read of it"):
        read_plain_file(tmp_path / "file", 4)
    os.truncate(tmp_path / "file", 2**40)
    with pytest.raises(UserError, match="is larger than"):
        read_plain_file(tmp_path / "file", 5)
    with pytest.raises(IsADirectoryError):
        read_plain_file(tmp_path, 2**20)
    with pytest.raises(FileNotFoundError):
        read_plain_file(tmp_path / "missing", 5)


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="of Linux")
def test_a_file_of_which_the_system_states_no_size():
    assert Path("/proc/version").stat().st_size == 0
    with pytest.raises(UserError, match="is larger than the 3 bytes"):
        read_plain_file(Path("/proc/version"), 3)


def test_control_characters_are_escaped_for_the_terminal():
    assert printable("a/b.mp4 frames 1 to 2 日本") == "a/b.mp4 frames 1 to 2 日本"
    assert printable("a\x1b[2J\nb\x9b") == "a\\x1b[2J\\nb\\x9b"
    assert printable("a\u202egpj\u2028") == "a\\u202egpj\\u2028"


def test_holes(tmp_path, monkeypatch):
    """A large file may have some holes, a small one any number of them."""
    monkeypatch.setattr("common.safe_paths.MAX_SPARSE", 2**20)
    path = tmp_path / "file"
    for num_bytes, num_stored, is_refused in (
        (2**20, 0, False),
        (2**24, 2**20, False),
        (2**24, 2**19, True),
        (2**24, 0, True),
    ):
        with path.open("wb") as file:
            file.seek(num_bytes // 4)
            file.write(bytes(num_stored))
            file.truncate(num_bytes)
        with path.open("rb") as file:
            file.read(1)
            with pytest.raises(UserError, match="are stored") if is_refused else nullcontext():
                refuse_holes(path, file)
            assert file.tell() == 1


@pytest.mark.parametrize("mode", ["wb", "ab", "r+b", "w", "a"])
def test_a_hard_link_is_not_written_to(tmp_path, mode):
    """What is written would appear under the other name, too, such as in a copy by `cp -al`."""
    (tmp_path / "other").write_text("kept")
    (tmp_path / "file").hardlink_to(tmp_path / "other")
    with pytest.raises(UserError, match="file: is a hard link to another file, and nothing is"):
        open_to_write(tmp_path / "file", mode)
    assert (tmp_path / "other").read_text() == "kept"
