"""Loss terms by hand."""

import math
from typing import get_args

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.testing import assert_close

from common.batch_random import BatchRandom
from configs.schema import DiscriminatorConfig
from losses import (
    ADVERSARIAL_LOSSES,
    background_loss,
    build_perceptual,
    consistency_loss,
    equivariance_jacobian_loss,
    equivariance_value_loss,
    feature_matching_loss,
    layer_matching_loss,
    mask_prior_loss,
    perceptual_layers,
    perceptual_loss,
    picture_change,
    pixel_loss,
    visibility_loss,
    warp_loss,
    weigh,
)
from modules.keypoint_detector import Keypoints
from modules.thin_plate import ThinPlateTransform, control_grid, random_thin_plate
from tests.helpers.factories import tiny_config, tiny_perceptual


def test_perceptual_loss_by_hand():
    def features(*values):
        return [{"a": torch.tensor([x, y]), "b": torch.tensor([z])} for x, y, z in values]

    prediction = features((1.0, 2.0, 3.0), (0.0, 0.0, 1.0))
    target = features((0.0, 0.0, 1.0), (1.0, 0.0, 5.0))
    term = perceptual_loss(prediction, target, {"a": 10.0, "b": 0.5})
    # Scale 1: mean(1, 2) and 2; scale 2: mean(1, 0) and 4.
    assert term.value.item() == pytest.approx(1.5 + 2 + 0.5 + 4)
    assert term.weighted.item() == pytest.approx(10 * (1.5 + 0.5) + 0.5 * (2 + 4))


def test_layer_with_weight_zero_is_not_asked_for():
    layers = "motion.losses.perceptual={relu1_1: 1.0, relu3_1: 0}"
    config = tiny_config(layers, "masks=null", "background=null")
    assert perceptual_layers(config) == {"relu1_1"}
    features = tiny_perceptual(config)(torch.rand(1, 3, 32, 32))
    perceptual_loss(features, features, config.motion.losses.perceptual)


def test_layers_of_all_branches_are_asked_for():
    config = tiny_config(
        "motion.losses.perceptual={relu1_1: 1}",
        "masks.losses.perceptual={relu2_1: 1, relu2_2: 0}",
        "background.losses.perceptual={relu3_1: 1}",
    )
    assert perceptual_layers(config) == {"relu1_1", "relu2_1", "relu3_1"}


def test_pixel_loss_and_weight():
    value = pixel_loss(torch.tensor([0.0, 1.0]).bfloat16(), torch.tensor([0.5, 1.0]))
    assert value.dtype == torch.float32
    assert weigh(value, 4.0) == (0.25, 1.0)


def test_pyramid_has_the_scales_of_the_config_in_order():
    config = tiny_config("perceptual.scales=[0.5, 1.0]")
    features = tiny_perceptual(config)(torch.rand(2, 3, 32, 48))
    assert [tuple(level["relu1_1"].shape) for level in features] == [(2, 4, 16, 24), (2, 4, 32, 48)]


def test_random_features_are_the_same_for_every_run_and_keep_their_size():
    config = tiny_config("perceptual.width=16")
    image = torch.rand(1, 3, 32, 32)
    torch.manual_seed(1)
    first = tiny_perceptual(config)(image)
    torch.manual_seed(2)
    second = tiny_perceptual(config)(image)
    for before, after in zip(first, second, strict=True):
        for name, map_ in before.items():
            assert torch.equal(map_, after[name])
            assert 0.1 < map_.std() < 10


def test_stored_weights_are_loaded_by_torchvision_name():
    config = tiny_config().perceptual
    source = build_perceptual(config, {"relu2_1"}, None).vgg.convs.state_dict()
    state = {name: tensor + 1 for name, tensor in source.items()} | {"7.weight": torch.ones(1)}
    loaded = build_perceptual(config, {"relu1_2"}, state)
    assert list(loaded.vgg.convs) == ["0", "2"]
    assert torch.equal(loaded.vgg.convs["2"].bias, state["2.bias"])


def keypoints(value, jacobian=None):
    return Keypoints(value, jacobian)


