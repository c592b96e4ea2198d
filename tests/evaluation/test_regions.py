"""Who says where the salient region is."""

import numpy as np
import pytest
import torch

from branches.masks import MaskBranch
from branches.motion import MotionBranch
from evaluation.regions import FoundRegions, MaskRegions, MotionRegions
from metrics.detectors.detector import Description
from model import Model
from tests.factories import noise_frames, tiny_config

FRAMES = noise_frames(3, (32, 32))


@pytest.fixture
def model():
    return Model(tiny_config()).eval()


@pytest.mark.parametrize(("bias", "expected"), [(50.0, False), (-50.0, True)])
@torch.no_grad()
def test_what_the_background_does_not_move_is_salient(model, bias, expected):
    """A dense motion that is sure of the background everywhere, and one that is sure of none."""
    branch = model.branches["motion"]
    assert isinstance(branch, MotionBranch)
    branch.dense_motion.mask.bias[0] = bias
    region = MotionRegions(branch, "here").start("clip", FRAMES[:1])(FRAMES)
    assert region.shape == (3, 1, 32, 32)
    assert region.eq(expected).all()


@torch.no_grad()
def test_the_masks_foreground_is_salient(model):
    """Masks that are 1 wherever the last convolution reaches: not in their border."""
    branch = model.branches["masks"]
    assert isinstance(branch, MaskBranch)
    branch.mask_generator.ref.weight.zero_()
    branch.mask_generator.ref.bias.fill_(10.0)
    region = MaskRegions(branch, 0.5, "here").start("clip", FRAMES[:1])(FRAMES)
    expected = torch.zeros(32, 32, dtype=torch.bool)
    expected[6:26, 6:26] = True
    assert torch.equal(region, expected.expand(3, 1, 32, 32))


def test_a_finder_sees_the_frames_as_pictures():
    class Bright:
        description = Description("bright", "none", "none", "none")

        def region(self, frame):
            assert frame.dtype == np.uint8
            return frame[..., 0] > 127

    region = FoundRegions(Bright()).start("clip", FRAMES[:1])(FRAMES)
    assert torch.equal(region, FRAMES[:, :1].mul(255).round() > 127)
