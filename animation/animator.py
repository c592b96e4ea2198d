"""The Python API, which animate.py uses too: load a model once, animate any number of pictures."""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Self

import torch

from animation.acceleration import (
    DTYPES,
    Precision,
    choose_precision,
    compile_networks,
    optimize_for_inference,
)
from animation.branch_animators import (
    AnimatorName,
    BranchAnimator,
    MotionAnimator,
    build_animator,
)
from animation.cropping import Cropper, installed_face_detector
from animation.inputs import (
    Driving,
    DrivingFrames,
    Picture,
    Pictures,
    describe_fit,
    fit_whole,
    is_transparent,
    open_backgrounds,
    open_driving,
    open_source,
    whole_box,
)
from animation.mask_sources import MaskSources
from animation.prepared import Animation, ReferenceChoice
from animation.reference import is_far, nearest_frame
from animation.settings import (
    Crop,
    Settings,
    check_background,
    check_masks,
    check_motion,
    check_sources,
    describe_motion,
)
from animation.smoothing import Smoothing
from animation.swap_choice import SwapChooser, SwapInputs
from checkpoints import checkpoint
from checkpoints.checkpoint import Checkpoint
from checkpoints.weights import load_model
from common.cli import pick_device
from common.errors import UserError
from common.limits import chosen_limits
from configs.loading import load_config
from media.crops import Box, Paster, cut_out, require_overlap, with_aspect
from media.frames import Frame, HasRemarks

DEFAULTS = Settings()


