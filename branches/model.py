"""The model: all branches that the config has a section for."""

from typing import Any

import torch
from torch import nn

from branches.background import BackgroundBranch
from branches.branch import Branch
from branches.masks import MaskBranch
from branches.motion.branch import MotionBranch
from branches.motion.build import build_motion, build_second_stage
from common.seeding import torch_seed
from configs.schema import Config

DEFAULT_THRESHOLD = 0.5  # threshold of foreground masks if there is no background branch


class Model(nn.Module):
    """The whole model. Its attributes are the branches; a branch is None if its section is null.

    Attributes:
        second_stage: trains a part of the motion branch, while the rest of it and all other
            branches are frozen; None for a model that trains as a whole.
    """

    motion: MotionBranch | None
    second_stage: Branch[Any] | None
    masks: MaskBranch | None
    background: BackgroundBranch | None

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.motion = self.masks = self.background = self.second_stage = None
        # The initial weights follow from the seed and leave the global stream alone.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch_seed("weights", config.seed))
            if config.motion is not None:
                self.motion = build_motion(config.motion)
                self.second_stage = build_second_stage(config.motion, self.motion)
            if config.masks is not None:
                self.masks = MaskBranch(config.masks)
                if config.background is not None:
                    scale = config.masks.mask_generator.scale
                    self.background = BackgroundBranch(config.background, scale)
        if self.second_stage is not None:
            for branch in (self.masks, self.background):
                if branch is not None:
                    branch.requires_grad_(False)

    @property
    def branches(self) -> dict[str, Branch[Any]]:
        """The branches of this model by name, in the order in which a step runs them."""
        found = {"motion": self.motion, "masks": self.masks, "background": self.background}
        return {name: branch for name, branch in found.items() if branch is not None}

    @property
    def training_branches(self) -> dict[str, Branch[Any]]:
        """What a training step runs, by the name of the branch: the second stage, or `branches`."""
        return self.branches if self.second_stage is None else {"motion": self.second_stage}

    @property
    def trained_networks(self) -> dict[str, nn.Module]:
        """Those of `networks` that are not frozen."""
        return {
            name: network
            for name, network in self.networks.items()
            if any(p.requires_grad for p in network.parameters())
        }

    @property
    def mask_threshold(self) -> float:
        """The mask value above which a pixel is foreground; set by the background branch if any."""
        return DEFAULT_THRESHOLD if self.background is None else self.background.threshold

    @property
    def networks(self) -> dict[str, nn.Module]:
        """All networks by name, as a checkpoint stores them."""
        named = [pair for branch in self.branches.values() for pair in branch.named_children()]
        networks = dict(named)
        assert len(networks) == len(named), "two branches name a network alike"
        return networks

    def state(self) -> dict[str, dict[str, torch.Tensor]]:
        """The state dict of each network."""
        return {name: network.state_dict() for name, network in self.networks.items()}
