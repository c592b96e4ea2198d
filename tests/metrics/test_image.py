"""Pixel metrics by hand and against scikit-image."""

import math

import pytest
import torch
from skimage.metrics import structural_similarity
from torch.testing import assert_close

from metrics.image import l1, psnr, region_l1, region_psnr, ssim


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
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(2, 3, 24, 32, generator=generator)
    prediction = (target + 0.2 * torch.randn(target.shape, generator=generator)).clamp(0, 1)
    values = ssim(prediction, target)
    for value, a, b in zip(values, prediction, target, strict=True):
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
        # skimage's Gaussian has a radius of 5, as ours.
        assert value.item() == pytest.approx(full[:, 5:-5, 5:-5].mean(), abs=1e-5)


def test_ssim_of_equal_frames_is_one():
    frame = torch.rand(1, 3, 16, 16)
    assert_close(ssim(frame, frame), torch.ones(1))
