"""Pixel metrics by hand and against scikit-image."""

import math

import pytest
import torch
from skimage.metrics import structural_similarity
from torch.testing import assert_close

from metrics.image import l1, masked, psnr, region_l1, region_psnr, region_ssim, ssim


def noisy_pair(*shape):
    target = torch.rand(shape)
    return (target + 0.2 * torch.randn(shape)).clamp(0, 1), target


def ssim_map(a, b):
    """Structural similarity per pixel by scikit-image, 3 x H x W; its Gaussian has radius 5 too."""
    _, full = structural_similarity(
        a.numpy(),
        b.numpy(),
        data_range=1.0,
        channel_axis=0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    return full


def test_l1_and_psnr_by_hand_frame_by_frame():
    target = torch.full((2, 3, 4, 4), 0.5)
    prediction = target.clone()
    prediction[0, :, :2] += 0.2  # half of the first frame
    assert_close(l1(prediction, target), torch.tensor([0.1, 0.0]))
    expected = -10 * math.log10(0.02)
    assert_close(psnr(prediction, target), torch.tensor([expected, 100.0]), atol=1e-3, rtol=0)


def test_region_l1_by_hand():
    target = torch.zeros(3, 3, 2, 2)
    prediction = target.clone()
    prediction[:, 0, 0, 0] = 0.9  # one channel of one pixel: 0.3 on average over the channels
    region = torch.zeros(3, 1, 2, 2, dtype=torch.bool)
    region[0, 0, 0, 0] = region[1, 0, 0] = True
    values = region_l1(prediction, target, region)
    assert_close(values[:2], torch.tensor([0.3, 0.15]))
    assert values[2].isnan()


def test_region_psnr_by_hand():
    target = torch.zeros(4, 3, 2, 2)
    prediction = target.clone()
    prediction[:3, 0, 0, 0] = 0.3  # one channel of one pixel: a mean square of 0.03 there
    region = torch.zeros(4, 1, 2, 2, dtype=torch.bool)
    region[0, 0, 0, 0] = region[1, 0, 0] = region[3] = True
    values = region_psnr(prediction, target, region)
    expected = [-10 * math.log10(0.03), -10 * math.log10(0.015)]
    assert_close(values[:2], torch.tensor(expected), atol=1e-3, rtol=0)
    assert values[2].isnan()
    assert values[3] == 100
    everywhere = torch.ones_like(region)
    assert_close(region_psnr(prediction, target, everywhere), psnr(prediction, target))


def test_ssim_equals_scikit_image_without_its_border():
    prediction, target = noisy_pair(2, 3, 24, 32)
    values = ssim(prediction, target)
    for value, a, b in zip(values, prediction, target, strict=True):
        assert value.item() == pytest.approx(ssim_map(a, b)[:, 5:-5, 5:-5].mean(), abs=1e-5)


def test_ssim_of_equal_frames_is_one():
    frame = torch.rand(1, 3, 16, 16)
    assert_close(ssim(frame, frame), torch.ones(1))


def test_region_ssim_is_the_mean_of_scikit_image_s_map_over_the_region():
    prediction, target = noisy_pair(2, 3, 24, 32)
    region = torch.rand(2, 1, 24, 32) < 0.3  # includes the border, which must not count
    values = region_ssim(prediction, target, region)
    region[..., :5, :] = region[..., -5:, :] = region[..., :5] = region[..., -5:] = False
    for value, a, b, inside in zip(values, prediction, target, region.numpy(), strict=True):
        expected = ssim_map(a, b)[:, inside[0]].mean()
        assert value.item() == pytest.approx(expected, abs=1e-5)


def test_region_ssim_over_everything_and_over_the_border_alone():
    prediction, target = noisy_pair(2, 3, 24, 32)
    region = torch.ones(2, 1, 24, 32, dtype=torch.bool)
    assert_close(region_ssim(prediction, target, region), ssim(prediction, target))
    region[..., 5:-5, 5:-5] = False
    assert region_ssim(prediction, target, region).isnan().all()


def test_masked_over_the_whole_frame_by_hand():
    target = torch.full((1, 3, 4, 4), 0.5)
    prediction = target + 0.2
    region = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    region[..., :1] = True  # a quarter of the frame
    salient, real = masked(prediction, region), masked(target, region)
    assert_close(l1(salient, real), torch.tensor([0.05]))
    assert_close(psnr(salient, real), torch.tensor([-10 * math.log10(0.01)]))
    soft = torch.full((1, 1, 4, 4), 0.25)
    assert_close(l1(masked(prediction, soft), masked(target, soft)), torch.tensor([0.05]))


def test_l1_of_region_and_of_the_rest_add_up():
    """They add up to the L1 of the whole frame, as in the papers' tables."""
    prediction, target = noisy_pair(2, 3, 16, 16)
    region = torch.rand(2, 1, 16, 16)
    parts = [l1(masked(prediction, part), masked(target, part)) for part in (region, 1 - region)]
    assert_close(parts[0] + parts[1], l1(prediction, target))
