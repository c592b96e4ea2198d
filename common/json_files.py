"""Reading JSON that a stranger may have written.

Python's reader takes numbers of any size, and what is later made of 1e999999999 takes all memory.
"""

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

MAX_BYTES: Final = 2**26  # of a file; a value of two bytes takes some 60 in memory
MAX_INTEGER: Final = 2**63  # in size; what is counted and measured here is far below

# What plays and records: from a frame a day to the fastest cameras.
MIN_RATE, MAX_RATE = Fraction(1, 100_000), Fraction(100_000)
RATE_DIGITS: Final = 64  # of a frame rate in text: 30000/1001, 29.97


class JsonError(ValueError):
    """What is no JSON, or holds more or larger things than are read; the message says what."""


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        JsonError: names the file and what is wrong.
        OSError: it cannot be read.
    """
    num_bytes = path.stat().st_size
    if num_bytes > MAX_BYTES:
        raise JsonError(f"{path}: {num_bytes:,} bytes of JSON, and at most {MAX_BYTES:,} are read")
    try:
        return parse_json(path.read_bytes())
    except JsonError as error:
        raise JsonError(f"{path}: {error}") from None


def parse_json(text: str | bytes) -> Any:
    """What `text` says; numbers are finite, and integers at most MAX_INTEGER in size.

    Raises:
        JsonError: says what is wrong.
    """
    try:
        return json.loads(
            text, parse_int=_parse_int, parse_float=_parse_float, parse_constant=_parse_constant
        )
    except RecursionError:
        raise JsonError("not JSON that is read: it is nested too deeply") from None
    except ValueError as error:
        raise JsonError(f"not JSON that is read: {error}") from None


def parse_rate(value: Any) -> Fraction:
    """Frames per second, exact, of a number or of text such as `30000/1001`.

    Raises:
        ValueError: it is neither, or out of the range of MIN_RATE to MAX_RATE.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{value!r:.40} is no frame rate")
    text = str(value)
    if len(text) > RATE_DIGITS or "e" in text.lower():  # an exponent says much in few digits
        raise ValueError(f"{text:.40} is no frame rate")
    try:
        rate = Fraction(text)
    except ZeroDivisionError:
        raise ValueError(f"{text} is no frame rate") from None
    if not MIN_RATE <= rate <= MAX_RATE:
        raise ValueError(f"{text} frames a second; from {MIN_RATE} to {MAX_RATE} are read")
    return rate


def _parse_int(text: str) -> int:
    if len(text) > 20 or abs(int(text)) > MAX_INTEGER:
        raise ValueError(f"{text:.20} is too large a number")
    return int(text)


def _parse_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text:.20} is too large a number")
    return number


def _parse_constant(text: str) -> float:
    raise ValueError(f"{text} is no number")
