"""The rows of Monkey-Net, X2Face and TPSMM: published settings, sizes, what PriorityCut changes.

test_rows.py has what holds for every row: it loads, repeats nothing, and takes a step.
"""

import re
from typing import NamedTuple

import pytest
import torch

from branches.model import Model
from configs.loading import CONFIG_FOLDER, load_config
from configs.motion.monkey_net import MonkeyNetConfig
from configs.motion.tpsmm import TpsmmConfig
from configs.motion.x2face import X2FaceConfig
from tests.helpers.rows import LAYERS, OWN, SHIPPED, changed, keys, needed, read, resolved
from training.adversary import build_adversary

KINDS = ("monkey-net", "x2face", "tpsmm")
# What a first row says about its data and training, even where it is the same as FOMM's.
STATED = {
    *("data.image_size", "data.id_sampling", "data.repeats"),
    *(f"data.augmentation.{name}" for name in ("time_flip", "horizontal_flip", "brightness")),
    *(f"data.augmentation.{name}" for name in ("contrast", "saturation", "hue", "resize")),
    *("train.epochs", "train.batch_size", "train.learning_rate", "train.milestones"),
}
# Keys of a discriminator without a decoder that nothing reads.
DECODER = {
    *("discriminator.losses.decoder", "discriminator.losses.consistency"),
    *("discriminator.generator_losses.decoder", "discriminator.generator_losses.decoder_features"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_first_row_of_a_kind_spells_out_its_numbers(kind):
    """Neither a change of a default nor one of FOMM's rows changes what is published for it."""
    name = f"vox-{kind}"
    own = keys(read(name))
    wanted = needed(name)
    assert own >= {key for key in wanted if key.startswith("motion.")} | STATED
    unread = {key for key in wanted if key in DECODER or key.startswith("discriminator.cut.")}
    assert own | keys(read("vox-fomm")) >= wanted - unread
    assert keys(read("vox-tpsmm-avd")) >= {"motion.avd.code", *STATED & {"train.epochs"}}


class Row(NamedTuple):
    """Settings of a row.

    flips: probabilities of a time flip and of a mirrored pair.
    jitter: of brightness, contrast and saturation; hue: of hue.
    """

    size: int
    id_sampling: bool
    repeats: int
    epochs: int
    milestones: list[int]
    batch_size: int
    learning_rate: float = 2e-4
    flips: tuple[float, float] = (0.5, 0.5)
    jitter: float = 0.0
    hue: float = 0.0
    resize: tuple[float, float] = (1.0, 1.0)


ROWS = {
    "vox-monkey-net": Row(256, False, 1, 20, [], 20),
    "taichi-monkey-net": Row(256, False, 1, 750, [500], 32),
    "taichi-monkey-net-64": Row(64, False, 1, 750, [500], 32),
    "bair-monkey-net": Row(256, False, 1, 15, [10], 32, flips=(0.0, 0.5)),
    "bair-monkey-net-64": Row(64, False, 1, 15, [10], 32, flips=(0.0, 0.5)),
    "nemo-monkey-net": Row(64, False, 1, 750, [500], 32),
    "mgif-monkey-net": Row(128, False, 1, 750, [500], 64, hue=0.5, resize=(0.9, 1.1)),
    "vox-x2face": Row(256, True, 75, 100, [], 16, 1e-3),
    "taichi-x2face": Row(256, True, 150, 100, [], 16, 1e-3),
    "bair-x2face": Row(256, False, 1, 20, [], 16, 1e-3),
    "nemo-x2face": Row(64, False, 8, 100, [], 16, 1e-3),
    "vox-tpsmm": Row(256, True, 75, 100, [70, 90], 28, jitter=0.1, hue=0.1),
    "taichi-tpsmm": Row(256, True, 150, 100, [70, 90], 28, jitter=0.1, hue=0.1),
    "ted-tpsmm": Row(384, True, 150, 100, [70, 90], 12, jitter=0.1, hue=0.1),
    "mgif-tpsmm": Row(256, False, 50, 100, [70, 90], 28, hue=0.5, resize=(0.9, 1.1)),
    "vox-tpsmm-avd": Row(256, True, 300, 200, [140, 180], 256, 1e-3, jitter=0.1, hue=0.1),
    "taichi-tpsmm-avd": Row(256, True, 150, 100, [70, 90], 256, 1e-3, jitter=0.1, hue=0.1),
    "ted-tpsmm-avd": Row(384, True, 500, 30, [20, 25], 256, 1e-3, jitter=0.1, hue=0.1),
    "mgif-tpsmm-avd": Row(256, False, 50, 100, [70, 90], 256, 1e-3, hue=0.5, resize=(0.9, 1.1)),
}
PRIORITYCUT = {
    name: name.removesuffix("-prioritycut")
    for name in SHIPPED
    if name.endswith("-prioritycut") and any(kind in name for kind in KINDS)
}


def test_settings_of_every_row_are_tested():
    family = {name for name in SHIPPED if any(kind in name for kind in KINDS)}
    assert ROWS.keys() | PRIORITYCUT.keys() == family


@pytest.mark.parametrize("name", ROWS)
def test_data_and_schedule(name):
    config = load_config(name)
    data, train, augmentation = config.data, config.train, config.data.augmentation
    jitters = {augmentation.brightness, augmentation.contrast, augmentation.saturation}
    assert len(jitters) == 1
    found = Row(
        data.size[0],
        data.id_sampling,
        data.repeats,
        train.epochs,
        train.milestones,
        train.batch_size,
        train.learning_rate,
        (augmentation.time_flip, augmentation.horizontal_flip),
        jitters.pop(),
        augmentation.hue,
        (augmentation.resize[0], augmentation.resize[1]),
    )
    assert found == ROWS[name]
    assert data.size[0] == data.size[1]
    assert data.root == f"data/{name.split('-')[0]}"
    assert (train.gamma, train.betas) == (0.1, [0.5, 0.999])
    assert train.max_steps == (10_000 if name == "nemo-x2face" else None)
    assert (train.clip_norm, train.clip_ratio, train.ema_decay) == (None, None, None)


# scale of detector and dense motion, max_width, blocks of the generator
MONKEY_NET = {
    "vox-monkey-net": (0.25, 1024, 7),
    "taichi-monkey-net": (0.25, 1024, 7),
    "taichi-monkey-net-64": (1.0, 1024, 5),
    "bair-monkey-net": (0.25, 1024, 7),
    "bair-monkey-net-64": (1.0, 512, 5),
    "nemo-monkey-net": (1.0, 512, 5),
    "mgif-monkey-net": (0.5, 1024, 6),
}


@pytest.mark.parametrize("name", MONKEY_NET)
def test_monkey_net(name):
    config = load_config(name)
    motion, discriminator = config.motion, config.discriminator
    assert isinstance(motion, MonkeyNetConfig)
    detector, dense, generator = motion.keypoint_detector, motion.dense_motion, motion.generator
    scale, max_width, num_blocks = MONKEY_NET[name]
    for network in (detector, dense):
        sizes = (network.scale, network.width, network.max_width, network.num_blocks)
        assert sizes == (scale, 32, max_width, 5)
    assert (detector.num_keypoints, detector.temperature) == (10, 0.1)
    assert detector.min_variance == 0.001
    assert (generator.width, generator.max_width) == (32, max_width)
    assert (generator.num_blocks, generator.num_res_blocks) == (num_blocks, 4)
    assert generator.interpolation == ("bilinear" if config.data.size[0] == 256 else "nearest")
    assert motion.heatmap_divisor == ("sum" if name == "bair-monkey-net-64" else 100)
    assert dense.use_difference == (name == "mgif-monkey-net")
    assert not dense.occlusion
    assert (motion.losses.pixel, motion.losses.perceptual) == (10, {})
    assert motion.losses.deformed == (10 if name.startswith("bair") else 0)
    assert discriminator is not None
    assert (discriminator.kind, discriminator.channels) == ("monkey_net", [64, 128, 256, 256])
    assert (discriminator.keypoints, discriminator.detach) == (True, False)
    assert (discriminator.spectral_norm, discriminator.loss) == (False, "least_squares")
    weights = discriminator.generator_losses
    assert (discriminator.losses.encoder, weights.encoder) == (1, 1)
    assert weights.encoder_features == [10, 10, 10, 1]


@pytest.mark.parametrize("name", [name for name in ROWS if name.endswith("x2face")])
def test_x2face(name):
    config = load_config(name)
    motion = config.motion
    assert isinstance(motion, X2FaceConfig)
    embedding, driving = motion.embedding, motion.driving
    for network in (embedding, driving):
        assert (network.width, network.max_width) == (64, 512)
    compared = name == "nemo-x2face"
    assert (embedding.code, driving.code) == (512, 512 if compared else 128)
    assert (embedding.num_levels, driving.num_levels) == ((5, 6) if compared else (8, 8))
    assert (motion.losses.pixel, motion.losses.perceptual) == (1, {})
    assert config.discriminator is None


# dropout of plates: start, highest; epoch in which the background's motion starts
TPSMM = {
    "vox": (0.1, 0.3, 10),
    "taichi": (0.0, 0.7, 0),
    "ted": (0.0, 0.5, 0),
    "mgif": (0.2, 0.5, None),
}


@pytest.mark.parametrize("name", [name for name in ROWS if "tpsmm" in name])
def test_tpsmm(name):
    config = load_config(name)
    motion = config.motion
    assert isinstance(motion, TpsmmConfig)
    dense, inpainting, dropout = motion.dense_motion, motion.inpainting, motion.dense_motion.dropout
    assert motion.keypoint_detector.num_plates == 10
    assert (dense.scale, dense.width, dense.max_width, dense.num_blocks) == (0.25, 64, 1024, 5)
    assert dense.heatmap_variance == 0.01
    assert (inpainting.width, inpainting.max_width, inpainting.num_down_blocks) == (64, 512, 3)
    start, highest, background = TPSMM[name.split("-")[0]]
    assert (dropout.start, dropout.highest) == (start, highest)
    assert (dropout.increase_epochs, dropout.until_epoch) == (10, 35)
    predictor = motion.background_motion
    assert (None if predictor is None else predictor.start_epoch) == background
    assert (motion.transform.affine_std, motion.transform.thin_plate_std) == (0.05, 0.005)
    losses = motion.losses
    assert losses.perceptual == dict.fromkeys(LAYERS, 10)
    assert (losses.equivariance_value, losses.warp, losses.background, losses.pixel) == (
        *(10, 10, 10),
        0,
    )
    assert (motion.avd is not None) == name.endswith("-avd")
    assert motion.avd is None or motion.avd.code == 128
    assert config.discriminator is None


D = "discriminator"
# Where the U-Net of a row differs from that of vox-prioritycut.yaml.
OTHER_DISCRIMINATOR = {
    "monkey_net": {
        f"{D}.generator_losses.encoder_features",
        f"{D}.generator_losses.decoder_features",
    },
    "x2face": {f"{D}.cut.occlusion", f"{D}.cut.foreground"},
    "tpsmm": set(),
}


@pytest.mark.parametrize(("name", "below"), PRIORITYCUT.items())
def test_prioritycut_changes_nothing_but_the_discriminator(name, below):
    """Where something else must change, the row says so: an occlusion map, the optimizer."""
    config = load_config(name)
    discriminator, motion = config.discriminator, config.motion
    assert discriminator is not None
    assert motion is not None
    of_fomm = load_config("vox-prioritycut").discriminator
    assert of_fomm is not None
    differences = changed({D: of_fomm.model_dump()}, {D: discriminator.model_dump()})
    assert differences == OTHER_DISCRIMINATOR[motion.kind]
    assert (discriminator.kind, discriminator.cut.kind) == ("unet", "priority")
    found = changed(resolved(below), resolved(name))
    others = {
        "monkey_net": {"motion.dense_motion.occlusion"},
        "x2face": {"train.optimizer", "train.learning_rate"},
        "tpsmm": set(),
    }
    assert {key for key in found if not key.startswith(D)} == others[motion.kind]


def test_prioritycut_on_monkey_net_by_its_field():
    """The variant that the row names needs no occlusion map."""
    config = load_config(
        "vox-monkey-net-prioritycut",
        ["motion.dense_motion.occlusion=false", "discriminator.cut.occlusion=field"],
    )
    assert config.discriminator is not None
    assert config.motion is not None
    assert not config.motion.predicts_occlusion
    weights = config.discriminator.generator_losses
    assert (weights.encoder_features, weights.decoder_features) == ([10, 10, 10, 1, 0, 0], 0)


# Of the published networks, by their published parts. The two files of X2Face and of TPSMM, and
# Monkey-Net's for four sets.
PARAMETERS = {
    "vox-monkey-net": (14_132_728, 80_629_691, 1_719_489),
    "taichi-monkey-net-64": (14_132_728, 28_528_571, 1_719_489),
    "bair-monkey-net-64": (9_412_600, 19_088_315, 1_719_489),
    "mgif-monkey-net": (14_132_728, 52_235_653, 1_719_489),
    "vox-x2face": (39_157_760, 25_614_080),
    "vox-tpsmm": (11_227_812, 37_941_397, 24_737_283, 11_188_998),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_number_of_parameters_is_the_published_one(name):
    config = load_config(name)
    with torch.device("meta"):
        networks = dict(Model(config).networks)
        adversary = build_adversary(config)
    if adversary is not None:
        networks |= adversary.networks
    sizes = {key: sum(p.numel() for p in network.parameters()) for key, network in networks.items()}
    if name.endswith("monkey-net") or "monkey-net-64" in name:
        sizes["generator"] += sizes.pop("dense_motion")  # one part of the published file
    assert tuple(sizes.values()) == PARAMETERS[name]


UNCOMMENTED = {"format", "seed"}  # neither is a setting of a paper
NUMBER = re.compile(r"[:\[{,] *-?\d")


@pytest.mark.parametrize("name", [name for name in SHIPPED if name not in OWN])
def test_every_number_has_a_comment(name):
    """On its line, on that of a key before it in its section, or on that of the section."""
    commented: dict[int, bool] = {}  # by indent: whether a line of the open section has a comment
    for line in (CONFIG_FOLDER / f"{name}.yaml").read_text().splitlines():
        text, _, comment = line.partition(" #")
        if not text.strip() or text.startswith("#"):
            continue
        indent = len(text) - len(text.lstrip())
        for deeper in [i for i in commented if i > indent]:
            del commented[deeper]
        if indent == 0:
            commented = {0: False}
        commented[indent] = commented.get(indent, False) or bool(comment)
        key = text.split(":")[0].strip()
        if NUMBER.search(text) and key not in UNCOMMENTED:
            assert any(commented.values()), f"{name}.yaml: {line}"
