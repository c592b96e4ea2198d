"""From an animation to a file: frames, their masks beside them, and sound."""

from collections.abc import Callable
from contextlib import closing, nullcontext
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from animation.layouts import AnimatedBatch, Layout, LayoutName, grey_frames
from animation.prepared import Animation
from animation.read_ahead import made_ahead
from common.errors import UserError
from common.limits import LIMITS, Limits
from media.frames import Frames
from media.sound import Sound, open_sound
from media.video_writer import VideoWriter, takes_sound


class Output(NamedTuple):
    """What to write; the fields are options of animate.py.

    path: .mp4, .webm, .gif, or a folder of png frames.
    """

    path: Path
    layout: LayoutName | None = None
    show_masks: bool = False
    save_masks: bool = False
    sound: Sound | None = None

    @property
    def masks_path(self) -> Path | None:
        """out-masks.mp4 for out.mp4; a folder keeps all of its name, which may have a dot."""
        if not self.save_masks:
            return None
        if self.path.is_dir():
            return self.path.parent / f"{self.path.name}-masks"
        return self.path.parent / f"{self.path.stem}-masks{self.path.suffix}"


def write_animation(
    animation: Animation,
    output: Output,
    on_batch: Callable[[AnimatedBatch], object],
    overlapped: bool | None = None,
) -> int:
    """Make and write all frames, and call `on_batch` with each batch that is written.

    Args:
        overlapped: reading, networks and writing work at the same time, in a thread each, this one
            writing; else in turns. None: overlapped, unless the networks run on the CPU, of which
            they use every core themselves (2 cores: overlapped is 1 to 10% slower).

    Returns:
        The number of frames.

    Raises:
        UserError: it cannot be written there, or not like that; an earlier result stays.
    """
    layout = animation.layout(output.layout, show_masks=output.show_masks)
    video = VideoWriter(
        output.path,
        animation.frame_rate,
        transparent=animation.is_transparent,
        sound=output.sound,
        times=animation.times,
    )
    masks = None
    if output.masks_path is not None:
        as_folder = output.path.is_dir()
        masks = _open_masks(output.masks_path, animation, as_folder)
    if overlapped is None:
        overlapped = animation.device.type != "cpu"
    num_frames = 0
    # Ended in the reverse order. The video before its masks: if it fails there, no new ones appear
    # beside an earlier one.
    with (
        masks or nullcontext(),
        video,
        closing(animation.batches(read_ahead=overlapped)) as batches,
        closing(_draw(batch, layout, masks) for batch in batches) as drawn,
        closing(made_ahead(drawn, 1) if overlapped else drawn) as ready,
    ):
        for batch, frames, mask_frames in ready:
            for frame in frames:
                video.write(frame)
            if masks is not None and mask_frames is not None:
                for frame in mask_frames:
                    masks.write(frame)
            num_frames += len(batch.driving)
            on_batch(batch)
    return num_frames


class _Drawn(NamedTuple):
    """What is written of a batch, on the CPU; mask_frames: None where nobody asked for them."""

    batch: AnimatedBatch
    frames: Frames
    mask_frames: Frames | None


def _draw(batch: AnimatedBatch, layout: Layout, masks: VideoWriter | None) -> _Drawn:
    mask_frames = None
    if masks is not None and batch.swapped is not None:
        mask_frames = grey_frames(batch.swapped.alpha, batch.driving)
    return _Drawn(batch, layout.arrange(batch), mask_frames)


def _open_masks(path: Path, animation: Animation, as_folder: bool) -> VideoWriter:
    """The writer of --save-masks, whose `path` the user did not give."""
    try:
        return VideoWriter(path, animation.frame_rate, as_folder=as_folder, times=animation.times)
    except UserError as error:
        raise UserError(f"--save-masks {error} (the name follows from --output)") from None


def choose_sound(
    audio: str, driving: str | None, start: Fraction, output: Path, limits: Limits = LIMITS
) -> Sound | None:
    """The sound of `--audio`: `copy` that of the driving clip from `start` (seconds) on, `none`,
    or that of a file from its beginning.

    Raises:
        UserError: the file has no sound, or the kind of output cannot have any.
    """
    if audio == "none":
        return None
    if audio == "copy":
        sound = None
        if driving is not None and takes_sound(output):
            try:
                sound = open_sound(driving, limits)
            except UserError as error:
                raise UserError(f"{error}; use --audio none") from None
        return None if sound is None else sound.cut(start)
    if not takes_sound(output):
        raise UserError(
            f"--audio {audio}: {output} has no sound; write .mp4 or .webm, or leave --audio out"
        )
    try:
        sound = open_sound(audio, limits)
    except UserError as error:
        raise UserError(f"--audio {error}") from None
    if sound is None:
        raise UserError(f"--audio {audio}: the file has no sound; give another, or --audio none")
    return sound
