"""The discriminator of the motion branch's predictions, and the losses of both players.

The players are the model, called the generator in the papers, and the discriminator.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from branches.branch import StepInputs
from branches.model import Model
from branches.outputs import MotionMaps, MotionOutput
from common.seeding import torch_seed
from configs.motion.kinds import MotionConfig
from configs.schema import Config, DiscriminatorConfig
from losses import (
    ADVERSARIAL_LOSSES,
    LossTerm,
    consistency_loss,
    feature_matching_loss,
    is_weighted,
    layer_matching_loss,
    weigh,
)
from media.visualization import grey_to_rgb
from modules.cut_masks import (
    certain_background,
    foreground_occlusion,
    mix,
    priority_cut,
    rectangle_cut,
    resize_cut,
)
from modules.discriminator import DiscriminatorOutput, PatchDiscriminator, UNetDiscriminator
from modules.geometry import occlusion_from_field, resize, stillness_of_field
from modules.heatmaps import keypoint_heatmaps
from modules.keypoint_detector import detached

NETWORKS: dict[str, Callable[[int, list[int], bool], nn.Module]] = {
    "patch": PatchDiscriminator,
    "unet": UNetDiscriminator,
    "monkey_net": partial(PatchDiscriminator, pool_last=True),
}


class Cut(NamedTuple):
    """Driving frame and prediction mixed by a cut mask, and the maps that led to the mask.

    cut_mask: B x 1 x H x W, 1 = real.
    mixed: the mixed images, B x 3 x H x W in [0, 1].
    background: Mhat_bg, B x 1 x h x w (the size of the dense motion), 1 = certain background.
    occlusion: O_fg, B x 1 x h x w, 1 = visible (PriorityCut, Eq. 1).
    share: share of the foreground that is generated, a scalar.
    """

    cut_mask: Tensor
    mixed: Tensor
    background: Tensor
    occlusion: Tensor
    share: Tensor


class AdversarialOutputs(NamedTuple):
    """Outputs of the discriminator for the driving frame, the prediction and the mixed image.

    Nothing is detached: each player takes the gradient for its own parameters from the same graph.

    cut, mixed: None in a step that does not mix images.
    """

    real: DiscriminatorOutput
    generated: DiscriminatorOutput
    cut: Cut | None
    mixed: DiscriminatorOutput | None


class TermsAndStatistics(NamedTuple):
    """Loss terms that the discriminator minimizes, and scalars for the log, both by name."""

    terms: dict[str, LossTerm]
    statistics: dict[str, Tensor]


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Context manager: `network` is in evaluation mode within it."""
    mode = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(mode)


