"""Links, paths and names of tests in the documentation exist, and the README stays short."""

import re
from pathlib import Path

import pytest

from tests.helpers.runs import REPOSITORY

DOCS = sorted((REPOSITORY / "docs").glob("*.md"))
PAGES = (
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    REPOSITORY / "SECURITY.md",
    *DOCS,
)
PACKAGES = {path.parent.name for path in REPOSITORY.glob("*/__init__.py")}
TESTS = "\n".join(path.read_text() for path in sorted((REPOSITORY / "tests").rglob("test_*.py")))


def anchors(page: Path) -> set[str]:
    """Names that the headings of a page can be linked by."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    assert targets
    for target in targets:
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def words_in_backticks(page: Path) -> list[str]:
    """Words in backticks but outside of code blocks, without punctuation around them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`([^`]+)`", text)
    return [word.strip("()[],;\"'") for span in spans for word in span.split()]


def mentioned_files(page: Path) -> set[str]:
    """Words in backticks that look like a file or folder of this repository.

    They have a slash, and begin with one of its packages or end as its files do. Placeholders such
    as `modules/<network>.py` are left out.
    """
    files = {word.partition("::")[0] for word in words_in_backticks(page)}
    return {
        file
        for file in files
        if "/" in file
        and not re.search("[<>]", file)
        and (file.split("/")[0] in PACKAGES or file.endswith((".py", ".yaml", ".md")))
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_in_backticks_exist(page):
    for file in mentioned_files(page):
        assert any(REPOSITORY.glob(file)), f"{page.name}: there is no {file}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tests_in_backticks_exist(page):
    for word in words_in_backticks(page):
        name = word.rpartition("::")[2] if "::" in word else "test_"
        assert f"def {name}" in TESTS, f"{page.name}: there is no {word}"


def test_placeholders_and_other_paths_are_no_files(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "`modules/<network>.py` `runs/vox` `python x.py` `[docs/no.md]`\n"
        "```\n`tests/no.py`\n```\n`pytest tests/no.py::test_no`, `--input=a/b`"
    )
    assert mentioned_files(page) == {"docs/no.md", "tests/no.py"}


def test_the_readme_is_short():
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 220


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_a_page_begins_with_what_it_holds(page):
    title, first = page.read_text().split("\n\n")[:2]
    assert re.fullmatch(r"# [^\n]+", title)
    assert first.startswith("This page ")
