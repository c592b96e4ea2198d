"""Pixel metrics of predicted frames against true ones; images in [0, 1], one number per frame."""

import torch
from pytorch_msssim import ssim as _ssim
from torch import Tensor

_PERFECT_PSNR = 100.0  # dB, given to identical frames instead of infinity, so that means exist


def l1(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference over the frame: B x 3 x H x W twice -> B."""
    return (prediction - target).abs().mean(dim=(1, 2, 3))


def region_l1(prediction: Tensor, target: Tensor, region: Tensor) -> Tensor:
    """Mean absolute difference over the pixels of `region` (B x 1 x H x W bool): B.

    NaN for a frame whose region is empty.
    """
    return _region_mean((prediction - target).abs(), region)


def psnr(prediction: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, at most 100: B x 3 x H x W twice -> B."""
    return _decibels((prediction - target).square().mean(dim=(1, 2, 3)))


def region_psnr(prediction: Tensor, target: Tensor, region: Tensor) -> Tensor:
    """PSNR from the mean squared error over the pixels of `region` (B x 1 x H x W bool): B.

    NaN for a frame whose region is empty.
    """
    return _decibels(_region_mean((prediction - target).square(), region))


def ssim(prediction: Tensor, target: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004; Gaussian window 11, sigma 1.5): B.

    As scikit-image with gaussian_weights and without use_sample_covariance; the border, where the
    window does not fit, is left out.
    """
    return _ssim(prediction, target, data_range=1.0, size_average=False)


def _region_mean(error: Tensor, region: Tensor) -> Tensor:
    """Mean of `error`, B x 3 x H x W, over the pixels of `region` and the channels: B."""
    error = error.mean(dim=1, keepdim=True)
    return (error * region).sum(dim=(1, 2, 3)) / region.sum(dim=(1, 2, 3))


def _decibels(mean_square: Tensor) -> Tensor:
    return (-10 * torch.log10(mean_square)).clamp(max=_PERFECT_PSNR)
