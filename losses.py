"""Formulas of all loss terms. Functions return unweighted values; weights are in the config."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from configs.schema import Config, PerceptualConfig
from configs.value_types import ReluLayer
from modules.blocks import AntiAliasDownsample
from modules.geometry import coordinate_grid, full_precision, inverse_2x2, resize
from modules.keypoint_detector import Keypoints
from modules.thin_plate import ThinPlateTransform
from modules.vgg import VGGFeatures

# One dict per scale of the image pyramid, in the order of the config: features by layer name.
PyramidFeatures = list[dict[str, Tensor]]


_FILL_ROUNDS = 8  # of `enclosed`
_TINY = 1e-6  # keeps logarithms finite


class LossTerm(NamedTuple):
    """One term of a loss: its value, and the value times its weight from the config."""

    value: Tensor
    weighted: Tensor


def weigh(value: Tensor, weight: float) -> LossTerm:
    """The term of `value` with the weight `weight`."""
    return LossTerm(value, weight * value)


class Perceptual(nn.Module):
    """Computes VGG features of an image at several scales; all branches share one instance.

    The target's features are computed once a step, under no_grad, for all layers that any branch
    uses. `loss` then compares each prediction with them.
    """

    def __init__(self, vgg: VGGFeatures, scales: Sequence[float]) -> None:
        super().__init__()
        self.vgg = vgg
        self.pyramid = nn.ModuleList(AntiAliasDownsample(scale) for scale in scales)

    def forward(
        self, image: Tensor, layers: Collection[ReluLayer] | None = None
    ) -> PyramidFeatures:
        """Features of `image`, B x 3 x H x W in [0, 1], at each scale: all layers, or `layers`."""
        return [self.vgg(down(image), layers) for down in self.pyramid]

    def loss(
        self, prediction: Tensor, target: PyramidFeatures, weights: Mapping[ReluLayer, float]
    ) -> LossTerm:
        """`perceptual_loss` between `prediction`, B x 3 x H x W in [0, 1], and its target."""
        return perceptual_loss(self.forward(prediction, used_layers(weights)), target, weights)


def used_layers(weights: Mapping[ReluLayer, float]) -> list[ReluLayer]:
    """VGG layers with a positive weight."""
    return [layer for layer, weight in weights.items() if weight > 0]


def perceptual_layers(config: Config) -> set[str]:
    """VGG layers with a positive weight in any branch whose predictions are compared."""
    return {
        layer
        for branch in config.reconstructing_branches.values()
        for layer in used_layers(branch.losses.perceptual)
    }


def build_perceptual(
    config: PerceptualConfig, layers: set[str], state_dict: Mapping[str, Tensor] | None
) -> Perceptual:
    """Build the frozen feature pyramid.

    Args:
        state_dict: weights of the VGG network; None: random weights that are the same in all runs.
            They keep the variance of the features through the ReLUs (He initialization).
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
    return Perceptual(vgg, config.scales if layers else [])  # without layers there is no pyramid


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
    """mean|prediction - target|. Differences keep the inputs' precision; the sum is in float32."""
    mean: Tensor = _MeanAbsoluteDifference.apply(prediction, target)
    return mean


class _MeanAbsoluteDifference(torch.autograd.Function):
    """mean|a - b| that saves memory: autograd keeps only the sign of the difference.

    For inputs in half precision autograd would otherwise keep three float32 copies, and features at
    full size are among the largest tensors of a step.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        difference = a - b
        # Each difference is rounded to half precision; in a mean over thousands it averages out.
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
    """mean|p_D - T(p_T)|: T must map the keypoints of the transformed driving frame back to those
    of the driving frame itself (FOMM, section 3.3).

    Args:
        transformed: keypoints of the driving frame sampled at T(grid).
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


