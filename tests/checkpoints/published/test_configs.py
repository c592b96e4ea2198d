"""Published files and configs: which ones fit, and which keys a message names if they do not."""

import pytest
import torch

import animate
from branches.model import Model
from checkpoints.checkpoint import init_from, load
from checkpoints.weights import load_model
from common.tensor_files import CheckpointError
from configs.loading import dump_config
from configs.schema import Config
from tests.helpers.factories import tiny_config
from tests.helpers.published_files import (
    FOMM,
    MONKEY_NET,
    PERTURBED_MASKS,
    PROJECTS,
    TPSMM,
    X2FACE,
    write,
)
from tests.helpers.runs import call, error_line

CPU = torch.device("cpu")
MOTION_PROJECTS = tuple(project for project in PROJECTS if project.kind is not None)


def test_config_is_asked_for(file):
    project = file.project
    with pytest.raises(CheckpointError, match=f"{project.name}, .* --config {project.fitting}$"):
        load(file.path)


def test_own_checkpoints_take_no_config(tiny_run):
    path = tiny_run / "checkpoints" / "best.pt"
    with pytest.raises(CheckpointError, match=r"^--config: .*best.pt has its own config in it; l"):
        load(path, tiny_config())


WRONG = {
    FOMM: {
        "motion.keypoint_detector.jacobian=shared": "must be per_keypoint, found shared",
        "motion.keypoint_detector.num_keypoints=5": "must be 4, found 5",
        "motion.keypoint_detector.num_blocks=1": "must be 2, found 1",
        "motion.keypoint_detector.width=8": "must be 4, found 8",
        "motion.keypoint_detector.scale=0.25": "must be 0.5, found 0.25",
        "motion.dense_motion.num_blocks=1": "must be 2, found 1",
        "motion.dense_motion.width=8": "must be 4, found 8",
        "motion.dense_motion.scale=0.25": "must be 0.5, found 0.25",
        "motion.dense_motion.occlusion=false": "must be true, found false",
        "motion.generator.width=8": "must be 4, found 8",
        "motion.generator.num_down_blocks=2": "must be 1, found 2",
        "motion.generator.num_res_blocks=2": "must be 1, found 2",
    },
    PERTURBED_MASKS: {
        "masks.mask_generator.num_blocks=1": "must be 2, found 1",
        "masks.mask_generator.scale=0.25": "must be 0.5, found 0.25",
        "masks.refinement.width=8": "must be 4, found 8",
        "masks.high_resolution.num_blocks=1": "must be 2, found 1",
        "masks.low_resolution.num_res_blocks=2": "must be 1, found 2",
    },
    MONKEY_NET: {
        "motion.keypoint_detector.num_keypoints=5": "must be 4, found 5",
        "motion.keypoint_detector.num_blocks=1": "must be 2, found 1",
        "motion.keypoint_detector.width=8": "must be 4, found 8",
        "motion.dense_motion.num_blocks=1": "must be 2, found 1",
        "motion.dense_motion.width=8": "must be 4, found 8",
        "motion.dense_motion.max_width=16": "must be 8, found 16",
        "motion.dense_motion.use_difference=true": "must be false, found true",
        "motion.dense_motion.occlusion=true": "must be false, found true",
        "motion.generator.width=8": "must be 4, found 8",
        "motion.generator.max_width=8192": "must be 16, found 8192",
        "motion.generator.num_blocks=2": "must be 3, found 2",
        "motion.generator.num_res_blocks=2": "must be 1, found 2",
    },
    X2FACE: {
        "motion.embedding.width=8": "must be 4, found 8",
        "motion.embedding.max_width=16": "must be 8, found 16",
        "motion.embedding.num_levels=4": "must be 5, found 4",
        "motion.embedding.code=5": "must be 6, found 5",
        "motion.driving.width=8": "must be 4, found 8",
        "motion.driving.num_levels=5": "must be 4, found 5",
        "motion.driving.code=6": "must be 5, found 6",
    },
    TPSMM: {
        "motion.keypoint_detector.num_plates=3": "must be 2, found 3",
        "motion.dense_motion.num_blocks=1": "must be 2, found 1",
        "motion.dense_motion.width=8": "must be 4, found 8",
        "motion.dense_motion.scale=0.25": "must be 0.5, found 0.25",
        "motion.inpainting.width=8": "must be 4, found 8",
        "motion.inpainting.max_width=16": "must be 8, found 16",
        "motion.inpainting.num_down_blocks=3": "must be 2, found 3",
        "motion.background_motion=null": "must not be null, since the file holds it",
    },
}


