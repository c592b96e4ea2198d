"""Measure how long the check of a large folder of clips takes, with and without its index.

The folder has --clips video files (H.264, 256 x 256 pixels, 32 frames): hard links to a few clips
of puppets, of which one in a hundred is a copy. Rows: the first check opens every clip; the second
finds all of them in the index; the third opens the copies, whose times have changed. The files are
in the page cache.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.data import SIZE, write_mp4
from benchmarks.tables import markdown_table
from common.cli import positive_int, run_entry_point
from common.errors import UserError
from common.files import check_output_file, replacing
from common.machine import num_cores
from datasets import clips
from datasets.clip_index import INDEX_FILE
from datasets.clips import ClipFolder, inspect_clips
from datasets.puppets.clips import Puppets

NUM_DISTINCT = 8
NUM_FRAMES = 32
COPIES = 100  # one clip in so many is a copy


def main(arguments: argparse.Namespace) -> None:
    output = Path(arguments.output)
    check_output_file(output, "preflight.json")
    if arguments.clips < clips.MIN_FOR_INDEX:
        raise UserError(
            f"--clips {arguments.clips}: an index is made of {clips.MIN_FOR_INDEX} clips or more; "
            "give a larger number"
        )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copies = write_folder(folder, arguments.clips)
        rows = [measured("first", folder), measured("second", folder)]
        for path in copies:
            os.utime(path)
        rows.append(measured(f"{len(copies)} clips changed", folder))
        num_bytes = (folder / "train" / INDEX_FILE).stat().st_size
    report = {"clips": arguments.clips, "cores": num_cores(), "index_bytes": num_bytes}
    with replacing(output) as temporary:
        temporary.write_text(json.dumps(report | {"checks": rows}, indent=1) + "\n")
    print(f"{arguments.clips} clips, {num_cores()} cores, index of {num_bytes / 1e6:.1f} MB\n")
    print(markdown_table([{k: f"{v:.1f}" if k == "s" else v for k, v in r.items()} for r in rows]))


def write_folder(folder: Path, num_clips: int) -> list[Path]:
    """Write train/ with `num_clips` clips; returns those that are copies."""
    puppets = Puppets("train", NUM_DISTINCT, NUM_FRAMES, SIZE, 0, 1.0)
    originals = [folder / "originals" / f"{index}" / "clip.mp4" for index in range(NUM_DISTINCT)]
    for index, path in enumerate(originals):
        write_mp4(path, puppets.read(index, range(NUM_FRAMES)), key_frames=250)
    (folder / "train").mkdir()
    copies = []
    for number in range(num_clips):
        path, original = folder / "train" / f"{number:06d}.mp4", originals[number % NUM_DISTINCT]
        if number % COPIES == 0:
            shutil.copy(original, path)
            copies.append(path)
        else:
            os.link(original, path)
    return copies


def measured(name: str, folder: Path) -> dict[str, Any]:
    """Check the clips once; returns the row of the table."""
    began = time.perf_counter()
    report = inspect_clips(ClipFolder(folder, "train", SIZE))
    seconds = time.perf_counter() - began
    return {"check": name, "s": seconds, "frames": str(report.num_frames)}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.preflight",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--clips", type=positive_int, default=20_000, metavar="N", help="default: 20000"
    )
    parser.add_argument(
        "--output",
        metavar="FILE.json",
        default="runs/preflight.json",
        help="default: runs/preflight.json",
    )
    return parser


if __name__ == "__main__":
    sys.exit(run_entry_point(main, build_parser()))
