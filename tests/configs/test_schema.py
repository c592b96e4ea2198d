"""Tests of the messages for wrong keys and values."""

from pathlib import Path

import pytest

from common.errors import UserError
from configs.loading import ConfigError, load_config, parse_config
from configs.schema import Config


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Change to a user's working directory outside the repository."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, text: str) -> str:
    path = Path(name)
    path.write_text(text)
    return name


def message(name: str = "vox", *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(name, overrides)
    return str(caught.value)


def lines(name: str = "vox", *overrides: str) -> list[str]:
    """Split a message that lists several problems."""
    first, *problems = message(name, *overrides).split("\n  ")
    assert first == f"{len(problems)} problems in the config"
    return problems


def test_by_default_the_masks_learn_first_then_the_refinement_then_the_background():
    config = parse_config({"data": {"kind": "puppets"}, "masks": {}, "background": {}}, "a.yaml")
    assert (config.masks.refinement.start_epoch, config.background.start_epoch) == (1, 2)


def test_unknown_key_names_the_file_that_has_it_and_the_nearest_key():
    write("mine.yaml", "base: demo\ntrain: {batch_sizes: 3}")
    expected = "mine.yaml: train.batch_sizes: unknown key; did you mean train.batch_size?"
    assert message("mine.yaml") == expected
    write("child.yaml", "base: mine.yaml\nseed: 1")
    assert message("child.yaml") == expected
    assert issubclass(ConfigError, UserError)


def test_unknown_key_like_no_other_lists_the_keys():
    assert message("vox", "run.zzz=1") == (
        "command line: run.zzz: unknown key; known here: output_dir"
    )


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.batch_size=ten", 'train.batch_size: found "ten"; must be a whole number'),
        ("train.batch_size=1.5", "train.batch_size: found 1.5; must be a whole number"),
        ("train.batch_size=true", "train.batch_size: found true; must be a whole number"),
        ("train.batch_size=null", "train.batch_size: found null; must be a whole number"),
        ("train.batch_size=0", "train.batch_size: found 0; must be at least 1"),
        ("train.learning_rate=fast", 'train.learning_rate: found "fast"; must be a number'),
        ("train.learning_rate='1'", 'train.learning_rate: found "1"; must be a number'),
        ("train.clip_norm=.inf", "train.clip_norm: found Infinity; must be a finite number"),
        ("train.clip_norm=0", "train.clip_norm: found 0; must be above 0"),
        ("train.clip_ratio=1", "train.clip_ratio: found 1; must be above 1"),
        ("train.clip_window=1", "train.clip_window: found 1; must be at least 2"),
        ("train.betas=[0.5, 1]", "train.betas[1]: found 1; must be below 1"),
        ("train.betas=[0.5]", "train.betas: found [0.5]; must be a list of at least 2"),
        ("train.betas=[0,0,0]", "train.betas: found [0, 0, 0]; must be a list of at most 2"),
        ("train.milestones=3", "train.milestones: found 3; must be a list"),
        ("train.channels_last=1", "train.channels_last: found 1; must be true, false or auto"),
        ("data.augmentation.hue=0.6", "data.augmentation.hue: found 0.6; must be at most 0.5"),
        (
            "data.augmentation.resize=[0.9]",
            "data.augmentation.resize: found [0.9]; must be a list of at least 2",
        ),
        (
            "data.augmentation.resize=[0.9,9]",
            "data.augmentation.resize[1]: found 9; must be at most 4",
        ),
        ("data.kind=clip", "data.kind: found \"clip\"; must be 'clips' or 'puppets'"),
        (
            "data.root=2024",
            "data.root: found 2024; must be text (in quotes if it looks like a number)",
        ),
        ("train=5", "train: found 5; must be a section, that is, a mapping of keys"),
        ("train=null", "train: found null; must be a section, that is, a mapping of keys"),
        (
            "motion.losses.perceptual=[relu1_1]",
            'motion.losses.perceptual: found ["relu1_1"]; must be a mapping',
        ),
        (
            "motion.losses.perceptual={relu1_1: -1}",
            "motion.losses.perceptual.relu1_1: found -1; must be at least 0",
        ),
        (
            "perceptual.scales=[1, 0.3]",
            "perceptual.scales[1]: found 0.3; "
            "must be a power of two of at most 1: 1, 0.5, 0.25, 0.125, ...",
        ),
        (
            "motion.dense_motion.scale=0.75",
            "motion.dense_motion.scale: found 0.75; "
            "must be a power of two of at most 1: 1, 0.5, 0.25, 0.125, ...",
        ),
        (
            "masks.perturbation.pivots=[0.1]",
            "masks.perturbation.pivots: found [0.1]; must be a list of at least 2",
        ),
        (
            "masks.perturbation.scales=[0, 1]",
            "masks.perturbation.scales[0]: found 0; must be above 0",
        ),
        (
            "masks.perturbation.threshold=256",
            "masks.perturbation.threshold: found 256; must be at most 255",
        ),
        (
            "masks.prior.changed_share=1",
            "masks.prior.changed_share: found 1; must be below 1",
        ),
        (
            "masks.refinement.start_epoch=-1",
            "masks.refinement.start_epoch: found -1; must be at least 0",
        ),
        ("background.threshold=1", "background.threshold: found 1; must be below 1"),
        (
            "background.inputs=[source_mask, source_mask]",
            'background.inputs: found ["source_mask", "source_mask"]; must be a list of '
            "source_mask and driving_mask, of one of them, or []",
        ),
        (
            "background.inputs=driving_mask",
            'background.inputs: found "driving_mask"; must be a list of source_mask and '
            "driving_mask, of one of them, or []",
        ),
        (
            "discriminator.kind=unit",
            "discriminator.kind: found \"unit\"; must be 'patch', 'unet' or 'monkey_net'",
        ),
        (
            "discriminator.channels=[]",
            "discriminator.channels: found []; must be a list of at least 1",
        ),
        ("discriminator.channels=[4, 0]", "discriminator.channels[1]: found 0; must be at least 1"),
        (
            "discriminator.losses=null",
            "discriminator.losses: found null; must be a section, that is, a mapping of keys",
        ),
        (
            "discriminator.loss=lsgan",
            "discriminator.loss: found \"lsgan\"; must be 'least_squares', 'hinge' or 'bce'",
        ),
        (
            "discriminator.cut.kind=cutmix",
            "discriminator.cut.kind: found \"cutmix\"; must be 'none', 'rectangle' or 'priority'",
        ),
        ("discriminator.cut.beta=[1, 0]", "discriminator.cut.beta[1]: found 0; must be above 0"),
        (
            "discriminator.cut.background_threshold=0",
            "discriminator.cut.background_threshold: found 0; must be above 0",
        ),
        (
            "discriminator.generator_losses.consistency=1",
            "discriminator.generator_losses.consistency: unknown key; known here: encoder, "
            "decoder, encoder_features, decoder_features",
        ),
        (
            "background.foreign_probability=1.5",
            "background.foreign_probability: found 1.5; must be at most 1",
        ),
        (
            "masks.low_resolution.num_up_blocks=3",
            "masks.low_resolution.num_up_blocks: unknown key; "
            "did you mean masks.low_resolution.num_res_blocks?",
        ),
        *(
            (
                f"data.image_size={size}",
                f"data.image_size: found {size}; "
                "must be one whole number or [height, width], each at least 16 and at most 2048",
            )
            for size in ('"big"', "8", "[64]", "[64, 64, 3]", "[64, 8]", "[64, 64.0]", "null")
        ),
    ],
)
def test_wrong_value(override, expected):
    assert message("vox", override) == f"command line: {expected}"


