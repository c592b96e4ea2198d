"""Lock files: what lies in their place is not emptied."""

import os
import socket

import pytest

from common.errors import UserError
from common.file_lock import locked


@pytest.mark.parametrize(
    "text", ["my notes", "process 5 on how to cook rice: wash, then boil", "process 5 on a\nb"]
)
def test_other_files_stay_as_they_are(tmp_path, text):
    path = tmp_path / ".lock"
    path.write_text(text)
    with pytest.raises(UserError, match=r"\.lock: is no lock file of this program"), locked(path):
        pass
    assert path.read_text() == text


def test_the_lock_of_a_killed_process_is_taken(tmp_path):
    path = tmp_path / ".lock"
    path.write_text("process 5 on host-1.example.org")
    with locked(path):
        assert path.read_text() == f"process {os.getpid()} on {socket.gethostname()}"
    assert not path.exists()


def test_a_folder_or_a_socket_in_its_place_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    os.mkdir("a.lock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("b.lock")
        for name in ("a.lock", "b.lock"):
            with (
                pytest.raises(UserError, match=f"{name}: is no lock file of this program"),
                locked(tmp_path / name),
            ):
                pass
