import gc
import os
from pathlib import Path

from configs.schema import AugmentationConfig
from datasets.clips import ClipFolder
from datasets.loading import loaded_batches
from datasets.pairs import BatchSchedule, FramePairs
from tests.helpers.media import write_frame_folder


class Decoder:
    """Notes in a file which process frees it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.circle = self  # only the garbage collector frees it

    def __del__(self):
        with self.path.open("a") as file:
            file.write(f"{os.getpid()}\n")


def test_workers_do_not_free_what_the_parent_left(tmp_path):
    """A decoder has threads, which a forked worker lacks: freeing it there would never end."""
    write_frame_folder(tmp_path / "train" / "a", 4)
    pairs = FramePairs(ClipFolder(tmp_path, "train", (32, 32)), 4, AugmentationConfig(), 0)
    gc.disable()
    try:
        Decoder(tmp_path / "freed")
        with loaded_batches(pairs, BatchSchedule(len(pairs), 2, seed=0), 1, False) as batches:
            next(batches)
    finally:
        gc.enable()
    assert (tmp_path / "freed").read_text() == f"{os.getpid()}\n"
