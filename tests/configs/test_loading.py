"""Tests of finding, inheriting, overriding and storing configs, and of wrong files."""

import os
import re
from pathlib import Path

import pytest
import torch

from configs.loading import (
    CONFIG_FOLDER,
    ConfigError,
    dump_config,
    load_config,
    override_config,
    parse_config,
)
from configs.schema import Config, DiscriminatorConfig

SHIPPED = sorted(path.stem for path in CONFIG_FOLDER.glob("*.yaml"))
LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
FITS = "motion.keypoint_detector.num_blocks=4"  # fits 64 pixels at the scale 0.25


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Change to a user's working directory outside the repository."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, text: str | bytes) -> str:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return name


def message(name: str = "vox", *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(name, overrides)
    return str(caught.value)


# Finding and inheriting


@pytest.mark.parametrize("name", ["vox", "vox.yaml", str(CONFIG_FOLDER / "vox.yaml")])
def test_name_or_path(name):
    assert load_config(name).data.root == "data/vox"


def test_a_file_wins_over_a_shipped_name():
    write("vox.yaml", "base: demo\nseed: 7")
    config = load_config("vox.yaml")
    assert (config.seed, config.data.kind) == (7, "puppets")
    assert load_config("vox").seed == 0


def test_unknown_name_lists_the_shipped_ones():
    assert message("voxx") == (
        "voxx: no such config; did you mean vox?; "
        f"give a path or a name in configs/: {', '.join(SHIPPED)}"
    )


def test_output_dir_follows_the_name_unless_it_is_set():
    write("mine/small.yaml", "base: demo")
    assert load_config("mine/small.yaml").run.output_dir == "runs/small"
    assert load_config("demo", ["run.output_dir=out"]).run.output_dir == "out"


def test_bases_chain_and_are_sought_beside_the_file_that_names_them():
    write("a/child.yaml", "base: ../b/middle.yaml\ntrain: {epochs: 7}")
    write("b/middle.yaml", "base: root.yaml\ntrain: {epochs: 6, batch_size: 6}")
    write("b/root.yaml", "base: demo\ntrain: {epochs: 5, batch_size: 5, learning_rate: 1}\nseed: 3")
    config = load_config("a/child.yaml")
    train = config.train
    assert (train.epochs, train.batch_size, train.learning_rate, config.seed) == (7, 6, 1.0, 3)
    assert config.data.kind == "puppets"


def test_bases_in_a_circle():
    write("a.yaml", "base: b.yaml")
    write("b.yaml", "base: a.yaml")
    expected = "b.yaml: base: files in a circle: a.yaml -> b.yaml -> a.yaml"
    assert message("a.yaml") == expected
    write("c.yaml", "base: [demo, a.yaml]")
    assert message("c.yaml") == (
        "b.yaml: base: files in a circle: c.yaml -> a.yaml -> b.yaml -> a.yaml"
    )
    write("self.yaml", "base: [demo, self.yaml]")
    assert message("self.yaml") == ("self.yaml: base: files in a circle: self.yaml -> self.yaml")


def test_base_that_is_missing_or_no_name():
    write("a.yaml", "base: dema")
    assert message("a.yaml").startswith("a.yaml: base: dema: no such config; did you mean demo?")
    write("a.yaml", "base: [demo, dema]")
    assert message("a.yaml").startswith("a.yaml: base: dema: no such config; did you mean demo?")
    write("b.yaml", "base: [demo, a.yaml]")
    assert message("b.yaml").startswith("a.yaml: base: dema: ")


@pytest.mark.parametrize("base", ["[]", "3", "true", '["demo", 3]', '[["demo"]]', '{"demo": 1}'])
def test_base_of_a_wrong_type(base):
    write("a.yaml", f"base: {base}")
    assert message("a.yaml") == (
        f"a.yaml: base: found {base}; must be the name of a config, or a list of names"
    )


def test_of_several_bases_the_later_wins_and_the_file_itself_over_all():
    write("one.yaml", "base: demo\nseed: 1\ntrain: {epochs: 11, batch_size: 11, max_steps: 11}")
    write("two.yaml", "train: {epochs: 12, batch_size: 12}\nbackground: null")
    write("a.yaml", "base: [one.yaml, two.yaml]\ntrain: {epochs: 13}")
    config = load_config("a.yaml")
    train = config.train
    assert (config.seed, train.max_steps, train.batch_size, train.epochs) == (1, 11, 12, 13)
    assert config.masks is not None
    assert config.background is None
    write("b.yaml", "base: [two.yaml, one.yaml]")
    config = load_config("b.yaml")
    assert (config.train.epochs, config.train.batch_size) == (11, 11)
    assert config.background is not None


def test_a_file_that_several_bases_share_counts_once_below_them():
    """If it were read again for the second base, it would undo what the first base sets."""
    write("root.yaml", "base: demo\nseed: 1\ntrain: {epochs: 11, batch_size: 11, max_steps: 11}")
    write("method.yaml", "base: root.yaml\ntrain: {epochs: 12, batch_size: 12}")
    write("sub/set.yaml", "base: ../root.yaml\ntrain: {batch_size: 13}")
    for bases in ("[method.yaml, sub/set.yaml]", "[root.yaml, method.yaml, sub/set.yaml]"):
        write("a.yaml", f"base: {bases}")
        config = load_config("a.yaml")
        assert (config.seed, config.train.max_steps) == (1, 11)
        assert (config.train.epochs, config.train.batch_size) == (12, 13)


def test_a_null_section_stays_null_over_a_shared_base():
    """A config may take the mask branch alone of another set, without the sections of its base."""
    write("all.yaml", "base: demo")
    write("masks.yaml", "base: all.yaml\nmotion: null\nbackground: null\ndiscriminator: null")
    write("set.yaml", "base: all.yaml\nmasks: {perturbation: {threshold: 70.0}}")
    write("a.yaml", "base: [masks.yaml, set.yaml]")
    config = load_config("a.yaml")
    assert list(config.branches) == ["masks"]
    assert config.masks.perturbation.threshold == 70


def test_sections_merge_lists_and_layers_are_replaced():
    write("a.yaml", "base: vox\ntrain: {milestones: [5]}\nmotion: {losses: {pixel: 1}}")
    config = load_config("a.yaml")
    assert config.train.milestones == [5]
    assert config.train.batch_size == 16
    assert set(config.motion.losses.perceptual) == set(LAYERS)
    assert config.motion.losses.pixel == 1.0

    write("b.yaml", "base: vox\nmotion: {losses: {perceptual: {relu2_1: 3}}}")
    losses = load_config("b.yaml").motion.losses
    assert losses.perceptual == {"relu2_1": 3.0}
    assert losses.equivariance_value == 10.0


def test_null_removes_a_section_and_a_mapping_brings_it_back():
    write(
        "off.yaml", "base: demo\nmotion: null\nmasks: null\nbackground: null\ndiscriminator: null"
    )
    assert message("off.yaml") == (
        "off.yaml: motion: nothing to train; "
        "at least one section of: motion, masks, background is needed"
    )
    write("on.yaml", "base: off.yaml\nmotion: {keypoint_detector: {num_blocks: 3}}")
    config = load_config("on.yaml", ["motion.dense_motion.num_blocks=4"])
    assert config.motion.keypoint_detector.num_blocks == 3
    assert config.motion.keypoint_detector.width == 32  # the schema's default, not the demo's 16
    assert config.masks is config.background is None
    assert load_config("off.yaml", ["motion.dense_motion.num_blocks=4", FITS]).motion is not None


@pytest.mark.parametrize(
    ("overrides", "branches"),
    [
        ([], ["motion", "masks", "background"]),
        (["masks=null", "background=null"], ["motion"]),
        (["motion=null", "discriminator=null"], ["masks", "background"]),
        (["background=null"], ["motion", "masks"]),
    ],
)
def test_branches_are_switched_off_on_the_command_line(overrides, branches):
    assert list(load_config("demo", overrides).branches) == branches


def test_the_discriminator_is_switched_off_and_on_on_the_command_line():
    assert load_config("vox", ["discriminator=null"]).discriminator is None
    assert load_config("vox-fomm").discriminator is None
    on = load_config("vox-fomm", ["discriminator.channels=[4,8]"]).discriminator
    assert on == DiscriminatorConfig(channels=[4, 8])  # other keys have the schema's defaults
    patch = load_config("vox-fomm", ["discriminator.kind=patch"]).discriminator
    assert patch == DiscriminatorConfig(kind="patch")
    kept = load_config("vox", ["discriminator.channels=[4,8]"]).discriminator
    assert (kept.channels, kept.cut.kind, kept.losses.encoder) == ([4, 8], "priority", 0.5)
    anew = load_config("vox", ["discriminator=null", "discriminator.kind=patch"]).discriminator
    assert anew == DiscriminatorConfig(kind="patch")


# YAML


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "+1e-4", "0.1e-3", ".1e-3", "1.e-4", "1.0e-4"])
def test_numbers_with_an_exponent(text):
    write("a.yaml", f"base: demo\ntrain: {{learning_rate: {text}}}")
    assert load_config("a.yaml").train.learning_rate == 1e-4
    assert load_config("demo", [f"train.learning_rate={text}"]).train.learning_rate == 1e-4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train:\n  epochs: 1\n  seed: 2\n  epochs: 3", "line 4, column 3: key 'epochs' appears"),
        ("train:\n  epochs: 1\n 2", "line 3, column 2: "),
        ("train: [1, 2", "line 1, column 13: while parsing a flow sequence, expected ',' or ']'"),
        ("\tseed: 1", "line 1, column 1: while scanning for the next token, found character '\\t'"),
        ("seed: 1\n2: 3", "line 2, column 1: a key that is not text"),
        ("seed: !!python/name:os.system", "line 1, column 7: could not determine a constructor"),
        ("seed: 2024-13-01", "not YAML: month must be in 1..12"),
        (b"PK\x03\x04\xff\xfe", "not YAML: "),
        ("", "the file is empty; a config is a mapping of keys"),
        ("# seed: 1\n", "the file is empty; a config is a mapping of keys"),
        ("- a\n- b", 'the top level is ["a", "b"], not a mapping of keys'),
        ("vox", 'the top level is "vox", not a mapping of keys'),
    ],
)
def test_files_that_are_not_a_config(text, expected):
    write("bad.yaml", text)
    found = message("bad.yaml")
    assert found.startswith(f"bad.yaml: {expected}")
    assert "\n" not in found


