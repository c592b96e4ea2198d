"""Published files: what is read of them, which config fits, and what training takes."""

import pickle
import re
from pathlib import Path

import pytest
import torch

import train
from branches.model import Model
from checkpoints.checkpoint import init_from, load
from checkpoints.compare import differences
from checkpoints.published import convert
from checkpoints.weights import load_model
from common.tensor_files import CheckpointError
from configs.loading import load_config
from configs.schema import Config
from tests.helpers.factories import tiny_config
from tests.helpers.published_files import (
    CONTENTS,
    PATCHES,
    blur,
    fomm_content,
    masks_config,
    masks_content,
    motion_config,
    with_head,
    write,
)
from tests.helpers.runs import call, error_line, metrics, tiny
from training.adversary import build_adversary

CPU = torch.device("cpu")


# Layouts


@pytest.mark.parametrize("as_zip", [False, True])
@pytest.mark.parametrize("project", CONTENTS)
def test_networks_come_back_to_the_last_bit(tmp_path, project, as_zip):
    build_config, build_content = CONTENTS[project]
    config = build_config()
    path = write(tmp_path / "vox-cpk.pth.tar", build_content(config), as_zip=as_zip)
    saved = load(path, config)
    expected = Model(config).state()
    assert differences(saved.evaluation_networks, expected) == []
    assert saved.average is None
    assert saved.untrained == {}  # refinement and all
    assert saved.age == f"{project}, epoch 99"
    assert load_model(saved, CPU).state().keys() == expected.keys()


def test_discriminator_comes_along(tmp_path):
    config = motion_config()
    path = write(tmp_path / "c.pth.tar", fomm_content(config))
    adversary = build_adversary(config)
    assert adversary is not None
    own = dict(adversary.discriminator.state_dict())
    assert any(name.endswith("weight_orig") for name in own)  # spectral norm
    assert differences(load(path, config).networks["discriminator"], own) == []
    assert "discriminator" not in load(path, config).evaluation_networks


def test_report_names_what_is_unused_and_nothing_else(tmp_path):
    config = masks_config()
    saved = load(write(tmp_path / "c.pth.tar", masks_content(config)), config)
    assert saved.report is not None
    assert saved.report.unused == ["generator.down_blocks.0.conv.weight"]
    num_tensors = sum(len(state) for state in Model(config).state().values())
    assert len(saved.report.loaded) == num_tensors
    assert str(saved.report) == (
        f"{num_tensors} tensors loaded; 1 unused: generator.down_blocks.0.conv.weight"
    )
    config = motion_config()
    saved = load(write(tmp_path / "f.pth.tar", fomm_content(config)), config)
    assert saved.report is not None
    judges = list(saved.networks["discriminator"])  # it only trains
    assert saved.report.unused == [f"discriminator.{name}" for name in judges]


def test_without_epoch_discriminator_and_blur(tmp_path):
    """Files that somebody slimmed."""
    config = motion_config()
    content = fomm_content(config)
    slim = {name: dict(content[name]) for name in ("generator", "kp_detector")}
    slim["kp_detector"].pop("down.weight")
    slim["generator"].pop("dense_motion_network.down.weight")
    saved = load(write(tmp_path / "c.pth.tar", slim), config)
    assert saved.age == "FOMM"
    assert differences(saved.evaluation_networks, Model(config).state()) == []


def test_other_files_are_not_taken_for_published_ones(tiny_run):
    weights = {"conv.weight": torch.ones(1)}
    for content in (
        [],
        {},
        weights,
        {"generator": weights},
        {"generator": weights, "kp_detector": {}},
        {"generator": weights, "kp_detector": {"state": {}, "param_groups": []}},
        torch.load(tiny_run / "checkpoints" / "best.pt", weights_only=True),
    ):
        assert convert(content) is None


class Code:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("as_zip", [False, True])
def test_code_in_a_file_is_not_run(tmp_path, as_zip):
    config, mark = motion_config(), tmp_path / "mark"
    content = fomm_content(config) | {"epoch": Code(mark)}
    path = write(tmp_path / "c.pth.tar", content, as_zip=as_zip)
    with pytest.raises(CheckpointError, match="holds pickled code, which is not run"):
        load(path, config)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Code(mark)))
    assert mark.exists()  # it would have been


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_truncated_old_file(tmp_path, share):
    config = motion_config()
    path = write(tmp_path / "c.pth.tar", fomm_content(config))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(CheckpointError, match="damaged or truncated"):
        load(path, config)