class Adversary(nn.Module):
    """The discriminator, and the losses of generator and discriminator.

    Both losses use the outputs of one call of `discriminate`, which detaches nothing.
    `Optimizer.backward` computes each loss's gradient for the parameters of its own player only.

    Args:
        motion: the section of the motion model, whose predictions the discriminator gets.
    """

    def __init__(self, config: DiscriminatorConfig, motion: MotionConfig) -> None:
        super().__init__()
        self.config = config
        self.heatmap_style = motion.heatmap_style
        self.loss = ADVERSARIAL_LOSSES[config.loss]
        network = NETWORKS[config.kind]
        in_channels = 3 + ((motion.num_keypoints or 0) if config.keypoints else 0)
        self.discriminator = network(in_channels, config.channels, config.spectral_norm)

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks, by their names in a checkpoint."""
        return {"discriminator": self.discriminator}

    def discriminate(self, inputs: StepInputs) -> AdversarialOutputs:
        """Run the discriminator once on real, generated and mixed images; both losses use these
        outputs.

        Spectral norm makes its power iteration for the first image only, so all images of a step
        pass through the same weights (Miyato et al., 2018, section 2.1).
        """
        motion = _motion(inputs)
        heatmaps = self._heatmaps(inputs)
        # In separate calls, not as one batch, so that the generator's gradient is computed for its
        # own image only.
        real = self._discriminate(inputs.driving, heatmaps)
        cut = mixed = None
        with evaluating(self.discriminator):
            generated = self._discriminate(motion.prediction, heatmaps)
            if self._mixes(inputs):
                a, b = self.config.cut.beta
                cut = self.cut(inputs, inputs.context.random.beta(a, b, len(inputs.driving)))
                mixed = self._discriminate(cut.mixed, heatmaps)
        return AdversarialOutputs(real, generated, cut, mixed)

    def generator_terms(self, outputs: AdversarialOutputs) -> dict[str, LossTerm]:
        """Loss terms of the generator, by name: its prediction should get the logits of a real
        image, and features like those of the driving frame.
        """
        weights = self.config.generator_losses
        real, generated = outputs.real, outputs.generated
        terms = {}
        if weights.encoder:
            terms["encoder"] = weigh(self.loss.fool(generated.logits).mean(), weights.encoder)
        if weights.decoder and generated.pixel_logits is not None:
            value = self.loss.fool(generated.pixel_logits).mean()
            terms["decoder"] = weigh(value, weights.decoder)
        for name, layers, targets, layer_weights in (
            (
                "encoder_features",
                generated.encoder_features,
                real.encoder_features,
                weights.encoder_features,
            ),
            (
                "decoder_features",
                generated.decoder_features,
                real.decoder_features,
                weights.decoder_features,
            ),
        ):
            if layers and is_weighted(layer_weights):
                terms[name] = self._match(layers, targets, layer_weights)
        return terms

    def _match(
        self, layers: list[Tensor], targets: list[Tensor], weights: float | list[float]
    ) -> LossTerm:
        """Compare features of generated and real images, layer by layer."""
        if isinstance(weights, float):
            return weigh(feature_matching_loss(layers, targets), weights)
        if self.config.detach:
            targets = [target.detach() for target in targets]
        return layer_matching_loss(layers, targets, weights)

    def discriminator_terms(self, outputs: AdversarialOutputs) -> TermsAndStatistics:
        """Loss terms of the discriminator: it should tell real from generated, for whole images and
        for every pixel, and give a mixed image the mixed logits of its two parts.
        """
        of_images = self._image_terms(outputs)
        if outputs.real.pixel_logits is None:
            return of_images
        of_pixels = self._pixel_terms(outputs)
        return TermsAndStatistics(
            of_images.terms | of_pixels.terms, of_images.statistics | of_pixels.statistics
        )

    def _image_terms(self, outputs: AdversarialOutputs) -> TermsAndStatistics:
        """Term and statistics of the encoder's logits, one for each image or patch. Mixed images
        count as generated ones if `cut.as_sample` is set.
        """
        real, generated = outputs.real.logits, outputs.generated.logits
        value = self.loss.real(real).mean() + self.loss.generated(generated).mean()
        statistics = {
            "real_logits": real.mean(),
            "generated_logits": generated.mean(),
            "gap": real.mean() - generated.mean(),
        }
        if outputs.cut is not None and outputs.mixed is not None:
            statistics["cut_share"] = outputs.cut.share
            if self.config.cut.as_sample:
                value = value + self.loss.generated(outputs.mixed.logits).mean()
        weight = self.config.losses.encoder
        return TermsAndStatistics({"encoder": weigh(value, weight)} if weight else {}, statistics)

    def _pixel_terms(self, outputs: AdversarialOutputs) -> TermsAndStatistics:
        """Terms and statistics of the decoder's logits, one for each pixel, with the consistency
        term of mixed images (Schönfeld et al., 2020).
        """
        weights = self.config.losses
        real, generated = outputs.real.pixel_logits, outputs.generated.pixel_logits
        assert real is not None
        assert generated is not None
        value = self.loss.real(real).mean() + self.loss.generated(generated).mean()
        statistics = {"pixel_gap": real.mean() - generated.mean()}
        terms = {}
        if outputs.cut is not None and outputs.mixed is not None:
            cut_mask, mixed = outputs.cut.cut_mask, outputs.mixed.pixel_logits
            assert mixed is not None
            if self.config.cut.as_sample:
                parts = mix(cut_mask, self.loss.real(mixed), self.loss.generated(mixed))
                value = value + parts.mean()
            if weights.consistency:
                consistency = consistency_loss(mixed, mix(cut_mask, real, generated))
                terms["consistency"] = weigh(consistency, weights.consistency)
        if weights.decoder:
            terms["decoder"] = weigh(value, weights.decoder)
        return TermsAndStatistics(terms, statistics)

    def mixing_probability(self, epoch: float) -> float:
        """Probability that a step mixes images; it rises linearly from 0 during the warm-up.

        Args:
            epoch: epochs since the start of the run, with the fraction of the current one.
        """
        cut = self.config.cut
        if cut.kind == "none":
            return 0.0
        progress = min(1.0, epoch / cut.warm_up_epochs) if cut.warm_up_epochs else 1.0
        return cut.probability * progress

    @torch.no_grad()
    def cut(self, inputs: StepInputs, fraction: Tensor) -> Cut:
        """Mix driving frame and prediction by a cut mask.

        Args:
            fraction: for each sample the share of the foreground that is generated (PriorityCut),
                or the area of the box as a share of the image (CutMix); B in [0, 1].
        """
        settings = self.config.cut
        motion = _motion(inputs)
        occlusion_map = self.occlusion_map(motion.motion)
        background_weight = self._background_weight(inputs, occlusion_map)
        maps = (background_weight, occlusion_map, fraction)
        if settings.kind == "rectangle":
            cut_mask = rectangle_cut(*maps, random=inputs.context.random)
        else:
            visibility = self._visibility(inputs, occlusion_map)
            cut_mask = priority_cut(
                background_weight, visibility, fraction, threshold=settings.background_threshold
            )
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

    def occlusion_map(self, motion: MotionMaps) -> Tensor:
        """The occlusion that cut masks follow, B x 1 x h x w: by `cut.occlusion`."""
        if self.config.cut.occlusion == "field":
            return occlusion_from_field(motion.deformation)
        assert motion.occlusion_map is not None, "configs/rules.py requires it"
        return motion.occlusion_map

    def _visibility(self, inputs: StepInputs, occlusion_map: Tensor) -> Tensor:
        """What PriorityCut cuts where it is low, B x 1 x h x w in [0, 1]: by `cut.order`."""
        if self.config.cut.order == "least_occluded":
            return 1 - occlusion_map
        if self.config.cut.order == "random":
            drawn = inputs.context.random.uniform(len(occlusion_map), *occlusion_map.shape[1:])
            return drawn.to(occlusion_map.dtype)
        return occlusion_map

    def _background_weight(self, inputs: StepInputs, like: Tensor) -> Tensor:
        """What is background, B x 1 x h x w in [0, 1] as large as `like`: by `cut.foreground`."""
        motion, size = _motion(inputs).motion, (like.shape[-2], like.shape[-1])
        if self.config.cut.foreground == "dense_motion":
            assert motion.background_weight is not None, "configs/rules.py requires it"
            return motion.background_weight
        if self.config.cut.foreground == "field":
            return stillness_of_field(motion.deformation)
        if self.config.cut.foreground == "frame":
            return torch.zeros_like(like)
        masks = inputs.outputs.masks
        assert masks is not None, "configs/rules.py requires it"
        return 1 - resize(masks.driving_mask.to(like.dtype), size)

    @torch.no_grad()
    def pictures(self, inputs: StepInputs, num_rows: int) -> dict[str, Tensor]:
        """Columns of the picture grid by title, each B x 3 x H x W in [0, 1].

        First the logits of the discriminator as grey maps, white = real, then the steps that lead
        to the cut mask (PriorityCut, Figure 2). The generated fraction grows over the first
        `num_rows` rows, which are shown. Call it in evaluation mode.
        """
        motion = _motion(inputs)
        size = (inputs.driving.shape[-2], inputs.driving.shape[-1])
        heatmaps = self._heatmaps(inputs)
        pictures = {"driving": inputs.driving, "prediction": motion.prediction}
        for title, image in (("real", inputs.driving), ("generated", motion.prediction)):
            pictures[f"D({title})"] = self._realness(self._discriminate(image, heatmaps), size)
        if self.config.cut.kind == "none":
            return pictures
        row = torch.arange(len(inputs.driving), device=inputs.driving.device) % num_rows
        cut = self.cut(inputs, (row + 1) / (num_rows + 1))
        pictures["D(mixed)"] = self._realness(self._discriminate(cut.mixed, heatmaps), size)
        maps = {
            "occlusion map": self.occlusion_map(motion.motion),
            "background": cut.background,
            "O_fg": cut.occlusion,
            "cut mask": cut.cut_mask,
        }
        pictures |= {title: grey_to_rgb(values, size) for title, values in maps.items()}
        return pictures | {"mixed": cut.mixed}

    def _mixes(self, inputs: StepInputs) -> bool:
        """Whether this step mixes images; decided once for the whole batch."""
        return inputs.context.host_random < self.mixing_probability(inputs.context.epoch)

    def _heatmaps(self, inputs: StepInputs) -> Tensor | None:
        """Heatmaps of the driving keypoints, B x K x H x W; None if the discriminator does not get
        them. Detached by default, so that the model cannot lower its loss by moving keypoints.
        """
        if not self.config.keypoints:
            return None
        keypoints = _motion(inputs).driving_keypoints
        assert keypoints is not None, "configs/rules.py requires it"
        if self.config.detach:
            keypoints = detached(keypoints)
        height, width = inputs.driving.shape[-2:]
        return keypoint_heatmaps(keypoints, height, width, self.heatmap_style)

    def _discriminate(self, image: Tensor, heatmaps: Tensor | None) -> DiscriminatorOutput:
        """Run the discriminator on `image`, B x 3 x H x W, with the heatmaps as extra channels."""
        output: DiscriminatorOutput = self.discriminator(
            image if heatmaps is None else torch.cat((image, heatmaps), dim=1)
        )
        return output

    def _realness(self, output: DiscriminatorOutput, size: tuple[int, int]) -> Tensor:
        """The logits of pixels, or else of patches, as a grey picture of `size`: black at the logit
        of fake images, white at that of real ones.
        """
        logits = output.logits if output.pixel_logits is None else output.pixel_logits
        low, high = self.loss.fake_logit, self.loss.real_logit
        return grey_to_rgb(((logits - low) / (high - low)).clamp(0, 1), size)


def _motion(inputs: StepInputs) -> MotionOutput:
    """The output of the motion branch, whose prediction the discriminator gets."""
    output = inputs.outputs.motion
    assert isinstance(output, MotionOutput), "configs/rules.py requires it"
    return output


def build_adversary(config: Config) -> Adversary | None:
    """The adversary of `config`, or None without a discriminator; weights follow from the seed."""
    if config.discriminator is None:
        return None
    motion = config.motion
    assert motion is not None, "configs/rules.py requires it"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed("discriminator weights", config.seed))
        return Adversary(config.discriminator, motion)


def all_networks(model: Model, adversary: Adversary | None) -> dict[str, nn.Module]:
    """The networks of the model and of the adversary, if there is one, by name."""
    return model.networks | (adversary.networks if adversary is not None else {})