def test_merge_keys_of_yaml_may_be_overruled():
    write(
        "a.yaml",
        "base: demo\nmotion:\n  keypoint_detector: &net {scale: 0.5, num_blocks: 4}\n"
        "  dense_motion:\n    <<: *net\n    num_blocks: 3\n",
    )
    motion = load_config("a.yaml").motion
    assert (motion.dense_motion.scale, motion.dense_motion.num_blocks) == (0.5, 3)


# Overrides


def test_overrides_are_yaml_and_the_last_one_wins():
    config = load_config(
        "vox",
        [
            "train.max_steps=10",
            "data.image_size=[128, 256]",
            "motion.keypoint_detector.learning_rate=0",
            "data.root=a=b",
            "seed=1",
            "seed=2",
        ],
    )
    assert config.train.max_steps == 10
    assert config.data.size == (128, 256)
    assert config.motion.keypoint_detector.learning_rate == 0.0
    assert config.data.root == "a=b"
    assert config.seed == 2


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed", "override 'seed': must be key.sub=value, for example train.max_steps=10"),
        ("=1", "override '=1': must be key.sub=value, for example train.max_steps=10"),
        ("train.=1", "override 'train.=1': must be key.sub=value, for example train.max_steps=10"),
        ("data.root=[a", "override 'data.root=[a': line 1, column 3: "),
        (
            "motion.losses.perceptual.relu1_1=1",
            "override 'motion.losses.perceptual.relu1_1=1': "
            "motion.losses.perceptual is set as a whole: motion.losses.perceptual=...",
        ),
        (
            "train.epochs.x=1",
            "override 'train.epochs.x=1': train.epochs is set as a whole: train.epochs=...",
        ),
        ("trian.epochs=1", "command line: trian: unknown key; did you mean train?"),
        ("train.epoch=1", "command line: train.epoch: unknown key; did you mean train.epochs?"),
    ],
)
def test_wrong_overrides(override, expected):
    assert message("vox", override).startswith(expected)