# Configs


@pytest.mark.parametrize(
    ("project", "name"), [("FOMM", "vox-fomm"), ("Perturbed Masks", "vox-masks")]
)
def test_config_is_asked_for(tmp_path, project, name):
    build_config, build_content = CONTENTS[project]
    path = write(tmp_path / "c.pth.tar", build_content(build_config()))
    with pytest.raises(CheckpointError, match=f"{project}, .* --config {name}.yaml$"):
        load(path)


def test_config_for_a_checkpoint_of_ours(tiny_run):
    path = tiny_run / "checkpoints" / "best.pt"
    with pytest.raises(CheckpointError, match=r"^--config: .*best.pt has its own config in it; l"):
        load(path, tiny_config())


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("motion.keypoint_detector.jacobian=shared", "must be per_keypoint, found shared"),
        ("motion.keypoint_detector.num_keypoints=5", "must be 4, found 5"),
        ("motion.keypoint_detector.num_blocks=1", "must be 2, found 1"),
        ("motion.keypoint_detector.width=8", "must be 4, found 8"),
        ("motion.keypoint_detector.scale=0.25", "must be 0.5, found 0.25"),
        ("motion.dense_motion.num_blocks=1", "must be 2, found 1"),
        ("motion.dense_motion.width=8", "must be 4, found 8"),
        ("motion.dense_motion.scale=0.25", "must be 0.5, found 0.25"),
        ("motion.dense_motion.occlusion=false", "must be true, found false"),
        ("motion.generator.width=8", "must be 4, found 8"),
        ("motion.generator.num_down_blocks=2", "must be 1, found 2"),
        ("motion.generator.num_res_blocks=2", "must be 1, found 2"),
    ],
)
def test_wrong_config_names_the_key(tmp_path, override, expected):
    path = write(tmp_path / "c.pth.tar", fomm_content(motion_config()))
    wrong = motion_config(override)
    with pytest.raises(CheckpointError) as caught:
        load(path, wrong)
    key = override.split("=")[0]
    line = str(caught.value)
    assert line.startswith(f"--config does not fit {path}: {key} {expected}; give the config")


@pytest.mark.parametrize("mode", ["shared", "none", "per_keypoint"])
def test_kinds_of_jacobians(tmp_path, mode):
    def config(mode: str) -> Config:
        jacobian = f"motion.keypoint_detector.jacobian={mode}"
        return motion_config(jacobian, "motion.losses.equivariance_jacobian=0")

    path = write(tmp_path / "c.pth.tar", fomm_content(config(mode)))
    assert load(path, config(mode)).config == config(mode)
    other = config("none" if mode == "shared" else "shared")
    with pytest.raises(CheckpointError, match=f"keypoint_detector.jacobian must be {mode}, found"):
        load(path, other)


def test_one_keypoint_shares_with_nobody(tmp_path):
    one = "motion.keypoint_detector.num_keypoints=1"
    path = write(tmp_path / "c.pth.tar", fomm_content(motion_config(one)))
    for mode in ("shared", "per_keypoint"):
        load(path, motion_config(one, f"motion.keypoint_detector.jacobian={mode}"))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("masks.mask_generator.num_blocks=1", "must be 2, found 1"),
        ("masks.mask_generator.scale=0.25", "must be 0.5, found 0.25"),
        ("masks.refinement.width=8", "must be 4, found 8"),
        ("masks.high_resolution.num_blocks=1", "must be 2, found 1"),
        ("masks.low_resolution.num_res_blocks=2", "must be 1, found 2"),
    ],
)
def test_wrong_config_of_the_masks(tmp_path, override, expected):
    path = write(tmp_path / "c.pth.tar", masks_content(masks_config()))
    with pytest.raises(CheckpointError, match=f"{override.split('=')[0]} {expected}"):
        load(path, masks_config(override))