def test_equivariance_losses_vanish_for_keypoints_that_transform_exactly():
    generator = torch.Generator().manual_seed(0)
    transform = random_thin_plate(2, 0.05, 0.05, 5, BatchRandom(generator))
    value = torch.rand(2, 3, 2, generator=generator) - 0.5
    jacobian = torch.eye(2) + 0.3 * torch.rand(2, 3, 2, 2, generator=generator)
    transformed = keypoints(value, jacobian)
    # Keypoint motion chains: J_D = (dT/dz) J_T.
    driving = keypoints(transform.points(value), transform.jacobian(value) @ jacobian)
    assert equivariance_value_loss(driving, transformed, transform).item() == 0
    loss = equivariance_jacobian_loss(driving, transformed, transform)
    assert_close(loss, torch.zeros(()), atol=1e-6, rtol=0)


def test_equivariance_losses_by_hand():
    affine = torch.tensor([[[2.0, 0.0, 0.1], [0.0, 2.0, 0.0]]])
    transform = ThinPlateTransform(affine, torch.zeros(1, 4), control_grid(2, affine))
    eye = torch.eye(2).view(1, 1, 2, 2)
    driving = keypoints(torch.tensor([[[0.5, 0.5]]]), 4 * eye)
    transformed = keypoints(torch.tensor([[[0.1, 0.2]]]), eye)
    # T(p_T) = (0.3, 0.4), 0.2 and 0.1 off; J_D^-1 (dT/dz) J_T = I / 2, off by 1/2 on the diagonal.
    value = equivariance_value_loss(driving, transformed, transform)
    assert value.item() == pytest.approx(0.15)
    assert equivariance_jacobian_loss(driving, transformed, transform).item() == 0.25


def test_jacobian_loss_without_jacobians_is_an_error():
    transform = random_thin_plate(1, 0.05, 0.005, 5, BatchRandom(torch.Generator()))
    without = keypoints(torch.zeros(1, 1, 2))
    with pytest.raises(ValueError, match="equivariance_jacobian"):
        equivariance_jacobian_loss(without, without, transform)


def test_jacobian_loss_stays_float32_under_autocast():
    generator = torch.Generator().manual_seed(0)
    transform = random_thin_plate(1, 0.05, 0.005, 5, BatchRandom(generator))
    points = keypoints(
        torch.rand(1, 4, 2), torch.eye(2) + torch.rand(1, 4, 2, 2, generator=generator) / math.pi
    )
    plain = equivariance_jacobian_loss(points, points, transform)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = equivariance_jacobian_loss(points, points, transform)
    assert torch.equal(plain, inside)


def test_visibility_loss_by_hand():
    """Two pixels: the warped source is .4 nearer in one, the decoded picture .2 in the other."""
    target = torch.zeros(1, 3, 1, 2)
    warped = torch.tensor([0.1, 0.5]).view(1, 1, 1, 2).expand(1, 3, 1, 2)
    decoded = torch.tensor([0.5, 0.3]).view(1, 1, 1, 2).expand(1, 3, 1, 2)
    visible = torch.tensor([[[[0.8, 0.75]]]])
    loss = visibility_loss(visible, warped, decoded, target)
    expected = -(0.4 * math.log(0.8) + 0.2 * math.log(0.25)) / 2
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_visibility_loss_reaches_a_saturated_map_and_no_picture():
    logit = torch.tensor(12.0, requires_grad=True)
    pictures = [torch.full((1, 3, 2, 2), v, requires_grad=True) for v in (0.9, 0.1)]
    visible = logit.sigmoid().expand(1, 1, 1, 1)  # the pictures are larger than the map
    visibility_loss(visible, *pictures, torch.zeros(1, 3, 2, 2)).backward()
    # d/dx of -0.8 log(1 - sigmoid(x)) is 0.8 sigmoid(x); the blend itself has 5e-6 of it.
    assert logit.grad.item() == pytest.approx(0.8, rel=0.2)
    assert all(picture.grad is None for picture in pictures)


# The mask prior

LN2 = math.log(2)
# Loss per pixel if both masks are 1/2, so that their union is 3/4.
MISSED, FALSE_ALARM = -math.log(0.75), 2 * LN2


