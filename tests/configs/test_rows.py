"""The shipped configs: the published settings, the differences between rows, one step of each.

The settings of the other motion models are in test_family_rows.py.
"""

import contextlib
from pathlib import Path

import pytest
import torch
import yaml

from branches.branch import StepContext
from branches.model import Model
from common.batch_random import BatchRandom
from configs.loading import ConfigError, dump_config, load_config, parse_config
from tests.helpers.factories import noise_batch, tiny_perceptual
from tests.helpers.rows import (
    LAYERS,
    OWN,
    SETS,
    SHIPPED,
    changed,
    config_name,
    keys,
    leaves,
    needed,
    read,
    resolved,
    small,
)
from training.adversary import build_adversary
from training.optimization import Optimizer, base_learning_rates
from training.step import train_step

ROWS = ("fomm", "fomm-adv", "unet", "cutmix", "prioritycut", "masks", "")  # "": everything on
SIGHT = {"discriminator.spectral_norm", "discriminator.keypoints"}
SCHEDULE = {"train.epochs", "train.milestones", "train.batch_size"}
JITTER = {f"data.augmentation.{name}" for name in ("brightness", "contrast", "saturation", "hue")}
RESIZE = {"data.augmentation.resize"}
JACOBIAN = {"motion.keypoint_detector.jacobian"}
# Other data sets for which FOMM published a network: the row of vox with a few changes.
FURTHER = {
    "fashion-fomm": (
        "fomm-adv",
        JITTER - {"data.augmentation.hue"} | {"discriminator.keypoints"} | SCHEDULE,
    ),
    "mgif-fomm": ("fomm", JITTER | RESIZE | JACOBIAN | {"train.batch_size"}),
    "mgif-fomm-adv": (
        "fomm-adv",
        JITTER | RESIZE | JACOBIAN | SIGHT | SCHEDULE - {"train.batch_size"},
    ),
    "nemo-fomm": ("fomm", JITTER | {"train.batch_size"}),
    "nemo-fomm-adv": ("fomm-adv", JITTER | SIGHT | SCHEDULE - {"train.batch_size"}),
}
# Rows of the other motion models: the sets that each has. Without an ending the networks of taichi
# and bair are those of vox, at 256 x 256; 64: as published for these sets.
FAMILY = {
    "monkey-net": ("vox", "taichi", "bair", "nemo", "mgif"),
    "monkey-net-64": ("taichi", "bair"),
    "monkey-net-prioritycut": SETS,
    "x2face": ("vox", "taichi", "bair", "nemo"),
    "x2face-prioritycut": SETS,
    "tpsmm": ("vox", "taichi", "ted", "mgif"),
    "tpsmm-prioritycut": ("vox", "taichi"),
    "tpsmm-avd": ("vox", "taichi", "ted", "mgif"),
}
FAMILY_ROWS = {config_name(name, row): row for row, names in FAMILY.items() for name in names}
# These spell out what is published for their model.
FIRST = ("vox-monkey-net", "vox-x2face", "vox-tpsmm", "vox-tpsmm-avd")


