"""Writes an animation to files: frames, sound, and its masks in a second file."""

from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from animation.layouts import AnimatedBatch, Layout, LayoutName, grey_frames
from animation.prepared import Animation
from animation.read_ahead import prefetch
from common.errors import UserError
from common.limits import LIMITS, Limits
from common.safe_paths import is_folder
from media.frames import Frame, Frames
from media.sound import Sound, open_sound
from media.video_writer import VideoWriter, takes_sound


class Output(NamedTuple):
    """The output of an animation. All fields but `sound` are options of animate.py.

    path: .mp4, .webm, .mov, .gif, or a folder for png frames.
    """

    path: Path
    layout: LayoutName | None = None
    show_masks: bool = False
    save_masks: bool = False
    sound: Sound | None = None

    @property
    def masks_path(self) -> Path | None:
        """Path of the masks, such as out-masks.mp4 for out.mp4; None if they are not saved.

        The name of a folder may contain a dot, which is no suffix.
        """
        if not self.save_masks:
            return None
        if is_folder(self.path):
            return self.path.parent / f"{self.path.name}-masks"
        return self.path.parent / f"{self.path.stem}-masks{self.path.suffix}"


def write_animation(
    animation: Animation,
    output: Output,
    on_batch: Callable[[AnimatedBatch], object],
    overlapped: bool | None = None,
) -> int:
    """Compute and write all frames.

    Args:
        on_batch: called with each batch after it is written.
        overlapped: run reading, networks and writing at the same time, in a thread each (this one
            writes), instead of in turns. None: yes, unless the networks run on the CPU: there they
            use all cores themselves, and overlapping was 1 to 10% slower on 2 cores.

    Returns:
        The number of frames.

    Raises:
        UserError: the result cannot be written, or not in this form; an earlier result stays.
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
        as_folder = is_folder(output.path)
        masks = _open_masks(output.masks_path, animation, as_folder)
    if overlapped is None:
        overlapped = animation.device.type != "cpu"
    num_frames = 0
    # These blocks end in reverse order. The video ends before its masks: if it fails then, no new
    # masks appear beside an earlier video.
    with (
        masks or nullcontext(),
        video,
        closing(animation.batches(read_ahead=overlapped)) as batches,
        closing(_draw(batch, layout, masks) for batch in batches) as drawn,
        closing(prefetch(drawn, 1) if overlapped else drawn) as ready,
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
    """The frames to write for a batch, on the CPU; mask_frames: None if masks are not saved."""

    batch: AnimatedBatch
    frames: Frames | Sequence[Frame]
    mask_frames: Frames | None


def _draw(batch: AnimatedBatch, layout: Layout, masks: VideoWriter | None) -> _Drawn:
    mask_frames = None
    if masks is not None and batch.swapped is not None:
        mask_frames = grey_frames(batch.swapped.alpha, batch.driving)
    return _Drawn(batch, layout.arrange(batch), mask_frames)


def _open_masks(path: Path, animation: Animation, as_folder: bool) -> VideoWriter:
    """Open the writer of --save-masks. The user did not give this `path`: errors explain it."""
    try:
        return VideoWriter(path, animation.frame_rate, as_folder=as_folder, times=animation.times)
    except UserError as error:
        raise UserError(f"--save-masks {error} (the name follows from --output)") from None


def choose_sound(
    audio: str, driving: str | None, start: Fraction, output: Path, limits: Limits = LIMITS
) -> Sound | None:
    """Open the sound of the result, None if it has none.

    Args:
        audio: value of --audio. `copy`: the sound of the driving clip from `start` (seconds) on;
            `none`; or a file, whose sound is used from its beginning.

    Raises:
        UserError: the file has no sound, or `output` is of a kind that has none.
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
