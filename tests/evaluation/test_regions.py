"""Salient regions: found by the model or a detector, or given as masks."""

import numpy as np
import pytest
import torch
from PIL import Image

from branches.masks import MaskBranch
from branches.model import Model
from branches.motion.fomm import FommBranch
from evaluation.regions import DetectedRegions, GivenRegions, MaskRegions, MotionRegions
from metrics.detectors.detector import Description
from tests.helpers.factories import MemoryClips, noise_frames, tiny_config

FRAMES = noise_frames(3, (32, 32))


@pytest.fixture
def model():
    return Model(tiny_config()).eval()


@pytest.mark.parametrize(("bias", "expected"), [(50.0, False), (-50.0, True)])
@torch.no_grad()
def test_pixels_that_keypoints_move_are_salient(model, bias, expected):
    """The background weight of the dense motion is near 1 everywhere, or near 0."""
    branch = model.motion
    assert isinstance(branch, FommBranch)
    branch.dense_motion.mask.bias[0] = bias
    region = MotionRegions(branch, "here").start("clip", FRAMES[:1])(FRAMES)
    assert region.shape == (3, 1, 32, 32)
    assert region.eq(expected).all()


@torch.no_grad()
def test_the_masks_foreground_is_salient(model):
    """The masks are 1 except for their border."""
    branch = model.masks
    assert isinstance(branch, MaskBranch)
    branch.mask_generator.ref.weight.zero_()
    branch.mask_generator.ref.bias.fill_(10.0)
    region = MaskRegions(branch, 0.5, "here").start("clip", FRAMES[:1])(FRAMES)
    expected = torch.zeros(32, 32, dtype=torch.bool)
    expected[6:26, 6:26] = True
    assert torch.equal(region, expected.expand(3, 1, 32, 32))


def test_a_region_finder_gets_uint8_frames():
    class Bright:
        description = Description("bright", "none", "none", "none")

        def region(self, frame):
            assert frame.dtype == np.uint8
            return frame[..., 0] > 127

    region = DetectedRegions(Bright()).start("clip", FRAMES[:1])(FRAMES)
    assert torch.equal(region, FRAMES[:, :1].mul(255).round() > 127)


def given(folder, masks, fit="crop"):
    """Write masks, H x W from 0 to 255, for the frames of a clip, and start their regions."""
    (folder / "a").mkdir()
    for number, mask in enumerate(masks):
        Image.fromarray(np.asarray(mask, np.uint8)).save(folder / "a" / f"{number:05}.png")
    clips = MemoryClips(["a"], num_frames=len(masks))
    return GivenRegions(folder, clips, fit).start("a", torch.zeros(1, 3, 16, 16))


def column(number, width=16):
    """A mask with one white column."""
    mask = np.zeros((16, width))
    mask[:, number] = 255
    return mask


def test_given_masks_continue_from_batch_to_batch(tmp_path):
    find = given(tmp_path, [column(number) for number in range(5)])
    found = torch.cat([find(torch.zeros(count, 3, 16, 16)) for count in (2, 2, 1)])
    assert found.shape == (5, 1, 16, 16)
    assert torch.equal(found[:, 0, 0].nonzero(), torch.arange(5)[:, None].expand(5, 2))


@pytest.mark.parametrize(
    ("fit", "salient"),
    [("crop", (slice(None), slice(0, 8))), ("pad", (slice(4, 12), slice(4, 8)))],
)
def test_given_masks_are_fitted_as_the_frames(tmp_path, fit, salient):
    """Masks of 32 x 16, white in columns 8 to 15, are cropped to 16 x 16, or halved and padded."""
    mask = np.zeros((16, 32))
    mask[:, 8:16] = 255
    expected = torch.zeros(16, 16, dtype=torch.bool)
    expected[salient] = True
    assert torch.equal(given(tmp_path, [mask], fit)(torch.zeros(1, 3, 16, 16))[0, 0], expected)


@pytest.mark.parametrize(
    ("masks", "warned"),
    [
        ([column(0) / 255] * 3, "a are not salient in every pixel; white is salient, black the"),
        ([np.full((16, 16), 255)] * 3, "a are salient in every pixel"),
        ([np.zeros((16, 16)), np.full((16, 16), 255), np.zeros((16, 16))], None),
        ([np.zeros((16, 16)), np.zeros((16, 16)), column(0)], None),
    ],
)
def test_constant_given_masks_cause_a_warning(tmp_path, caplog, masks, warned):
    find = given(tmp_path, masks)
    for count in (2, 1):
        find(torch.zeros(count, 3, 16, 16))
    if warned is None:
        assert not caplog.messages
    else:
        (message,) = caplog.messages
        assert warned in message
