"""Tests of files that are replaced as a whole, of leftovers and of lock files."""

import errno
import os
import re
import stat
from pathlib import Path

import pytest

from common.errors import UserError
from common.file_lock import holder, locked
from common.files import (
    add_line,
    check_output_file,
    create,
    make_folder,
    named_failures,
    remove_leftovers,
    replacing,
    temporary_name,
)


def test_temporary_names_are_unpredictable_and_keep_the_suffix(tmp_path):
    names = {temporary_name(tmp_path / "a.b.png").name for _ in range(100)}
    assert len(names) == 100
    assert all(re.fullmatch(r"\.a\.b\.[0-9a-f]{16}\.tmp\.png", name) for name in names)


@pytest.mark.parametrize("stem", ["a" * 251, "ä" * 125, os.fsdecode(b"caf\xe9" * 50)])
def test_the_longest_names_can_be_written(tmp_path, stem):
    with replacing(tmp_path / f"{stem}.txt") as temporary:
        temporary.write_text("x")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["x"]


def test_read_permissions_do_not_change(tmp_path):
    """The `tempfile` module would make files that only their owner can read."""
    before = os.umask(0o022)
    try:
        with replacing(tmp_path / "a.txt") as temporary:
            temporary.write_text("x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o644


def test_nothing_is_written_through_a_link(tmp_path, monkeypatch):
    """Somebody may have guessed the temporary name."""
    monkeypatch.setattr("secrets.token_hex", lambda _: "0" * 16)
    (tmp_path / "mine").write_text("mine")
    temporary_name(tmp_path / "a.txt").symlink_to(tmp_path / "mine")
    with (
        pytest.raises(UserError, match=r"a\.txt: cannot be written \(File exists\)"),
        replacing(tmp_path / "a.txt"),
    ):
        raise AssertionError("a file that is somebody else's")
    assert (tmp_path / "mine").read_text() == "mine"


def test_create_makes_new_files_only(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("link", "file"):
        if name == "file":
            create(tmp_path / name)
        with pytest.raises(FileExistsError):
            create(tmp_path / name)
    assert not (tmp_path / "nowhere").exists()


def test_failures_are_named():
    expected = r"^a\.txt: cannot be written \(No space left on device\)$"
    with pytest.raises(UserError, match=expected), named_failures(Path("a.txt")):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_leftovers_of_the_given_names_are_deleted(tmp_path):
    token = "0123456789abcdef"
    gone = [f".a.{token}.tmp.txt", ".a.17.tmp.txt", f".b.{token}.tmp"]
    kept = [
        *("a.txt", ".a.tmp.txt", f".a.{token}.tmp.png", f".c.{token}.tmp.txt", f".a.{token}.txt"),
        *(f"x.a.{token}.tmp.txt", f".a.{token[:-1]}.tmp.txt"),
    ]
    for name in (*gone, *kept):
        (tmp_path / name).touch()
    (tmp_path / f".b.{token[::-1]}.tmp").mkdir()
    (tmp_path / f".b.{token[::-1]}.tmp" / "frame").touch()
    remove_leftovers(tmp_path, r"a\.txt|b")
    assert {path.name for path in tmp_path.iterdir()} == set(kept)
    remove_leftovers(tmp_path / "nowhere", "a")  # a missing folder is no error


def test_a_folder_whose_place_is_a_link_to_nothing(tmp_path):
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    (tmp_path / "link").symlink_to("nowhere")
    for path in (tmp_path / "link", tmp_path / "link" / "inner"):
        with pytest.raises(UserError, match="link: is a link to nowhere, which is missing; make"):
            make_folder(path)
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        make_folder(tmp_path / "file")


# Locks


def test_a_lock_is_held_once_and_gone_afterwards(tmp_path):
    path = tmp_path / ".lock"
    with locked(path) as is_held:
        assert is_held
        assert holder(path).startswith(f"process {os.getpid()} on ")
        with pytest.raises(BlockingIOError), locked(path):
            raise AssertionError("held twice")
        assert path.exists()
    assert not path.exists()
    with locked(path):
        pass


def test_a_lock_that_its_holder_deletes_is_made_anew(tmp_path, monkeypatch):
    """If it is deleted between opening and locking, two processes would lock different files."""
    path, opened = tmp_path / ".lock", []
    open_file = os.open

    def open_and_lose(name, *arguments):
        descriptor = open_file(name, *arguments)
        if not opened:
            path.unlink()
        opened.append(descriptor)
        return descriptor

    monkeypatch.setattr(os, "open", open_and_lose)
    with locked(path):
        monkeypatch.undo()
        assert len(opened) == 2
        with pytest.raises(BlockingIOError), locked(path):
            raise AssertionError("held twice")


def test_a_lock_that_nobody_holds_any_more(tmp_path):
    """The process that held it was killed."""
    (tmp_path / ".lock").write_text("process 1 on elsewhere")
    with locked(tmp_path / ".lock") as is_held:
        assert is_held


@pytest.mark.parametrize("content", [b"secrets", b"process 1", b"process 1 on a\nb", b"\xff" * 999])
def test_a_lock_that_holds_something_else_stays_as_it_is(tmp_path, content):
    (tmp_path / ".lock").write_bytes(content)
    with pytest.raises(UserError, match=r"\.lock: is no lock file"), locked(tmp_path / ".lock"):
        raise AssertionError("held")
    assert (tmp_path / ".lock").read_bytes() == content


@pytest.mark.parametrize("content", [b"", b"mine", b"process 1 on elsewhere"])
def test_a_lock_that_is_another_name_of_a_file_stays_as_it_is(tmp_path, content):
    (tmp_path / "mine").write_bytes(content)
    (tmp_path / ".lock").hardlink_to(tmp_path / "mine")
    with pytest.raises(UserError, match=r"\.lock: is a hard link"), locked(tmp_path / ".lock"):
        raise AssertionError("held")
    assert (tmp_path / ".lock").samefile(tmp_path / "mine")
    assert (tmp_path / "mine").read_bytes() == content


@pytest.mark.parametrize(
    "content", [b"process 1\nis fine", b"hello", b"process \x1b[2J", b"process \xff"]
)
def test_the_holder_of_a_lock_is_named(tmp_path, content):
    (tmp_path / ".lock").write_bytes(content)
    assert holder(tmp_path / ".lock") == "another process"


def test_without_locks_in_the_file_system_several_may_enter(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with locked(tmp_path / ".lock") as first, locked(tmp_path / ".lock") as second:
        assert (first, second) == (False, False)


def test_names_of_output_files(tmp_path):
    check_output_file(tmp_path / "new.json", "train.json")
    with pytest.raises(UserError, match=f"--output {tmp_path}: is a folder; give a file, .*train"):
        check_output_file(tmp_path, "train.json")
    with pytest.raises(UserError, match="ile name too long"):
        check_output_file(tmp_path / ("a" * 300), "train.json")


def test_a_line_is_not_added_to_a_second_name(tmp_path):
    """Such as a backup by `cp -al`."""
    path, backup = tmp_path / "log", tmp_path / "backup"
    add_line(path, "one")
    backup.hardlink_to(path)
    add_line(path, "two")
    add_line(path, "three")
    assert path.read_text() == "one\ntwo\nthree\n"
    assert backup.read_text() == "one\n"
    assert sorted(tmp_path.iterdir()) == [backup, path]
