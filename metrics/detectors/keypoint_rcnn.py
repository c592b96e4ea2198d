"""Body keypoints by torchvision's Keypoint R-CNN."""

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
import torchvision.models.detection as detection
from torch import Tensor, nn
from torchvision.models.detection import KeypointRCNN_ResNet50_FPN_Weights
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

from common.tensor_files import read_tensors
from common.weight_files import downloaded
from media.frames import Frame
from metrics.detectors.detector import Description, Points

_WEIGHTS = KeypointRCNN_ResNet50_FPN_Weights.COCO_V1
_NUM_KEYPOINTS = 17
# Thresholds above which Detectron (Girshick et al. 2018) draws by default: the probability that a
# box is a person, and the logit of a keypoint at its position.
_MIN_PERSON_SCORE = 0.7
_MIN_KEYPOINT_SCORE = 2.0


class KeypointRCNN:
    """17 keypoints (COCO) of the largest person in a frame (He et al. 2017).

    Args:
        network: torchvision's network, or one with the same outputs.
    """

    description = Description(
        name="Keypoint R-CNN",
        weights="torchvision, KeypointRCNN_ResNet50_FPN_Weights.COCO_V1",
        convention=(
            f"17 points (COCO) of the largest person, those of a score above {_MIN_KEYPOINT_SCORE}."
            " Published AKD and MKR are of OpenPose's 18 points"
        ),
        licence="BSD-3-Clause; trained on COCO",
    )

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self._network = network.eval().to(device)
        self._device = device

    @classmethod
    def trained(cls, device: torch.device) -> "KeypointRCNN":
        """Build it with the weights that torchvision publishes; they are downloaded once.

        Raises:
            UserError: the download failed, or the file in the cache is not the published one.
        """
        network = build_network()
        network.load_state_dict(read_tensors(downloaded(_WEIGHTS.url)))
        return cls(network, device)

    def landmarks(self, frame: Frame) -> Points:
        """17 x 2; a row of NaN for each keypoint with a low score, all NaN if nobody was found."""
        image = torch.from_numpy(frame.copy()).to(self._device).permute(2, 0, 1) / 255
        with torch.inference_mode():
            (people,) = self._network([image])
        return largest_person(people)


def build_network() -> nn.Module:
    """Build the network that torchvision's `keypointrcnn_resnet50_fpn` builds for these weights.

    It is untrained. That function itself would also unpickle the weights without any check.
    """
    backbone = resnet_fpn_backbone(
        backbone_name="resnet50",
        weights=None,
        norm_layer=partial(FrozenBatchNorm2d, eps=0.0),  # as it was trained
        trainable_layers=3,
    )
    return detection.KeypointRCNN(backbone, num_classes=2, num_keypoints=_NUM_KEYPOINTS)


def largest_person(people: Mapping[str, Tensor]) -> Points:
    """Keypoints of the person with the largest box, 17 x 2; NaN where a score is low.

    Args:
        people: output of torchvision's network for one frame with N people. boxes: N x 4, the
            edges x1, y1, x2, y2. scores: N. keypoints: N x 17 x 3, x and y measured from the edge
            of the frame (the third number is not used). keypoints_scores: N x 17.
    """
    certain = people["scores"] >= _MIN_PERSON_SCORE
    if not certain.any():
        return np.full((_NUM_KEYPOINTS, 2), np.nan)
    corners = people["boxes"][certain].view(-1, 2, 2)
    largest = (corners[:, 1] - corners[:, 0]).prod(dim=1).argmax()
    points = people["keypoints"][certain][largest, :, :2].double() - 0.5
    seen = people["keypoints_scores"][certain][largest] >= _MIN_KEYPOINT_SCORE
    return points.where(seen[:, None], torch.nan).cpu().numpy()
