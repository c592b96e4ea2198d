"""Pixel metrics of predicted and true frames: images in [0, 1], one number for each frame."""

import torch
from pytorch_msssim import ssim as _ssim
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

_PERFECT_PSNR = 100.0  # dB for identical frames; infinity would make every mean infinite
_SSIM_WINDOW = 11
_SSIM_SIGMA = 1.5
_SSIM_C1, _SSIM_C2 = 0.01**2, 0.03**2  # as in the paper, for values up to 1


def masked(images: Tensor, region: Tensor) -> Tensor:
    """Black out `images` outside of `region`, as the papers do for salient and non-salient metrics.

    Both frames are masked with the region of the real one, then a metric of the whole frame is
    computed: the smaller the region, the better the metric. The `region_` metrics below are means
    over the region's own pixels instead.

    Args:
        images: B x 3 x H x W.
        region: B x 1 x H x W, bool or in [0, 1].
    """
    return images * region


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

    Equals scikit-image with gaussian_weights and without use_sample_covariance. The border, where
    the window does not fit, is left out.
    """
    return _ssim(prediction, target, data_range=1.0, size_average=False)


def region_ssim(prediction: Tensor, target: Tensor, region: Tensor) -> Tensor:
    """Mean of the map of structural similarity over `region` (B x 1 x H x W bool): B.

    As in `ssim`, the 5 pixels along each side of the frame are left out, because the window does
    not fit there. The window of a pixel may reach 5 pixels beyond the region. NaN for a frame whose
    region has no pixels besides these.
    """
    border = _SSIM_WINDOW // 2
    inner = region[..., border:-border, border:-border]
    return _region_mean(_ssim_map(prediction, target), inner)


def _ssim_map(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity of every pixel and channel but the border: B x 3 x H - 10 x W - 10.

    pytorch-msssim returns only means.
    """
    mean_a, mean_b = _window_mean(a), _window_mean(b)
    variance_a = _window_mean(a * a) - mean_a * mean_a
    variance_b = _window_mean(b * b) - mean_b * mean_b
    covariance = _window_mean(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + _SSIM_C1) / (mean_a * mean_a + mean_b * mean_b + _SSIM_C1)
    return luminance * (2 * covariance + _SSIM_C2) / (variance_a + variance_b + _SSIM_C2)


def _window_mean(images: Tensor) -> Tensor:
    border = _SSIM_WINDOW // 2
    blurred = gaussian_blur(images, [_SSIM_WINDOW] * 2, [_SSIM_SIGMA] * 2)
    return blurred[..., border:-border, border:-border]


def _region_mean(error: Tensor, region: Tensor) -> Tensor:
    """Mean of `error`, B x 3 x H x W, over the pixels of `region` and the channels: B."""
    error = error.mean(dim=1, keepdim=True)
    return (error * region).sum(dim=(1, 2, 3)) / region.sum(dim=(1, 2, 3))


def _decibels(mean_square: Tensor) -> Tensor:
    return (-10 * torch.log10(mean_square)).clamp(max=_PERFECT_PSNR)
