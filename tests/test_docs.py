"""What the documentation points to is there, and the README stays short."""

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


def test_the_readme_is_short():
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 220


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_a_page_begins_with_what_it_holds(page):
    title, first = page.read_text().split("\n\n")[:2]
    assert re.fullmatch(r"# [^\n]+", title)
    assert first.startswith("This page ")
