"""Converts one clip in a worker process: reads, checks, crops, resizes and writes it."""

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from itertools import chain, islice
from math import ceil
from pathlib import Path
from typing import Literal, NamedTuple

from common.errors import UserError, ends_all, in_one_line
from common.json_files import nearest_rate
from common.limits import LIMITS, Limits
from common.safe_paths import MAX_NAME
from datasets.pack_writer import FrameTable, write_fragment
from datasets.prepare.candidates import Candidate
from datasets.prepare.footage import Region
from media.container import os_reason
from media.crops import cut_out, with_aspect
from media.frames import Frame
from media.images import Fit, fit_frames
from media.timing import remarks_on_rate
from media.video_file import VideoFile
from media.video_writer import VideoWriter

Format = Literal["packed", "frames"]


class ConvertOptions(NamedTuple):
    """The options of the conversion, the same for all clips of a folder."""

    format: Format
    image_size: tuple[int, int]  # (height, width)
    fit: Fit
    quality: int  # of JPEG; frames in folders are PNG
    frame_step: int  # every so-many-th frame is kept
    min_frames: int  # a clip with fewer kept frames is rejected
    max_frames: int | None  # a clip is cut off after so many kept frames
    min_size: int  # shorter side of the picture, or of the box cut out of it, in pixels
    limits: Limits = LIMITS  # on the pictures that are read


class Remark(NamedTuple):
    """A row of the report, on a clip that was rejected, shortened or changed."""

    split: str
    clip: str
    outcome: Literal["rejected", "shortened", "changed"]
    reason: str  # a few words, for a count of clips by reason
    detail: str
    source: str


class Converted(NamedTuple):
    """A clip that was written. table: see `write_fragment`; None for a folder of frames."""

    num_frames: int
    frame_rate: Fraction
    table: FrameTable | None


class Outcome(NamedTuple):
    """The result of a conversion.

    converted: None for a rejected clip. remark: for the report, if there is anything to say.
    traceback: of an unexpected error.
    """

    converted: Converted | None
    remark: Remark | None
    traceback: str | None = None


def convert(candidate: Candidate, settings: ConvertOptions, target: Path) -> Outcome:
    """Write a clip to `target`, a part of a shard or a folder of frames.

    A damaged clip is used up to the damage; one that fails in any other way is rejected.

    Raises:
        UserError: `target` cannot be written.
        OSError, MemoryError: an error that ends all conversions; see `errors.ends_all`.
    """
    try:
        return _convert(candidate, settings, target)
    except Exception as error:  # one strange file must not end a run of days
        if isinstance(error, UserError) or ends_all(error):
            raise
        outcome = _rejected(candidate, "cannot be read", in_one_line(error))
        return outcome._replace(traceback="".join(traceback.format_exception(error)))


def _rejected(candidate: Candidate, reason: str, detail: str) -> Outcome:
    split, name, footage = candidate
    return Outcome(None, Remark(split, name, "rejected", reason, detail, footage.source))


def _convert(candidate: Candidate, settings: ConvertOptions, target: Path) -> Outcome:
    split, name, footage = candidate
    rejected = partial(_rejected, candidate)
    if settings.format == "frames" and len(name.encode()) > MAX_NAME:
        return rejected("name too long", f"a folder's name has at most {MAX_NAME} bytes")
    with _warnings() as problems:
        try:
            frame_rate, frames, region, num_asked, clip = footage.open(settings.limits)
            problems.clear()  # they are about other parts of the same video
            first = next(frames)
        except UserError as error:
            return rejected("cannot be read", str(error))
        height, width = first.shape[:2]
        if region is not None:
            width, height = (round(side) for side in region.within((height, width))[2:])
        if min(height, width) < settings.min_size:
            return rejected("too small", f"{width} x {height} pixels")
        kept = islice(chain([first], frames), 0, None, settings.frame_step)
        fitted = _up_to_damage((_fit(frame, region, settings) for frame in kept), problems)
        pictures = islice(fitted, settings.max_frames)
        start = [*islice(pictures, settings.min_frames)]
        if not start:
            return rejected("cannot be read", problems[0])
        if len(start) < settings.min_frames:
            detail = "; ".join([f"{len(start)} frames", *problems[:1]])
            return rejected("too few frames", detail)
        # Else a clip with times that cannot be right would make the whole pack unreadable.
        asked = frame_rate / settings.frame_step
        rate = nearest_rate(asked)
        converted = _write(name, chain(start, pictures), rate, settings, target)
    shortened = partial(Remark, split, name, "shortened", source=footage.source)
    rate_remarks = remarks_on_rate(asked, rate)
    if problems:
        detail = "; ".join([problems[0], *rate_remarks])
        return Outcome(converted, shortened(reason="damaged", detail=detail))
    # Needed if the damage was reported before, for another part of the same video.
    num_wanted = None if num_asked is None else ceil(num_asked / settings.frame_step)
    if num_wanted is not None and settings.max_frames is not None:
        num_wanted = min(num_wanted, settings.max_frames)
    if num_wanted is not None and converted.num_frames < num_wanted:
        detail = f"{converted.num_frames} of {num_wanted} frames; the video has no more"
        detail = "; ".join([detail, *rate_remarks])
        return Outcome(converted, shortened(reason="ends early", detail=detail))
    remarks = [*(() if clip is None else clip.remarks), *rate_remarks]
    if remarks:
        # In `interlaced; made whole (bwdif)` the reason stands before the semicolon.
        reason = remarks[0].split(";")[0]
        row = Remark(split, name, "changed", reason, "; ".join(remarks), footage.source)
        return Outcome(converted, row)
    return Outcome(converted, None)


def _write(
    name: str,
    pictures: Iterator[Frame],
    frame_rate: Fraction,
    settings: ConvertOptions,
    target: Path,
) -> Converted:
    final = target.with_name(name)  # which messages name, since `target` is a temporary name
    if settings.format == "packed":
        try:
            table = write_fragment(target, name, pictures, settings.quality)
        except OSError as error:
            raise UserError(f"{final}: cannot be written: {os_reason(error)}") from None
        return Converted(len(table), frame_rate, table)
    num_frames = 0
    try:
        with VideoWriter(target, frame_rate, as_folder=True) as writer:
            for picture in pictures:
                writer.write(picture)
                num_frames += 1
    except UserError as error:
        raise UserError(str(error).replace(str(target), str(final))) from None
    return Converted(num_frames, frame_rate, None)


def _fit(frame: Frame, region: Region | None, settings: ConvertOptions) -> Frame:
    height, width = frame.shape[:2]
    if region is None:
        return fit_frames(frame[None], settings.image_size, settings.fit)[0]
    box = with_aspect(region.within((height, width)), settings.image_size)
    return cut_out(frame, box, settings.image_size)


def _up_to_damage(frames: Iterator[Frame], problems: list[str]) -> Iterator[Frame]:
    """Yield frames up to the first that cannot be read, and add the reason to `problems`."""
    try:
        yield from frames
    except UserError as error:
        problems.append(str(error))


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """Collect the warnings of the readers of videos for the report, instead of printing them."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    readers = logging.getLogger(VideoFile.__module__)
    readers.addHandler(handler)
    readers.propagate = False
    try:
        yield messages
    finally:
        readers.removeHandler(handler)
        readers.propagate = True
