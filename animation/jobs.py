"""Jobs: each makes one animation from input files and writes it to a file."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from animation.animator import Animator
from animation.inputs import (
    Picture,
    is_file_name,
    is_transparent,
    open_backgrounds,
    open_driving,
    open_source,
    open_test_clips,
)
from animation.layouts import AnimatedBatch, LayoutName
from animation.mask_sources import Masks, is_name
from animation.output import Output, choose_sound, write_animation
from animation.prepared import Animation, ReferenceChoice
from animation.settings import Settings
from common.errors import UserError
from common.limits import Limits
from common.safe_paths import exists, is_file, resolve
from media.excerpt import Excerpt
from media.frames import Frame
from media.sound import Sound
from media.video import VideoReader, open_clip
from media.video_writer import VideoWriter
from media.visualization import to_uint8
from metrics.cross_identity import CrossIdentity
from metrics.detectors.detector import Detector


class Job(NamedTuple):
    """One animation to make.

    source, driving: None to use test clips of the training data.
    more_sources: more images of the source's figure, for a model that takes several.
    """

    source: str | None
    driving: str | None
    background: str | None
    output: Path
    more_sources: tuple[str, ...] = ()


class JobOptions(NamedTuple):
    """Options that all jobs of a run share. All fields but max_frames are options of animate.py.

    start, end: part of the driving clip to use, in seconds; None: from its start, to its end.
    max_frames: limit for the frames of the driving clip, or of that part; set by the web page.
    detector: measures the results, if given.
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
    """A finished animation.

    seconds: time that it took.
    reference: the reference frame of relative motion, if any.
    metrics: numbers measured with the detector; empty without one.
    """

    output: Output
    num_frames: int
    seconds: float
    reference: ReferenceChoice | None
    metrics: Mapping[str, float]


def check_outputs(
    jobs: Sequence[Job],
    audio: str,
    *,
    save_masks: bool,
    masks: Masks | None,
    background_masks: Masks | None,
) -> None:
    """Raise UserError if a result would replace an input of any job, a folder that contains one,
    another result, or masks that do not belong to an earlier result.
    """
    inputs: dict[Path, str] = {}  # by resolved path: option and path as given
    given_masks = [
        (option, None if is_name(value) else value)
        for option, value in (("--masks", masks), ("--background-masks", background_masks))
    ]
    for job in jobs:
        background = job.background if job.background and is_file_name(job.background) else None
        sound = None if audio in ("copy", "none") else audio
        given = [
            ("--source", job.source),
            ("--driving", job.driving),
            ("--background", background),
            ("--audio", sound),
            *given_masks,
            *(("--more-sources", path) for path in job.more_sources),
        ]
        for option, path in given:
            if path is not None:
                resolved = resolve(Path(path))
                inputs |= dict.fromkeys((resolved, *resolved.parents), f"{option} {path}")
    outputs: set[Path] = set()
    for job in jobs:
        written = {"--output": job.output}
        masks_path = Output(job.output, save_masks=save_masks).masks_path
        if masks_path is not None:
            written["--save-masks"] = masks_path
        for origin, target in written.items():
            resolved = resolve(target)
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
        if masks_path is not None:
            _check_masks_owner(masks_path, job.output)


def _check_masks_owner(masks_path: Path, output: Path) -> None:
    """Raise UserError if masks, whose name nobody gave, would replace a file that does not belong
    to an earlier result. A file in place of a folder is refused by its writer.
    """
    if masks_path.suffix and is_file(masks_path) and not exists(output):
        raise UserError(
            f"--save-masks {masks_path} is there, but no {output} that it belongs to; move it "
            "away, or choose another --output"
        )


def check_inputs(animator: Animator, job: Job, options: JobOptions) -> None:
    """Read the pictures and open the clips of a job that has to wait for its turn: sources, driving
    clip, sound, background and masks. No network runs.

    Raises:
        UserError: one of them cannot be read, the driving clip is too long, or masks are not as
            many as the frames, as `run_job` would say.
    """
    if job.source is None or job.driving is None:  # they are test clips
        return
    settings, limits = options.settings, animator.limits
    source, *_ = [open_source(path, limits)[0] for path in (job.source, *job.more_sources)]
    clip, start = _open_driving(job.driving, options, limits)
    choose_sound(options.audio, job.driving, start, job.output, limits)
    driving, data = open_driving(clip, limits), animator.saved.config.data
    backgrounds = None
    if job.background is not None:
        backgrounds, _ = open_backgrounds(
            job.background, source, driving, data, settings.background_end, limits
        )
    masks, behind = settings.masks, settings.background_masks
    if masks is not None and not is_name(masks):
        animator.mask_sources.for_frames(masks, "--masks", driving)
    if behind is not None and not is_name(behind):
        animator.mask_sources.for_background(
            behind, "--background-masks", backgrounds, lambda mask: mask
        )


