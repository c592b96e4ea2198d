"""Clips on disk: a root with `train/` and `test/`, each holding one entry for every clip."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import NamedTuple

from common.errors import UserError, ends_all, in_one_line
from common.limits import LIMITS, Limits
from common.machine import num_cores
from datasets.source import Clip
from media.folder_summary import counted, describe_entries, describe_left_out
from media.frames import Frame, Frames
from media.images import Fit, fit_frames
from media.system_files import partition, user_entries, without_empty_folders
from media.video import MissingFrame, VideoError, VideoReader, is_clip, natural_order, open_clip

LAYOUT = "a clip is a video file, a folder of frames (png, jpg), or a strip of frames in one png"
NUM_LISTED = 5  # clips that a summary names

logger = logging.getLogger(__name__)


class ClipFolder:
    """The clips in `root/split`, in natural order of their names: a ClipSource.

    With `id_sampling` the identity of `id#name.mp4` is what stands before the `#`; otherwise every
    clip is an identity of its own. Files are opened when they are read, not before.

    Of a damaged clip the frames that can be decoded are used: see `read`.

    Attributes:
        left_out: what in the folder is no clip, at most a line.

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
        self._limits = limits
        self.paths, self.left_out = _list_clips(Path(root), split)
        self.clips = with_identities(_unique_names(self.paths), id_sampling, self.folder)
        self.known_num_frames: dict[int, int] = {}  # of clips so far; worker processes inherit it
        self._reported: set[int] = set()

    def open(self, index: int) -> VideoReader:
        """The reader of clip `index`."""
        return open_clip(self.paths[index], limits=self._limits)

    def num_frames(self, index: int) -> int:
        """Number of frames of clip `index`, without a tail that cannot be decoded.

        The first time it takes the decoding of the last frame.
        """
        if index not in self.known_num_frames:
            self.known_num_frames[index] = self.open(index).num_frames
        return self.known_num_frames[index]

    def frame_rate(self, index: int) -> Fraction:
        """Frames per second of clip `index`, exact."""
        return self.open(index).frame_rate

    def stream(self, index: int) -> Iterator[Frame]:
        """The frames of clip `index` in order, fitted to the image size: uint8, H x W x 3.

        Ends, with a warning, at the first that cannot be decoded.
        """
        try:
            for frame in self.open(index):
                yield fit_frames(frame[None], self.image_size, self._fit)[0]
        except MissingFrame as error:
            if error.frame == 0:
                raise
            logger.warning("%s; using the %d frames before", error, error.frame)

    def read(self, index: int, frames: Sequence[int]) -> Frames:
        """Frames of clip `index`, fitted to the image size: uint8, N x H x W x 3.

        In place of a frame that cannot be decoded comes the nearest one before it that can, with
        one warning per clip.

        Raises:
            VideoError: the clip cannot be read, or nothing before a frame can be decoded.
        """
        clip = self.open(index)
        while True:
            try:
                return fit_frames(clip.read(frames), self.image_size, self._fit)
            except MissingFrame as error:
                if error.earlier < 0:
                    raise
                if index not in self._reported:
                    logger.warning("%s; earlier frames stand in for such ones", error)
                    self._reported.add(index)
                frames = [error.earlier if frame == error.frame else frame for frame in frames]


def with_identities(names: Sequence[str], id_sampling: bool, folder: Path) -> Sequence[Clip]:
    """Clips of these names; with `id_sampling` the identity is what stands before the `#`.

    Raises:
        UserError: `id_sampling`, and no name has a `#`; names `folder`.
    """
    if id_sampling and not any("#" in name for name in names):
        raise UserError(
            f"{folder}: no clip is named id#name, as data.id_sampling needs ({names[0]}); set "
            "data.id_sampling: false"
        )
    return [Clip(name, name.split("#")[0] if id_sampling else name) for name in names]


def _list_clips(root: Path, split: str) -> tuple[list[Path], list[str]]:
    """The clips in order, and what lies among them, at most a line."""
    folder = root / split
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; data.root needs train/ and test/, where {LAYOUT}")
    if not folder.is_dir():
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
    """Names without suffix, save where two clips differ in nothing else."""
    stems = [path.name if path.is_dir() else path.stem for path in paths]
    counts = Counter(stems)
    return [
        stem if counts[stem] == 1 else path.name for stem, path in zip(stems, paths, strict=True)
    ]


class ClipReport(NamedTuple):
    """What a look at every clip of a folder found."""

    folder: Path
    num_clips: int
    num_identities: int
    num_frames: int  # of all readable clips together
    sizes: Mapping[tuple[int, int], int]  # (height, width) -> number of clips
    unreadable: Mapping[str, str]  # name -> reason, one line that names the file
    too_short: Sequence[str]  # names of clips with a single frame: source and driving are the same
    left_out: Sequence[str] = ()  # lines on what in the folder is no clip
    remarks: Mapping[str, int] = {}  # what was done to frames that are odd -> number of clips

    def summary(self) -> str:
        """A few lines for the console."""
        sizes = sorted(self.sizes.items(), key=lambda item: -item[1])
        listed = [f"{height} x {width} ({count})" for (height, width), count in sizes]
        lines = [
            f"{self.folder}: {self.num_clips} clips, {self.num_identities} ids, "
            f"{self.num_frames} frames; height x width: {_first(listed, ', ') or 'unknown'}"
        ]
        lines += self.left_out
        remarks = sorted(self.remarks.items(), key=lambda item: -item[1])
        lines += [f"{counted(count, 'clip')}: {remark}" for remark, count in remarks]
        if self.unreadable:
            reasons = _first([*self.unreadable.values()], "\n  ")
            number = counted(len(self.unreadable), "clip")
            lines.append(f"{number} cannot be read:\n  {reasons}")
        if self.too_short:
            names = _first(self.too_short, ", ")
            number = counted(len(self.too_short), "clip")
            lines.append(f"{number} of a single frame, left out of training: {names}")
        return "\n".join(lines)


def _first(items: Sequence[str], separator: str) -> str:
    more = len(items) - NUM_LISTED
    return separator.join([*items[:NUM_LISTED], *([f"and {more} more"] if more > 0 else [])])


def inspect_clips(source: ClipFolder) -> ClipReport:
    """Open every clip, count its frames, decode the first and the last one.

    The source remembers the counts. It takes some milliseconds a clip, more where key frames are
    rare, and a clip whose end is damaged is decoded once in full.
    """
    with ThreadPoolExecutor(max_workers=num_cores()) as pool:
        found = [*pool.map(partial(_inspect, source), range(len(source.clips)))]
    named = [*zip((clip.name for clip in source.clips), found, strict=True)]
    readable = [(name, clip) for name, clip in named if isinstance(clip, _Inspected)]
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


class _Inspected(NamedTuple):
    num_frames: int
    size: tuple[int, int]
    remarks: Sequence[str]


def _inspect(source: ClipFolder, index: int) -> _Inspected | VideoError:
    try:
        clip = source.open(index)
        return _Inspected(source.num_frames(index), clip.size, [*clip.remarks])
    except VideoError as error:
        return error
    except Exception as error:  # one odd file must not end a run over all the others
        if ends_all(error):
            raise
        return VideoError(f"{source.paths[index]}: {in_one_line(error)}")
