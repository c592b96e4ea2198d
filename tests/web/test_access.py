"""Accounts of the page, and warnings if anybody can use it."""

import pytest

from common.errors import UserError
from web.access import AUTH_VARIABLE, read_accounts, warnings


@pytest.fixture
def file(tmp_path, monkeypatch):
    """An empty file for accounts."""
    monkeypatch.delenv(AUTH_VARIABLE, raising=False)
    path = tmp_path / "accounts"
    path.touch(mode=0o600)
    return path


def test_accounts(file, monkeypatch):
    assert read_accounts(None) == []
    monkeypatch.setenv(AUTH_VARIABLE, "anna:a:b")
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
        (b"anna:secret\nben:b\n anna:c\n", "line 3 names the user of an earlier line"),
        (b"anna:\xe9\n", "cannot be read: it is not UTF-8"),
    ],
)
def test_files_without_valid_accounts(file, content, problem):
    file.write_bytes(content)
    with pytest.raises(UserError, match=f"--auth-file {file}: {problem}") as caught:
        read_accounts(str(file))
    assert "secret" not in str(caught.value)


def test_no_such_file(file):
    with pytest.raises(UserError, match="none: cannot be read: No such file"):
        read_accounts(f"{file}none")


def test_a_variable_without_a_valid_account(file, monkeypatch):
    monkeypatch.setenv(AUTH_VARIABLE, "secret")
    with pytest.raises(UserError, match=f"{AUTH_VARIABLE}: line 1 is not USER:PASSWORD"):
        read_accounts(None)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.1.2.3"])
def test_no_warning_on_this_machine(host):
    assert warnings(host, None, []) == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "anna.example.org"])
def test_warnings_for_a_page_on_the_network(file, host):
    (line,) = warnings(host, None, [])
    assert line == (
        f"warning: --host {host} without a password: whoever reaches this machine can use the "
        f"page; give --auth or --auth-file, or set {AUTH_VARIABLE}=USER:PASSWORD"
    )
    assert warnings(host, str(file), [("anna", "a")]) == []
    file.chmod(0o644)
    (line,) = warnings(host, str(file), [("anna", "a")])
    assert line == f"warning: --auth-file {file}: others can read it; chmod 600 {file}"


def test_an_account_on_the_command_line(file, monkeypatch):
    monkeypatch.setenv(AUTH_VARIABLE, "ben:b")
    assert read_accounts(None, "anna:a:b") == [("anna", "a:b")]
    (line,) = warnings("0.0.0.0", None, [("anna", "a:b")], "anna:a:b")
    assert line == (
        "warning: --auth: other users of this machine see the password in its list of processes; "
        f"--auth-file FILE or {AUTH_VARIABLE} hides it"
    )
    for wrong in ("anna", "", ":a", "anna:"):
        with pytest.raises(UserError, match="--auth: is not USER:PASSWORD"):
            read_accounts(None, wrong)
    with pytest.raises(UserError, match="--auth gives one account, --auth-file all of them"):
        read_accounts(str(file), "anna:a")


def test_a_file_that_begins_with_a_byte_order_mark(file):
    file.write_bytes(b"\xef\xbb\xbfanna:a\n")
    assert read_accounts(str(file)) == [("anna", "a")]


def test_a_device_in_place_of_the_file():
    with pytest.raises(UserError, match="--auth-file /dev/zero: is not a plain file"):
        read_accounts("/dev/zero")