# Stored configs


def test_overrides_on_a_stored_config():
    stored = load_config("demo")
    longer = override_config(stored, ["train.max_steps=5000", "motion.losses.pixel=1"])
    assert longer.train == stored.train.model_copy(update={"max_steps": 5000})
    assert longer.motion.keypoint_detector == stored.motion.keypoint_detector
    assert override_config(stored, []) == stored
    with pytest.raises(ConfigError) as caught:
        override_config(stored, ["motion.keypoint_detector.jacobian=none"])
    assert str(caught.value).startswith("stored config: motion.losses.equivariance_jacobian: ")


def test_stored_config_is_plain_and_survives_a_checkpoint():
    config = load_config("demo")
    torch.save({"config": config.model_dump()}, "c.pt")
    stored = torch.load("c.pt", weights_only=True)["config"]
    assert parse_config(stored, "c.pt") == config


def test_dump_is_in_the_order_of_the_schema():
    sections = re.findall(r"^(\w+):", dump_config(load_config("demo")), flags=re.MULTILINE)
    assert sections == list(Config.model_fields)


@pytest.mark.parametrize(
    "root", ["1e5", "12", "null", "a: b", "ünï ☃", "x\ny ", "\x85", "# no", "w " * 99]
)
def test_text_round_trips_whatever_it_looks_like(root):
    config = parse_config(load_config("vox").model_dump() | {"data": {"root": root}}, "test")
    write("a.yaml", dump_config(config))
    assert load_config("a.yaml").data.root == root


def test_stored_config_of_another_format():
    tree = load_config("demo").model_dump() | {"format": 2, "unheard_of": 1}
    with pytest.raises(ConfigError) as caught:
        parse_config(tree, "runs/demo/c.pt")
    assert str(caught.value) == (
        "runs/demo/c.pt: format: found 2; this version of the program reads format 1"
    )


PUPPETS = {"format": 1, "data": {"kind": "puppets"}}


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ([1, 2], "c.pt: the config is [1, 2], not a mapping of keys"),
        (PUPPETS | {"motion": {"width": 3}}, "c.pt: motion.width: unknown key"),
        (PUPPETS | {"motion": {}, 3: 4}, "c.pt: 3: found 3; must be text"),
    ],
)
def test_a_stored_config_that_is_not_one(tree, expected):
    with pytest.raises(ConfigError) as caught:
        parse_config(tree, "c.pt")
    assert str(caught.value).startswith(expected)


def test_a_pipe_is_no_config(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ConfigError, match=r"pipe\.yaml: is not a plain file"):
        load_config(str(tmp_path / "pipe.yaml"))