def test_unknown_layer_lists_the_layers():
    found = message("vox", "motion.losses.perceptual={relu9_1: 1}")
    start = "command line: motion.losses.perceptual.relu9_1: found \"relu9_1\"; must be 'relu1_1', "
    assert found.startswith(start)


def test_a_long_value_is_cut():
    found = message("vox", f"train.epochs={'x' * 500}")
    assert len(found) < 130


def test_all_problems_at_once():
    write(
        "mine.yaml",
        "base: vox\ntrain: {epoch: 3, batch_size: -1}\ndata: {root: null}\n"
        "masks: null\nbackground: null",
    )
    assert sorted(lines("mine.yaml", "data.image_size=250", "perceptual.width=16")) == [
        "command line: perceptual.width: found 16 with perceptual.weights imagenet, which have 64; "
        "another width is only for random weights",
        "mine.yaml: data.root: data.kind clips needs a folder with train/ and test/; set data.root",
        "mine.yaml: train.batch_size: found -1; must be at least 1",
        "mine.yaml: train.epoch: unknown key; did you mean train.epochs?",
        "vox-fomm.yaml: motion.dense_motion.num_blocks: found 5, which at scale 0.25 needs image "
        "sides that are multiples of 128; data.image_size is 250 x 250; no num_blocks fits: "
        "data.image_size must be a multiple of 8",
        "vox-fomm.yaml: motion.generator.num_down_blocks: found 2, which at scale 1 needs image "
        "sides that are multiples of 4; data.image_size is 250 x 250; the largest num_down_blocks "
        "that fits is 1",
        "vox-fomm.yaml: motion.keypoint_detector.num_blocks: found 5, which at scale 0.25 needs "
        "image sides that are multiples of 128; data.image_size is 250 x 250; no num_blocks fits: "
        "data.image_size must be a multiple of 8",
        "vox-fomm.yaml: perceptual.scales: 0.125 of 250 x 250 is not a whole number of pixels",
        "vox-fomm.yaml: perceptual.scales: 0.25 of 250 x 250 is not a whole number of pixels",
        "vox-unet.yaml: discriminator.channels: 6 blocks of kind unet need image sides that are "
        "multiples of 64; data.image_size is 250 x 250; the largest number that fits is 1",
    ]


