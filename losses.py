"""Every loss term, by name. Weights come from the config; each function returns the bare term."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from configs.schema import Config, PerceptualConfig
from configs.value_types import ReluLayer
from modules.blocks import AntiAliasDownsample
from modules.geometry import full_precision, inverse_2x2, resize
from modules.keypoint_detector import Keypoints
from modules.thin_plate import ThinPlateTransform
from modules.vgg import VGGFeatures

# For each scale of the pyramid, in the order of the config, features by layer name.
PyramidFeatures = list[dict[str, Tensor]]


class LossTerm(NamedTuple):
    """One term of a loss, as it is and times its weight from the config."""

    value: Tensor
    weighted: Tensor


def weigh(value: Tensor, weight: float) -> LossTerm:
    """A term with one weight."""
    return LossTerm(value, weight * value)


class Perceptual(nn.Module):
    """VGG features over an image pyramid, shared by all branches.

    The target's features are computed once a step, under no_grad, for every layer that any branch
    asks for; each prediction is then compared with them by `perceptual_loss`.
    """

    def __init__(self, vgg: VGGFeatures, scales: Sequence[float]) -> None:
        super().__init__()
        self.vgg = vgg
        self.pyramid = nn.ModuleList(AntiAliasDownsample(scale) for scale in scales)

    def forward(
        self, image: Tensor, layers: Collection[ReluLayer] | None = None
    ) -> PyramidFeatures:
        """Features of `image`, B x 3 x H x W in [0, 1], at every scale: all layers, or `layers`."""
        return [self.vgg(down(image), layers) for down in self.pyramid]

    def loss(
        self, prediction: Tensor, target: PyramidFeatures, weights: Mapping[ReluLayer, float]
    ) -> LossTerm:
        """`perceptual_loss` of `prediction`, B x 3 x H x W in [0, 1], to features of its target."""
        return perceptual_loss(self.forward(prediction, used_layers(weights)), target, weights)


def used_layers(weights: Mapping[ReluLayer, float]) -> list[ReluLayer]:
    """VGG layers with a positive weight."""
    return [layer for layer, weight in weights.items() if weight > 0]


def perceptual_layers(config: Config) -> set[str]:
    """VGG layers with a positive weight in any branch."""
    return {
        layer
        for branch in config.branches.values()
        for layer in used_layers(branch.losses.perceptual)
    }


def build_perceptual(
    config: PerceptualConfig, layers: set[str], state_dict: Mapping[str, Tensor] | None
) -> Perceptual:
    """The frozen feature pyramid; `state_dict` None means random weights, fixed for all runs.

    Random features are scaled to keep their variance through the ReLUs (He initialization).
    """
    vgg = VGGFeatures(config.network, layers, config.width)
    if state_dict is None:
        generator = torch.Generator().manual_seed(0)  # one fixed network: runs stay comparable
        for conv in vgg.convs.modules():
            if isinstance(conv, nn.Conv2d) and conv.bias is not None:
                nn.init.kaiming_normal_(conv.weight, nonlinearity="relu", generator=generator)
                nn.init.zeros_(conv.bias)
    else:
        vgg.convs.load_state_dict({name: state_dict[name] for name in vgg.convs.state_dict()})
    return Perceptual(vgg, config.scales)


def perceptual_loss(
    prediction: PyramidFeatures, target: PyramidFeatures, weights: Mapping[ReluLayer, float]
) -> LossTerm:
    """Sum over scales and layers of mean|difference of features|, each layer with its own weight
    (FOMM, section 3.3).
    """
    terms = [
        weigh(pixel_loss(features[layer], reference[layer]), weights[layer])
        for features, reference in zip(prediction, target, strict=True)
        for layer in used_layers(weights)
    ]
    return LossTerm(
        torch.stack([term.value for term in terms]).sum(),
        torch.stack([term.weighted for term in terms]).sum(),
    )


def pixel_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """mean|prediction - target|; a sum in float32 of differences in the precision of the two."""
    mean: Tensor = _MeanAbsoluteDifference.apply(prediction, target)
    return mean


class _MeanAbsoluteDifference(torch.autograd.Function):
    """Of half precision no float32 copies are made, of which autograd would keep three: features
    at full size are among the largest tensors of a step. What is kept is the sign.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        difference = a - b
        # Rounded to half precision one by one, which a mean over thousands does not show.
        mean = difference.abs().mean(dtype=torch.promote_types(difference.dtype, torch.float32))
        ctx.save_for_backward(difference.sgn_())
        ctx.dtypes = (a.dtype, b.dtype)
        return mean

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (sign,) = ctx.saved_tensors
        slope = sign * (gradient / sign.numel()).to(sign.dtype)
        wanted_a, wanted_b = ctx.needs_input_grad
        dtype_a, dtype_b = ctx.dtypes
        return slope.to(dtype_a) if wanted_a else None, -slope.to(dtype_b) if wanted_b else None


def equivariance_value_loss(
    driving: Keypoints, transformed: Keypoints, transform: ThinPlateTransform
) -> Tensor:
    """mean|p_D - T(p_T)|: keypoints of the transformed frame map back to the driving ones
    (FOMM, section 3.3). `transformed` are the keypoints of D sampled at T(grid).
    """
    return (driving.value - transform.points(transformed.value)).abs().mean()


