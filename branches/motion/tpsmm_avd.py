"""The second stage of kind tpsmm: trains the network of motion avd, with everything else frozen.

Thin-Plate Spline Motion Model (Zhao and Zhang, CVPR 2022), animation via disentanglement.
"""

import torch
from torch import Tensor

from branches.branch import Branch, StepInputs
from branches.motion.tpsmm import TpsmmBranch
from branches.outputs import DisentanglementOutput
from configs.motion.tpsmm import TpsmmAvdConfig, TpsmmLosses
from losses import LossTerm, disentanglement_loss, weigh
from media.visualization import draw_keypoints
from modules.keypoint_detector import Keypoints
from modules.tpsmm.avd import random_proportions


class DisentanglementStage(Branch[DisentanglementOutput]):
    """Stretches the driving keypoints at random, as if of another figure in the same pose, and
    restores them by those of the source, which are of the same figure.

    A step detects keypoints and makes no predictions. Those of the pictures are made when they are
    drawn.
    """

    def __init__(self, motion: TpsmmBranch, config: TpsmmAvdConfig, losses: TpsmmLosses) -> None:
        super().__init__()
        self.motion = motion
        self.proportions = (config.proportions[0], config.proportions[1])
        self.losses = losses

    def forward(self, inputs: StepInputs) -> DisentanglementOutput:
        with torch.no_grad():
            source, driving = self.motion.detect(inputs.source), self.motion.detect(inputs.driving)
            stretched = random_proportions(driving, self.proportions, inputs.context.random)
        restored = self.motion.disentangled_pose(source, stretched)
        return DisentanglementOutput(source, driving, stretched, restored)

    def loss_terms(self, inputs: StepInputs, output: DisentanglementOutput) -> dict[str, LossTerm]:
        value = disentanglement_loss(output.restored, output.driving_keypoints)
        return {"avd": weigh(value, self.losses.avd)}

    def statistics(self, output: DisentanglementOutput) -> dict[str, Tensor]:
        """`stretch`: the loss if the network returned its input, which training must get below.
        `keypoint_spread`: near 0 if it puts all keypoints on one spot.
        """
        return {
            "stretch": disentanglement_loss(output.stretched, output.driving_keypoints),
            "keypoint_spread": output.restored.value.std(dim=1, correction=0).mean(),
        }

    def pictures(
        self, inputs: StepInputs, output: DisentanglementOutput, num_rows: int
    ) -> dict[str, Tensor]:
        """The prediction is the source moved to the restored keypoints."""
        source, driving = inputs.source[:num_rows], inputs.driving[:num_rows]
        at_source, at_driving, stretched, restored = (
            keypoints.value[:num_rows] for keypoints in output
        )
        predictions = [
            self.motion.predict(self.motion.encode(image), Keypoints(points, None), frame)
            for image, points, frame in zip(
                source.split(1), restored.split(1), driving.split(1), strict=True
            )
        ]
        return {
            "source": draw_keypoints(source, at_source),
            "driving": draw_keypoints(driving, at_driving),
            "stretched": draw_keypoints(driving, stretched),
            "restored": draw_keypoints(driving, restored),
            "prediction": torch.cat(predictions),
        }
