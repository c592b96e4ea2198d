from pathlib import PurePath

import pytest

from animation.job_list import is_many, list_jobs
from datasets.clips import ClipFolder
from media.system_files import is_system_file, partition, user_entries, without_empty_folders


@pytest.mark.parametrize(
    "name",
    [
        *("__MACOSX", "._clip.mp4", ".DS_Store", ".hidden", "Thumbs.db", "ehthumbs.db"),
        *("desktop.ini", "Desktop.ini", "@eaDir", "$RECYCLE.BIN", "System Volume Information"),
    ],
)
def test_files_of_systems(name):
    assert is_system_file(name)


@pytest.mark.parametrize("name", ["clip.mp4", "_clip.mp4", "macosx", "thumbs", "a.ini", "@a"])
def test_files_of_users(name):
    assert not is_system_file(name)


def test_entries_of_users(tmp_path):
    for name in ("a.mp4", ".DS_Store", "Thumbs.db"):
        (tmp_path / name).touch()
    for name in ("__MACOSX", "clip", "empty", "nearly"):
        (tmp_path / name).mkdir()
    (tmp_path / "clip" / "0.png").touch()
    (tmp_path / "nearly" / ".DS_Store").touch()
    entries = user_entries(tmp_path)
    assert sorted(entry.name for entry in entries) == ["a.mp4", "clip", "empty", "nearly"]
    kept, num_empty = without_empty_folders(sorted(entries))
    assert [entry.name for entry in kept] == ["a.mp4", "clip"]
    assert num_empty == 2


def test_partition_keeps_the_order(tmp_path):
    entries = [tmp_path / name for name in ("b.mp4", "a.psd", "a.mp4", "c.psd")]
    wanted, others = partition(entries, lambda entry: entry.suffix == ".mp4")
    assert [entry.name for entry in wanted] == ["b.mp4", "a.mp4"]
    assert [entry.name for entry in others] == ["a.psd", "c.psd"]


@pytest.mark.parametrize(
    ("suffix", "use"),
    [
        (".mp4", lambda root: ClipFolder(root, "train", (32, 32))),
        (".png", lambda root: is_many("a.png", str(root / "train"))),
        (".mp4", lambda root: list_jobs("a.png", str(root / "train"), None, root, ".mp4")),
        (".png", lambda root: list_jobs(str(root / "train"), "a.mp4", None, root, ".mp4")),
    ],
)
def test_large_folders_take_time_in_proportion(tmp_path, monkeypatch, suffix, use):
    """No entry is searched in a list of the others."""
    (tmp_path / "train").mkdir()
    for number in range(300):
        (tmp_path / "train" / f"{number}{suffix}").touch()
        (tmp_path / "train" / f"{number}.psd").touch()
    num_compared = 0
    compare = PurePath.__eq__

    def counting(path, other):
        nonlocal num_compared
        num_compared += 1
        return compare(path, other)

    monkeypatch.setattr(PurePath, "__eq__", counting)
    use(tmp_path)
    assert num_compared < 5000