def changed_pixels(num_changed, total):
    return (torch.arange(total) < num_changed).view(1, 1, 1, total)


@pytest.mark.parametrize(
    ("num_changed", "share", "expected"),
    [
        (2, 0.5, 0.5 * MISSED + 0.5 * FALSE_ALARM),
        (1, 0.3, 0.3 * MISSED + 0.7 * FALSE_ALARM),  # independent of their number
        (7, 0.3, 0.3 * MISSED + 0.7 * FALSE_ALARM),
        (0, 0.3, 0.7 * FALSE_ALARM),
        (8, 0.3, 0.3 * MISSED),
    ],
)
def test_mask_prior_of_grey_masks(num_changed, share, expected):
    logits = torch.zeros(1, 1, 1, 8)
    loss = mask_prior_loss(logits, logits, changed_pixels(num_changed, 8), share)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_mask_prior_by_hand():
    # Masks of 1/4 and 1/2 at changed pixels: union 5/8; 3/4 and 1/2 at the others: union 7/8.
    source = torch.tensor([-math.log(3), math.log(3)]).view(1, 1, 1, 2)
    driving, changed = torch.zeros(1, 1, 1, 2), changed_pixels(1, 2)
    loss = mask_prior_loss(source, driving, changed, 0.25)
    assert loss.item() == pytest.approx(0.25 * math.log(8 / 5) + 0.75 * math.log(8), rel=1e-5)
    exchanged = mask_prior_loss(driving, source, changed, 0.25)
    assert_close(exchanged, loss)


def test_mask_prior_gradients_are_those_of_finite_differences():
    generator = torch.Generator().manual_seed(0)
    logits = [
        (5 * torch.randn(2, 1, 3, 4, dtype=torch.float64, generator=generator)).requires_grad_()
        for _ in range(2)
    ]
    changed = torch.rand(2, 1, 3, 4, generator=generator) > 0.6
    assert torch.autograd.gradcheck(lambda a, b: mask_prior_loss(a, b, changed, 0.4), logits)


@pytest.mark.parametrize("value", [-200.0, -90.0, 90.0, 200.0])
def test_masks_that_are_all_black_or_all_white_still_get_a_gradient(value):
    """The loss stays finite, and its gradient changes exactly the pixels that are wrong."""
    source, driving = (torch.full((1, 1, 1, 4), value, requires_grad=True) for _ in range(2))
    changed = changed_pixels(2, 4)
    loss = mask_prior_loss(source, driving, changed, 0.5)
    assert loss.item() == pytest.approx(abs(value) / 2 if value < 0 else value, rel=0.01)
    loss.backward()
    black = value < 0
    # Changed pixels must become white, half by each mask; the others black, in both masks.
    wrong, push = (changed, -0.125) if black else (~changed, 0.25)
    for logits in (source, driving):
        assert_close(logits.grad, torch.where(wrong, push, 0.0), atol=1e-6, rtol=0)


def test_mask_prior_stays_float32_under_autocast():
    logits, changed = torch.randn(1, 1, 4, 4), torch.rand(1, 1, 4, 4) > 0.5
    plain = mask_prior_loss(logits, logits, changed, 0.5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = mask_prior_loss(logits, logits, changed, 0.5)
    assert torch.equal(inside, plain)


def test_picture_change_by_hand():
    source, driving = torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)
    driving[0, 1, 0, 0] = 0.3
    source[0, 2, 0, 0] = 0.8  # the largest of the channels counts, not their sum
    driving[0, 0, :2, 2:] = 0.4
    change = picture_change(source, driving, (4, 4))
    assert_close(change[0, 0, 0], torch.tensor([0.8, 0.0, 0.4, 0.4]))
    small = picture_change(source, driving, (2, 2))
    assert_close(small, torch.tensor([[[[0.2, 0.4], [0.0, 0.0]]]]))  # 0.8 / 4 and 4 * 0.4 / 4