class Animator:
    """A trained model that can animate pictures.

        animator = Animator.load("runs/demo/checkpoints/best.pt")
        for frame in animator.animate("source.png", "driving.mp4", background="third.png"):
            ...  # uint8 H x W x 3

    Args:
        precision: precision of the networks; see `animation.acceleration`.
        compiled: compile each network with torch.compile when its first frames come.
        max_pixels: limit for a picture or a frame that is read from a file; see `common.limits`.

    Attributes:
        saved: the checkpoint.
        size: (height, width) that the model works at.
        precision: the chosen precision of the networks, and the reason.
    """

    def __init__(
        self,
        saved: Checkpoint,
        device: torch.device,
        precision: Precision = "auto",
        compiled: bool = False,
        max_pixels: int | None = None,
    ) -> None:
        self.saved = saved
        self.max_pixels = max_pixels
        self.limits = chosen_limits(max_pixels)
        self.device = device
        self.precision = choose_precision(precision, device, saved.evaluation_networks)
        dtype = DTYPES[self.precision.precision]
        self.model = optimize_for_inference(load_model(saved, device), dtype)
        if compiled:
            compile_networks(self.model)
        self.size = saved.config.data.size

    @cached_property
    def cropper(self) -> Cropper:
        """Finds the figure for automatic crops."""
        return Cropper(self.model, self.size, self.device, installed_face_detector())

    @cached_property
    def mask_sources(self) -> MaskSources:
        """What can cut the figure out of its frames."""
        return MaskSources(self.model, self.saved.config.data, self.limits)

    @classmethod
    def load(
        cls,
        path: Path | str,
        config: str | None = None,
        device: str = "auto",
        precision: Precision = "auto",
        compiled: bool = False,
        max_pixels: int | None = None,
    ) -> Self:
        """Load a checkpoint.

        Args:
            config: config of a published file, which does not contain one: a path, or a name in
                configs/.
            device: auto, cpu, cuda, cuda:1, mps.
            precision, compiled, max_pixels: see the class.

        Raises:
            UserError: the checkpoint cannot be read or does not fit its config, or there is no such
                device.
        """
        parsed = None if config is None else load_config(config)
        saved = checkpoint.load(Path(path), parsed)
        return cls(saved, pick_device(device), precision, compiled, max_pixels)

    def animate(
        self,
        source: Picture | Pictures,
        frames: DrivingFrames,
        background: Picture | None = None,
        settings: Settings = DEFAULTS,
    ) -> Iterator[Frame]:
        """Move `source` as the driving `frames` move.

        Yields one frame for each driving frame, uint8 H x W x 3. With `settings.paste_back` it has
        the size of the source, otherwise that of the model. With a transparent background it is
        H x W x 4, with colours not multiplied by alpha. Frames are computed batch by batch when
        they are needed, so memory does not grow with their number.

        Args:
            source: a file, or uint8 H x W x 3; or a list of pictures of one figure, for a model
                that takes several. The first is then the one that layouts show.
            frames: a file or a folder of frames, a reader, a list or an array of frames of uint8
                H x W x 3, or an iterator over them, such as a camera.
            background: a file, a picture, a colour (`#00ff00`, `green`), `source` or `transparent`.

        Raises:
            UserError: an input or a setting cannot be used; names the option, the file and the
                remedy.
        """
        return self.prepare(source, frames, background, settings).frames()

    def prepare(
        self,
        source: Picture | Pictures,
        frames: DrivingFrames | Driving,
        background: Picture | None = None,
        settings: Settings = DEFAULTS,
        *,
        with_masks: bool = False,
    ) -> Animation:
        """Check all inputs and settings, and set up the animation up to its first frame.

        The arguments are those of `animate`; errors are raised here, not while frames are computed.

        Args:
            with_masks: compute the masks of the animated frames even if no background needs them.
        """
        sources = [*source] if isinstance(source, list | tuple) else [source]
        check_background(settings, background is not None, with_masks)
        notes: list[str] = []
        has_masks = background is not None or with_masks
        animator_name = self._choose(settings, len(sources), has_masks, notes)
        fitted = [self._fit_source(picture, settings.crop_source, notes) for picture in sources]
        (picture, source_frame, box), *others = fitted
        driving = frames if isinstance(frames, Driving) else open_driving(frames, self.limits)
        backgrounds = None
        if background is not None:
            backgrounds, more = open_backgrounds(
                background,
                source_frame,
                driving,
                self.saved.config.data,
                settings.background_end,
                self.limits,
            )
            notes += more
        swapper = None
        if has_masks:
            inputs = SwapInputs(background, driving, backgrounds, self._source_fit(picture, box))
            swapper = self._swap_chooser.build(settings, inputs, notes)
        clips = _with_remarks({driving.name: driving.frames, str(background): backgrounds})
        animator = self._build_animator(animator_name, settings, driving)
        # Steps that read the clip come last, after all other checks.
        driving = self._fit_driving(driving, settings.crop_driving, notes)
        reference = None
        if isinstance(animator, MotionAnimator) and animator.motion == "relative":
            reference, driving = find_reference(animator, source_frame, driving, settings, notes)
        return Animation(
            animator,
            source_frame,
            driving,
            reference=reference,
            swapper=swapper,
            backgrounds=backgrounds,
            paster=Paster(picture, box) if settings.paste_back else None,
            is_transparent=is_transparent(background),
            batch_size=settings.batch_size,
            notes=notes,
            more_sources=[frame for _, frame, _ in others],
            clips=clips,
        )

    def _choose(
        self, settings: Settings, num_sources: int, has_masks: bool, notes: list[str]
    ) -> AnimatorName:
        """Choose the animator: the one asked for, or else motion if the model has it."""
        branches, motion = self.model.branches, self.model.motion
        name = settings.animator or ("motion" if "motion" in branches else "masks")
        if name == "masks":
            check_masks(settings)
            check_sources(num_sources, None)
        elif motion is not None:
            check_motion(settings, motion, has_masks)
            check_sources(num_sources, motion)
            notes += describe_motion(settings, motion, num_sources)
        start = self.saved.untrained.get("masks.refinement")
        if name == "masks" and "masks" in branches and start is not None:
            remedy = ", or use --animator motion" if "motion" in branches else ""
            raise UserError(
                f"--animator masks: at step {self.saved.step} the refinement has not started "
                f"({start}); train on{remedy}"
            )
        return name

    def _build_animator(
        self, name: AnimatorName, settings: Settings, driving: Driving
    ) -> BranchAnimator:
        motion = self.model.motion if name == "motion" else None
        is_smoothed = settings.smooth and (motion is None or motion.has_keypoints)
        return build_animator(
            self.model,
            self.device,
            name,
            motion=settings.motion,
            adapt_scale=settings.adapt_scale,
            smoothing=Smoothing(driving.frame_rate, driving.times) if is_smoothed else None,
        )

    def _fit_source(
        self, source: Picture, crop: Crop, notes: list[str]
    ) -> tuple[Frame, Frame, Box]:
        """The whole picture, the part that the model gets at its size, and the box of that part."""
        picture, name = open_source(source, self.limits)
        data = self.saved.config.data
        if crop == "none":
            notes += describe_fit(name, picture.shape[:2], data)
            return picture, fit_whole(picture, data), whole_box(picture, data)
        if crop == "auto":
            box, how = self.cropper.figure_box(picture)
            notes.append(f"{name}: {how}")
        else:
            require_overlap(crop, (picture.shape[0], picture.shape[1]), "--crop, --crop-source")
            box = with_aspect(crop, self.size)
        return picture, cut_out(picture, box, self.size), box

    def _source_fit(self, source: Frame, box: Box) -> Callable[[Frame], Frame]:
        """How a mask of `source` is brought to the model's size: as `box` of the source, or else as
        a whole.
        """

        def fit(mask: Frame) -> Frame:
            if mask.shape == source.shape:
                return cut_out(mask, box, self.size)
            return fit_whole(mask, self.saved.config.data)

        return fit

    @cached_property
    def _swap_chooser(self) -> SwapChooser:
        start = self.saved.untrained.get("background")
        reason = f"at step {self.saved.step} the background branch has not started ({start})"
        return SwapChooser(self.model, self.mask_sources, None if start is None else reason)

    def _fit_driving(self, driving: Driving, crop: Crop, notes: list[str]) -> Driving:
        """The driving frames, cropped or fitted to the model's size."""
        data = self.saved.config.data
        if crop == "none":
            first, driving = driving.first()
            notes += describe_fit(driving.name, first.shape[:2], data)
            return driving.fitted(lambda _, frame: fit_whole(frame, data))
        if crop == "auto":
            driving.require_repeatable("--crop-driving auto")
            boxes, how = self.cropper.clip_boxes(driving.frames, driving.frame_rate, driving.times)
            notes.append(f"{driving.name}: {how}")
            return driving.fitted(lambda index, frame: cut_out(frame, boxes[index], self.size))
        first, driving = driving.first()
        require_overlap(crop, (first.shape[0], first.shape[1]), "--crop, --crop-driving")
        box = with_aspect(crop, self.size)
        return driving.fitted(lambda _, frame: cut_out(frame, box, self.size))


