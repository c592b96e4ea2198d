"""Memory that is freed stays with the process."""

import platform
import subprocess
import sys

import pytest

from tests.runs import REPOSITORY

NEW_PAGES = """
import resource, torch
from memory import keep_freed_memory

def new_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.empty(2**24).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

new_pages()
print(new_pages())
keep_freed_memory()
for _ in range(3):  # in which the heap finds its size
    new_pages()
print(new_pages())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's")
def test_freed_memory_is_kept():
    """A block that is freed and made anew needs no new pages."""
    done = subprocess.run(
        [sys.executable, "-c", NEW_PAGES], cwd=REPOSITORY, capture_output=True, check=True
    )
    by_default, kept = map(int, done.stdout.split())
    assert by_default > 10_000
    assert kept < 100
