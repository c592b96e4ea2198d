"""The typed configuration: every key, its range and its meaning.

A config is YAML. `loading.py` reads it (inheritance, overrides, the report of all mistakes),
`value_types.py` says what a value may be, and `rules.py` what must agree between keys. A branch is
a section of `Config`, and a null section switches it off. Every key has a default.
"""

from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from configs.value_types import (
    Beta,
    ClipRatio,
    ClipWindow,
    Epoch,
    Grey,
    GridSize,
    ImageSize,
    Milestones,
    Minutes,
    NumBlocks,
    NumClips,
    NumFrames,
    NumImages,
    NumKeypoints,
    NumPixels,
    NumResBlocks,
    NumSamples,
    NumStrips,
    NumWorkers,
    Pair,
    Positive,
    Probability,
    ReluLayer,
    Repeats,
    ResizeRatio,
    Scale,
    Seed,
    Share,
    Steps,
    Strength,
    Switch,
    VggWidth,
    Weight,
    Width,
)

CONFIG_FORMAT: Final = 1
BRANCHES: Final = ("motion", "masks", "background")  # the sections of which one must be there


class Start(NamedTuple):
    """When a part of the model starts to learn: after `epoch` epochs or, where a `share` is given,
    after that share of the steps that the run is planned to take.
    """

    section: str
    epoch: int
    share: float | None

    def __str__(self) -> str:
        """The setting, for messages."""
        if self.share is None:
            return f"{self.section}.start_epoch: {self.epoch}"
        return f"{self.section}.start_share: {self.share:g}"

    def has_learned(self, step: int, epoch: int, batch: int, planned_steps: int | None) -> bool:
        """Whether any of the first `step` steps has trained the part.

        Args:
            epoch, batch: place of the next step.
            planned_steps: of the run; None before there is a plan.
        """
        if self.share is None:
            return (epoch, batch) > (self.epoch, 0)
        return planned_steps is not None and step > self.first_step(planned_steps)

    def first_step(self, planned_steps: int) -> int:
        """Steps before the first that trains the part; where a share is given."""
        assert self.share is not None
        return round(self.share * planned_steps)


class Section(BaseModel):
    """One mapping of the YAML: unknown keys are errors, text is never taken for a number."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class RunConfig(Section):
    output_dir: str | None = None  # default: runs/<config name>


class AugmentationConfig(Section):
    time_flip: Probability = 0.5  # exchange source and driving
    horizontal_flip: Probability = 0.5  # only where the time was not flipped
    brightness: Strength = 0.1
    contrast: Strength = 0.1
    saturation: Strength = 0.1
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    resize: Annotated[list[ResizeRatio], Field(min_length=2, max_length=2)] = [1.0, 1.0]
    # ^ ratio of the two frames, drawn between these, then cropped at random or padded; [1, 1]: off


class PuppetsConfig(Section):
    num_train_clips: NumClips = 512
    num_test_clips: NumClips = 16
    num_frames: NumFrames = 32  # of one clip
    motion_scale: Annotated[float, Field(gt=0, le=2)] = 1.0  # of the dance: how far poses differ
    seed: Seed = 0  # not the run's: runs of all seeds are measured alike


class DataConfig(Section):
    kind: Literal["clips", "puppets"] = "clips"
    root: str | None = None  # a folder with train/ and test/; required by kind: clips
    image_size: ImageSize = 256
    fit: Literal["crop", "pad"] = "crop"  # frames of another shape
    id_sampling: bool = False  # an epoch passes over the ids of `id#name.mp4`, not over the clips
    repeats: Repeats = 1  # passes over the clips (or ids) in one epoch
    num_workers: NumWorkers = 4  # of each process; fewer where cores are few
    max_pixels: NumPixels | None = None  # of a picture or a frame that is read; null: the limits
    # in common/limits.py
    augmentation: AugmentationConfig = AugmentationConfig()
    puppets: PuppetsConfig = PuppetsConfig()

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of every frame."""
        if isinstance(self.image_size, int):
            return self.image_size, self.image_size
        return self.image_size[0], self.image_size[1]


