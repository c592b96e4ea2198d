"""One animation from the files that a user named to the file that was asked for."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from animation.animator import Animator
from animation.inputs import Picture, is_file_name, open_test_clips
from animation.layouts import AnimatedBatch, LayoutName
from animation.output import Output, choose_sound, write_animation
from animation.prepared import Animation, ReferenceChoice
from animation.settings import Settings, is_transparent
from common.errors import UserError
from media.excerpt import Excerpt
from media.frames import Frame
from media.sound import Sound
from media.video import VideoReader, open_clip
from media.video_writer import VideoWriter
from media.visualization import to_uint8
from metrics.cross_identity import CrossIdentity
from metrics.detectors.detector import Detector


class Job(NamedTuple):
    """One animation to make. source, driving: None for test clips of the training data."""

    source: str | None
    driving: str | None
    background: str | None
    output: Path


class JobOptions(NamedTuple):
    """What all jobs of a run have in common; the fields are options of animate.py, but for one.

    start, end: of the driving clip, in seconds. max_frames: of it, or of the part, as the page
    limits them; more are refused. detector: measures the results.
    """

    settings: Settings
    layout: LayoutName | None = None
    show_masks: bool = False
    save_masks: bool = False
    audio: str = "copy"
    start: Fraction | None = None
    end: Fraction | None = None
    max_frames: int | None = None
    detector: Detector | None = None


class JobResult(NamedTuple):
    """A finished animation. figures: of the detector, if there was one."""

    output: Output
    num_frames: int
    seconds: float
    reference: ReferenceChoice | None
    figures: Mapping[str, float]


def check_outputs(jobs: Sequence[Job], audio: str, *, save_masks: bool) -> None:
    """Raise UserError where a result would take the place of an input of any job, or of a folder
    around it, or of another result.
    """
    inputs: dict[Path, str] = {}  # resolved, with the option and the path as it was given
    for job in jobs:
        background = job.background if job.background and is_file_name(job.background) else None
        sound = None if audio in ("copy", "none") else audio
        given = {
            "--source": job.source,
            "--driving": job.driving,
            "--background": background,
            "--audio": sound,
        }
        for option, path in given.items():
            if path is not None:
                resolved = Path(path).resolve()
                inputs |= dict.fromkeys((resolved, *resolved.parents), f"{option} {path}")
    outputs: set[Path] = set()
    for job in jobs:
        written = {"--output": job.output}
        masks_path = Output(job.output, save_masks=save_masks).masks_path
        if masks_path is not None:
            written["--save-masks"] = masks_path
        for origin, target in written.items():
            resolved = target.resolve()
            if resolved in inputs:
                raise UserError(
                    f"{origin} {target} would replace {inputs[resolved]}; choose another path"
                )
            if resolved in outputs:
                raise UserError(
                    f"{origin} {target} would replace another result; give the names with --pairs, "
                    "in a column output"
                )
            outputs.add(resolved)


def run_job(
    animator: Animator,
    job: Job,
    wanted: JobOptions,
    announce: Callable[[str], object],
    progress: Callable[[int, int | None], object],
    watch: Callable[[], object] | None = None,
) -> JobResult:
    """Make and write one animation.

    Args:
        announce: hears each line on what was chosen, before the first frame, and behind the last
            one what reading the clips told.
        progress: hears how many frames are done, and of how many where that is known.
        watch: is called before each driving frame that is read, also where the clip is searched
            before the first frame is made; what it raises ends the job.

    Raises:
        UserError: names the option or the file; an earlier result stays.
    """
    began = time.perf_counter()
    animation, layout, sound = _prepare(animator, job, wanted, watch)
    told = animation.notes
    for note in told:
        announce(note)
    output = Output(job.output, layout, wanted.show_masks, wanted.save_masks, sound)
    figures = None
    if wanted.detector is not None:
        figures = CrossIdentity(wanted.detector, animation.source)
    num_done = 0

    def on_batch(batch: AnimatedBatch) -> None:
        nonlocal num_done
        if figures is not None:
            figures.add(batch.driving, to_uint8(batch.animated))
        num_done += len(batch.driving)
        progress(num_done, animation.num_frames)

    num_frames = write_animation(animation, output, on_batch)
    for note in animation.notes:
        if note not in told:
            announce(note)
    return JobResult(
        output,
        num_frames,
        time.perf_counter() - began,
        animation.reference,
        {} if figures is None else figures.means(),
    )


class _Watched(Excerpt):
    """All of `clip`, with a call before each frame."""

    def __init__(self, clip: VideoReader, watch: Callable[[], object]) -> None:
        super().__init__(clip)
        self._watch = watch

    def frames_from(self, first: int) -> Iterator[Frame]:
        for frame in super().frames_from(first):
            self._watch()
            yield frame


class _Prepared(NamedTuple):
    """layout: as asked for, else what fits."""

    animation: Animation
    layout: LayoutName | None
    sound: Sound | None


def _prepare(
    animator: Animator, job: Job, wanted: JobOptions, watch: Callable[[], object] | None
) -> _Prepared:
    with_masks = wanted.show_masks or wanted.save_masks
    if with_masks and animator.model.masks is None:
        option = "--show-masks" if wanted.show_masks else "--save-masks"
        raise UserError(
            f"{option}: the checkpoint was trained without the mask branch; leave it out, or train "
            "with the section masks"
        )
    if wanted.save_masks and wanted.settings.paste_back:
        raise UserError(
            "--save-masks writes masks of the model's size, --paste-back frames of the source's; "
            "leave one of them out"
        )
    is_excerpt = wanted.start is not None or wanted.end is not None
    if job.source is None or job.driving is None:
        if is_excerpt:
            raise UserError("--start, --end are for a --driving clip; give one, or leave them out")
        return _prepare_test_clips(animator, job, wanted, with_masks)
    clip, start = open_clip(job.driving, limits=animator.limits), Fraction(0)
    if is_excerpt:
        clip = excerpt = Excerpt(clip, wanted.start or start, wanted.end)
        start = excerpt.start
    if wanted.max_frames is not None and clip.num_frames > wanted.max_frames:
        raise UserError(
            f"{job.driving}: has {clip.num_frames} frames, more than the {wanted.max_frames} that "
            "are animated here; take a part of it with --start and --end"
        )
    if watch is not None:
        clip = _Watched(clip, watch)
    sound = choose_sound(wanted.audio, job.driving, start, job.output, animator.limits)
    # Refuses what cannot be written before the clip is searched for crops and reference frame.
    transparent = is_transparent(job.background)
    writer = VideoWriter(job.output, clip.frame_rate, transparent=transparent, sound=sound)
    animation = animator.prepare(
        job.source, clip, job.background, wanted.settings, with_masks=with_masks
    )
    if writer.is_folder and animation.times is not None:
        animation.note(
            f"{job.driving}: its frames are not evenly spaced; {job.output} gets "
            f"{float(clip.frame_rate):.4g} a second, so that some are there twice and some are not"
        )
    return _Prepared(animation, wanted.layout, sound)


def _prepare_test_clips(
    animator: Animator, job: Job, wanted: JobOptions, with_masks: bool
) -> _Prepared:
    clips = open_test_clips(animator.saved, animator.max_pixels)
    background: Picture | None = job.background
    if background is None and not wanted.settings.paste_back:
        background = clips.background
    animation = animator.prepare(
        clips.source, clips.driving, background, wanted.settings, with_masks=with_masks
    )
    layout = wanted.layout
    if layout is None and not (animation.is_transparent or wanted.settings.paste_back):
        layout = "demo" if animation.has_networks else "side-by-side"
    sound = choose_sound(wanted.audio, None, Fraction(0), job.output, animator.limits)
    return _Prepared(animation, layout, sound)
