"""The mask branch as a whole: inputs of its networks, start epoch, precision, statistics."""

import pytest
import torch
from torch.testing import assert_close

from branches.masks import MaskBranch, num_halvings
from branches.model import Model
from losses import pixel_loss
from modules.geometry import resize
from tests.helpers.factories import before_start, noise_inputs, tiny_config
from training.step import total

PIXEL = "masks.losses.pixel=1"


def build(*overrides):
    config = tiny_config(*overrides)
    branch = Model(config).masks
    assert isinstance(branch, MaskBranch)
    return branch.train(), noise_inputs(config)


def total_loss(branch, inputs):
    return total(branch.loss_terms(inputs, branch(inputs)))


def test_terms_follow_the_weights():
    branch, inputs = build("masks.losses.pixel=2.5", "masks.losses.refinement=7")
    terms = branch.loss_terms(inputs, branch(inputs))
    assert list(terms) == [
        "low_perceptual", "low_pixel", "high_perceptual", "high_pixel", "refinement", "prior",
    ]  # fmt: skip
    weights = {"low_perceptual": 10, "high_pixel": 2.5, "refinement": 7, "prior": 1}
    for name, weight in weights.items():
        assert_close(terms[name].weighted, weight * terms[name].value)
    branch, inputs = build(
        "masks.losses.perceptual={relu1_1: 0}",
        PIXEL,
        "masks.prior.weight=0",
    )
    terms = branch.loss_terms(inputs, branch(inputs))
    assert list(terms) == ["low_pixel", "high_pixel", "refinement"]


@torch.no_grad()
def test_the_driving_mask_comes_from_the_recolored_frame():
    branch, inputs = build(PIXEL)
    output = branch(inputs)
    assert torch.equal(output.driving_mask, branch.mask_generator(inputs.recolored_driving))
    assert not torch.equal(output.driving_mask, branch.mask_generator(inputs.driving))
    assert torch.equal(output.source_mask, branch.mask_generator(inputs.source))
    terms = branch.loss_terms(inputs, output)
    assert_close(terms["low_pixel"].value, pixel_loss(output.low_resolution, inputs.driving))
    assert_close(terms["high_pixel"].value, pixel_loss(output.high_resolution, inputs.driving))
    # The driving frame itself is only the target: no network gets it as an input.
    inputs.context.random.generator.manual_seed(0)
    other = branch(inputs._replace(driving=torch.zeros_like(inputs.driving)))
    assert torch.equal(other.low_resolution, output.low_resolution)
    assert torch.equal(other.high_resolution, output.high_resolution)
    assert torch.equal(other.refined_mask, output.refined_mask)


@torch.no_grad()
def test_the_generators_get_the_unperturbed_driving_mask():
    branch, inputs = build()
    output = branch(inputs)
    low, high = branch.generate(inputs.source, output.source_mask, output.driving_mask)
    assert torch.equal(low, output.low_resolution)
    assert torch.equal(high, output.high_resolution)
    assert not torch.allclose(output.perturbed_mask, output.driving_mask, atol=0.05)


@torch.no_grad()
def test_inputs_of_the_high_resolution_generator_in_order():
    branch, inputs = build()
    seen = []
    branch.high_resolution.register_forward_pre_hook(lambda module, maps: seen.extend(maps))
    output = branch(inputs)
    expected = (inputs.source, output.source_mask, output.low_resolution, output.driving_mask)
    for found, map_ in zip(seen, expected, strict=True):
        assert torch.equal(found, resize(map_, (32, 32)))


@torch.no_grad()
def test_perturbation_is_drawn_from_the_generator_anew_in_each_step():
    branch, inputs = build()
    first, second = branch(inputs), branch(inputs)
    assert torch.equal(first.driving_mask, second.driving_mask)
    assert not torch.equal(first.perturbed_mask, second.perturbed_mask)
    inputs.context.random.generator.manual_seed(0)
    torch.manual_seed(1)  # the global stream plays no part
    assert torch.equal(branch(inputs).perturbed_mask, first.perturbed_mask)
    assert not torch.equal(first.perturbed_mask[0], first.perturbed_mask[1])


def test_refinement_does_nothing_before_its_start():
    branch, inputs = build()
    before = inputs.context.random.generator.get_state()
    output = branch(before_start(inputs, "masks.refinement"))
    assert output.perturbed_mask is output.refined_mask is None
    assert torch.equal(inputs.context.random.generator.get_state(), before)
    assert "refinement" not in branch.loss_terms(inputs, output)
    assert {"perturbed", "refined"}.isdisjoint(branch.pictures(inputs, output, 2))
    output = branch(inputs)
    assert "refinement" in branch.loss_terms(inputs, output)
    assert {"perturbed", "refined"} <= branch.pictures(inputs, output, 2).keys()


def test_the_refinement_is_to_restore_the_driving_mask():
    branch, inputs = build()
    output = branch(inputs)
    value = branch.loss_terms(inputs, output)["refinement"].value
    assert_close(value, (output.refined_mask - output.driving_mask).abs().mean())
    perfect = output._replace(refined_mask=output.driving_mask)
    assert branch.loss_terms(inputs, perfect)["refinement"].value.item() == 0


def test_the_prior_compares_the_frames_that_share_a_colour_jitter():
    """In a still pair no pixel changes, even though the mask generator gets a recolored frame."""
    branch, inputs = build("masks.prior.changed_share=0.25")
    inputs = inputs._replace(driving=inputs.source)
    output = branch(inputs)
    prior = branch.loss_terms(inputs, output)["prior"].value
    source, driving = output.source_logits.double(), output.driving_logits.double()
    outside = (1 - source.sigmoid()) * (1 - driving.sigmoid())
    assert_close(prior.double(), -0.75 * outside.log().mean(), rtol=1e-4, atol=0)


