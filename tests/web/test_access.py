"""Who may use the page, and what is said where anybody may."""

import pytest

from common.errors import UserError
from web.access import VARIABLE, read_accounts, warnings


@pytest.fixture
def file(tmp_path, monkeypatch):
    """To be filled with accounts."""
    monkeypatch.delenv(VARIABLE, raising=False)
    path = tmp_path / "accounts"
    path.touch(mode=0o600)
    return path


def test_accounts(file, monkeypatch):
    assert read_accounts(None) == []
    monkeypatch.setenv(VARIABLE, "anna:a:b")
    assert read_accounts(None) == [("anna", "a:b")]
    file.write_text("ben:secret \n\n carl:x\n")
    assert read_accounts(str(file)) == [("ben", "secret "), ("carl", "x")]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty; write a line USER:PASSWORD, or leave the option out"),
        (b"\n \n", "is empty; write"),
        (b"anna:a\nben\n", "line 2 is not USER:PASSWORD"),
        (b":secret\n", "line 1 is not USER:PASSWORD"),
        (b"anna:\n", "line 1 is not USER:PASSWORD"),
        (b"anna:\xe9\n", "cannot be read: it is not UTF-8"),
    ],
)
def test_files_that_name_nobody(file, content, problem):
    file.write_bytes(content)
    with pytest.raises(UserError, match=f"--auth-file {file}: {problem}") as caught:
        read_accounts(str(file))
    assert "secret" not in str(caught.value)


def test_no_such_file(file):
    with pytest.raises(UserError, match="none: cannot be read: No such file"):
        read_accounts(f"{file}none")


def test_a_variable_that_names_nobody(file, monkeypatch):
    monkeypatch.setenv(VARIABLE, "secret")
    with pytest.raises(UserError, match=f"{VARIABLE}: line 1 is not USER:PASSWORD"):
        read_accounts(None)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.1.2.3"])
def test_nothing_to_warn_of_on_this_machine(host):
    assert warnings(host, None, []) == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "anna.example.org"])
def test_a_page_that_anybody_reaches(file, host):
    (line,) = warnings(host, None, [])
    assert line == (
        f"warning: --host {host} without a password: whoever reaches this machine can use the "
        f"page; give --auth-file, or set {VARIABLE}=USER:PASSWORD"
    )
    assert warnings(host, str(file), [("anna", "a")]) == []
    file.chmod(0o644)
    (line,) = warnings(host, str(file), [("anna", "a")])
    assert line == f"warning: --auth-file {file}: others can read it; chmod 600 {file}"
