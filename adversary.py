"""The adversary: a discriminator that judges the motion branch's prediction, for training alone."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from branches.branch import StepInputs
from branches.masks import MaskOutput
from branches.motion import MotionOutput
from config import Config, DiscriminatorConfig
from losses import (
    ADVERSARIAL_LOSSES,
    LossTerm,
    consistency_loss,
    feature_matching_loss,
    weigh,
)
from modules.cut_masks import (
    certain_background,
    foreground_occlusion,
    mix,
    priority_cut,
    random_fraction,
    rectangle_cut,
    resize_cut,
)
from modules.discriminator import Discrimination, PatchDiscriminator, UNetDiscriminator
from modules.geometry import gaussian_heatmaps, resize
from seeding import torch_seed
from visualization import grey_to_rgb


class Verdict(NamedTuple):
    """What the discriminator's step found: the terms it minimizes and scalars to be logged."""

    terms: dict[str, LossTerm]
    statistics: dict[str, Tensor]


class Cut(NamedTuple):
    """cut_mask: B x 1 x H x W at image size, 1 = real. mixed: B x 3 x H x W in [0, 1].

    background: Mhat_bg, and occlusion: O_fg, B x 1 x h x w as the dense motion has them.
    share: of the foreground that is generated, a scalar.
    """

    cut_mask: Tensor
    mixed: Tensor
    background: Tensor
    occlusion: Tensor
    share: Tensor


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Within it `network` passes gradients on and keeps none."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)


