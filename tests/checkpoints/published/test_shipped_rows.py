"""Shipped configs and published files of full size: every tensor has its place.

Names and shapes are those that the published programs give their networks (tests/golden/README.md);
the values are zeros. Most tests replace the reader of files, so that no file has to be written:
memory for zeros is not taken before something is written to it.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from branches.model import Model
from checkpoints import checkpoint
from checkpoints.checkpoint import init_from, load
from checkpoints.load_report import flatten
from checkpoints.published import fomm
from checkpoints.published.conversion import convert, fitting_config, problems
from checkpoints.weights import check_networks, load_model
from common.tensor_files import CheckpointError
from configs.loading import load_config
from configs.schema import Config
from tests.helpers.golden import GoldenMasks, GoldenMonkeyNet, GoldenTpsmm, GoldenX2Face, Shapes
from tests.helpers.published_files import (
    MONKEY_NET,
    PERTURBED_MASKS,
    TPSMM,
    X2FACE,
    Project,
    blur,
    published_parts,
    write_published,
)
from tests.helpers.rows import SHIPPED
from training.adversary import build_adversary

CPU = torch.device("cpu")
PATH = Path("published.pth.tar")


# Published files of full size


class FullSize(NamedTuple):
    """A published file of full size: the project, and what returns the shapes of its tensors."""

    project: Project
    shapes: Callable[[], Shapes]

    def content(self) -> dict[str, Any]:
        """The content of the file: zeros."""
        return {
            part: {name: zeros(name, shape) for name, shape in shapes.items()}
            for part, shapes in self.shapes().items()
        }


def zeros(name: str, shape: list[int]) -> torch.Tensor:
    dtype = torch.int64 if name.endswith("num_batches_tracked") else torch.float32
    return torch.zeros(shape, dtype=dtype)


def masks_shapes() -> Shapes:
    return GoldenMasks("perturbed_masks_256.npz").shapes


def monkey_net_shapes(data_set: str) -> Shapes:
    return GoldenMonkeyNet("monkey_vox_tiny.npz").published_shapes(data_set)


def x2face_shapes() -> Shapes:
    return GoldenX2Face("x2face_tiny.npz").meta["published_shapes"]


def tpsmm_shapes(*absent: str) -> Shapes:
    """Shapes of all parts but those in `absent`."""
    shapes = GoldenTpsmm("tpsmm_tiny.npz").meta["published_shapes"]
    return {part: shapes[part] for part in shapes if part not in absent}


MASKS = FullSize(PERTURBED_MASKS, masks_shapes)
MONKEY_VOX = FullSize(MONKEY_NET, partial(monkey_net_shapes, "vox"))
MONKEY_TAICHI = FullSize(MONKEY_NET, partial(monkey_net_shapes, "taichi"))
MONKEY_BAIR = FullSize(MONKEY_NET, partial(monkey_net_shapes, "bair"))
MONKEY_MGIF = FullSize(MONKEY_NET, partial(monkey_net_shapes, "moving-gif"))
X2FACE_VOX = FullSize(X2FACE, x2face_shapes)
TPSMM_FIRST = FullSize(TPSMM, partial(tpsmm_shapes, "avd_network"))
TPSMM_AVD = FullSize(TPSMM, tpsmm_shapes)
TPSMM_MGIF = FullSize(TPSMM, partial(tpsmm_shapes, "bg_predictor", "avd_network"))
TPSMM_MGIF_AVD = FullSize(TPSMM, partial(tpsmm_shapes, "bg_predictor"))

# The file that each config can animate with. Networks of TPSMM have one size for all data sets. Of
# X2Face and of Monkey-Net at 256 x 256 other data sets have no published file: their configs are
# ours, with the networks of VoxCeleb. No shapes are stored of Monkey-Net for Nemo, whose networks
# have the published settings of BAIR.
FITTING = {
    "vox-masks": MASKS,
    "taichi-masks": MASKS,
    "bair-masks": MASKS,
    "vox-monkey-net": MONKEY_VOX,
    "taichi-monkey-net": MONKEY_VOX,
    "taichi-monkey-net-64": MONKEY_TAICHI,
    "bair-monkey-net": MONKEY_VOX,
    "bair-monkey-net-64": MONKEY_BAIR,
    "nemo-monkey-net": MONKEY_BAIR,
    "mgif-monkey-net": MONKEY_MGIF,
    **dict.fromkeys(
        (
            f"{data_set}-x2face{row}"
            for data_set in ("vox", "taichi", "bair")
            for row in ("", "-prioritycut")
        ),
        X2FACE_VOX,
    ),
    "vox-tpsmm": TPSMM_FIRST,
    "vox-tpsmm-prioritycut": TPSMM_FIRST,
    "vox-tpsmm-avd": TPSMM_AVD,
    "taichi-tpsmm": TPSMM_FIRST,
    "taichi-tpsmm-prioritycut": TPSMM_FIRST,
    "taichi-tpsmm-avd": TPSMM_AVD,
    "ted-tpsmm": TPSMM_FIRST,
    "ted-tpsmm-avd": TPSMM_AVD,
    "mgif-tpsmm": TPSMM_MGIF,
    "mgif-tpsmm-avd": TPSMM_MGIF_AVD,
}

# What the message says of files that do not fit.
_OCCLUSION = "motion.dense_motion.occlusion must be false, found true"
NOT_FITTING = {
    ("vox-monkey-net-prioritycut", MONKEY_VOX): [_OCCLUSION],
    ("taichi-monkey-net-prioritycut", MONKEY_VOX): [_OCCLUSION],
    ("bair-monkey-net-prioritycut", MONKEY_VOX): [_OCCLUSION],
    ("taichi-monkey-net", MONKEY_TAICHI): ["motion.generator.num_blocks must be 5, found 7"],
    ("bair-monkey-net", MONKEY_BAIR): [
        "motion.keypoint_detector.max_width must be 512, found 1024",
        "motion.dense_motion.max_width must be 512, found 1024",
        "motion.generator.max_width must be 512, found 1024",
        "motion.generator.num_blocks must be 5, found 7",
    ],
    ("vox-monkey-net", MONKEY_MGIF): [
        "motion.dense_motion.use_difference must be true, found false",
        "motion.generator.num_blocks must be 6, found 7",
    ],
    ("nemo-x2face", X2FACE_VOX): [  # a comparison of Monkey-Net's authors, who published no file
        "motion.embedding.num_levels must be 8, found 5",
        "motion.driving.num_levels must be 8, found 6",
        "motion.driving.code must be 128, found 512",
    ],
    ("vox-tpsmm", TPSMM_AVD): ["motion.avd must not be null, since the file holds it"],
    ("vox-tpsmm-avd", TPSMM_FIRST): ["motion.avd must be null, since the file does not hold it"],
    ("mgif-tpsmm", TPSMM_FIRST): [
        "motion.background_motion must not be null, since the file holds it"
    ],
    ("vox-tpsmm", TPSMM_MGIF): [
        "motion.background_motion must be null, since the file does not hold it"
    ],
}


@pytest.fixture
def reads(monkeypatch) -> Callable[[FullSize], dict[str, Any]]:
    """Let the reader of checkpoints return the content of a file of full size, without a file."""

    def replace(file: FullSize) -> dict[str, Any]:
        content = file.content()
        monkeypatch.setattr(checkpoint, "read_content", lambda path: content)
        return content

    return replace


def unused_names(content: dict[str, Any]) -> list[str]:
    """Tensors that are not used in animation: the discriminator, and blocks that no code uses."""
    names = [f"discriminator.{name}" for name in content.get("discriminator", {})]
    if "mask_generator" in content:
        names += [
            f"generator.{name}" for name in content["generator"] if name.startswith("down_blocks.")
        ]
    return names


def test_every_row_of_these_models_is_tested():
    """Configs of FOMM are tested below, without stored shapes."""
    tested = {*FITTING, *(name for name, _ in NOT_FITTING)}
    for name in SHIPPED:
        config = load_config(name)
        kind = "fomm" if config.motion is None else config.motion.kind
        assert (name in tested) == (kind != "fomm" or list(config.branches) == ["masks"]), name


@pytest.mark.parametrize("name", FITTING)
def test_file_of_full_size_fits_the_config(reads, name):
    """Nothing of the config has to change, and the networks have the tensors of the file."""
    config, content = load_config(name), reads(FITTING[name])
    saved = load(PATH, config)
    check_networks(lambda: Model(config).networks, saved.evaluation_networks, PATH)
    report = saved.report
    assert report is not None
    assert (report.missing, report.reshaped) == ([], [])
    assert report.unused == unused_names(content)
    kernels = [name for part in content.values() for name in part if name.endswith("down.weight")]
    num_tensors = sum(len(part) for part in content.values())
    assert len(report.loaded) == num_tensors - len(kernels) - len(report.unused)


@pytest.mark.parametrize("name", FITTING)
def test_training_starts_from_a_file_of_full_size(reads, name):
    """Every tensor of the model is loaded; of the discriminator, if it is the published one."""
    config = load_config(name)
    reads(FITTING[name])
    report = init_from(networks_without_memory(config), PATH, config)
    assert report.reshaped == []
    is_ours = config.discriminator is not None and config.discriminator.kind == "unet"
    missing = {name.split(".")[0] for name in report.missing}
    assert missing == ({"discriminator"} if is_ours else set())
    saved = load(PATH, config)
    assert saved.report is not None
    assert {*saved.report.loaded} <= {*report.loaded}
    has_discriminator = any(name.startswith("discriminator.") for name in report.loaded)
    assert has_discriminator == ("monkey-net" in name)


def networks_without_memory(config: Config) -> dict[str, torch.nn.Module]:
    """Build the networks of a training on the meta device."""
    with torch.device("meta"):
        networks: dict[str, torch.nn.Module] = {**Model(config).networks}
        adversary = build_adversary(config)
        return networks if adversary is None else networks | adversary.networks


@pytest.mark.parametrize(
    ("file", "name"),
    [
        (MASKS, "vox-masks"),
        (MONKEY_VOX, "vox-monkey-net"),
        (MONKEY_TAICHI, "taichi-monkey-net-64"),
        (MONKEY_BAIR, "bair-monkey-net-64"),
        (MONKEY_MGIF, "mgif-monkey-net"),
        (X2FACE_VOX, "vox-x2face"),
        (TPSMM_FIRST, "vox-tpsmm"),
        (TPSMM_AVD, "vox-tpsmm-avd"),
        (TPSMM_MGIF, "mgif-tpsmm"),
        (TPSMM_MGIF_AVD, "mgif-tpsmm-avd"),
    ],
)
def test_message_names_a_config_that_fits(reads, file, name):
    reads(file)
    with pytest.raises(CheckpointError, match=f" such as --config {name}.yaml$"):
        load(PATH)


@pytest.mark.parametrize(
    ("name", "file", "expected"), [(*key, expected) for key, expected in NOT_FITTING.items()]
)
def test_file_of_full_size_that_does_not_fit(reads, name, file, expected):
    reads(file)
    with pytest.raises(CheckpointError) as caught:
        load(PATH, load_config(name))
    message = str(caught.value)
    assert message.startswith(f"--config does not fit {PATH}: {'; '.join(expected)}; give the ")
    assert "\n" not in message


@pytest.mark.parametrize(
    "name", ["vox-masks", "vox-monkey-net", "vox-x2face", "vox-tpsmm", "vox-tpsmm-avd"]
)
def test_written_file_of_full_size(tmp_path, name):
    """The file is written in the format of its time, and fills the networks of the config."""
    path, file = tmp_path / "published.pth.tar", FITTING[name]
    write_published(path, file.project, file.content())
    try:
        model = load_model(load(path, load_config(name)), CPU)
    finally:
        path.unlink()
    tensors = flatten(model.state())
    assert [name for name, tensor in tensors.items() if tensor.any()] == []


@pytest.mark.parametrize(
    "name", ["vox-fomm", "mgif-fomm", "nemo-fomm", "fashion-fomm", "taichi-fomm", "bair-fomm"]
)
def test_shapes_of_the_fomm_configs_lead_back_to_them(name):
    """For files with the shapes of the papers no key of the config needs a change.

    No published shapes of full size are stored for FOMM: these are the shapes of our networks.
    """
    config = load_config(name).model_copy(update={"discriminator": None})
    with torch.device("meta"):
        states = {
            network: module.state_dict() for network, module in Model(config).networks.items()
        }
    content = published_parts(states, fomm.PLACES)
    content["kp_detector"]["down.weight"] = blur(0.25)
    found = convert(content)
    assert found is not None
    assert problems(found, config) == []
    assert fitting_config(found) == ("mgif-fomm.yaml" if name == "mgif-fomm" else "vox-fomm.yaml")
    prefix = "motion.keypoint_detector"
    shared = name == "mgif-fomm"
    assert found.settings[f"{prefix}.jacobian"] == ("shared" if shared else "per_keypoint")
    assert found.settings[f"{prefix}.num_keypoints"] == 10
    assert found.settings[f"{prefix}.scale"] == 0.25
    assert found.settings["motion.dense_motion.width"] == 64
    assert found.settings["motion.dense_motion.max_width"] == 1024
    assert found.settings["motion.generator.num_res_blocks"] == 6