def test_mask_prior_tells_figure_from_background():
    """For a moving square, right masks cost less than inverted ones, which would reconstruct as
    well, and less than masks that are empty in one frame, or in both.
    """
    frames = torch.full((2, 1, 3, 16, 16), 0.2)
    logits = torch.full((2, 1, 1, 16, 16), -4.0)
    for frame, left in ((0, 2), (1, 9)):
        frames[frame, ..., 5:10, left : left + 5] = 0.9
        logits[frame, ..., 5:10, left : left + 5] = 4.0
    changed = picture_change(frames[0], frames[1], (16, 16)) > 0.1
    assert changed.sum() == 2 * 5 * 5

    def loss(source, driving):
        return mask_prior_loss(source, driving, changed, 0.5).item()

    right = loss(*logits)
    assert right < 0.05
    nothing = torch.full_like(logits[0], -4.0)
    for others in (-logits, (logits[0], nothing), (nothing, nothing), (-nothing, -nothing)):
        assert loss(*others) > right + 0.5


# Adversarial losses


E = math.e


@pytest.mark.parametrize(
    ("name", "real", "generated", "fool"),
    [
        ("least_squares", [4, 1, 0, 1], [1, 0, 1, 4], [4, 1, 0, 1]),
        ("hinge", [2, 1, 0, 0], [0, 1, 2, 3], [1, 0, -1, -2]),
        (
            "bce",  # -log of the probability of being right
            [math.log(1 + E), LN2, math.log(1 + 1 / E), math.log(1 + E**-2)],
            [math.log(1 + 1 / E), LN2, math.log(1 + E), math.log(1 + E**2)],
            [math.log(1 + E), LN2, math.log(1 + 1 / E), math.log(1 + E**-2)],
        ),
    ],
)
def test_adversarial_losses_by_hand(name, real, generated, fool):
    logits, loss = torch.tensor([-1.0, 0.0, 1.0, 2.0]), ADVERSARIAL_LOSSES[name]
    assert_close(loss.real(logits), torch.tensor(real, dtype=torch.float32))
    assert_close(loss.generated(logits), torch.tensor(generated, dtype=torch.float32))
    assert_close(loss.fool(logits), torch.tensor(fool, dtype=torch.float32))


def test_adversarial_losses_are_those_of_the_config():
    names = get_args(DiscriminatorConfig.model_fields["loss"].annotation)
    assert set(names) == set(ADVERSARIAL_LOSSES)


@pytest.mark.parametrize("name", ADVERSARIAL_LOSSES)
def test_direction_of_the_gradients_of_both_players(name):
    """The discriminator raises real logits and lowers generated ones; the generator raises them."""
    loss = ADVERSARIAL_LOSSES[name]
    aims = torch.linspace(loss.fake_logit, loss.real_logit, 7)[1:-1]

    def slope(term):
        logits = aims.clone().requires_grad_()
        term(logits).sum().backward()
        return logits.grad

    assert (slope(loss.real) < 0).all()
    assert (slope(loss.generated) > 0).all()
    assert (slope(loss.fool) < 0).all()
    fake, real = torch.tensor(loss.fake_logit), torch.tensor(loss.real_logit)
    assert loss.real(real) < loss.real(fake)
    assert loss.generated(fake) < loss.generated(real)


def test_hinge_has_no_gradient_beyond_its_targets():
    loss = ADVERSARIAL_LOSSES["hinge"]
    logits = torch.tensor([-1.5, 1.5], requires_grad=True)
    (loss.real(logits[1]) + loss.generated(logits[0])).backward()
    assert not logits.grad.any()


def test_bce_is_that_of_torch():
    logits, loss = (
        torch.tensor([-200.0, -20.0, -3.0, 0.0, 0.5, 20.0, 200.0]),
        ADVERSARIAL_LOSSES["bce"],
    )
    for term, target in ((loss.real, 1.0), (loss.generated, 0.0), (loss.fool, 1.0)):
        expected = binary_cross_entropy_with_logits(
            logits, torch.full_like(logits, target), reduction="none"
        )
        assert_close(term(logits), expected)


