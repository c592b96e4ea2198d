"""The typed configuration: every key with its default, its range and its meaning.

A config is a YAML file. `loading.py` reads it (inheritance, overrides, the report of all mistakes),
`value_types.py` has the range of each kind of value, and `rules.py` the rules between keys. Each
branch of the model is a section of `Config`; a null section switches it off.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from configs.motion.kinds import MotionConfig
from configs.section import HourglassConfig, Section, Start
from configs.value_types import (
    Beta,
    ClipRatio,
    ClipWindow,
    Epoch,
    Grey,
    ImageSize,
    LayerWeights,
    MaskInputs,
    Milestones,
    Minutes,
    Momentum,
    NumBlocks,
    NumClips,
    NumFrames,
    NumImages,
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
BRANCHES: Final = ("motion", "masks", "background")  # at least one of these sections must be set


class RunConfig(Section):
    output_dir: str | None = None  # default: runs/<config name>


class AugmentationConfig(Section):
    time_flip: Probability = 0.5  # exchange source and driving
    horizontal_flip: Probability = 0.5  # applied only if source and driving were not exchanged
    brightness: Strength = 0.1
    contrast: Strength = 0.1
    saturation: Strength = 0.1
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    resize: Annotated[list[ResizeRatio], Field(min_length=2, max_length=2)] = [1.0, 1.0]
    # ^ both frames are resized by one ratio drawn from this range, then cropped at random or
    # padded; [1, 1]: off


class PuppetsConfig(Section):
    num_train_clips: NumClips = 512
    num_test_clips: NumClips = 16
    num_frames: NumFrames = 32  # of one clip
    motion_scale: Annotated[float, Field(gt=0, le=2)] = 1.0  # how far the poses of a clip differ
    seed: Seed = 0  # separate from the run's seed, so that all runs are measured on the same clips


class DataConfig(Section):
    kind: Literal["clips", "puppets"] = "clips"
    root: str | None = None  # a folder with train/ and test/; required by kind: clips
    image_size: ImageSize = 256
    fit: Literal["crop", "pad"] = "crop"  # what is done to frames of another aspect ratio
    id_sampling: bool = False  # an epoch visits each id of `id#name.mp4` once, not each clip
    repeats: Repeats = 1  # passes over the clips (or ids) in one epoch
    num_workers: NumWorkers = 4  # of each process; fewer are started where cores are few
    max_pixels: NumPixels | None = None  # largest picture or frame that is read; null: the limits
    # in common/limits.py
    augmentation: AugmentationConfig = AugmentationConfig()
    puppets: PuppetsConfig = PuppetsConfig()

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of every frame, in pixels."""
        if isinstance(self.image_size, int):
            return self.image_size, self.image_size
        return self.image_size[0], self.image_size[1]


class MaskGeneratorConfig(HourglassConfig):
    width: Width = 32
    temperature: Positive = 0.1  # of the sigmoid
    skips: bool = False  # skip connections in the hourglass; ours


class MaskRefinementConfig(Section):
    width: Width = 64
    max_width: Width = 1024
    num_blocks: NumBlocks = 5
    temperature: Positive = 0.1  # of the sigmoid
    start_epoch: Epoch = 1  # before that the masks are meaningless
    start_share: Share | None = None  # of the planned steps; if set, it replaces start_epoch
    learning_rate: Weight | None = None  # default: train.learning_rate


class LowResolutionConfig(Section):
    """A generator that works at the size of the masks.

    Its number of upsampling blocks follows from the scale of the masks.
    """

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
    """How the driving mask is disturbed in training before the refinement network sees it."""

    num_strips: NumStrips = 6
    pivots: Annotated[list[Probability], Field(min_length=2, max_length=2)] = [15 / 64, 45 / 64]
    # ^ range of the positions where the strips are cut, as parts of the mask's side
    scales: Pair = [0.75, 1.25]
    threshold: Grey = 100.0  # of 255; mask values up to it become 0
    noise: Grey = 20.0  # of 255; mean of the Poisson count that is added or subtracted
    animation_scale: Positive = 0.75  # the only perturbation in animation


class MaskPriorConfig(Section):
    """A loss that asks the masks to cover what changed between two frames; ours, not in the papers.

    It averages over the samples that one process computes at a time (see `train.micro_batch`).
    """

    weight: Weight = 0.0  # 0 switches it off
    change_threshold: Probability = 0.03  # a colour that differs by up to this has not changed
    changed_share: Annotated[float, Field(gt=0, lt=1)] = 0.6  # of the loss, for changed pixels


class MaskLosses(Section):
    """Weights of the losses; 0 switches one off. Setting `perceptual` replaces all its layers.

    `refinement` cannot be 0, because no other loss trains the refinement network.
    """

    perceptual: dict[ReluLayer, Weight] = dict.fromkeys(("relu1_1", "relu2_1", "relu3_1"), 10.0)
    pixel: Weight = 0.0  # mean absolute difference of the pixels; ours, not in the papers
    refinement: Positive = 100.0


