"""Lists of parts of videos with crop boxes (--metadata), over video files that lie here.

Two layouts are read: a CSV table (`fomm_table.py`) and a folder of text files
(`voxceleb_tracks.py`). Boxes of another shape than the image are widened to it, never squashed;
what lies outside of the picture repeats its edge.
"""

from pathlib import Path

from common.errors import UserError
from common.safe_paths import exists, is_folder
from datasets.prepare.footage import Listed, Unreadable
from datasets.prepare.importers.fomm_table import read_table
from datasets.prepare.importers.named_videos import NamedVideos
from datasets.prepare.importers.voxceleb_tracks import read_tracks


def read_list(metadata: Path, folder: Path) -> list[Listed]:
    """The clips that `metadata`, a file or folder of any layout, lists over the videos of `folder`.

    Raises:
        UserError: a file is missing or has another layout, or not one of its videos is there.
    """
    if not exists(metadata):
        raise UserError(f"{metadata}: no such file or folder; give a CSV file, or a folder of txt")
    videos = NamedVideos(folder)
    read = read_tracks if is_folder(metadata) else read_table
    listed = [*read(metadata, videos)]
    if not listed:
        raise UserError(f"{metadata}: lists no clips")
    if all(isinstance(clip.footage, Unreadable) for clip in listed):
        raise UserError(
            f"{folder}: has none of the videos of {metadata}; the first would be "
            f"{listed[0].footage.source}"
        )
    return listed