class HourglassConfig(Section):
    width: Width
    max_width: Width = 1024
    num_blocks: NumBlocks = 5
    scale: Scale = 0.25  # the network sees the image downsampled by this
    learning_rate: Weight | None = None  # default: train.learning_rate


class KeypointDetectorConfig(HourglassConfig):
    width: Width = 32
    num_keypoints: NumKeypoints = 10
    jacobian: Literal["per_keypoint", "shared", "none"] = "per_keypoint"
    temperature: Positive = 0.1  # of the softmax over space


class DenseMotionConfig(HourglassConfig):
    width: Width = 64
    heatmap_variance: Positive = 0.01  # of the Gaussian heatmaps, in [-1, 1]^2
    occlusion: bool = True  # predict an occlusion map


class GeneratorConfig(Section):
    width: Width = 64
    max_width: Width = 512
    num_down_blocks: Annotated[int, Field(ge=0, le=10)] = 2  # 0: warps at full resolution
    num_res_blocks: NumResBlocks = 6
    learning_rate: Weight | None = None  # default: train.learning_rate


class TransformConfig(Section):
    """The random affine and thin-plate transform of the equivariance losses."""

    affine_std: Weight = 0.05
    thin_plate_std: Weight = 0.005
    grid_size: GridSize = 5  # control points a side


class MotionLosses(Section):
    """Weights; 0 switches a term off. The layers of `perceptual` are given as a whole."""

    perceptual: dict[ReluLayer, Weight] = dict.fromkeys(
        ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"), 10.0
    )
    pixel: Weight = 0.0  # ours: mean absolute difference of the pixels; not in the papers
    equivariance_value: Weight = 10.0
    equivariance_jacobian: Weight = 10.0


class MotionConfig(Section):
    keypoint_detector: KeypointDetectorConfig = KeypointDetectorConfig()
    dense_motion: DenseMotionConfig = DenseMotionConfig()
    generator: GeneratorConfig = GeneratorConfig()
    transform: TransformConfig = TransformConfig()
    losses: MotionLosses = MotionLosses()


class MaskGeneratorConfig(HourglassConfig):
    width: Width = 32
    temperature: Positive = 0.1  # of the sigmoid


class MaskRefinementConfig(Section):
    width: Width = 64
    max_width: Width = 1024
    num_blocks: NumBlocks = 5
    temperature: Positive = 0.1  # of the sigmoid
    start_epoch: Epoch = 1  # the masks say nothing before
    start_share: Share | None = None  # of the planned steps; then start_epoch is not used
    learning_rate: Weight | None = None  # default: train.learning_rate


class LowResolutionConfig(Section):
    """A generator that works at the size of the masks; its Up blocks follow from their scale."""

    width: Width = 64
    max_width: Width = 512
    num_res_blocks: NumResBlocks = 6
    learning_rate: Weight | None = None  # default: train.learning_rate


class HighResolutionConfig(Section):
    width: Width = 64
    max_width: Width = 1024
    num_blocks: NumBlocks = 5
    learning_rate: Weight | None = None  # default: train.learning_rate


class PerturbationConfig(Section):
    """How the driving mask is disturbed before the refinement sees it."""

    num_strips: NumStrips = 6
    pivots: Annotated[list[Probability], Field(min_length=2, max_length=2)] = [15 / 64, 45 / 64]
    # ^ where the strips are cut, as parts of the mask's side
    scales: Pair = [0.75, 1.25]
    threshold: Grey = 100.0  # of 255; what is not above becomes 0
    noise: Grey = 20.0  # of 255; mean of the Poisson count added or subtracted
    animation_scale: Positive = 0.75  # the one perturbation in animation


class MaskPriorConfig(Section):
    """Masks must explain where the picture changed between two frames; ours, not in the papers.

    Averages are taken over what a process, or `train.micro_batch`, lets through at a time.
    """

    weight: Weight = 0.0  # 0 switches it off
    change_threshold: Probability = 0.03  # largest difference of a colour that counts as no change
    changed_share: Annotated[float, Field(gt=0, lt=1)] = 0.6  # of the loss, for pixels that changed


