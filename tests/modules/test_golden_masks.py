"""Parity of the mask branch with numbers of the published network (256 x 256, eval mode)."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from branches.masks import MaskBranch
from configs.schema import MasksConfig
from modules.geometry import resize
from modules.mask_generator import BORDER
from tests.helpers.golden import stored_pixels

PARTS = {
    "mask_generator": "mask_generator",
    "refinement": "generator",
    "low_resolution": "generator",
    "high_resolution": "generator",
}


def close(actual, expected):
    assert_close(actual, expected, atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def branch(golden_masks):
    """The mask branch of the default config, with all tensors loaded by their published names."""
    branch = MaskBranch(MasksConfig())
    for name, part in PARTS.items():
        network = branch.get_submodule(name)
        weights = {}
        for child, _ in network.named_children():
            weights |= golden_masks.weights(part, f"{child}.")
        weights.pop("down.weight", None)  # the blur kernel, which we compute from the scale
        network.load_state_dict(weights)
    return branch.eval()


@pytest.fixture(scope="module")
def stored(golden_masks):
    """A function that returns an array of the one sample; masks get their border of zeros."""

    def array(name):
        found = golden_masks[name]
        return F.pad(found, (BORDER,) * 4) if name in ("mask_source", "mask_driving") else found

    return array


def test_every_published_tensor_has_its_place(golden_masks, branch):
    ours = {}
    for name, part in PARTS.items():
        state = branch.get_submodule(name).state_dict()
        ours.setdefault(part, {}).update({n: list(t.shape) for n, t in state.items()})
    published = golden_masks.shapes
    blur = {"down.weight": [3, 1, 13, 13]}
    assert ours["mask_generator"] | blur == published["mask_generator"]
    unused = {name for name in published["generator"] if name.startswith("down_blocks.")}
    used = {name: s for name, s in published["generator"].items() if name not in unused}
    assert ours["generator"] == used


def test_blur_kernel(golden_masks, branch):
    kernel = branch.mask_generator.down.kernel
    published = golden_masks["kept/mask_generator/down.weight"]
    close(torch.outer(kernel, kernel).expand(3, 1, -1, -1), published)


@torch.inference_mode()
def test_masks(branch, stored):
    close(branch.mask_generator(stored("source")), stored("mask_source"))
    close(branch.mask_generator(stored("driving")), stored("mask_driving"))


@torch.inference_mode()
def test_refinement(branch, stored):
    refined = branch.refine(stored("source"), stored("mask_source"), stored("perturbed_mask"))
    close(refined, stored("refined_mask"))


@torch.inference_mode()
def test_low_and_high_resolution(branch, stored):
    low, high = branch.generate(stored("source"), stored("mask_source"), stored("mask_driving"))
    close(stored_pixels(low), stored("low_resolution"))
    close(stored_pixels(high), stored("high_resolution"))


@torch.inference_mode()
def test_low_resolution_of_a_refined_mask(branch, stored):
    """`test_low_and_high_resolution` covers the high-resolution generator."""
    source_mask = stored("mask_source")
    small = resize(stored("source"), (64, 64))
    low = branch.low_resolution(small, source_mask, stored("refined_mask"))
    close(stored_pixels(low), stored("animated_low_resolution"))
