"""Random affine and thin-plate transforms for the equivariance losses."""

from typing import NamedTuple

import torch
from torch import Tensor

from common.batch_random import BatchRandom
from modules.geometry import coordinate_grid, full_precision, warp

_EPS = 1e-6  # keeps d^2 log d finite at a control point


class ThinPlateTransform(NamedTuple):
    """The transform T(z) = A z + b + sum_i w_i d_i^2 log(d_i + 1e-6), with the distance
    d_i = |x - x_i| + |y - y_i| to control point i; the sum is added to both coordinates (FOMM,
    section 3.3; the 1-norm and the shared sum are as in the published code).

    affine: B x 2 x 3, [A b].
    weights: B x N, w.
    control_points: N x 2, a regular grid on [-1, 1].
    """

    affine: Tensor
    weights: Tensor
    control_points: Tensor

    def points(self, points: Tensor) -> Tensor:
        """T(`points`): B x P x 2, or 1 x P x 2 for the same points in all samples -> B x P x 2."""
        # Autocast would round to bf16, whose step near 1 is half a pixel of 256.
        with torch.autocast(points.device.type, enabled=False):
            linear = points @ self.affine[:, :, :2].mT + self.affine[:, None, :, 2]
            distance = (points[:, :, None] - self.control_points).abs().sum(-1)
            radial = distance**2 * torch.log(distance + _EPS)
            return linear + torch.einsum("bpn,bn->bp", radial, self.weights).unsqueeze(-1)

    def jacobian(self, points: Tensor) -> Tensor:
        """The Jacobian dT/dz at `points`, B x P x 2 -> B x P x 2 x 2, in closed form.

        The derivative of d^2 log(d + e) along one axis is (2 d log(d + e) + d^2 / (d + e)) times
        the sign of the offset along it; both rows have the same radial term.
        """
        offset = points[:, :, None] - self.control_points
        distance = offset.abs().sum(-1)
        slope = 2 * distance * torch.log(distance + _EPS) + distance**2 / (distance + _EPS)
        with torch.autocast(points.device.type, enabled=False):
            gradient = torch.einsum("bpn,bpnc,bn->bpc", slope, offset.sign(), self.weights)
        return self.affine[:, None, :, :2] + gradient.unsqueeze(-2)

    def frame(self, frame: Tensor) -> Tensor:
        """Sample `frame` (B x C x H x W) at T(grid), with reflection at the border."""
        height, width = frame.shape[-2:]
        # One grid for all samples: its distances to the control points are most of the work.
        grid = coordinate_grid(height, width, full_precision(frame)).view(1, -1, 2)
        moved = self.points(grid).view(-1, height, width, 2)
        return warp(frame, moved, padding_mode="reflection")


def control_grid(size: int, like: Tensor) -> Tensor:
    """The size x size control points on [-1, 1], N x 2, row by row."""
    return coordinate_grid(size, size, like).view(-1, 2)


def random_thin_plate(
    batch: int, affine_std: float, thin_plate_std: float, grid_size: int, random: BatchRandom
) -> ThinPlateTransform:
    """Draw a transform near the identity for every sample, on the device of `random`."""
    identity = torch.eye(2, 3, device=random.device)
    noise = random.normal(batch, 2, 3)
    weights = random.normal(batch, grid_size**2)
    return ThinPlateTransform(
        identity + affine_std * noise, thin_plate_std * weights, control_grid(grid_size, identity)
    )