class MasksConfig(Section):
    mask_generator: MaskGeneratorConfig = MaskGeneratorConfig()
    refinement: MaskRefinementConfig = MaskRefinementConfig()
    low_resolution: LowResolutionConfig = LowResolutionConfig()
    high_resolution: HighResolutionConfig = HighResolutionConfig()
    perturbation: PerturbationConfig = PerturbationConfig()
    prior: MaskPriorConfig = MaskPriorConfig()
    losses: MaskLosses = MaskLosses()


class BGRefineConfig(HighResolutionConfig):
    skip: bool = False  # may show the cut-out pictures themselves where they are not empty; ours
    skip_base: bool = False  # may show BGBase's picture itself, such as in holes; ours


class BackgroundLosses(Section):
    """Weights of the losses; 0 switches one off. Setting `perceptual` replaces all its layers."""

    perceptual: dict[ReluLayer, Weight] = dict.fromkeys(("relu1_1", "relu2_1", "relu3_1"), 10.0)
    pixel: Weight = 0.0  # mean absolute difference of the pixels; ours, not in the papers


class BackgroundConfig(Section):
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5  # mask values above it are foreground
    start_epoch: Epoch = 2  # before that the masks are meaningless
    start_share: Share | None = None  # of the planned steps; if set, it replaces start_epoch
    # How often a sample learns to put its figure on another clip's picture: the background is then
    # the source frame of another sample of the batch, with nothing masked out. Ours, not in the
    # papers; 0 switches it off.
    foreign_probability: Probability = 0.0
    # How often a sample learns to paint more than its own figure leaves behind: the mask of another
    # sample's source cuts its figure out of the background, too. What was there is known, since the
    # driving frame shows it. Ours, not in the papers; 0 switches it off.
    hole_probability: Probability = 0.0
    # Masks that both networks see beside the two cut-out pictures, in which one may see their
    # shape: of the frame that gives the background (the source), and of the one that gives the
    # figure (the driving frame). Published: both.
    inputs: MaskInputs = ["source_mask", "driving_mask"]
    soft: bool = False  # cut out by the masks as they are, not by `threshold` (ours)
    bg_base: LowResolutionConfig = LowResolutionConfig()
    bg_refine: BGRefineConfig = BGRefineConfig()
    losses: BackgroundLosses = BackgroundLosses()

    @property
    def needing_another_sample(self) -> dict[str, float]:
        """The probabilities above 0 of what takes another sample of the batch, by their keys."""
        both = ("foreign_probability", "hole_probability")
        return {key: getattr(self, key) for key in both if getattr(self, key) > 0}


class CutConfig(Section):
    """CutMix of the driving frame and the prediction, and the consistency loss on the mixture."""

    kind: Literal["none", "rectangle", "priority"] = "none"  # rectangle: vanilla CutMix;
    # priority: PriorityCut
    beta: Pair = [1.0, 1.0]  # of the Beta distribution from which each sample's share of cut
    # pixels is drawn (the area of a rectangle)
    probability: Probability = 0.5  # that a step mixes, after the warm-up
    warm_up_epochs: Weight = 0.0  # in these epochs the probability rises linearly from 0
    occlusion: Literal["map", "field"] = "map"  # gives the occlusion: the motion model's map, or
    # its motion field, where that stretches the source or leaves it (ours, for models without map)
    foreground: Literal["dense_motion", "mask_generator", "field", "frame"] = "dense_motion"
    # ^ gives the background: the weight of its motion, 1 - mask of the driving frame, where the
    # motion field stands still (ours), or none: the whole frame is foreground (a control, ours)
    order: Literal["most_occluded", "least_occluded", "random"] = "most_occluded"  # which pixels of
    # the foreground PriorityCut cuts first; the others are controls (ours)
    background_threshold: Annotated[float, Field(gt=0, le=1)] = 0.5  # below it: foreground
    as_sample: bool = False  # the mixed image is a further sample of the discriminator: fake for
    # the encoder; for the decoder each pixel is real or fake as it is


class DiscriminatorLosses(Section):
    """Weights of the losses that the discriminator minimizes; `decoder` is used by kind unet."""

    encoder: Weight = 1.0
    decoder: Weight = 1.0
    consistency: Weight = 1.0


class GeneratorLosses(Section):
    """Weights of the adversarial losses that the generator minimizes.

    `decoder` and `decoder_features` are used by kind unet.
    """

    encoder: Weight = 1.0
    decoder: Weight = 1.0
    encoder_features: LayerWeights = 10.0  # feature matching: one weight for all blocks, or a list
    # with a weight for each block, in the order of `DiscriminatorOutput`
    decoder_features: LayerWeights = 10.0


