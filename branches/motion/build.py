"""The motion branch that a config describes."""

from typing import Any

from branches.branch import Branch
from branches.motion.branch import MotionBranch
from branches.motion.fomm import FommBranch
from branches.motion.monkey_net import MonkeyNetBranch
from branches.motion.tpsmm import TpsmmBranch
from branches.motion.tpsmm_avd import DisentanglementStage
from branches.motion.x2face import X2FaceBranch
from configs.motion.fomm import FommConfig
from configs.motion.kinds import MotionConfig
from configs.motion.monkey_net import MonkeyNetConfig
from configs.motion.tpsmm import TpsmmConfig
from configs.motion.x2face import X2FaceConfig


def build_motion(config: MotionConfig) -> MotionBranch:
    """A motion branch with weights from the global random stream."""
    if isinstance(config, FommConfig):
        return FommBranch(config)
    if isinstance(config, MonkeyNetConfig):
        return MonkeyNetBranch(config)
    if isinstance(config, X2FaceConfig):
        return X2FaceBranch(config)
    return TpsmmBranch(config)


def build_second_stage(config: MotionConfig, branch: MotionBranch) -> Branch[Any] | None:
    """The second stage that `config` asks for: it trains a part of `branch`, the rest is frozen.

    None: `branch` trains as a whole.
    """
    if isinstance(config, TpsmmConfig) and config.avd is not None:
        assert isinstance(branch, TpsmmBranch)
        return DisentanglementStage(branch, config.avd, config.losses)
    return None
