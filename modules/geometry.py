"""Coordinates, warps and small matrices: the one place that fixes the grid convention.

Coordinates are (x, y) in [-1, 1]; the centres of the corner pixels lie at exactly -1 and 1, so
every `grid_sample` uses `align_corners=True`. Bilinear resizing uses `align_corners=False` where
the published network does not say otherwise.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def full_precision(x: Tensor) -> Tensor:
    """`x` in float32 when it is in half precision; float32 and float64 stay as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def coordinate_grid(height: int, width: int, like: Tensor) -> Tensor:
    """Coordinates of every pixel centre, H x W x 2, x first.

    On the device and in the dtype of `like`. A single row or column lies at 0.
    """

    def axis(size: int) -> Tensor:
        if size == 1:
            return torch.zeros(1, device=like.device, dtype=like.dtype)
        return torch.linspace(-1, 1, size, device=like.device, dtype=like.dtype)

    y, x = torch.meshgrid(axis(height), axis(width), indexing="ij")
    return torch.stack((x, y), dim=-1)


def warp(
    image: Tensor, grid: Tensor, padding_mode: Literal["zeros", "reflection"] = "zeros"
) -> Tensor:
    """Sample `image` (B x C x H x W) bilinearly at `grid` (B x h x w x 2): B x C x h x w.

    The memory format and dtype of `image` are kept: `grid_sample` itself returns contiguous
    memory, which would slow down every channels-last convolution after it.
    """
    warped = F.grid_sample(
        image.to(grid.dtype), grid, mode="bilinear", padding_mode=padding_mode, align_corners=True
    ).to(image.dtype)
    if image.is_contiguous(memory_format=torch.channels_last):
        warped = warped.contiguous(memory_format=torch.channels_last)
    return warped


def warp_by_candidates(image: Tensor, motions: Tensor) -> Tensor:
    """`image`, B x C x H x W, sampled at each of its N candidate motions, B x N x h x w x 2, in
    float32: B x N x C x h x w.
    """
    batch, candidates = motions.shape[:2]
    repeated = full_precision(image).repeat_interleave(candidates, dim=0)
    return warp(repeated, motions.flatten(0, 1)).unflatten(0, (batch, candidates))


def resize(
    image: Tensor,
    size: tuple[int, int],
    mode: Literal["bilinear", "nearest"] = "bilinear",
    *,
    align_corners: bool = False,
) -> Tensor:
    """Resize B x C x H x W to (height, width); unchanged where the size is right.

    `align_corners` is for bilinear resizing alone.
    """
    if image.shape[-2:] == size:
        return image
    corners = align_corners if mode == "bilinear" else None
    return F.interpolate(image, size, mode=mode, align_corners=corners)


def resize_grid(
    grid: Tensor,
    size: tuple[int, int],
    mode: Literal["bilinear", "nearest"] = "bilinear",
    *,
    align_corners: bool = False,
) -> Tensor:
    """Resize a field of coordinates, B x h x w x 2, to (height, width), as `resize` does."""
    image = resize(grid.permute(0, 3, 1, 2), size, mode, align_corners=align_corners)
    return image.permute(0, 2, 3, 1)


def scaled_size(image: Tensor, scale: float) -> tuple[int, int]:
    """(height, width) of `image`, ... x H x W, times `scale`."""
    return round(image.shape[-2] * scale), round(image.shape[-1] * scale)


def gaussian_heatmaps(points: Tensor, height: int, width: int, variance: float) -> Tensor:
    """exp(-|z - p|^2 / (2 variance)) for points B x K x 2: B x K x H x W.

    A Gaussian is separable, so it is the outer product of one row and one column per keypoint.
    """
    grid = coordinate_grid(height, width, points)
    x = torch.exp(-((grid[0, :, 0] - points[..., 0:1]) ** 2) / (2 * variance))
    y = torch.exp(-((grid[:, 0, 1] - points[..., 1:2]) ** 2) / (2 * variance))
    return y.unsqueeze(-1) * x.unsqueeze(-2)


def stillness_of_field(field: Tensor, variance: float = 0.01) -> Tensor:
    """How still each pixel of a backward field u(z) stands: exp(-|u(z) - z|^2 / (2 variance)).

    This is ours: PriorityCut needs to know what is background, and this tells it of systems that
    have only a field.

    Args:
        field: B x h x w x 2, (x, y) in [-1, 1].

    Returns:
        B x 1 x h x w in [0, 1]; 1 stands still.
    """
    field = full_precision(field)
    shift = field - coordinate_grid(field.shape[1], field.shape[2], field)
    return torch.exp(-shift.square().sum(dim=-1) / (2 * variance)).unsqueeze(1)


def determinant_2x2(matrix: Tensor) -> Tensor:
    """Determinants of ... x 2 x 2 matrices, of shape ..."""
    return matrix[..., 0, 0] * matrix[..., 1, 1] - matrix[..., 0, 1] * matrix[..., 1, 0]


def inverse_2x2(matrix: Tensor, eps: float = 1e-8) -> Tensor:
    """Inverse of ... x 2 x 2 matrices in closed form.

    A determinant smaller than `eps` in size is replaced by +-eps, so that a degenerate Jacobian
    gives a large but finite motion.
    """
    a, b = matrix[..., 0, 0], matrix[..., 0, 1]
    c, d = matrix[..., 1, 0], matrix[..., 1, 1]
    determinant = a * d - b * c
    guard = torch.where(determinant < 0, -eps, eps).to(determinant.dtype)
    determinant = torch.where(determinant.abs() < eps, guard, determinant)
    adjugate = torch.stack((torch.stack((d, -b), -1), torch.stack((-c, a), -1)), -2)
    return adjugate / determinant[..., None, None]


def occlusion_from_field(field: Tensor) -> Tensor:
    """An occlusion map for any backward field u(z), where a network predicts none: B x 1 x h x w.

    min(1, |det du/dz|), and 0 where u leaves [-1, 1]: where few source pixels are stretched over
    many driving ones, the detail is invented, as it is where nothing of the source is seen. 1 is
    visible. Derivatives are central differences, one-sided at the border.

    This is ours, without parameters, and no part of any of the published systems. PriorityCut needs
    an occlusion map, and this gives one to systems that have only a field.

    Args:
        field: B x h x w x 2, (x, y) in [-1, 1], h and w at least 2. For a field of half
            precision the map is float32.
    """
    field = full_precision(field)
    height, width = field.shape[1:3]
    pixel = (2 / (height - 1), 2 / (width - 1))
    along_y, along_x = torch.gradient(field, spacing=pixel, dim=(1, 2))
    visible = determinant_2x2(torch.stack((along_x, along_y), dim=-1)).abs().clamp(max=1)
    # Sums of float32 coordinates leave the frame by rounding alone.
    outside = (field.abs() > 1 + 1e-5).any(dim=-1)
    return visible.masked_fill(outside, 0).unsqueeze(1)
