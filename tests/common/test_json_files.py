"""Tests the limits on numbers, depth and size of untrusted JSON."""

from fractions import Fraction

import pytest

from common import json_files
from common.errors import UserError
from common.json_files import JsonError, parse_json, parse_rate, read_json


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("1e999999999", "1e999999999 is too large a number"),
        ("-1e400", "-1e400 is too large a number"),
        ("9" * 5000, "is too large a number"),
        (str(2**70), "is too large a number"),
        ("NaN", "NaN is not a number"),
        ("[Infinity]", "Infinity is not a number"),
        ("[" * 100_000, "it is nested too deeply"),
        ('{"a": ' * 100_000, "it is nested too deeply"),
        ("{", "Expecting property name"),
        ("", "Expecting value"),
        (b"\xff\xfe\x00", "not readable as JSON"),
    ],
)
def test_json_that_is_refused(tmp_path, text, problem):
    with pytest.raises(JsonError, match=problem):
        parse_json(text)
    path = tmp_path / "a.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(JsonError) as raised:
        read_json(path)
    assert str(raised.value).startswith(f"{path}: not readable as JSON: ")
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300


def test_json_that_is_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": [1, -2.5, 1e300, true, null, "\\u00fc"], "b": 9223372036854775807}')
    assert read_json(path) == {"a": [1, -2.5, 1e300, True, None, "ü"], "b": 2**63 - 1}


def test_a_large_file(tmp_path, monkeypatch):
    monkeypatch.setattr(json_files, "MAX_BYTES", 10)
    (tmp_path / "a.json").write_text("[1, 2, 3, 4]")
    with pytest.raises(UserError, match=r"a\.json: is larger than the 10 bytes"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("value", ["30000/1001", "25", "29.97", 30, 59.94, "1/100000", 100_000])
def test_frame_rates(value):
    assert parse_rate(value) == Fraction(str(value))


@pytest.mark.parametrize(
    "value",
    ["1e5", "1e999999999", 1e300, 0, -1, "0/5", "1/0", "", "x", None, True, [25], "9" * 40, 10**9],
)
def test_values_that_are_no_frame_rate(value):
    with pytest.raises(ValueError, match=r"frame rate|frames a second|Invalid literal"):
        parse_rate(value)


def test_a_device_is_not_read(tmp_path):
    (tmp_path / "a.json").symlink_to("/dev/zero")
    with pytest.raises(UserError, match=r"a\.json: is not a plain file"):
        read_json(tmp_path / "a.json")
