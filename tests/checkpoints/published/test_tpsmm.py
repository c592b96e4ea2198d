"""Published files of TPSMM: their parts depend on the stage of the training and on the data set."""

import pytest
import torch

from checkpoints.published.conversion import fitting_config, problems
from checkpoints.published.tpsmm import read
from modules.tpsmm.avd import AVDNetwork
from tests.helpers.published_files import TPSMM


@pytest.fixture(scope="module")
def content():
    return TPSMM.content(TPSMM.config())


def test_before_the_background_motion_starts_to_learn(content):
    """Files for MGif have no motion of the background either."""
    found = read({part: state for part, state in content.items() if part != "bg_predictor"})
    assert fitting_config(found) == "mgif-tpsmm.yaml"
    assert problems(found, TPSMM.config("motion.background_motion=null")) == []
    assert problems(found, TPSMM.config()) == [
        "motion.background_motion must be null, since the file does not hold it"
    ]


def test_after_the_second_stage(content):
    network = AVDNetwork(10, identity_size=6, pose_size=6)
    found = read({**content, "avd_network": network.state_dict(), "optimizer_avd": {}})
    assert fitting_config(found) == "vox-tpsmm-avd.yaml"
    assert found.tensors.networks["avd"].keys() == network.state_dict().keys()
    assert problems(found, TPSMM.config("motion.avd={code: 6}")) == []
    assert problems(found, TPSMM.config("motion.avd={code: 7}")) == [
        "motion.avd.code must be 6, found 7"
    ]
    assert problems(found, TPSMM.config()) == [
        "motion.avd must not be null, since the file holds it"
    ]


def test_before_the_second_stage(content):
    found = read(content)
    assert fitting_config(found) == "vox-tpsmm.yaml"
    assert problems(found, TPSMM.config("motion.avd={code: 6}")) == [
        "motion.avd must be null, since the file does not hold it"
    ]


def test_settings_of_the_published_sizes(golden_tpsmm):
    """The stored shapes are those of the published config for VoxCeleb."""
    with torch.device("meta"):
        content = {
            part: {name: torch.empty(shape) for name, shape in shapes.items()}
            for part, shapes in golden_tpsmm.meta["published_shapes"].items()
        }
    found = read(content)
    assert found.settings == {
        "motion.keypoint_detector.num_plates": 10,
        "motion.dense_motion.num_blocks": 5,
        "motion.dense_motion.width": 64,
        "motion.dense_motion.max_width": 1024,
        "motion.dense_motion.scale": 0.25,
        "motion.inpainting.width": 64,
        "motion.inpainting.num_down_blocks": 3,
        "motion.avd.code": 128,
    }