class MaskLosses(Section):
    """Weights; 0 switches a term off, but for `refinement`, which alone trains its network. The
    layers of `perceptual` are given as a whole.
    """

    perceptual: dict[ReluLayer, Weight] = dict.fromkeys(("relu1_1", "relu2_1", "relu3_1"), 10.0)
    pixel: Weight = 0.0  # ours: mean absolute difference of the pixels; not in the papers
    refinement: Positive = 100.0


class MasksConfig(Section):
    mask_generator: MaskGeneratorConfig = MaskGeneratorConfig()
    refinement: MaskRefinementConfig = MaskRefinementConfig()
    low_resolution: LowResolutionConfig = LowResolutionConfig()
    high_resolution: HighResolutionConfig = HighResolutionConfig()
    perturbation: PerturbationConfig = PerturbationConfig()
    prior: MaskPriorConfig = MaskPriorConfig()
    losses: MaskLosses = MaskLosses()


class BackgroundLosses(Section):
    """Weights; 0 switches a term off. The layers of `perceptual` are given as a whole."""

    perceptual: dict[ReluLayer, Weight] = dict.fromkeys(("relu1_1", "relu2_1", "relu3_1"), 10.0)
    pixel: Weight = 0.0  # ours: mean absolute difference of the pixels; not in the papers


class BackgroundConfig(Section):
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5  # of the masks; above is foreground
    start_epoch: Epoch = 2  # the masks say nothing before
    start_share: Share | None = None  # of the planned steps; then start_epoch is not used
    foreign_probability: Probability = 0.0  # ours: that X is the source of another sample of the
    # batch, with no mask
    bg_base: LowResolutionConfig = LowResolutionConfig()
    bg_refine: HighResolutionConfig = HighResolutionConfig()
    losses: BackgroundLosses = BackgroundLosses()


class CutConfig(Section):
    """CutMix of the driving frame and the prediction, and the consistency loss on it."""

    kind: Literal["none", "rectangle", "priority"] = "none"  # vanilla CutMix, PriorityCut
    beta: Pair = [1.0, 1.0]  # of the distribution of the share that is cut (the area of a
    # rectangle), for each sample
    probability: Probability = 0.5  # that a step mixes, after the warm-up
    warm_up_epochs: Weight = 0.0  # over which it rises from 0, linearly
    foreground: Literal["dense_motion", "mask_generator"] = "dense_motion"  # says what is
    # background: the weight of the background motion, or 1 - m(D)
    background_threshold: Annotated[float, Field(gt=0, le=1)] = 0.5  # of it; below is foreground
    as_sample: bool = False  # the mixed image is a further sample: fake for the encoder, for the
    # decoder fake where it is


class DiscriminatorLosses(Section):
    """Weights of what the discriminator minimizes; the decoder's are for kind unet."""

    encoder: Weight = 1.0
    decoder: Weight = 1.0
    consistency: Weight = 1.0


class GeneratorLosses(Section):
    """Weights of what the generator minimizes; the decoder's are for kind unet."""

    encoder: Weight = 1.0
    decoder: Weight = 1.0
    encoder_features: Weight = 10.0  # feature matching, of each layer
    decoder_features: Weight = 10.0


class DiscriminatorConfig(Section):
    """Judges the prediction of the motion branch."""

    kind: Literal["patch", "unet"] = "unet"
    channels: Annotated[list[Width], Field(min_length=1, max_length=10)] = [
        64,
        128,
        256,
        512,
        512,
        1024,
    ]  # of the encoder's blocks, each at half the size of the one before
    spectral_norm: bool = True  # of every layer, but for the last of kind unet
    keypoints: bool = False  # it also sees heatmaps of the driving keypoints
    loss: Literal["least_squares", "hinge", "bce"] = "least_squares"
    losses: DiscriminatorLosses = DiscriminatorLosses()
    generator_losses: GeneratorLosses = GeneratorLosses()
    cut: CutConfig = CutConfig()
    learning_rate: Weight | None = None  # default: train.learning_rate