@pytest.mark.parametrize(
    ("project", "override", "expected"),
    [(project, *found) for project, wrong in WRONG.items() for found in wrong.items()],
)
def test_wrong_config_names_the_key(files, project, override, expected):
    with pytest.raises(CheckpointError) as caught:
        files[project.name].load(override)
    assert str(caught.value) == (
        f"--config does not fit {files[project.name].path}: {override.split('=')[0]} {expected}; "
        f"give the config of its data set, such as --config {project.fitting}"
    )


def test_every_wrong_key_is_named(files):
    wrong = ("motion.embedding.width=8", "motion.embedding.code=5", "motion.driving.code=6")
    with pytest.raises(CheckpointError) as caught:
        files["X2Face"].load(*wrong)
    for override in wrong:
        assert override.split("=")[0] in str(caught.value)


@pytest.mark.parametrize(
    ("given", "held"),
    [(given, held) for given in MOTION_PROJECTS for held in MOTION_PROJECTS if given is not held],
    ids=lambda project: project.name,
)
def test_config_of_another_kind_gives_one_line(files, given, held):
    with pytest.raises(CheckpointError) as caught:
        load(files[held.name].path, given.config())
    assert str(caught.value) == (
        f"--config does not fit {files[held.name].path}: motion.kind must be {held.kind}, found "
        f"{given.kind}; give the config of its data set, such as --config {held.fitting}"
    )
    with pytest.raises(CheckpointError) as caught:
        init_from(Model(given.config()).networks, files[held.name].path, given.config())
    assert str(caught.value) == (
        f"--init-from {files[held.name].path}: published by {held.name}: motion.kind must be "
        f"{held.kind}, found {given.kind}; give a config such as {held.fitting}"
    )


def test_fine_tuning_needs_the_branch_of_the_file(files):
    path, config = files["X2Face"].path, PERTURBED_MASKS.config()
    with pytest.raises(CheckpointError) as caught:
        init_from(Model(config).networks, path, config)
    assert str(caught.value) == (
        f"--init-from {path}: published by X2Face: motion is null, and the file holds this branch; "
        "give a config such as vox-x2face.yaml"
    )


def test_another_kind_is_named_before_further_branches(files):
    with pytest.raises(CheckpointError, match=r"tar: motion.kind must be monkey_net, found fomm; "):
        load(files["Monkey-Net"].path, tiny_config())


def test_command_with_a_config_of_another_kind(files, tmp_path, capsys):
    config = tmp_path / "config.yaml"
    config.write_text(dump_config(FOMM.config()))
    arguments = ("--checkpoint", files["X2Face"].path, "--config", config)
    arguments += ("--source", "s.png", "--driving", "d.mp4", "--output", tmp_path / "o.mp4")
    assert call(animate, *arguments) == 2
    assert "motion.kind must be x2face, found fomm" in error_line(capsys, "animate.py")


@pytest.mark.parametrize("mode", ["shared", "none", "per_keypoint"])
def test_kinds_of_jacobians(tmp_path, mode):
    def config(mode: str) -> Config:
        jacobian = f"motion.keypoint_detector.jacobian={mode}"
        return FOMM.config(jacobian, "motion.losses.equivariance_jacobian=0")

    path = write(tmp_path / "c.pth.tar", FOMM.content(config(mode)))
    assert load(path, config(mode)).config == config(mode)
    other = config("none" if mode == "shared" else "shared")
    with pytest.raises(CheckpointError, match=f"keypoint_detector.jacobian must be {mode}, found"):
        load(path, other)


def test_with_one_keypoint_shared_and_per_keypoint_are_the_same(tmp_path):
    one = "motion.keypoint_detector.num_keypoints=1"
    path = write(tmp_path / "c.pth.tar", FOMM.content(FOMM.config(one)))
    for mode in ("shared", "per_keypoint"):
        load(path, FOMM.config(one, f"motion.keypoint_detector.jacobian={mode}"))


def test_config_with_other_branches(files):
    path = files["FOMM"].path
    with pytest.raises(CheckpointError, match="motion is null, and the file holds this branch"):
        load(path, PERTURBED_MASKS.config())
    with pytest.raises(CheckpointError) as caught:
        load(path, tiny_config())
    assert "masks must be null, since the file holds motion; background must be null" in str(
        caught.value
    )


def test_a_limit_that_the_file_does_not_reach_is_found_when_the_networks_are_loaded(files):
    """The shapes tell `max_width` only if an encoder of the file reaches it."""
    saved = files["FOMM"].load("motion.dense_motion.max_width=8")
    with pytest.raises(CheckpointError, match="of another architecture: dense_motion"):
        load_model(saved, CPU)
