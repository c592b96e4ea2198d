"""Which loss term trains which network: the rules of the method."""

import pytest
import torch

from branches.model import Model
from tests.helpers.factories import joint_terms, noise_inputs, tiny_config
from training.step import total

PIXEL = (
    *("motion.losses.pixel=1", "masks.losses.pixel=1", "background.losses.pixel=1"),
    *("motion.generator.skip=true", "motion.prior.weight=1"),
    *("motion.losses.decoded=1", "motion.losses.visibility=1"),
    *("masks.mask_generator.skips=true", "background.bg_refine.skip=true"),
    "background.bg_refine.skip_base=true",
)
MOTION = {"keypoint_detector", "dense_motion", "generator"}

# The networks that each loss term trains; all others get no gradient from it.
REACHED = {
    "motion/perceptual": MOTION,
    "motion/pixel": MOTION,
    "motion/decoded": MOTION,
    "motion/visibility": {"keypoint_detector", "dense_motion"},
    "motion/keypoint_prior": {"keypoint_detector"},
    "motion/equivariance_value": {"keypoint_detector"},
    "motion/equivariance_jacobian": {"keypoint_detector"},
    # Only the terms of L and the prior train the mask generator.
    "masks/low_perceptual": {"mask_generator", "low_resolution"},
    "masks/low_pixel": {"mask_generator", "low_resolution"},
    "masks/high_perceptual": {"high_resolution"},
    "masks/high_pixel": {"high_resolution"},
    "masks/refinement": {"refinement"},
    "masks/prior": {"mask_generator"},
    # BGBase and BGRefine train neither each other nor the mask generator.
    "background/base_perceptual": {"bg_base"},
    "background/base_pixel": {"bg_base"},
    "background/refine_perceptual": {"bg_refine"},
    "background/refine_pixel": {"bg_refine"},
}


def joint(*overrides):
    config = tiny_config(*PIXEL, *overrides)
    model, inputs = Model(config).train(), noise_inputs(config, batch=3)
    terms, inputs = joint_terms(model, inputs)
    return model, inputs, terms


def gradients(value, tensors):
    """Gradients of `value`, None for tensors it does not depend on; the graph is kept."""
    return torch.autograd.grad(value, tensors, allow_unused=True, retain_graph=True)


@pytest.mark.parametrize("foreign", [0, 0.5, 1])
def test_every_term_reaches_its_networks_and_no_other(foreign):
    model, _, terms = joint(f"background.foreign_probability={foreign}")
    assert terms.keys() == REACHED.keys()
    for term_name, expected in REACHED.items():
        for name, network in model.networks.items():
            found = gradients(terms[term_name].weighted, list(network.parameters()))
            if name in expected:
                assert any(g is not None and g.any() for g in found), (term_name, name)
            else:
                assert all(g is None for g in found), (term_name, name)


def test_low_resolution_reaches_the_masks_of_both_frames_and_nothing_else_does():
    _, inputs, terms = joint()
    masks = inputs.outputs.masks
    logits = (masks.source_logits, masks.driving_logits)
    learning = {"masks/low_perceptual", "masks/low_pixel", "masks/prior"}
    for name, term in terms.items():
        for gradient in gradients(term.weighted, logits):
            assert (gradient is not None) == (name in learning), name
            assert gradient is None or gradient.any()


def test_the_refinement_sees_detached_masks_and_target():
    _, inputs, terms = joint()
    masks = inputs.outputs.masks
    assert not masks.perturbed_mask.requires_grad
    (refined,) = gradients(terms["masks/refinement"].weighted, (masks.refined_mask,))
    assert refined.any()
    seen = gradients(masks.refined_mask.sum(), (masks.source_mask, masks.driving_mask))
    assert seen == (None, None)


def test_the_predictions_of_one_network_do_not_depend_on_the_next():
    _, inputs, terms = joint()
    masks, swap = inputs.outputs.masks, inputs.outputs.background.swap
    assert gradients(terms["masks/high_perceptual"].weighted, (masks.low_resolution,)) == (None,)
    assert gradients(terms["background/refine_perceptual"].weighted, (swap.base,)) == (None,)


@pytest.mark.parametrize(
    "overrides",
    [[], ["masks.mask_generator.scale=1"], ["background.foreign_probability=0.5"]],
)
def test_every_parameter_receives_a_gradient(overrides):
    model, _, terms = joint(*overrides)
    total(terms).backward()
    assert all(p.grad is not None for p in model.parameters())
    # BatchNorm subtracts the mean, and with it the bias of the convolution before it: the gradient
    # of such a bias is only rounding error, and may be exactly zero.
    zero = {
        name
        for name, p in model.named_parameters()
        if not p.grad.any() and not name.endswith("conv.bias") and "conv1.bias" not in name
    }
    assert not zero


def test_no_gradient_reaches_the_vgg_or_the_target():
    _, inputs, terms = joint("background.foreign_probability=1")
    assert not inputs.outputs.background.target.requires_grad
    assert not any(m.requires_grad for level in inputs.target_features for m in level.values())
    total(terms).backward()
    assert all(p.grad is None for p in inputs.perceptual.parameters())
