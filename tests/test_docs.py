"""What the documentation points to is there, and its training commands are good."""

import re
import shlex
from pathlib import Path

import pytest

import train
from tests.runs import REPOSITORY, call

PAGES = (
    REPOSITORY / "README.md",
    *sorted((REPOSITORY / "docs").glob("*.md")),
    REPOSITORY / "SECURITY.md",
)


def anchors(page: Path) -> set[str]:
    """Names that the headings of a page can be linked by."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def train_commands(page: Path) -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)
    lines = "".join(blocks).splitlines()
    return [line for line in lines if line.startswith("python train.py ")]


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


@pytest.mark.parametrize(
    "command", [c for page in PAGES[1:] for c in train_commands(page) if "--config" in c]
)
def test_training_commands_are_accepted(command):
    assert call(train, *shlex.split(command)[2:], "--print-config") == 0