class PerceptualConfig(Section):
    """The VGG network that all branches share."""

    network: Literal["vgg19", "vgg16"] = "vgg19"
    weights: str = "imagenet"  # imagenet (torchvision's), random, or a path to a state dict
    width: VggWidth = 64  # of the first layer; other than 64 only with random weights
    scales: Annotated[list[Scale], Field(min_length=1, max_length=10)] = [1.0, 0.5, 0.25, 0.125]


class TrainConfig(Section):
    epochs: Steps = 100
    max_steps: Steps | None = None  # end earlier, after so many steps
    max_minutes: Minutes | None = None  # end earlier, after so much time;
    # one last validation comes on top
    min_steps: Steps | None = None  # go on past max_minutes until so many steps are done;
    min_steps_minutes: Minutes | None = None  # the time limit until then
    batch_size: NumSamples = 16  # of all processes together
    micro_batch: NumSamples | None = None  # accumulate gradients over parts of a process's share
    learning_rate: Weight = 2.0e-4
    betas: Annotated[list[Beta], Field(min_length=2, max_length=2)] = [0.5, 0.999]  # of Adam
    milestones: Milestones = []  # epochs after which the learning rate is multiplied
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1  # by this
    clip_norm: Positive | None = None  # of all gradients of a player together
    clip_ratio: ClipRatio | None = 10.0  # clip it to so many times its median
    clip_window: ClipWindow = 100  # over so many steps before, or half as many
    max_bad_steps: Steps = 100  # in a row skipped as not finite; more stop the run
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"  # of autocast; auto: what the
    # device computes fast, by a timed trial: bf16, else float32 (CUDA before Ampere: fp16)
    channels_last: Switch = "auto"  # memory layout; auto: the faster by a trial
    tf32: bool = True  # CUDA: convolutions in float32 keep 10 bits of the mantissa, for speed
    compile: Literal["none", "default", "reduce-overhead", "max-autotune"] = "none"  # torch's modes
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None  # none: no moving average
    checkpoint_every: Steps = 1000  # steps
    keep_checkpoints: Steps = 3  # the newest ones; the best is kept besides


class LogConfig(Section):
    scalars_every: Steps = 50  # steps
    images_every: Steps = 500
    validate_every: Steps = 1000
    num_images: NumImages = 4  # rows of a picture grid
    num_validation_clips: NumClips = 16  # spread evenly over the test split
    num_validation_frames: NumFrames = 8  # spread evenly over each clip


class Config(Section):
    """The whole file. A branch is a section that may be null; one must be there."""

    format: Literal[1] = CONFIG_FORMAT
    seed: Seed = 0
    run: RunConfig = RunConfig()
    data: DataConfig = DataConfig()
    motion: MotionConfig | None = None
    masks: MasksConfig | None = None
    background: BackgroundConfig | None = None
    discriminator: DiscriminatorConfig | None = None  # null: no adversarial training
    perceptual: PerceptualConfig = PerceptualConfig()
    train: TrainConfig = TrainConfig()
    log: LogConfig = LogConfig()

    @property
    def branches(self) -> dict[str, Any]:
        """The sections of the branches that are switched on, by name.

        Each has `losses`, and a section for each network, by the network's name.
        """
        sections = {name: getattr(self, name) for name in BRANCHES}
        return {name: section for name, section in sections.items() if section is not None}

    @property
    def starts(self) -> dict[str, Start]:
        """When the parts of the model that wait for others start to learn, by their sections."""
        starts = {}
        if self.masks is not None:
            refinement = self.masks.refinement
            starts["masks.refinement"] = Start(
                "masks.refinement", refinement.start_epoch, refinement.start_share
            )
        if self.background is not None:
            starts["background"] = Start(
                "background", self.background.start_epoch, self.background.start_share
            )
        return starts