def test_rules_ignore_mistyped_values():
    """A mistyped value is replaced by its default, which no rule may complain about."""
    bad_size = message("vox", "data.image_size=big", "motion.dense_motion.num_blocks=7")
    assert bad_size.startswith("command line: data.image_size: found")
    write("a.yaml", "base: vox\ntrain: {batch_sizes: 64, micro_batch: 32}")
    assert message("a.yaml").startswith("a.yaml: train.batch_sizes: unknown key")


def numbers_without_end(schema, definitions, key=""):
    """Dotted keys of numbers and lists without an upper bound."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    for option in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from numbers_without_end(option, definitions, key)
    if schema.get("type") in ("integer", "number") and "const" not in schema:
        if "maximum" not in schema and "exclusiveMaximum" not in schema:
            yield key
    elif schema.get("type") == "array":
        if "maxItems" not in schema:
            yield key
        yield from numbers_without_end(schema["items"], definitions, f"{key}[]")
    for name, value in schema.get("properties", {}).items():
        yield from numbers_without_end(value, definitions, f"{key}.{name}")
    values = schema.get("additionalProperties")
    if isinstance(values, dict):
        yield from numbers_without_end(values, definitions, f"{key}.*")


def test_every_number_has_a_bound():
    """A config may come with an untrusted checkpoint."""
    schema = Config.model_json_schema()
    without_end = {*numbers_without_end(schema, schema["$defs"])}
    # These are checked as a whole, by a function.
    features = {
        f".discriminator.generator_losses.{part}_features" for part in ("encoder", "decoder")
    }
    whole = {".data.image_size", *features}
    assert without_end == {*whole, *(f"{key}[]" for key in whole), ".motion.heatmap_divisor"}
    assert message("vox", "data.image_size=100000").endswith("at least 16 and at most 2048")


@pytest.mark.parametrize(
    ("override", "most"),
    [
        ("motion.generator.num_res_blocks=10000000", "100"),
        ("data.puppets.num_train_clips=1000000000", "1e+06"),
        ("motion.keypoint_detector.width=100000000", "8192"),
        ("perceptual.width=4096", "128"),
        ("train.max_steps=100000000000000000000", "1e+09"),
        ("motion.losses.pixel=1e300", "1e+38"),
    ],
)
def test_values_beyond_any_use_are_refused(override, most):
    assert message("vox", override).endswith(f"must be at most {most}")
