"""The order of the packages: imports run downward only, so none depends on one above it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.runs import REPOSITORY

# From the top to the bottom. A package imports itself and the packages on lower lines.
ORDER = (
    ("docs",),
    ("benchmarks",),
    ("train",),
    ("training", "reconstruct"),
    ("evaluation", "animate", "web"),
    ("animation",),
    ("checkpoints",),
    ("branches",),
    ("metrics", "datasets", "losses", "logger"),
    ("media", "configs"),
    ("modules",),
    ("common",),
)
HEIGHT = {package: -line for line, packages in enumerate(ORDER) for package in packages}
AT_THE_ROOT = {"train", "reconstruct", "animate", "losses", "logger"}


def code_files() -> list[Path]:
    """Every Python file of the project but the tests."""
    found = [*REPOSITORY.glob("*.py")]
    for package in HEIGHT:
        found += (REPOSITORY / package).rglob("*.py")
    return sorted(found)


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of everything that a file imports, in functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def package_of(path: Path) -> str:
    """The folder at the root that a file lies in, or its own name."""
    return path.relative_to(REPOSITORY).parts[0].removesuffix(".py")


def test_the_root_has_the_entry_scripts_and_nothing_else():
    assert {path.stem for path in REPOSITORY.glob("*.py")} == AT_THE_ROOT


def test_every_folder_of_code_has_a_place_in_the_order():
    folders = {path.parent.name for path in REPOSITORY.glob("*/*.py")} - {"tests"}
    assert folders == HEIGHT.keys() - AT_THE_ROOT


@pytest.mark.parametrize("path", code_files(), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_imports_run_downward(path):
    package = package_of(path)
    for line, name in imports(path):
        other = name.split(".")[0]
        if other in HEIGHT and other != package:
            assert HEIGHT[other] < HEIGHT[package], (
                f"{path}:{line} imports {name}, which is not below"
            )


def test_no_file_imports_itself_in_a_circle():
    names = {
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")
        for path in code_files()
    }
    graph: dict[str, set[str]] = {}
    for path in code_files():
        own = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
        found = {name for _, name in imports(path)}
        modules = {name if name in names else name.rpartition(".")[0] for name in found} & names
        graph[own.removesuffix(".__init__")] = modules
    finished: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, f"a circle: {' > '.join((*above, name))}"
        if name not in finished:
            for other in sorted(graph[name]):
                visit(other, (*above, name))
            finished.add(name)

    for name in sorted(graph):
        visit(name, ())


def test_files_and_functions_are_of_a_size_that_can_be_read():
    """Parsers and forms, which are lists of options, may be longer."""
    for path in code_files():
        text = path.read_text()
        assert len(text.splitlines()) <= 420, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and not re.search(
                "parser|_add_options", node.name
            ):
                assert node.end_lineno is not None
                length = node.end_lineno - node.lineno + 1
                assert length <= 60, f"{path}:{node.lineno} {node.name} has {length} lines"