def test_the_prior_leaves_out_the_border_of_the_masks():
    branch, inputs = build()
    output = branch(inputs)

    def prior(driving):
        moved = inputs._replace(driving=driving)
        return branch.loss_terms(moved, output)["prior"].value.item()

    changed = 1 - inputs.source.round()  # by at least 1/2
    still = prior(inputs.source)
    # The border is 3 of 16 pixels of a mask, so 6 of 32 of a frame.
    for columns, reaches in ((slice(0, 6), False), (slice(0, 8), True)):
        driving = inputs.source.clone()
        driving[..., columns] = changed[..., columns]
        assert (prior(driving) != still) == reaches


@torch.no_grad()
def test_animated_mask_depends_on_values_above_the_threshold_and_nothing_random():
    branch, inputs = build("masks.perturbation.threshold=60")
    branch.eval()
    mask, driving_mask = torch.rand(2, 1, 16, 16), torch.rand(2, 1, 16, 16)
    animated = branch.animated_mask(inputs.source, mask, driving_mask)
    assert animated.shape == (2, 1, 16, 16)
    assert torch.equal(branch.animated_mask(inputs.source, mask, driving_mask), animated)
    strong = driving_mask.where(driving_mask > 60 / 255, 0.0)
    assert torch.equal(branch.animated_mask(inputs.source, mask, strong), animated)
    nothing = branch.animated_mask(inputs.source, mask, torch.zeros_like(mask))
    assert not torch.allclose(nothing, animated, atol=1e-3)


@pytest.mark.parametrize(("scale", "halvings"), [(1.0, 0), (0.5, 1), (0.25, 2), (0.125, 3)])
def test_number_of_halvings(scale, halvings):
    assert num_halvings(scale) == halvings


@pytest.mark.parametrize(
    ("size", "scale", "mask_size"),
    [
        ("[16, 48]", 0.5, (8, 24)),
        ("[64, 32]", 0.25, (16, 8)),
        ("[16, 24]", 1, (16, 24)),
    ],
)
def test_sizes_that_are_not_square_and_scales(size, scale, mask_size):
    branch, inputs = build(f"data.image_size={size}", f"masks.mask_generator.scale={scale}")
    output = branch(inputs)
    for mask in (output.source_mask, output.driving_mask, output.refined_mask):
        assert mask.shape == (2, 1, *mask_size)
    assert output.low_resolution.shape == output.high_resolution.shape == inputs.source.shape
    total(branch.loss_terms(inputs, output)).backward()
    for picture in branch.pictures(inputs, output, 2).values():
        assert picture.shape == inputs.source.shape


def test_bf16_is_near_float32():
    branch, inputs = build()
    found = []
    for enabled in (False, True):
        inputs.context.random.generator.manual_seed(0)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            output = branch(inputs)
            found.append((output, total(branch.loss_terms(inputs, output))))
    (plain, plain_loss), (half, half_loss) = found
    assert half_loss.dtype == torch.float32
    assert_close(half_loss, plain_loss, rtol=0.05, atol=0)
    for name, tensor in half._asdict().items():
        assert tensor.dtype == torch.float32, name
        assert tensor.isfinite().all(), name
    for name in ("low_resolution", "high_resolution"):
        assert_close(getattr(half, name), getattr(plain, name), atol=0.05, rtol=0)
    assert (half.driving_mask - plain.driving_mask).abs().mean() < 0.02
    half_loss.backward()
    assert all(p.grad.isfinite().all() for p in branch.parameters())


@torch.no_grad()
def test_channels_last_equals_contiguous():
    branch, inputs = build()
    expected = branch(inputs)
    layout = torch.channels_last
    branch.to(memory_format=layout)
    frames = {
        name: getattr(inputs, name).contiguous(memory_format=layout)
        for name in ("source", "driving", "recolored_driving")
    }
    inputs.context.random.generator.manual_seed(0)
    output = branch(inputs._replace(**frames))
    for name in ("driving_mask", "refined_mask", "low_resolution", "high_resolution"):
        assert_close(getattr(output, name), getattr(expected, name), atol=1e-4, rtol=0)


def test_statistics_of_known_masks():
    branch, inputs = build()
    output = branch(inputs)
    statistics = branch.statistics(output)
    assert all(torch.isfinite(value) and value.ndim == 0 for value in statistics.values())
    driving = torch.tensor([0.0, 0.2, 0.5, 1.0]).view(1, 1, 2, 2)
    known = output._replace(driving_mask=driving, source_mask=torch.full((1, 1, 2, 2), 0.5))
    statistics = {name: value.item() for name, value in branch.statistics(known).items()}
    assert statistics == {
        "mask_mean": pytest.approx(1.7 / 4),
        "mask_binariness": pytest.approx((1 + 0.6 + 0 + 1) / 4),
        "foreground_share": pytest.approx(1 / 4),  # 0.5 is not above
        "mask_movement": pytest.approx((0.5 + 0.3 + 0 + 0.5) / 4),
    }


@torch.no_grad()
def test_pictures():
    branch, inputs = build()
    pictures = branch.pictures(inputs, branch(inputs), 2)
    assert list(pictures) == [
        "source", "driving", "source mask", "driving mask", "perturbed", "refined", "L", "H",
    ]  # fmt: skip
    for picture in pictures.values():
        assert picture.shape == inputs.source.shape
        assert 0 <= picture.min() <= picture.max() <= 1