def run_job(
    animator: Animator,
    job: Job,
    options: JobOptions,
    announce: Callable[[str], object],
    progress: Callable[[int, int | None], object],
    watch: Callable[[], object] | None = None,
) -> JobResult:
    """Make and write one animation.

    Args:
        announce: called with each note for the user: those on the choices made before the first
            frame, and those that come from reading the clips after the last one.
        progress: called with the number of finished frames and, if known, of all frames.
        watch: called before each driving frame is read, also when the clip is searched before the
            first frame is computed; an exception from it ends the job.

    Raises:
        UserError: the animation cannot be made or written; names the option or the file. An earlier
            result stays.
    """
    began = time.perf_counter()
    animation, layout, sound = _prepare(animator, job, options, watch)
    announced = animation.notes
    for note in announced:
        announce(note)
    output = Output(job.output, layout, options.show_masks, options.save_masks, sound)
    cross_identity = None
    if options.detector is not None:
        cross_identity = CrossIdentity(options.detector, animation.source)
    num_done = 0

    def on_batch(batch: AnimatedBatch) -> None:
        nonlocal num_done
        if cross_identity is not None:
            cross_identity.add(batch.driving, to_uint8(batch.animated))
        num_done += len(batch.driving)
        progress(num_done, animation.num_frames)

    num_frames = write_animation(animation, output, on_batch)
    for note in animation.notes:
        if note not in announced:
            announce(note)
    return JobResult(
        output,
        num_frames,
        time.perf_counter() - began,
        animation.reference,
        {} if cross_identity is None else cross_identity.means(),
    )


class _Watched(Excerpt):
    """A clip that calls `watch` before each frame is read."""

    def __init__(self, clip: VideoReader, watch: Callable[[], object]) -> None:
        super().__init__(clip)
        self._watch = watch

    def frames_from(self, first: int) -> Iterator[Frame]:
        for frame in super().frames_from(first):
            self._watch()
            yield frame


class _Prepared(NamedTuple):
    """An animation with its layout (the one asked for, or else the default) and sound."""

    animation: Animation
    layout: LayoutName | None
    sound: Sound | None


def _prepare(
    animator: Animator, job: Job, options: JobOptions, watch: Callable[[], object] | None
) -> _Prepared:
    with_masks = options.show_masks or options.save_masks
    if options.save_masks and options.settings.paste_back:
        raise UserError(
            "--save-masks writes masks of the model's size, --paste-back frames of the source's; "
            "leave one of them out"
        )
    is_excerpt = options.start is not None or options.end is not None
    if job.source is None or job.driving is None:
        if is_excerpt:
            raise UserError("--start, --end are for a --driving clip; give one, or leave them out")
        return _prepare_test_clips(animator, job, options, with_masks)
    clip, start = _open_driving(job.driving, options, animator.limits)
    if watch is not None:
        clip = _Watched(clip, watch)
    sound = choose_sound(options.audio, job.driving, start, job.output, animator.limits)
    # Created here so that unwritable outputs are refused before the clip is searched for crops and
    # the reference frame.
    transparent = is_transparent(job.background)
    writer = VideoWriter(
        job.output,
        clip.frame_rate,
        transparent=transparent,
        sound=sound,
        times=clip.uneven_times,
    )
    sources: list[Picture] = [job.source, *job.more_sources]
    animation = animator.prepare(
        sources, clip, job.background, options.settings, with_masks=with_masks
    )
    if writer.is_folder and animation.times is not None:
        animation.note(
            f"{job.driving}: its frames are not evenly spaced; {job.output} gets "
            f"{float(clip.frame_rate):.4g} a second, so some are repeated and some are left out"
        )
    return _Prepared(animation, options.layout, sound)


def _open_driving(path: str, options: JobOptions, limits: Limits) -> tuple[VideoReader, Fraction]:
    """Open the driving clip, or the part of it that is asked for; also returns when it begins."""
    clip, start = open_clip(path, limits=limits), Fraction(0)
    if options.start is not None or options.end is not None:
        clip = excerpt = Excerpt(clip, options.start or start, options.end)
        start = excerpt.start
    if options.max_frames is not None and clip.num_frames > options.max_frames:
        raise UserError(
            f"{path}: has {clip.num_frames} frames, more than the {options.max_frames} that "
            "are allowed here; choose a part of it with --start and --end"
        )
    return clip, start


def _has_masks(animator: Animator) -> bool:
    """Whether test clips are put on another background without being asked: if the model has masks
    or, for clips of real people, a detector of people is installed.
    """
    try:
        name = animator.mask_sources.default_name("--background")
    except UserError:
        return False
    return name == "model" or (name == "person" and animator.saved.config.data.kind != "puppets")


def _prepare_test_clips(
    animator: Animator, job: Job, options: JobOptions, with_masks: bool
) -> _Prepared:
    clips = open_test_clips(animator.saved, animator.max_pixels)
    background: Picture | None = job.background
    settings = options.settings
    if (
        background is None
        and not settings.paste_back
        and (settings.masks is not None or _has_masks(animator))
    ):
        background = clips.background
    animation = animator.prepare(
        clips.source, clips.driving, background, options.settings, with_masks=with_masks
    )
    layout = options.layout
    if layout is None and not (animation.is_transparent or options.settings.paste_back):
        layout = "demo" if animation.has_networks else "side-by-side"
    sound = choose_sound(options.audio, None, Fraction(0), job.output, animator.limits)
    return _Prepared(animation, layout, sound)
