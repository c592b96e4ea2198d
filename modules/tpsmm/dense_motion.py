"""Dense motion from thin plates: one backward flow, and an occlusion map for every scale."""

import math
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.blocks import AntiAliasDownsample, Hourglass, UpBlock
from modules.geometry import coordinate_grid, full_precision, warp_by_candidates
from modules.heatmaps import HeatmapStyle, candidate_heatmaps
from modules.keypoint_detector import Keypoints
from modules.tpsmm.thin_plates import POINTS_PER_PLATE, Solver, fit_thin_plates, solve


class ThinPlateMotion(NamedTuple):
    """Motion from the driving frame back to the source, at h x w = H * scale x W * scale.

    deformation: B x h x w x 2; where in the source, (x, y) in [-1, 1], a driving pixel comes from.
    occlusion_maps: B x 1 x h' x w' each, in [0, 1], the smallest first, the last H x W; 1 = visible
        in the source, 0 = to be inpainted.
    motion_weights: B x (K+1) x h x w; softmax over the candidate motions, the background first. No
        plate is dropped from it, even where the deformation lacks some.
    """

    deformation: Tensor
    occlusion_maps: list[Tensor]
    motion_weights: Tensor

    @property
    def occlusion_map(self) -> Tensor:
        """The occlusion map of the deformation's size, B x 1 x h x w."""
        size = self.deformation.shape[1:3]
        return next(map_ for map_ in self.occlusion_maps if map_.shape[-2:] == size)


def plate_dropout(
    epoch: int, start: float, maximum: float, ramp_epochs: int, end_epoch: int
) -> float:
    """The probability that a plate is dropped in `epoch`, counted from 0: min(epoch / ramp_epochs *
    maximum + start, maximum), and 0 from `end_epoch` on (TPSMM, as published).
    """
    return min(epoch / ramp_epochs * maximum + start, maximum) if epoch < end_epoch else 0.0


def kept_plates(uniform: Tensor, probability: float) -> Tensor:
    """Which plates stay, B x K bool, where each is dropped with `probability`.

    Args:
        uniform: random numbers from [0, 1), B x K.
    """
    return uniform < 1 - probability


def weights_of_kept_plates(logits: Tensor, kept: Tensor) -> Tensor:
    """Softmax over the background and the plates that are kept; the others have weight 0 (TPSMM,
    section on TPS motion estimation; as published: the paper's factor 1 / (1 - P) has no effect).

    Args:
        logits: B x (K+1) x h x w, the background first.
        kept: B x K bool.
    """
    exponents = (logits - logits.amax(dim=1, keepdim=True)).exp()
    exponents = exponents * F.pad(kept, (1, 0), value=True)[:, :, None, None]
    # The largest logit may be of a plate that was dropped: what is left may be next to nothing, and
    # 1e-6, as published, keeps the division from failing.
    return exponents / (exponents.sum(dim=1, keepdim=True) + 1e-6)


