"""Random affine and thin-plate transforms for the equivariance losses."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from common.batch_random import BatchRandom
from modules.geometry import coordinate_grid, full_precision, warp

Distance = Literal["manhattan", "euclidean"]

# They keep the logarithms finite at a control point.
_EPS = 1e-6
_SQUARED_EPS = 1e-9


def radial(squared_distance: Tensor) -> Tensor:
    """U = r log(r + 1e-9) of r, a squared Euclidean distance: the bending of a thin plate."""
    return squared_distance * torch.log(squared_distance + _SQUARED_EPS)


class ThinPlateTransform(NamedTuple):
    """The transform T(z) = A z + b + sum_i w_i U(z - x_i), the sum added to both coordinates.

    affine: B x 2 x 3, [A b].
    weights: B x N, w.
    control_points: N x 2, x_i, a regular grid on [-1, 1].
    distance: `manhattan`: U = d^2 log(d + 1e-6) with d = |x - x_i| + |y - y_i| (FOMM, section 3.3,
        as published); `euclidean`: U = r log(r + 1e-9) with r = |z - x_i|^2 (TPSMM, as published).
    """

    affine: Tensor
    weights: Tensor
    control_points: Tensor
    distance: Distance = "manhattan"

    def points(self, points: Tensor) -> Tensor:
        """T(`points`): B x P x 2, or 1 x P x 2 for the same points in all samples -> B x P x 2."""
        # Autocast would round to bf16, whose step near 1 is half a pixel of 256.
        with torch.autocast(points.device.type, enabled=False):
            linear = points @ self.affine[:, :, :2].mT + self.affine[:, None, :, 2]
            bending = self._bending(points[:, :, None] - self.control_points)
            return linear + torch.einsum("bpn,bn->bp", bending, self.weights).unsqueeze(-1)

    def jacobian(self, points: Tensor) -> Tensor:
        """The Jacobian dT/dz at `points`, B x P x 2 -> B x P x 2 x 2, in closed form.

        Both rows have the same radial term.
        """
        slope, direction = self._slope(points[:, :, None] - self.control_points)
        with torch.autocast(points.device.type, enabled=False):
            gradient = torch.einsum("bpn,bpnc,bn->bpc", slope, direction, self.weights)
        return self.affine[:, None, :, :2] + gradient.unsqueeze(-2)

    def frame(self, frame: Tensor) -> Tensor:
        """Sample `frame` (B x C x H x W) at T(grid), with reflection at the border."""
        height, width = frame.shape[-2:]
        # One grid for all samples: its distances to the control points are most of the work.
        grid = coordinate_grid(height, width, full_precision(frame)).view(1, -1, 2)
        moved = self.points(grid).view(-1, height, width, 2)
        return warp(frame, moved, padding_mode="reflection")

    def _bending(self, offset: Tensor) -> Tensor:
        """U of offsets from control points, ... x 2 -> ..."""
        if self.distance == "euclidean":
            return radial(offset.square().sum(-1))
        distance = offset.abs().sum(-1)
        return distance**2 * torch.log(distance + _EPS)

    def _slope(self, offset: Tensor) -> tuple[Tensor, Tensor]:
        """dU/dz at offsets from control points, ... x 2: how steep, ..., times where to, ... x 2.

        Of r log(r + e) it is log(r + e) + r / (r + e) times 2 (z - x_i); of d^2 log(d + e) along
        one axis 2 d log(d + e) + d^2 / (d + e) times the sign of the offset along it.
        """
        if self.distance == "euclidean":
            squared = offset.square().sum(-1)
            slope = torch.log(squared + _SQUARED_EPS) + squared / (squared + _SQUARED_EPS)
            return slope, 2 * offset
        distance = offset.abs().sum(-1)
        slope = 2 * distance * torch.log(distance + _EPS) + distance**2 / (distance + _EPS)
        return slope, offset.sign()


def control_grid(size: int, like: Tensor) -> Tensor:
    """The size x size control points on [-1, 1], N x 2, row by row."""
    return coordinate_grid(size, size, like).view(-1, 2)


def random_thin_plate(
    batch: int,
    affine_std: float,
    thin_plate_std: float,
    grid_size: int,
    random: BatchRandom,
    distance: Distance = "manhattan",
) -> ThinPlateTransform:
    """Draw a transform near the identity for every sample, on the device of `random`."""
    identity = torch.eye(2, 3, device=random.device)
    noise = random.normal(batch, 2, 3)
    weights = random.normal(batch, grid_size**2)
    return ThinPlateTransform(
        identity + affine_std * noise,
        thin_plate_std * weights,
        control_grid(grid_size, identity),
        distance,
    )
