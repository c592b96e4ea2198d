"""CSV cells hold no formulas, numbers stay numbers, and every text is read back unchanged."""

import csv
import io
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.csv_cells import TableReader, as_written, open_table, protected
from common.errors import UserError


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+cmd|' /C calc'!A0",
        "-2+3",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        "\uff1d1",
        "'=1",
        "-a",
    ],
)
def test_formulas_get_an_apostrophe(text):
    assert protected(text) == f"'{text}"


@pytest.mark.parametrize(
    "text", ["", "a", "a=b", "'a", "anna#walk", "12", "-0.5", "+3", "-1.5e-07", "0.0000001", "é"]
)
def test_other_texts_and_numbers_stay_as_they_are(text):
    assert protected(text) == text


@given(st.one_of(st.text("'=+-@\t\r\n\uff1da1", max_size=6), st.text(max_size=6)))
def test_every_text_is_read_back_unchanged(text):
    file = io.StringIO(newline="")
    csv.writer(file).writerow([protected(text), "end"])
    file.seek(0)
    (row,) = csv.reader(file)
    assert as_written(row[0]) == text


def test_a_table_with_and_without_a_byte_order_mark(tmp_path):
    path = tmp_path / "a.csv"
    for encoding in ("utf-8", "utf-8-sig"):
        path.write_text('a,b\n"é\n",2\n', encoding=encoding)
        with open_table(path) as file:
            assert [*csv.DictReader(file)] == [{"a": "é\n", "b": "2"}]


def test_a_table_that_is_too_large(tmp_path):
    """As one line it would fill all memory before anything is looked at."""
    (tmp_path / "a.csv").touch()
    os.truncate(tmp_path / "a.csv", 2**40)
    with pytest.raises(UserError, match=r"a\.csv: is larger than"):
        open_table(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("lines", "num_cells"),
    [(["a,b,c,d,e"] + ["1"] * 4, 20), (["a"] + ["1"] * 5, 20), (["a"] + ["1,,,,,,,,"] * 3, 12)],
)
def test_cells_that_rows_lack_are_counted(lines, num_cells):
    """A row of one letter has as many cells as there are names; short rows count as four."""
    assert len([*TableReader(lines, num_cells)]) == len(lines) - 1
    with pytest.raises(csv.Error, match=f"more than {num_cells - 1} cells"):
        [*TableReader(lines, num_cells - 1)]


def test_a_row_that_never_ends():
    """Neither does a row in many lines, within quotes."""
    whole = f"a,{'b' * 2**17}\n"
    assert len([*TableReader(["a,b\n", *([whole] * 9)])]) == 9
    for lines in (["a," * 2**20], ["a\n", '"\n', *['","\n'] * 2**18]):
        with pytest.raises(csv.Error, match="a row of more than 1,048,576 characters"):
            [*TableReader(lines)]