def equivariance_jacobian_loss(
    driving: Keypoints, transformed: Keypoints, transform: ThinPlateTransform
) -> Tensor:
    """mean|I - J_D^-1 (dT/dz)(p_T) J_T| (FOMM, section 3.3).

    Raises:
        ValueError: the detector has no Jacobians.
    """
    if driving.jacobian is None or transformed.jacobian is None:
        raise ValueError("equivariance_jacobian needs a keypoint detector with Jacobians")
    change = transform.jacobian(transformed.value)
    with torch.autocast(change.device.type, enabled=False):  # it would round the products to bf16
        product = inverse_2x2(driving.jacobian) @ change @ transformed.jacobian
    return (torch.eye(2, device=product.device, dtype=product.dtype) - product).abs().mean()


def warp_loss(warped: Sequence[Tensor], driving: Sequence[Tensor]) -> Tensor:
    """Sum over scales of mean|o warp(e(S)) - o e(D)|, features e and occlusion maps o (TPSMM,
    section on training losses). Of both, `InpaintingNetwork` detaches all but the deformation.
    """
    return torch.stack([pixel_loss(a, b) for a, b in zip(warped, driving, strict=True)]).sum()


def background_loss(forward: Tensor, backward: Tensor) -> Tensor:
    """mean|I - A(S, D) A(D, S)|: the background's motion one way undoes the other, B x 3 x 3 each
    (TPSMM, section on training losses).
    """
    with torch.autocast(forward.device.type, enabled=False):  # it would round the product to bf16
        product = full_precision(forward) @ full_precision(backward)
    return (torch.eye(3, device=product.device, dtype=product.dtype) - product).abs().mean()


def picture_change(source: Tensor, driving: Tensor, size: tuple[int, int]) -> Tensor:
    """Largest difference of a colour channel, B x 1 x *size in [0, 1]."""
    return resize((source - driving).abs().amax(dim=1, keepdim=True), size)


def mask_prior_loss(
    source_logits: Tensor, driving_logits: Tensor, changed: Tensor, changed_share: float
) -> Tensor:
    """How badly the union of two masks, 1 - (1 - m(S))(1 - m(D)), explains what changed between
    their frames: the binary cross entropy, averaged over the pixels that changed and over those
    that did not, `changed_share` of the first and the rest of the second. For a static camera.

    From logits, so that a mask that is all black or all white still gets a gradient.

    Args:
        source_logits, driving_logits: of the masks, any one shape.
        changed: bool, of the same shape.
    """
    with torch.autocast(source_logits.device.type, enabled=False):
        none = -F.softplus(source_logits) - F.softplus(driving_logits)  # log(1 - union)
        # log(union) = log(m(S) + (1 - m(S)) m(D)), which stays finite where both masks vanish.
        only_driving = F.logsigmoid(-source_logits) + F.logsigmoid(driving_logits)
        union = torch.logaddexp(F.logsigmoid(source_logits), only_driving)
        num_changed = changed.sum().clamp(min=1)
        num_unchanged = (~changed).sum().clamp(min=1)
        missed = -torch.where(changed, union, 0.0).sum() / num_changed
        false_alarms = -torch.where(changed, 0.0, none).sum() / num_unchanged
        return changed_share * missed + (1 - changed_share) * false_alarms


class AdversarialLoss(NamedTuple):
    """Losses of logits, element by element: of the discriminator, for what is real and for what is
    generated, and of the generator, whose pictures are to pass as real.

    fake_logit, real_logit: the values that the discriminator aims at, for pictures of logits.
    """

    real: Callable[[Tensor], Tensor]
    generated: Callable[[Tensor], Tensor]
    fool: Callable[[Tensor], Tensor]
    fake_logit: float
    real_logit: float


ADVERSARIAL_LOSSES: Final[dict[str, AdversarialLoss]] = {
    "least_squares": AdversarialLoss(  # Mao et al., 2017
        real=lambda logits: (1 - logits).square(),
        generated=lambda logits: logits.square(),
        fool=lambda logits: (1 - logits).square(),
        fake_logit=0.0,
        real_logit=1.0,
    ),
    "hinge": AdversarialLoss(  # Lim and Ye, 2017
        real=lambda logits: F.relu(1 - logits),
        generated=lambda logits: F.relu(1 + logits),
        fool=lambda logits: -logits,
        fake_logit=-1.0,
        real_logit=1.0,
    ),
    "bce": AdversarialLoss(  # Goodfellow et al., 2014, the non-saturating form
        real=lambda logits: F.softplus(-logits),
        generated=F.softplus,
        fool=lambda logits: F.softplus(-logits),
        fake_logit=-3.0,  # a probability of .05
        real_logit=3.0,
    ),
}


def feature_matching_loss(generated: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """Sum over layers of mean|difference of features| (pix2pixHD, Eq. 4); `real` is what it is: no
    gradient reaches it.
    """
    return torch.stack(
        [pixel_loss(a, b.detach()) for a, b in zip(generated, real, strict=True)]
    ).sum()


def consistency_loss(mixed: Tensor, mix_of_logits: Tensor) -> Tensor:
    """mean (D_dec(mix(x, y)) - mix(D_dec(x), D_dec(y)))^2 (Schönfeld et al., 2020, Eq. 7)."""
    return (mixed - mix_of_logits).square().mean()
