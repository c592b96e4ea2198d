"""Tracks of faces over the videos of VoxCeleb: the text files that come with it.

They lie in txt/ID/VIDEO/00001.txt: a head that is left out, a line of titles `FRAME X Y W H`, and a
line for each frame, at 25 frames per second, in shares of the picture (VoxCeleb2) or in pixels
(VoxCeleb1), assumed to be those of a video 360 high, as FOMM's crop_vox.py does. The clip is cut
out along the box around all of its boxes, widened by a tenth on each side, as there; that script
also cuts a track into chunks where the face moves, while here a track is one clip,
`ID#VIDEO#start#end`, the numbers with six digits.
"""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from common.errors import UserError
from common.safe_paths import read_plain_file
from datasets.prepare.footage import Listed, Region
from datasets.prepare.importers.named_videos import NamedVideos
from media.crops import Box

TRACK_RATE = Fraction(25)
TITLES = ["FRAME", "X", "Y", "W", "H"]
INCREASE = 0.1  # of a track's box, on each side
TRACK_HEIGHT = 360  # of the video that a track's pixels belong to
# Coordinates above it are pixels: shares pass 1 only where a box leaves the picture.
MAX_SHARE = 2.0
_MAX_BYTES = 2**24  # of a list of boxes: some hours of video


def read_tracks(folder: Path, videos: NamedVideos) -> Iterator[Listed]:
    """A clip for each text file of `folder`, in the order of their paths.

    Raises:
        UserError: a file lies elsewhere, or has another layout.
    """
    paths = sorted(folder.rglob("*.txt"))
    tracks = [path for path in paths if len(path.relative_to(folder).parts) >= 3]
    if paths and not tracks:  # others beside the tracks may be notes
        raise UserError(f"{paths[0]}: expected ID/VIDEO/{paths[0].name} in {folder}")
    for path in tracks:
        person, video = path.parts[-3:-1]
        (start, end), region = _read_track(path)
        name = f"{person}#{video}#{start:06d}#{end:06d}"
        yield Listed(name, None, videos.part(video, (start, end), TRACK_RATE, region))


def _read_track(path: Path) -> tuple[tuple[int, int], Region]:
    """The first frame and the one behind the last, and the widened box around all boxes."""
    try:
        text = read_plain_file(path, _MAX_BYTES).decode("utf-8-sig")
        lines = [line.split() for line in text.splitlines()]
        if TITLES not in lines:
            raise ValueError(f"no line {' '.join(TITLES)}")
        rows = np.array([row for row in lines[lines.index(TITLES) + 1 :] if row], np.float64)
        if rows.ndim != 2 or rows.shape[1] != len(TITLES) or rows[:, 3:].min() <= 0:
            raise ValueError(f"expected lines {' '.join(TITLES)}, widths and heights above 0")
        if not np.isfinite(rows).all() or rows[:, 0].min() < 0:
            raise ValueError("expected finite numbers, and frames from 0 on")
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a list of boxes: {error}") from None
    numbers, corners, sizes = rows[:, 0], rows[:, 1:3], rows[:, 3:]
    first, last = corners.min(axis=0), (corners + sizes).max(axis=0)
    left, top = first - INCREASE * (last - first)
    width, height = (1 + 2 * INCREASE) * (last - first)
    in_shares = rows[:, 1:].max() <= MAX_SHARE
    size = (1, 1) if in_shares else (TRACK_HEIGHT, None)
    region = Region(Box(left, top, width, height), size)
    return (int(numbers.min()), int(numbers.max()) + 1), region
