"""Reads untrusted JSON with limits on the size of the file and of its numbers.

Python's own reader accepts numbers of any size, and a Fraction of 1e999999999 fills all memory.
"""

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from common.safe_paths import read_plain_file

MAX_BYTES: Final = 2**26  # of a file; a value of two bytes takes some 60 in memory
MAX_INTEGER: Final = 2**63  # absolute value; all counts of this program are far smaller

# Frames per second: from one a day to the fastest cameras.
MIN_RATE, MAX_RATE = Fraction(1, 100_000), Fraction(100_000)
RATE_DIGITS: Final = 64  # characters of a frame rate in text: 30000/1001, 29.97


class JsonError(ValueError):
    """The text is not JSON, or exceeds a limit; the message says what is wrong."""


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        JsonError: the content is wrong; names the file.
        UserError: the file is too large, or not a plain file.
        OSError: the file cannot be read.
    """
    content = read_plain_file(path, MAX_BYTES)
    try:
        return parse_json(content)
    except JsonError as error:
        raise JsonError(f"{path}: {error}") from None


def parse_json(text: str | bytes, *, unique_keys: bool = False) -> Any:
    """Return the content of a JSON text; numbers must be finite, integers at most MAX_INTEGER.

    Args:
        unique_keys: refuse a mapping that has a key twice; otherwise the last one counts.

    Raises:
        JsonError: the text is not such JSON.
    """
    try:
        return json.loads(
            text,
            parse_int=_parse_int,
            parse_float=_parse_float,
            parse_constant=_parse_constant,
            object_pairs_hook=_unique if unique_keys else None,
        )
    except RecursionError:
        raise JsonError("not readable as JSON: it is nested too deeply") from None
    except ValueError as error:
        raise JsonError(f"not readable as JSON: {error}") from None


def parse_rate(value: Any) -> Fraction:
    """Return frames per second, exact, from a number or from text such as `30000/1001`.

    Raises:
        ValueError: `value` is neither, or not from MIN_RATE to MAX_RATE.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{value!r:.40} is not a frame rate")
    text = str(value)
    if len(text) > RATE_DIGITS or "e" in text.lower():  # an exponent makes huge numbers
        raise ValueError(f"{text:.40} is not a frame rate")
    try:
        rate = Fraction(text)
    except ZeroDivisionError:
        raise ValueError(f"{text} is not a frame rate") from None
    if not MIN_RATE <= rate <= MAX_RATE:
        raise ValueError(f"{text} frames a second; must be from {MIN_RATE} to {MAX_RATE}")
    return rate


def nearest_rate(rate: Fraction) -> Fraction:
    """Return the frame rate nearest to `rate` that `parse_rate` reads.

    The times in a file of some kilobytes may lie years apart.
    """
    rate = min(max(rate, MIN_RATE), MAX_RATE)
    return rate if len(str(rate)) <= RATE_DIGITS else rate.limit_denominator(10**9)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


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
    raise ValueError(f"{text} is not a number")