def visibility_loss(visible: Tensor, warped: Tensor, decoded: Tensor, target: Tensor) -> Tensor:
    """Cross entropy between `visible` and the pixels in which the warped source is nearer to the
    target than the decoded picture, each pixel weighted by the difference of the two distances.

    A blend of both pictures by `visible` has a gradient that the sigmoid shrinks to nothing once
    `visible` is near 0 or 1, as it soon is, while the decoder has learned nothing yet. This one
    stays.

    Args:
        visible: B x 1 x h x w in [0, 1]. The pictures are B x 3 x H x W, and get no gradient.
    """
    with torch.no_grad():
        distances = [
            full_precision(a - target).abs().mean(dim=1, keepdim=True) for a in (warped, decoded)
        ]
        gain = distances[1] - distances[0]
    visible = resize(full_precision(visible), (target.shape[-2], target.shape[-1]))
    with torch.autocast(visible.device.type, enabled=False):
        right = torch.where(gain > 0, visible, 1 - visible)
        return -(gain.abs() * (right + _TINY).log()).mean()


def warp_loss(warped: Sequence[Tensor], driving: Sequence[Tensor]) -> Tensor:
    """Sum over scales of mean|o warp(e(S)) - o e(D)|, features e and occlusion maps o (TPSMM,
    section on training losses). Of both, `InpaintingNetwork` detaches all but the deformation.
    """
    return torch.stack([pixel_loss(a, b) for a, b in zip(warped, driving, strict=True)]).sum()


def disentanglement_loss(restored: Keypoints, driving: Keypoints) -> Tensor:
    """mean|p - p_D|: from stretched driving keypoints the network must restore p_D, by the shape of
    another frame of the same figure (TPSMM, animation via disentanglement).
    """
    return (restored.value - driving.value).abs().mean()


def background_loss(forward: Tensor, backward: Tensor) -> Tensor:
    """mean|I - A(S, D) A(D, S)|: the background's motion one way undoes the other, B x 3 x 3 each
    (TPSMM, section on training losses).
    """
    with torch.autocast(forward.device.type, enabled=False):  # it would round the product to bf16
        product = full_precision(forward) @ full_precision(backward)
    return (torch.eye(3, device=product.device, dtype=product.dtype) - product).abs().mean()


def picture_change(source: Tensor, driving: Tensor, size: tuple[int, int]) -> Tensor:
    """|source - driving| per pixel, the largest of the colour channels: B x 1 x *size in [0, 1]."""
    return resize((source - driving).abs().amax(dim=1, keepdim=True), size)


def keypoint_prior_loss(keypoints: Keypoints, changed: Tensor, softness: float) -> Tensor:
    """Distance from each changed pixel z to the keypoints p of a frame, squared, the mean over the
    changed pixels of each of B pairs and over the pairs. It assumes a static camera: what changed
    is where the figure is in one of the frames, and keypoints should cover it.

    The distance is the soft minimum -s log sum_k exp(-|z - p_k|^2 / s), so that all keypoints get a
    gradient. A pair in which less than 1% of the pixels changed counts for less.

    Args:
        changed: B x 1 x h x w, bool; the pixels that differ between the two frames.
        softness: s, in the squared unit of [-1, 1] coordinates.
    """
    weights = changed.flatten(1).to(keypoints.value.dtype)
    grid = coordinate_grid(changed.shape[-2], changed.shape[-1], keypoints.value).view(1, -1, 1, 2)
    with torch.autocast(weights.device.type, enabled=False):
        distances = (grid - keypoints.value[:, None]).square().sum(dim=-1)
        nearest = -softness * (-distances / softness).logsumexp(dim=-1)
        count = weights.sum(dim=1).clamp(min=0.01 * weights.shape[1])
        return ((nearest * weights).sum(dim=1) / count).mean()


def enclosed(changed: Tensor) -> Tensor:
    """The pixels that did not change and from which every path to the border of the picture, in
    steps to the left, right, up and down, crosses pixels that did: B x 1 x h x w, bool, as given.

    Inside of a plainly coloured figure that moves nothing changes but its outline.
    """
    free = ~changed
    reached = torch.zeros_like(free)
    for side in (0, -1):
        reached[..., side, :] = free[..., side, :]
        reached[..., :, side] = free[..., :, side]
    directions = [(dim, flip) for dim in (-1, -2) for flip in (False, True)]
    walls = [_last(changed, *direction) for direction in directions]
    # Fills row by row and column by column, which takes few rounds unless the paths wind a lot.
    for _ in range(_FILL_ROUNDS):
        for direction, wall in zip(directions, walls, strict=True):
            # The last reached pixel before a free one comes after the last changed one.
            reached = reached | (free & (_last(reached, *direction) > wall))
    return free & ~reached