class DiscriminatorConfig(Section):
    """The discriminator, which tells the motion branch's prediction from the driving frame."""

    kind: Literal["patch", "unet", "monkey_net"] = "unet"
    channels: Annotated[list[Width], Field(min_length=1, max_length=10)] = [
        64,
        128,
        256,
        512,
        512,
        1024,
    ]  # output channels of the encoder's blocks; each block halves the size
    spectral_norm: bool = True  # in every layer but the last of kind unet
    detach: bool = True  # no gradient of the generator through heatmaps and real features (ours;
    # false as Monkey-Net was published; features with one weight for all blocks never have it)
    keypoints: bool = False  # heatmaps of the driving keypoints are a further input
    loss: Literal["least_squares", "hinge", "bce"] = "least_squares"
    losses: DiscriminatorLosses = DiscriminatorLosses()
    generator_losses: GeneratorLosses = GeneratorLosses()
    cut: CutConfig = CutConfig()
    learning_rate: Weight | None = None  # default: train.learning_rate


class PerceptualConfig(Section):
    """The VGG network that all branches share."""

    network: Literal["vgg19", "vgg16"] = "vgg19"
    weights: str = "imagenet"  # imagenet (torchvision's), random, or a path to a state dict
    width: VggWidth = 64  # channels of the first layer; 64 unless the weights are random
    scales: Annotated[list[Scale], Field(min_length=1, max_length=10)] = [1.0, 0.5, 0.25, 0.125]


class TrainConfig(Section):
    epochs: Steps = 100
    max_steps: Steps | None = None  # end after so many steps, if the epochs take more
    max_minutes: Minutes | None = None  # end after so much time; a last validation comes on top
    min_steps: Steps | None = None  # do at least so many steps, even after max_minutes,
    min_steps_minutes: Minutes | None = None  # but end after so much time in any case
    batch_size: NumSamples = 16  # of all processes together
    micro_batch: NumSamples | None = None  # samples of a process at a time; gradients add up
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: Weight = 2.0e-4
    betas: Annotated[list[Beta], Field(min_length=2, max_length=2)] = [0.5, 0.999]  # of Adam
    momentum: Momentum = 0.9  # of SGD
    weight_decay: Weight = 0.0  # this times each weight of every network is added to its gradient
    milestones: Milestones = []  # after each of these epochs the learning rate is multiplied
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1  # by this factor
    clip_norm: Positive | None = None  # largest norm of all gradients of one player
    clip_ratio: ClipRatio | None = 10.0  # clip that norm to so many times its running median
    clip_window: ClipWindow = 100  # steps of that median; it starts when half of them are there
    max_bad_steps: Steps = 100  # steps in a row that may be skipped as not finite
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"  # of autocast; auto: bf16 if a
    # timed trial finds it fast on this device, else float32 (CUDA before Ampere: fp16)
    channels_last: Switch = "auto"  # memory layout; auto: the faster one in a timed trial
    tf32: bool = True  # CUDA: convolutions in float32 keep 10 bits of the mantissa, for speed
    compile: Literal["none", "default", "reduce-overhead", "max-autotune"] = "none"  # torch's modes
    gradient_exchange: Literal["float32", "bf16"] = "float32"  # what several processes send
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None  # null: no moving average
    checkpoint_every: Steps = 1000  # steps
    keep_checkpoints: Steps = 3  # the newest ones; the best is kept in addition


class LogConfig(Section):
    scalars_every: Steps = 50  # steps, here and in the next two keys
    images_every: Steps = 500
    validate_every: Steps = 1000
    num_images: NumImages = 4  # rows of a picture grid
    num_validation_clips: NumClips = 16  # spread evenly over the test split
    num_validation_frames: NumFrames = 8  # spread evenly over each clip


class Config(Section):
    """The whole config file. Sections of branches may be null, but at least one must be set."""

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

        Each section has `losses`, and a subsection for each network under the network's name.
        """
        sections = {name: getattr(self, name) for name in BRANCHES}
        return {name: section for name, section in sections.items() if section is not None}

    @property
    def is_frozen(self) -> bool:
        """Whether all branches are frozen but for a part of the motion branch that makes no
        predictions (motion.avd).
        """
        return self.motion is not None and not self.motion.trains_predictions

    @property
    def reconstructing_branches(self) -> dict[str, Any]:
        """Those of `branches` whose predictions training compares with the driving frames."""
        return {} if self.is_frozen else self.branches

    @property
    def starts(self) -> dict[str, Start]:
        """The starts of the parts of the model that first wait for others, by section."""
        if self.is_frozen:
            return {}
        starts = {} if self.motion is None else self.motion.starts
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
