"""Reads a folder of clips: a root with `train/` and `test/`, which have one entry for each clip."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from common.errors import UserError
from common.limits import LIMITS, Limits
from common.safe_paths import is_folder, printable
from datasets.clip_index import lookup, new_index, read_index, states, write_index
from datasets.inspection import Inspected, Inspection, inspect_paths
from datasets.source import Clip
from media.folder_summary import counted, describe_entries, describe_left_out
from media.frames import Frame, Frames
from media.images import Fit, fit_frames
from media.system_files import partition, user_entries, without_empty_folders
from media.video import MissingFrame, VideoError, VideoReader, is_clip, natural_order, open_clip

LAYOUT = "a clip is a video file, a folder of frames (png, jpg), or a strip of frames in one png"
NUM_LISTED = 5  # clips that a summary names
MIN_FOR_INDEX = 100  # clips; fewer are opened in a second

logger = logging.getLogger(__name__)


class ClipFolder:
    """A ClipSource of the clips in `root/split`, in natural order of their names.

    With `id_sampling` the identity of `id#name.mp4` is the part before the `#`; otherwise every
    clip is an identity of its own. Files are opened when they are read, not before. From a damaged
    clip the frames that can be decoded are used: see `read`.

    Attributes:
        left_out: a line on the entries of the folder that are not clips, if there are any.

    Raises:
        UserError: the folder is missing or holds no clip, or `id_sampling` is on where no name has
            an identity.
    """

    def __init__(
        self,
        root: Path | str,
        split: str,
        image_size: tuple[int, int],
        fit: Fit = "crop",
        id_sampling: bool = False,
        limits: Limits = LIMITS,
    ) -> None:
        self.folder = Path(root) / split
        self.image_size = image_size
        self._fit: Fit = fit
        self.limits = limits
        self.paths, self.left_out = _list_clips(Path(root), split)
        self.clips = with_identities(_unique_names(self.paths), id_sampling, self.folder)
        self.known_num_frames: dict[int, int] = {}  # by clip; worker processes inherit it
        self._reported: set[int] = set()

    def open(self, index: int) -> VideoReader:
        """Return the reader of clip `index`."""
        return open_clip(self.paths[index], limits=self.limits)

    def inspect(self, indices: Sequence[int] | None = None) -> list[Inspection]:
        """Open some clips, or all of them, on all cores; see `datasets.inspection`."""
        chosen = range(len(self.clips)) if indices is None else indices
        return inspect_paths([self.paths[index] for index in chosen], self.limits)

    def content_checksum(self) -> int:
        """CRC-32 of the sizes of all files, in the order of the clips; no file is opened."""
        sizes = [
            sorted((e.name, e.stat().st_size) for e in path.iterdir())
            if is_folder(path)
            else path.stat().st_size
            for path in self.paths[: len(self.clips)]  # an evaluation may take the first clips
        ]
        return crc32(repr(sizes).encode(errors="surrogateescape"))

    def num_frames(self, index: int) -> int:
        """Number of frames of clip `index`, without an end that cannot be decoded.

        The first call for a clip decodes its last frame.
        """
        if index not in self.known_num_frames:
            self.known_num_frames[index] = self.open(index).num_frames
        return self.known_num_frames[index]

    def frame_rate(self, index: int) -> Fraction:
        """Frames per second of clip `index`, exact."""
        return self.open(index).frame_rate

    def stream(self, index: int) -> Iterator[Frame]:
        """Iterate over the frames of clip `index`, fitted to the image size: uint8, H x W x 3.

        At the first frame that cannot be decoded the iteration ends with a warning.
        """
        try:
            for frame in self.open(index):
                yield fit_frames(frame[None], self.image_size, self._fit)[0]
        except MissingFrame as error:
            if error.frame == 0:
                raise
            logger.warning("%s; using the %d frames before", error, error.frame)

    def read(self, index: int, frames: Sequence[int]) -> Frames:
        """Read frames of clip `index`, fitted to the image size: uint8, N x H x W x 3.

        A frame that cannot be decoded is replaced by the nearest earlier one that can, with one
        warning for each clip.

        Raises:
            VideoError: the clip cannot be read, or neither a frame nor an earlier one can be
                decoded.
        """
        clip = self.open(index)
        while True:
            try:
                return fit_frames(clip.read(frames), self.image_size, self._fit)
            except MissingFrame as error:
                if error.earlier < 0:
                    raise
                if index not in self._reported:
                    logger.warning("%s; earlier frames replace such frames", error)
                    self._reported.add(index)
                frames = [error.earlier if frame == error.frame else frame for frame in frames]


def with_identities(names: Sequence[str], id_sampling: bool, folder: Path) -> Sequence[Clip]:
    """Make clips of names; with `id_sampling` the identity is the part before the `#`.

    Raises:
        UserError: `id_sampling` is true but no name has a `#`; names `folder`.
    """
    if id_sampling and not any("#" in name for name in names):
        raise UserError(
            f"{folder}: no clip is named id#name, as data.id_sampling needs ({names[0]}); set "
            "data.id_sampling: false"
        )
    return [Clip(name, name.split("#")[0] if id_sampling else name) for name in names]


def _list_clips(root: Path, split: str) -> tuple[list[Path], list[str]]:
    """List the clips in order, and other entries of the folder, in at most one line."""
    folder = root / split
    if not is_folder(root):
        raise UserError(f"{root}: no such folder; data.root needs train/ and test/, where {LAYOUT}")
    if not is_folder(folder):
        raise UserError(
            f"{folder}: no such folder; data.root needs train/ and test/, where {LAYOUT}; "
            f"{root} holds {describe_entries(user_entries(root))}"
        )
    entries, num_empty = without_empty_folders(user_entries(folder))
    clips, others = partition(entries, is_clip)
    if not clips:
        found = describe_entries(user_entries(folder))
        raise UserError(f"{folder}: no clip in it; {LAYOUT}; it holds {found}")
    clips.sort(key=lambda path: natural_order(path.name))
    return clips, describe_left_out(others, num_empty)


def _unique_names(paths: Sequence[Path]) -> list[str]:
    """Names without suffix, unless two clips differ only in the suffix."""
    stems = [path.name if is_folder(path) else path.stem for path in paths]
    counts = Counter(stems)
    return [
        stem if counts[stem] == 1 else path.name for stem, path in zip(stems, paths, strict=True)
    ]


class ClipReport(NamedTuple):
    """The result of opening every clip of a folder."""

    folder: Path
    num_clips: int
    num_identities: int
    num_frames: int  # of all readable clips together
    sizes: Mapping[tuple[int, int], int]  # (height, width) -> number of clips
    unreadable: Mapping[str, str]  # name -> reason, one line that names the file
    too_short: Sequence[str]  # names of clips with a single frame
    left_out: Sequence[str] = ()  # lines on entries of the folder that are not clips
    remarks: Mapping[str, int] = {}  # what was changed in frames -> number of clips

    def summary(self) -> str:
        """A few lines for the console."""
        sizes = sorted(self.sizes.items(), key=lambda item: -item[1])
        listed = [f"{height} x {width} ({count})" for (height, width), count in sizes]
        lines = [
            f"{self.folder}: {self.num_clips} clips, {self.num_identities} ids, "
            f"{self.num_frames} frames; height x width: {', '.join(_first(listed)) or 'unknown'}"
        ]
        lines += self.left_out
        remarks = sorted(self.remarks.items(), key=lambda item: -item[1])
        lines += [f"{counted(count, 'clip')}: {remark}" for remark, count in remarks]
        if self.unreadable:
            lines.append(f"{counted(len(self.unreadable), 'clip')} cannot be read:")
            lines += [f"  {reason}" for reason in _first([*self.unreadable.values()])]
        if self.too_short:
            names = ", ".join(_first(self.too_short))
            number = counted(len(self.too_short), "clip")
            lines.append(f"{number} of a single frame, left out of training: {names}")
        return "\n".join(map(printable, lines))


def _first(items: Sequence[str]) -> list[str]:
    more = len(items) - NUM_LISTED
    return [*items[:NUM_LISTED], *([f"and {more} more"] if more > 0 else [])]


def inspect_clips(source: ClipFolder) -> ClipReport:
    """Open every clip, count its frames, and decode the first and the last one.

    The source remembers the counts. It takes some milliseconds a clip, and more if key frames are
    rare. A clip with a damaged end is decoded once in full. In a folder of many clips those that
    have not changed since the last time are not opened: see `datasets.clip_index`.
    """
    found = _inspect_many(source) if len(source.clips) >= MIN_FOR_INDEX else source.inspect()
    named = [*zip((clip.name for clip in source.clips), found, strict=True)]
    readable = [(name, clip) for name, clip in named if isinstance(clip, Inspected)]
    source.known_num_frames |= {
        index: clip.num_frames for index, clip in enumerate(found) if isinstance(clip, Inspected)
    }
    return ClipReport(
        folder=source.folder,
        num_clips=len(source.clips),
        num_identities=len({clip.identity for clip in source.clips}),
        num_frames=sum(clip.num_frames for _, clip in readable),
        sizes=Counter(clip.size for _, clip in readable),
        unreadable={name: str(error) for name, error in named if isinstance(error, VideoError)},
        too_short=[name for name, clip in readable if clip.num_frames < 2],
        left_out=source.left_out,
        remarks=Counter(remark for _, clip in readable for remark in clip.remarks),
    )


def _inspect_many(source: ClipFolder) -> list[Inspection]:
    """Inspect the clips that the index of the folder does not know as they are, and update it."""
    count = len(source.clips)  # perhaps fewer than there are
    paths, others = source.paths[:count], source.paths[count:]
    index, present = read_index(source.folder), states(paths)
    known = [
        lookup(index, path, state, source.limits)
        for path, state in zip(paths, present, strict=True)
    ]
    missing = [number for number, clip in enumerate(known) if clip is None]
    inspected = dict(zip(missing, source.inspect(missing), strict=True))
    found = [inspected[i] if clip is None else clip for i, clip in enumerate(known)]
    kept = {path.name: index[path.name] for path in others if path.name in index}
    updated = kept | new_index(paths, present, found)
    if updated != index:
        write_index(source.folder, updated)
    return found