def test_every_row_is_there_for_every_set():
    rows = {config_name(data_set, row) for data_set in SETS for row in ROWS}
    assert rows | FURTHER.keys() | FAMILY_ROWS.keys() == {*SHIPPED} - {*OWN}


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_config_loads_and_round_trips(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config(name)
    assert config.run.output_dir == f"runs/{name}"
    text = dump_config(config)
    Path("again.yaml").write_text(text)
    assert load_config("again.yaml") == config
    assert parse_config(yaml.safe_load(text), "run") == config


def test_rows_spell_out_every_number():
    """A later change of a default must not change a published row."""
    written = keys(read("vox-fomm"))
    assert written == needed("vox-fomm")
    for row in ("fomm-adv", "unet", "cutmix", "prioritycut", ""):
        written |= keys(read(config_name("vox", row))) - {"base"}
    assert written == needed("vox")


INHERITING = {name for name in SHIPPED if name.startswith(SETS[1:])} | {*FURTHER, *FAMILY_ROWS}


@pytest.mark.parametrize("name", sorted(INHERITING - {*FIRST}))
def test_no_row_repeats_what_its_bases_set(name, tmp_path, monkeypatch):
    """Without any one of its keys a row would be another one, or none at all."""
    monkeypatch.chdir(tmp_path)
    whole = resolved(name)
    for key, _ in leaves(read(name)):
        if key == "base":
            continue
        tree = section = read(name)
        *sections, last = key.split(".")
        for part in sections:
            section = section[part]
        del section[last]
        Path("less.yaml").write_text(yaml.dump(tree))
        with contextlib.suppress(ConfigError):
            assert resolved("less.yaml") != whole, key


STRUCTURE = {"discriminator.kind", "discriminator.channels"}
HALVES = {
    f"discriminator.{losses}.{part}"
    for losses in ("losses", "generator_losses")
    for part in ("encoder", "decoder")
}
CUT = {"discriminator.cut.kind", "discriminator.cut.warm_up_epochs"}
FROZEN = {"motion.keypoint_detector.learning_rate"}
KIND = {"discriminator.cut.kind"}
WHOLE = SCHEDULE | {"masks", "background"}
ALONE = {"motion", "background", "discriminator"}

STEPS = {  # from one row to another: the keys that change, for each of SETS
    ("fomm", "fomm-adv"): (
        SCHEDULE | {"discriminator"},
        SCHEDULE | {"discriminator"} | FROZEN,
        {"discriminator"},
    ),
    ("fomm-adv", "unet"): (
        STRUCTURE | SIGHT | HALVES,
        STRUCTURE | SIGHT | HALVES | FROZEN,
        STRUCTURE | HALVES,
    ),
    ("unet", "cutmix"): (CUT, CUT, CUT),
    ("cutmix", "prioritycut"): (KIND, KIND, KIND),
    ("prioritycut", ""): (WHOLE, WHOLE, WHOLE),
    ("", "masks"): (ALONE, ALONE, ALONE),
}


@pytest.mark.parametrize(("below", "above"), STEPS)
def test_neighbouring_rows_differ_in_what_their_names_say(below, above):
    for data_set, expected in zip(SETS, STEPS[below, above], strict=True):
        first, second = config_name(data_set, below), config_name(data_set, above)
        assert changed(resolved(first), resolved(second)) == expected, second


@pytest.mark.parametrize("row", ROWS)
def test_the_sets_differ_in_data_and_published_settings(row):
    data = {"data.root", "data.repeats", "train.batch_size"}
    masks = {"masks.perturbation.threshold", "masks.losses.perceptual"}
    masks = masks if row in ("", "masks") else set()
    length = set() if row in ("", "masks") else {"train.epochs", "train.milestones"}
    taichi, bair = data | masks, data | masks | length | {"data.id_sampling"}
    if row == "fomm-adv":
        taichi |= FROZEN
        bair |= SIGHT
    if not masks:
        bair -= {"train.batch_size"}  # both have 36
    if row == "fomm":
        bair |= {"train.batch_size"}  # unlike vox's 40
    vox = resolved(config_name("vox", row))
    assert changed(vox, resolved(config_name("taichi", row))) == taichi
    assert changed(vox, resolved(config_name("bair", row))) == bair


@pytest.mark.parametrize("name", FURTHER)
def test_further_sets_are_those_of_vox_but_for_their_published_settings(name):
    data = {"data.root", "data.id_sampling", "data.repeats"}
    row, differences = FURTHER[name]
    assert changed(resolved(f"vox-{row}"), resolved(name)) == data | differences


# repeats, batch size; brightness, contrast and saturation, hue; resize
PUBLISHED_DATA = {
    "fashion": (50, 27, 0.0, 0.1, [1.0, 1.0]),
    "mgif": (25, 36, 0.0, 0.5, [0.9, 1.1]),
    "nemo": (8, 36, 0.0, 0.0, [1.0, 1.0]),
}


@pytest.mark.parametrize("name", FURTHER)
def test_published_settings_of_further_sets(name):
    config = load_config(name)
    data_set = name.split("-")[0]
    data, augmentation = config.data, config.data.augmentation
    assert (data.root, data.id_sampling) == (f"data/{data_set}", False)
    repeats, batch_size, strength, hue, resize = PUBLISHED_DATA[data_set]
    assert (data.repeats, config.train.batch_size) == (repeats, batch_size)
    assert (augmentation.time_flip, augmentation.horizontal_flip) == (0.5, 0.5)
    assert {augmentation.brightness, augmentation.contrast, augmentation.saturation} == {strength}
    assert (augmentation.hue, augmentation.resize) == (hue, resize)
    assert (config.train.epochs, config.train.milestones, config.train.gamma) == (*LONG, 0.1)
    assert config.motion is not None
    assert (config.motion.keypoint_detector.jacobian == "shared") == (data_set == "mgif")
    discriminator = config.discriminator
    assert (discriminator is None) == (name in ("mgif-fomm", "nemo-fomm"))
    if discriminator is not None:
        assert discriminator.kind == "patch"
        assert not discriminator.keypoints
        assert discriminator.spectral_norm == (data_set != "fashion")
        assert (discriminator.losses.encoder, discriminator.generator_losses.encoder) == (1, 1)


# epochs, milestones, batch size
LONG, SHORT = (100, [60, 90]), (20, [12, 18])
ADVERSARIAL: tuple[int, list[int]] = (150, [])
PUBLISHED = {
    "vox-fomm": (*LONG, 40),
    "vox-fomm-adv": (*ADVERSARIAL, 36),
    "vox-unet": (*ADVERSARIAL, 36),
    "vox-cutmix": (*ADVERSARIAL, 36),
    "vox-prioritycut": (*ADVERSARIAL, 36),
    "vox-masks": (*LONG, 16),
    "vox": (*LONG, 16),
    "taichi-fomm": (*LONG, 30),
    "taichi-fomm-adv": (*ADVERSARIAL, 27),
    "taichi-unet": (*ADVERSARIAL, 27),
    "taichi-cutmix": (*ADVERSARIAL, 27),
    "taichi-prioritycut": (*ADVERSARIAL, 27),
    "taichi-masks": (*LONG, 20),
    "taichi": (*LONG, 20),
    "bair-fomm": (*SHORT, 36),
    "bair-fomm-adv": (*SHORT, 36),
    "bair-unet": (*SHORT, 36),
    "bair-cutmix": (*SHORT, 36),
    "bair-prioritycut": (*SHORT, 36),
    "bair-masks": (*LONG, 18),
    "bair": (*LONG, 18),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_settings(name):
    config = load_config(name)
    data, train = config.data, config.train
    data_set = name.split("-")[0]
    repeats = {"vox": 75, "taichi": 150, "bair": 1}[data_set]
    assert (data.root, data.size) == (f"data/{data_set}", (256, 256))
    assert (data.repeats, data.id_sampling) == (repeats, data_set != "bair")
    assert (train.epochs, train.milestones, train.batch_size) == PUBLISHED[name]
    assert (train.learning_rate, train.gamma, train.betas) == (2e-4, 0.1, [0.5, 0.999])
    rates = base_learning_rates(config)
    if name == "taichi-fomm-adv":
        assert rates.pop("keypoint_detector") == 0
    assert set(rates.values()) == {2e-4}
    if config.motion is not None:
        assert config.motion.losses.perceptual == dict.fromkeys(LAYERS, 10.0)


@pytest.mark.parametrize("row", ["masks", ""])
@pytest.mark.parametrize(
    ("data_set", "threshold", "layers"),
    [("vox", 100.0, LAYERS[:3]), ("taichi", 60.0, LAYERS), ("bair", 60.0, LAYERS)],
)
def test_published_settings_of_the_masks(data_set, row, threshold, layers):
    masks = load_config(config_name(data_set, row)).masks
    assert masks.refinement.start_epoch == 1
    assert masks.losses.perceptual == dict.fromkeys(layers, 10.0)
    assert (masks.losses.refinement, masks.losses.pixel, masks.prior.weight) == (100.0, 0, 0)
    perturbation = masks.perturbation
    assert (perturbation.num_strips, perturbation.noise) == (6, 20.0)
    assert perturbation.pivots == [15 / 64, 45 / 64]
    assert perturbation.scales == [0.75, 1.25]
    assert (perturbation.threshold, perturbation.animation_scale) == (threshold, 0.75)


@pytest.mark.parametrize("data_set", SETS)
def test_settings_of_the_background(data_set):
    background = load_config(data_set).background
    assert (background.start_epoch, background.needing_another_sample) == (2, {})
    assert background.losses.perceptual == dict.fromkeys(LAYERS[:3], 10.0)
    assert background.losses.pixel == 0


@pytest.mark.parametrize(
    ("data_set", "spectral_norm", "keypoints"),
    [("vox", False, True), ("taichi", False, True), ("bair", True, False)],
)
def test_published_settings_of_the_patch_discriminator(data_set, spectral_norm, keypoints):
    discriminator = load_config(f"{data_set}-fomm-adv").discriminator
    assert (discriminator.kind, discriminator.channels) == ("patch", [64, 128, 256, 512])
    assert (discriminator.spectral_norm, discriminator.keypoints) == (spectral_norm, keypoints)
    weights = discriminator.generator_losses
    assert (discriminator.losses.encoder, weights.encoder, weights.encoder_features) == (1, 1, 10)
    assert (discriminator.loss, discriminator.cut.kind) == ("least_squares", "none")


@pytest.mark.parametrize(
    ("row", "kind"),
    [("unet", "none"), ("cutmix", "rectangle"), ("prioritycut", "priority"), ("", "priority")],
)
@pytest.mark.parametrize("data_set", SETS)
def test_settings_of_the_unet_discriminator(data_set, row, kind):
    discriminator = load_config(config_name(data_set, row)).discriminator
    assert discriminator.kind == "unet"
    assert discriminator.channels == [64 * width for width in (1, 2, 4, 8, 8, 16)]
    assert (discriminator.spectral_norm, discriminator.keypoints) == (True, False)
    losses, weights = discriminator.losses, discriminator.generator_losses
    assert (losses.encoder, losses.decoder, losses.consistency) == (0.5, 0.5, 1)
    assert (weights.encoder, weights.decoder) == (0.5, 0.5)
    assert (weights.encoder_features, weights.decoder_features) == (10, 10)
    cut = discriminator.cut
    assert (cut.kind, cut.beta, cut.probability) == (kind, [1, 1], 0.5)
    assert (cut.foreground, cut.background_threshold, cut.as_sample) == ("dense_motion", 0.5, False)
    assert cut.order == "most_occluded"
    assert discriminator.loss == "least_squares"


# One step of each

MOTION = {f"loss/motion/{n}" for n in ("perceptual", "equivariance_value", "equivariance_jacobian")}
MASKS = {f"loss/masks/{name}" for name in ("low_perceptual", "high_perceptual", "refinement")}
BACKGROUND = {f"loss/background/{name}" for name in ("base_perceptual", "refine_perceptual")}
ENCODER = {
    "loss/adversarial/encoder",
    "loss/adversarial/encoder_features",
    "discriminator_loss/encoder",
}
DECODER = {name.replace("encoder", "decoder") for name in ENCODER}
CONSISTENCY = {"discriminator_loss/consistency"}
MONKEY_NET = {"loss/motion/pixel"}
TPSMM = {
    f"loss/motion/{name}" for name in ("perceptual", "equivariance_value", "warp", "background")
}
UNET = ENCODER | DECODER | CONSISTENCY
LOSSES = {
    "fomm": MOTION,
    "fomm-adv": MOTION | ENCODER,
    "unet": MOTION | ENCODER | DECODER,
    "cutmix": MOTION | ENCODER | DECODER | CONSISTENCY,
    "prioritycut": MOTION | ENCODER | DECODER | CONSISTENCY,
    "masks": MASKS,
    "": MOTION | MASKS | BACKGROUND | ENCODER | DECODER | CONSISTENCY,
    "monkey-net": MONKEY_NET | ENCODER,
    "monkey-net-64": MONKEY_NET | ENCODER,
    "monkey-net-prioritycut": MONKEY_NET | UNET - {"loss/adversarial/decoder_features"},
    "x2face": {"loss/motion/pixel"},
    "x2face-prioritycut": {"loss/motion/pixel"} | UNET,
    "tpsmm": TPSMM,
    "tpsmm-prioritycut": TPSMM | UNET,
    "tpsmm-avd": {"loss/motion/avd"},
}


@pytest.mark.parametrize("name", SHIPPED)
def test_one_step(name):
    """The step is late enough for every part to have started, and mixes images where it may."""
    config = small(name)
    model, adversary = Model(config).train(), build_adversary(config)
    optimizer = Optimizer(model, adversary, config, torch.device("cpu"))
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    scalars = train_step(
        model,
        adversary,
        optimizer,
        tiny_perceptual(config),
        noise_batch(config),
        StepContext(20.0, BatchRandom(torch.Generator().manual_seed(0)), host_random=0.0),
        config,
    ).scalars
    assert all(torch.isfinite(value) for value in scalars.values())
    assert optimizer.bad_steps == 0
    moved = {key for key, value in model.named_parameters() if not torch.equal(value, before[key])}
    networks = {".".join(key.split(".")[:2]) for key in before}
    frozen = {"motion.keypoint_detector"} if name == "taichi-fomm-adv" else set()
    if name.endswith("-avd"):
        frozen = networks - {"motion.avd"}
    assert {".".join(key.split(".")[:2]) for key in moved} == networks - frozen
    if name not in OWN:
        row = FURTHER[name][0] if name in FURTHER else name.partition("-")[2]
        expected = LOSSES[row]
        if row != "tpsmm-avd" and name.startswith("mgif-tpsmm"):
            expected = expected - {"loss/motion/background"}
        if name.startswith("bair-monkey-net"):
            expected = expected | {"loss/motion/deformed"}
        found = {key for key in scalars if key.startswith(("loss/", "discriminator_loss/"))}
        assert found - {"loss/total", "discriminator_loss/total"} == expected
        assert ("discriminator/gradient_norm" in scalars) == (adversary is not None)