class ThinPlateMotionNetwork(nn.Module):
    """Weighs the background's motion and the plates pixel by pixel and predicts occlusion (TPSMM,
    sections on TPS motion estimation and multi-resolution occlusion masks).

    Args:
        width, max_width, num_blocks: of the hourglass. It has InstanceNorm, which needs more than
            one pixel at the deepest level.
        scale: the network sees the source downsampled by this, and the flow has that size.
        num_plates: K.
        heatmap_variance: of the Gaussian heatmaps that tell the network where the keypoints are.
        num_occlusion_maps: each twice as large as the one before, the last of full size. Those up
            to the size of the flow, at least one, come from the levels of the hourglass, the larger
            ones from blocks after it.

    Attributes:
        solver: solves the equations of the plates; another one may replace it for export.
    """

    def __init__(
        self,
        width: int,
        max_width: int,
        num_blocks: int,
        scale: float,
        num_plates: int,
        heatmap_variance: float,
        num_occlusion_maps: int,
    ) -> None:
        super().__init__()
        self.heatmap_style = HeatmapStyle(heatmap_variance)
        self.solver: Solver = solve
        self.down = AntiAliasDownsample(scale)
        # Heatmaps of all keypoints and an empty one, then the source warped by each candidate.
        in_channels = POINTS_PER_PLATE * num_plates + 1 + 3 * (num_plates + 1)
        self.hourglass = Hourglass(width, in_channels, max_width, num_blocks, norm="instance")
        features = self.hourglass.out_channels
        self.maps = nn.Conv2d(features, num_plates + 1, kernel_size=7, padding=3)
        num_up_blocks = round(math.log2(1 / scale))
        self.num_decoder_maps = num_occlusion_maps - num_up_blocks
        assert 0 < self.num_decoder_maps <= num_blocks + 1
        larger = [features // 2 ** (i + 1) for i in range(num_up_blocks)]
        self.up = nn.ModuleList(
            UpBlock(a, b, norm="instance") for a, b in pairwise([features, *larger])
        )
        channels = self.hourglass.decoder.out_channels[-self.num_decoder_maps :] + larger
        self.occlusion = nn.ModuleList(nn.Conv2d(c, 1, kernel_size=7, padding=3) for c in channels)

    def forward(
        self,
        source: Tensor,
        source_kp: Keypoints,
        driving_kp: Keypoints,
        background: Tensor | None = None,
        kept: Tensor | None = None,
    ) -> ThinPlateMotion:
        """Motion for `source`, B x 3 x H x W in [0, 1], from its keypoints to the driving ones.

        Args:
            source_kp, driving_kp: 5K keypoints, group by group.
            background: its affine motion, B x 3 x 3, as `BackgroundPredictor` has it; None: it
                stands still.
            kept: B x K bool, the plates that may move a pixel (see `kept_plates`); None: all.
        """
        source = self.down(source)
        height, width = source.shape[-2:]
        with torch.autocast(source.device.type, enabled=False):
            motions = candidate_motions(
                source_kp, driving_kp, background, height, width, self.solver
            )
            warped = warp_by_candidates(source, motions)
            heatmaps = candidate_heatmaps(source_kp, driving_kp, height, width, self.heatmap_style)
            # All heatmaps, then all warped channels.
            sparse = torch.cat((heatmaps, warped.flatten(1, 2)), dim=1)

        features = self.hourglass.maps(sparse)[-self.num_decoder_maps :]
        logits = self.maps(features[-1])
        for block in self.up:
            features.append(block(features[-1]))
        occlusion_logits = [head(map_) for head, map_ in zip(self.occlusion, features, strict=True)]
        with torch.autocast(source.device.type, enabled=False):
            logits = full_precision(logits)
            motion_weights = weights = logits.softmax(dim=1)
            if kept is not None:
                weights = weights_of_kept_plates(logits, kept)
            deformation = torch.einsum("bkhw,bkhwc->bhwc", weights, motions)
            occlusion_maps = [full_precision(map_).sigmoid() for map_ in occlusion_logits]
        return ThinPlateMotion(deformation, occlusion_maps, motion_weights)


def candidate_motions(
    source: Keypoints,
    driving: Keypoints,
    background: Tensor | None,
    height: int,
    width: int,
    solver: Solver = solve,
) -> Tensor:
    """Candidate backward motions, B x (K+1) x H x W x 2: the background, A (x, y, 1) or the
    identity, then the plates of the K groups of keypoints.
    """
    plates = fit_thin_plates(source, driving, solver).motions(height, width)
    grid = coordinate_grid(height, width, plates)
    if background is None:
        still = grid.expand(plates.shape[0], 1, -1, -1, -1)
        return torch.cat((still, plates), dim=1)
    affine = full_precision(background)[:, None, None, :2]
    moved = (affine[..., :2] @ grid.unsqueeze(-1)).squeeze(-1) + affine[..., 2]
    return torch.cat((moved.unsqueeze(1), plates), dim=1)