class Adversary(nn.Module):
    """The discriminator with what both players minimize.

    In the generator's step (`generator_terms`) the discriminator is frozen; in its own
    (`discriminator_terms`) it sees the prediction detached: no gradient of one reaches the other.
    """

    def __init__(self, config: DiscriminatorConfig, num_keypoints: int, variance: float) -> None:
        super().__init__()
        self.config = config
        self.variance = variance  # of the keypoints' heatmaps
        self.loss = ADVERSARIAL_LOSSES[config.loss]
        network = {"patch": PatchDiscriminator, "unet": UNetDiscriminator}[config.kind]
        in_channels = 3 + (num_keypoints if config.keypoints else 0)
        self.discriminator = network(in_channels, config.channels, config.spectral_norm)

    @property
    def networks(self) -> dict[str, nn.Module]:
        """By name, as a checkpoint stores them."""
        return {"discriminator": self.discriminator}

    def generator_terms(self, inputs: StepInputs) -> dict[str, LossTerm]:
        """What the generator minimizes: to pass as real, with features like those of the target."""
        weights = self.config.generator_losses
        motion: MotionOutput = inputs.outputs["motion"]
        heatmaps = self._heatmaps(inputs)
        terms = {}
        with frozen(self.discriminator):
            generated = self._judge(motion.prediction, heatmaps)
        if weights.encoder:
            terms["encoder"] = weigh(self.loss.fool(generated.logits).mean(), weights.encoder)
        if weights.decoder and generated.pixel_logits is not None:
            value = self.loss.fool(generated.pixel_logits).mean()
            terms["decoder"] = weigh(value, weights.decoder)
        if weights.encoder_features or weights.decoder_features:
            with torch.no_grad():  # the target is what it is
                real = self._judge(inputs.driving, heatmaps)
            if weights.encoder_features:
                value = feature_matching_loss(generated.encoder_features, real.encoder_features)
                terms["encoder_features"] = weigh(value, weights.encoder_features)
            if weights.decoder_features and generated.decoder_features:
                value = feature_matching_loss(generated.decoder_features, real.decoder_features)
                terms["decoder_features"] = weigh(value, weights.decoder_features)
        return terms

    def discriminator_terms(self, inputs: StepInputs) -> Verdict:
        """What the discriminator minimizes: to tell real from generated, of the whole and of every
        pixel, and to judge a mixed image as it judges its parts.
        """
        motion: MotionOutput = inputs.outputs["motion"]
        images = [inputs.driving, motion.prediction.detach()]
        cut = None
        if self._mixes(inputs):
            beta = (self.config.cut.beta[0], self.config.cut.beta[1])
            fraction = random_fraction(len(inputs.driving), beta, inputs.moment.generator)
            cut = self.cut(inputs, fraction)
            images.append(cut.mixed)
        heatmaps = self._heatmaps(inputs)
        if heatmaps is not None:
            heatmaps = heatmaps.repeat(len(images), 1, 1, 1)
        # In one pass: no layer looks beyond its sample.
        judged = self._judge(torch.cat(images), heatmaps)
        logits = judged.logits.chunk(len(images))
        verdict = self._judge_images(logits, cut)
        if judged.pixel_logits is not None:
            of_pixels = self._judge_pixels(judged.pixel_logits.chunk(len(images)), cut)
            verdict = Verdict(
                verdict.terms | of_pixels.terms, verdict.statistics | of_pixels.statistics
            )
        return verdict

    def _judge_images(self, logits: Sequence[Tensor], cut: Cut | None) -> Verdict:
        """Of the encoder's logits: of real, generated and, where there is a `cut`, mixed images."""
        real, generated = logits[:2]
        value = self.loss.real(real).mean() + self.loss.generated(generated).mean()
        statistics = {
            "real_logits": real.mean(),
            "generated_logits": generated.mean(),
            "gap": real.mean() - generated.mean(),
        }
        if cut is not None:
            statistics["cut_share"] = cut.share
            if self.config.cut.as_sample:
                value = value + self.loss.generated(logits[2]).mean()
        weight = self.config.losses.encoder
        return Verdict({"encoder": weigh(value, weight)} if weight else {}, statistics)

    def _judge_pixels(self, logits: Sequence[Tensor], cut: Cut | None) -> Verdict:
        """The same of the decoder's logits, with the consistency of the mixed ones."""
        weights = self.config.losses
        real, generated = logits[:2]
        value = self.loss.real(real).mean() + self.loss.generated(generated).mean()
        statistics = {"pixel_gap": real.mean() - generated.mean()}
        terms = {}
        if cut is not None:
            mixed = logits[2]
            if self.config.cut.as_sample:
                parts = mix(cut.cut_mask, self.loss.real(mixed), self.loss.generated(mixed))
                value = value + parts.mean()
            if weights.consistency:
                consistency = consistency_loss(mixed, mix(cut.cut_mask, real, generated))
                terms["consistency"] = weigh(consistency, weights.consistency)
        if weights.decoder:
            terms["decoder"] = weigh(value, weights.decoder)
        return Verdict(terms, statistics)

    def mixing_probability(self, epoch: float) -> float:
        """That a step mixes, `epoch` epochs after the start: rises linearly in the warm-up."""
        cut = self.config.cut
        if cut.kind == "none":
            return 0.0
        progress = min(1.0, epoch / cut.warm_up_epochs) if cut.warm_up_epochs else 1.0
        return cut.probability * progress

    @torch.no_grad()
    def cut(self, inputs: StepInputs, fraction: Tensor) -> Cut:
        """Driving frame and prediction mixed; `fraction`, of shape B, is generated."""
        settings = self.config.cut
        motion: MotionOutput = inputs.outputs["motion"]
        occlusion_map = motion.motion.occlusion_map
        assert occlusion_map is not None, "config_rules asks for it"
        if settings.foreground == "dense_motion":
            background_weight = motion.motion.motion_weights[:, :1]
        else:
            masks: MaskOutput = inputs.outputs["masks"]
            small = (occlusion_map.shape[-2], occlusion_map.shape[-1])
            background_weight = 1 - resize(masks.driving_mask.to(occlusion_map.dtype), small)
        maps = (background_weight, occlusion_map, fraction)
        if settings.kind == "rectangle":
            cut_mask = rectangle_cut(*maps, generator=inputs.moment.generator)
        else:
            cut_mask = priority_cut(*maps, threshold=settings.background_threshold)
        background = certain_background(background_weight, settings.background_threshold)
        generated_share = ((1 - cut_mask) * (1 - background)).sum()
        large = resize_cut(cut_mask, (inputs.driving.shape[-2], inputs.driving.shape[-1]))
        return Cut(
            large,
            mix(large, inputs.driving, motion.prediction),
            background,
            foreground_occlusion(background, occlusion_map),
            generated_share / (1 - background).sum().clamp(min=1),
        )

    @torch.no_grad()
    def pictures(self, inputs: StepInputs, num_rows: int) -> dict[str, Tensor]:
        """Columns of the picture grid by title: B x 3 x H x W in [0, 1].

        The discriminator's maps, white = real; then how the cut mask comes about (PriorityCut,
        Figure 2), with more of the foreground cut from row to row of the `num_rows` that are
        shown. In evaluation mode.
        """
        motion: MotionOutput = inputs.outputs["motion"]
        size = (inputs.driving.shape[-2], inputs.driving.shape[-1])
        heatmaps = self._heatmaps(inputs)
        pictures = {"driving": inputs.driving, "prediction": motion.prediction}
        for title, image in (("real", inputs.driving), ("generated", motion.prediction)):
            pictures[f"D({title})"] = self._realness(self._judge(image, heatmaps), size)
        if self.config.cut.kind == "none":
            return pictures
        row = torch.arange(len(inputs.driving), device=inputs.driving.device) % num_rows
        cut = self.cut(inputs, (row + 1) / (num_rows + 1))
        pictures["D(mixed)"] = self._realness(self._judge(cut.mixed, heatmaps), size)
        assert motion.motion.occlusion_map is not None
        maps = {
            "occlusion map": motion.motion.occlusion_map,
            "background": cut.background,
            "O_fg": cut.occlusion,
            "cut mask": cut.cut_mask,
        }
        pictures |= {title: grey_to_rgb(values, size) for title, values in maps.items()}
        return pictures | {"mixed": cut.mixed}

    def _mixes(self, inputs: StepInputs) -> bool:
        return inputs.moment.coin < self.mixing_probability(inputs.moment.epoch)

    def _heatmaps(self, inputs: StepInputs) -> Tensor | None:
        """Of the driving keypoints, B x K x H x W; detached: they are no way to win this game."""
        if not self.config.keypoints:
            return None
        motion: MotionOutput = inputs.outputs["motion"]
        height, width = inputs.driving.shape[-2:]
        points = motion.driving_keypoints.value.detach()
        return gaussian_heatmaps(points, height, width, self.variance)

    def _judge(self, image: Tensor, heatmaps: Tensor | None) -> Discrimination:
        judged: Discrimination = self.discriminator(
            image if heatmaps is None else torch.cat((image, heatmaps), dim=1)
        )
        return judged

    def _realness(self, judged: Discrimination, size: tuple[int, int]) -> Tensor:
        """Logits of pixels, or of patches, as grey pictures: black where all is fake."""
        logits = judged.logits if judged.pixel_logits is None else judged.pixel_logits
        low, high = self.loss.fake_logit, self.loss.real_logit
        return grey_to_rgb(((logits - low) / (high - low)).clamp(0, 1), size)


def build_adversary(config: Config) -> Adversary | None:
    """The adversary of `config`, None without one; its weights follow from the seed."""
    if config.discriminator is None:
        return None
    motion = config.motion
    assert motion is not None, "config_rules asks for it"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed("discriminator weights", config.seed))
        return Adversary(
            config.discriminator,
            motion.keypoint_detector.num_keypoints,
            motion.dense_motion.heatmap_variance,
        )