def _with_remarks(read: Mapping[str, object]) -> dict[str, HasRemarks]:
    """The clips that may have remarks for the user."""
    return {name: clip for name, clip in read.items() if isinstance(clip, HasRemarks)}


def find_reference(
    animator: MotionAnimator, source: Frame, driving: Driving, settings: Settings, notes: list[str]
) -> tuple[ReferenceChoice, Driving]:
    """Choose the reference frame of relative motion.

    Returns it, and the driving frames, again from the first one on. Adds lines to `notes`.
    """
    wanted = settings.reference_frame
    if wanted == "auto":
        driving.require_repeatable("--reference-frame auto")
        found = nearest_frame(animator, source, driving.frames, settings.batch_size)
        notes.append(
            f"reference frame {found.index} of {found.num_frames}: distance {found.distance:.3f} "
            f"to the source (the first frame: {found.first_distance:.3f})"
            + (", still far: the figures differ in pose or build" if is_far(found.distance) else "")
        )
        return ReferenceChoice(found.index, found.frame, found.distance), driving
    if wanted == "first":
        frame, driving = driving.first()
        index = 0
    else:
        driving.require_repeatable("--reference-frame")
        index = wanted
        num_frames = driving.num_frames or 0
        # A damaged clip may end before this frame.
        after = next(islice(driving.frames, index, None), None) if index < num_frames else None
        if after is None:
            raise UserError(
                f"--reference-frame {index}: {driving.name} has {num_frames} frames, counted from 0"
            )
        frame = after
    distance = nearest_frame(animator, source, [frame], 1).distance
    if is_far(distance):
        which = "the first driving frame" if index == 0 else f"driving frame {index}"
        is_live = driving.num_frames is None  # a camera, or another iterator
        remedy = "begin in the source's pose" if is_live else "try --reference-frame auto"
        notes.append(
            f"warning: {which} is far from the source (distance {distance:.3f}), and relative "
            f"motion takes them for the same pose; {remedy}"
        )
    return ReferenceChoice(index, frame, distance), driving