def _last(marked: Tensor, dim: int, flip: bool) -> Tensor:
    """For each pixel the number of the last marked one up to it along `dim`, counted from 1 at the
    first side, or at the last if `flip`; 0 if there is none. B x 1 x h x w.
    """
    numbers = torch.arange(1, marked.shape[dim] + 1, device=marked.device)
    numbers = numbers if dim == -1 else numbers[:, None]
    if flip:
        return (marked.flip(dim) * numbers).cummax(dim).values.flip(dim)
    return (marked * numbers).cummax(dim).values


def mask_prior_loss(
    source_logits: Tensor, driving_logits: Tensor, changed: Tensor, changed_share: float
) -> Tensor:
    """Binary cross entropy between the union of two masks and the pixels that changed between their
    frames. It assumes a static camera: where a pixel changed, one of the frames shows the figure.

    The union is 1 - (1 - m(S))(1 - m(D)). The cross entropy is averaged separately over changed and
    unchanged pixels; the two means are weighted with `changed_share` and 1 - `changed_share`. It is
    computed from logits, so that a mask that is all black or all white still gets a gradient.

    Unchanged pixels that changed ones enclose are left out, see `enclosed`.

    Args:
        source_logits, driving_logits: logits of the two masks, B x 1 x h x w.
        changed: bool, in the same shape.
    """
    unchanged = ~changed & ~enclosed(changed)
    with torch.autocast(source_logits.device.type, enabled=False):
        none = -F.softplus(source_logits) - F.softplus(driving_logits)  # log(1 - union)
        # log(union) = log(m(S) + (1 - m(S)) m(D)), which stays finite where both masks vanish.
        only_driving = F.logsigmoid(-source_logits) + F.logsigmoid(driving_logits)
        union = torch.logaddexp(F.logsigmoid(source_logits), only_driving)
        num_changed = changed.sum().clamp(min=1)
        num_unchanged = unchanged.sum().clamp(min=1)
        missed = -torch.where(changed, union, 0.0).sum() / num_changed
        false_alarms = -torch.where(unchanged, none, 0.0).sum() / num_unchanged
        return changed_share * missed + (1 - changed_share) * false_alarms


class AdversarialLoss(NamedTuple):
    """The losses of one adversarial objective; functions of logits, element by element.

    real, generated: loss of the discriminator for real and for generated images.
    fool: loss of the generator, whose images should pass as real.
    fake_logit, real_logit: the discriminator's target values; black and white in logged pictures.
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
    """Sum over layers of mean|difference of features| (pix2pixHD, Eq. 4).

    No gradient reaches `real`.
    """
    return torch.stack(
        [pixel_loss(a, b.detach()) for a, b in zip(generated, real, strict=True)]
    ).sum()


def is_weighted(weights: float | list[float]) -> bool:
    """Whether one weight for all layers, or any of a list, is above 0."""
    return any(weights) if isinstance(weights, list) else weights > 0


def layer_matching_loss(
    generated: Sequence[Tensor], real: Sequence[Tensor], weights: Sequence[float]
) -> LossTerm:
    """Sum over layers of mean|difference of features|, each layer with its own weight (Monkey-Net,
    section 3.5). Layers of weight 0 are not compared; one weight at least must be above 0.

    Gradient reaches both sides: the discriminator's features of the real image depend on the
    keypoints too, through their heatmaps.
    """
    terms = [
        weigh(pixel_loss(a, b), weight)
        for a, b, weight in zip(generated, real, weights, strict=True)
        if weight > 0
    ]
    return LossTerm(
        torch.stack([term.value for term in terms]).sum(),
        torch.stack([term.weighted for term in terms]).sum(),
    )


def consistency_loss(mixed: Tensor, mix_of_logits: Tensor) -> Tensor:
    """mean (D_dec(mix(x, y)) - mix(D_dec(x), D_dec(y)))^2 (Schönfeld et al., 2020, Eq. 7)."""
    return (mixed - mix_of_logits).square().mean()
