"""List or unpack packed clips: python -m datasets.unpack FOLDER [--clip NAME --output FILE]

FOLDER is train/ or test/ of a prepared folder. Without --clip its clips are listed; with --clip one
clip is written to --output, after a check of every frame.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from common.cli import end_on_sigterm, run_entry_point, say
from common.errors import UserError
from common.safe_paths import printable
from datasets.clips import NUM_LISTED
from datasets.pack_writer import PACK, is_pack, read_pack
from datasets.packed import PackedClips
from media.video import natural_order
from media.video_writer import VideoWriter


def main(arguments: argparse.Namespace) -> None:
    folder = Path(arguments.folder)
    if not is_pack(folder):
        raise UserError(
            f"{folder}: no packed clips (no {PACK}); give train/ or test/ of a prepared folder"
        )
    if (arguments.clip is None) != (arguments.output is None):
        raise UserError("--clip and --output: give both, or neither to list the clips")
    if arguments.clip is None:
        print("\n".join(_list(folder)))
        return
    clips = PackedClips(folder, read_pack(folder).image_size)
    names = [clip.name for clip in clips.packed]
    if arguments.clip not in names:
        raise UserError(
            f"--clip {arguments.clip}: not in {folder}, which has {', '.join(names[:NUM_LISTED])}"
            f"{' ...' if len(names) > NUM_LISTED else ''}"
        )
    end_on_sigterm()
    index = names.index(arguments.clip)
    with VideoWriter(arguments.output, clips.frame_rate(index)) as writer:
        for frame in tqdm(
            clips.stream(index), total=clips.num_frames(index), unit="frame", disable=None
        ):
            writer.write(frame)
    say(f"{arguments.output}: {clips.num_frames(index)} frames of {arguments.clip}")


def _list(folder: Path) -> Iterator[str]:
    """Yield a line for each clip, and one on all; also for a pack that is not finished."""
    pack = read_pack(folder)
    for clip in sorted(pack.clips, key=lambda clip: natural_order(clip.name)):
        seconds = float(clip.num_frames / clip.frame_rate)
        text = f"{clip.name}  {clip.num_frames} frames  {seconds:.1f} s  {clip.source}"
        yield printable(text)
    if pack.shards is None:
        yield f"{printable(str(folder))}: {len(pack.clips)} clips so far; packing has not finished"
    else:
        yield PackedClips(folder, pack.image_size).inspect().summary()


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m datasets.unpack",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", metavar="FOLDER")
    parser.add_argument("--clip", metavar="NAME", help="unpack this clip")
    parser.add_argument(
        "--output",
        metavar="PATH",
        help="write .mp4, .webm or .gif; without a suffix a folder of png frames",
    )
    return parser


if __name__ == "__main__":
    sys.exit(run_entry_point(main, build_parser()))
