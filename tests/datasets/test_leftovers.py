import pytest

from datasets.leftovers import is_leftover, own_entries, without_empty_folders


@pytest.mark.parametrize(
    "name",
    [
        *("__MACOSX", "._clip.mp4", ".DS_Store", ".hidden", "Thumbs.db", "ehthumbs.db"),
        *("desktop.ini", "Desktop.ini", "@eaDir", "$RECYCLE.BIN", "System Volume Information"),
    ],
)
def test_what_systems_leave(name):
    assert is_leftover(name)


@pytest.mark.parametrize("name", ["clip.mp4", "_clip.mp4", "macosx", "thumbs", "a.ini", "@a"])
def test_what_people_have(name):
    assert not is_leftover(name)


def test_entries_of_people(tmp_path):
    for name in ("a.mp4", ".DS_Store", "Thumbs.db"):
        (tmp_path / name).touch()
    for name in ("__MACOSX", "clip", "empty", "nearly"):
        (tmp_path / name).mkdir()
    (tmp_path / "clip" / "0.png").touch()
    (tmp_path / "nearly" / ".DS_Store").touch()
    entries = own_entries(tmp_path)
    assert sorted(entry.name for entry in entries) == ["a.mp4", "clip", "empty", "nearly"]
    kept, num_empty = without_empty_folders(sorted(entries))
    assert [entry.name for entry in kept] == ["a.mp4", "clip"]
    assert num_empty == 2
