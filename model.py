"""The model: the branches that the config switches on."""

from typing import Any

import torch
from torch import nn

from branches.background import BackgroundBranch
from branches.branch import Branch
from branches.masks import MaskBranch
from branches.motion import MotionBranch
from config import Config
from seeding import torch_seed

DEFAULT_THRESHOLD = 0.5  # of the masks, without a background branch


class Model(nn.Module):
    """`branches` by the name of their config section."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        # The initial weights follow from the seed and leave the global stream alone.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch_seed("weights", config.seed))
            branches: dict[str, Branch[Any]] = {}
            if config.motion is not None:
                branches["motion"] = MotionBranch(config.motion)
            if config.masks is not None:
                branches["masks"] = MaskBranch(config.masks)
                if config.background is not None:
                    scale = config.masks.mask_generator.scale
                    branches["background"] = BackgroundBranch(config.background, scale)
        self.branches = branches  # with their types
        self.registered = nn.ModuleDict(branches)  # for parameters(), to(), train()

    @property
    def mask_threshold(self) -> float:
        """Above it a mask counts as foreground: that of the background branch, if there is one."""
        background = self.branches.get("background")
        if isinstance(background, BackgroundBranch):
            return background.threshold
        return DEFAULT_THRESHOLD

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