def test_feature_matching_by_hand():
    generated = [torch.tensor([1.0, 2.0, 3.0, 6.0]), torch.tensor([[-1.0, 0.5]])]
    real = [torch.tensor([0.0, 2.0, 5.0, 1.0]), torch.tensor([[1.0, 0.5]])]
    # The mean of each layer, whatever its size: 8 / 4 and 2 / 2.
    assert feature_matching_loss(generated, real).item() == 3
    loss = feature_matching_loss([x.bfloat16() for x in generated], [x.bfloat16() for x in real])
    assert loss.dtype == torch.float32
    assert loss.item() == 3
    with pytest.raises(ValueError, match="zip"):
        feature_matching_loss(generated, real[:1])


def test_layer_matching_by_hand():
    generated = [torch.tensor([1.0, 2.0, 3.0, 6.0]), torch.tensor([[-1.0, 0.5]])]
    real = [torch.tensor([0.0, 2.0, 5.0, 1.0]), torch.tensor([[1.0, 0.5]], requires_grad=True)]
    term = layer_matching_loss(generated, real, [10.0, 0.5])
    assert term.value.item() == 3  # as above, 2 and 1
    assert term.weighted.item() == 20.5
    term.weighted.backward()
    assert real[1].grad.tolist() == [[0.25, 0]]  # the real image's features learn too
    with pytest.raises(ValueError, match="zip"):
        layer_matching_loss(generated, real, [10.0])
    alone = layer_matching_loss(generated, real, [0.0, 0.5])
    assert (alone.value.item(), alone.weighted.item()) == (1, 0.5)  # the first is not compared


def test_consistency_by_hand():
    mixed = torch.tensor([1.0, 2.0], requires_grad=True)
    mix_of_logits = torch.tensor([0.0, 4.0], requires_grad=True)
    loss = consistency_loss(mixed, mix_of_logits)
    assert loss.item() == (1 + 4) / 2
    loss.backward()  # both are outputs of the discriminator, and both get a gradient
    assert mixed.grad.tolist() == [1, -2]
    assert mix_of_logits.grad.tolist() == [-1, 2]


@pytest.mark.parametrize("wanted", [(True, False), (False, True), (True, True)])
def test_gradient_of_the_pixel_loss(wanted):
    a, b = (
        torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=requires) for requires in wanted
    )
    assert torch.autograd.gradcheck(pixel_loss, (a, b))
    equal = torch.zeros(3, requires_grad=True)
    pixel_loss(equal, torch.zeros(3)).backward()
    assert not equal.grad.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_pixel_loss_of_half_precision_is_that_of_float32(dtype):
    torch.manual_seed(0)
    a, b = torch.randn(2, 8, 3, 64, 64).to(dtype)
    half, full = a.clone().requires_grad_(), a.float().requires_grad_()
    found, expected = pixel_loss(half, b), pixel_loss(full, b.float())
    assert found.dtype == torch.float32
    assert_close(found, expected, rtol=1e-4, atol=0)
    assert_close(expected, (a.float() - b.float()).abs().mean())
    found.backward()
    expected.backward()
    assert half.grad.dtype == dtype
    assert_close(half.grad.float(), full.grad, rtol=1e-2, atol=0)


def test_warp_loss_sums_the_means_of_all_scales():
    warped = [torch.tensor([1.0, 2.0]), torch.tensor([[0.5]])]
    driving = [torch.tensor([0.0, 4.0]), torch.tensor([[-1.0]])]
    assert warp_loss(warped, driving).item() == pytest.approx((1 + 2) / 2 + 1.5)


def test_background_loss_by_hand():
    def motion(scale, shift):
        return torch.tensor([[[scale, 0, shift], [0, scale, 0], [0, 0, 1]]])

    # There and back: 2 (z + 0.25) - 0.5 = 2 z; of nine numbers two are off by 1.
    product = background_loss(motion(2.0, -0.5), motion(1.0, 0.25))
    assert product.item() == pytest.approx(2 / 9)
    assert background_loss(motion(2.0, 0.5), motion(0.5, -0.25)).item() == 0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert background_loss(motion(3.0, 0.3), motion(1 / 3, -0.1)).item() < 1e-6