def test_config_with_other_branches(tmp_path):
    path = write(tmp_path / "c.pth.tar", fomm_content(motion_config()))
    with pytest.raises(CheckpointError, match="motion is null, and the file holds this branch"):
        load(path, masks_config())
    with pytest.raises(CheckpointError) as caught:
        load(path, tiny_config())
    assert "masks must be null, since the file holds motion; background must be null" in str(
        caught.value
    )


def test_what_no_key_says_is_found_when_the_networks_are_filled(tmp_path):
    path = write(tmp_path / "c.pth.tar", fomm_content(motion_config()))
    saved = load(path, motion_config("motion.dense_motion.max_width=8"))
    with pytest.raises(CheckpointError, match="of another architecture: dense_motion"):
        load_model(saved, CPU)


def test_shipped_configs_fit_files_of_full_size():
    """Published shapes, as the papers give them: nothing of the config needs a change."""
    for name in ("vox-fomm", "mgif-fomm", "nemo-fomm", "fashion-fomm", "taichi-fomm", "bair-fomm"):
        config = load_config(name)
        shared = name == "mgif-fomm"
        with torch.device("meta"):
            states = {
                network: module.state_dict() for network, module in Model(config).networks.items()
            }
        content = {
            "kp_detector": states["keypoint_detector"] | {"down.weight": blur(0.25)},
            "generator": with_head("dense_motion_network.", states["dense_motion"])
            | states["generator"],
        }
        found = convert(content)
        assert found is not None
        prefix = "motion.keypoint_detector"
        assert found.settings[f"{prefix}.jacobian"] == ("shared" if shared else "per_keypoint")
        assert (found.settings[f"{prefix}.num_keypoints"], found.settings[f"{prefix}.scale"]) == (
            10,
            0.25,
        )
        assert found.settings["motion.dense_motion.width"] == 64
        assert found.settings["motion.generator.num_res_blocks"] == 6


# Training


def test_training_starts_from_a_published_file(tmp_path, capsys):
    path = write(tmp_path / "vox-adv-cpk.pth.tar", fomm_content(motion_config("seed=5")))
    folder = tmp_path / "run"
    arguments = tiny(folder, "masks=null", "background=null", *PATCHES, "train.max_steps=1")
    arguments = [argument for argument in arguments if not argument.startswith(("masks.", "backg"))]
    arguments += ["masks=null", "background=null", "train.learning_rate=0"]
    assert call(train, *arguments, "--init-from", path) == 0
    (report,) = [line for line in capsys.readouterr().out.splitlines() if str(path) in line]
    assert report.endswith("tensors loaded")  # nothing missing, unused or of another shape
    assert [line["step"] for line in metrics(folder)] == [1]
    trained = load(folder / "checkpoints" / "step-00000001.pt").networks
    weight = Model(motion_config("seed=5")).state()["generator"]["final.weight"]
    assert torch.equal(trained["generator"]["final.weight"], weight)


def test_unused_tensors_are_named_by_their_names_in_the_file(tmp_path):
    path = write(tmp_path / "c.pth.tar", masks_content(masks_config()))
    report = init_from(Model(masks_config()).networks, path)
    assert (report.missing, report.reshaped) == ([], [])
    assert report.unused == ["generator.down_blocks.0.conv.weight"]


def test_a_published_file_is_not_resumed(tmp_path, capsys):
    path = write(tmp_path / "c.pth.tar", fomm_content(motion_config()))
    assert call(train, "--config", "vox-fomm.yaml", "--resume", path) == 2
    assert "cannot be resumed; start a new run from it with --init-from" in error_line(
        capsys, "train.py"
    )


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("kp.weight", torch.zeros(())),
        ("kp.weight", torch.zeros(2, 2).to_sparse_csr()),
        ("kp.weight", 3),
        ("down.weight", torch.zeros(())),
        (3, torch.zeros(1)),
    ],
)
def test_tensors_of_other_kinds(tmp_path, name, tensor):
    config = motion_config()
    content = fomm_content(config)
    content["kp_detector"][name] = tensor
    path = write(tmp_path / "c.pth.tar", content)
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        load(path, config)
