"""Checkpoints of earlier formats give the same networks, and runs continue from them."""

import shutil

import pytest
import torch
from torch.nn.utils import spectral_norm
from torch.testing import assert_close

import train
from checkpoints.checkpoint import init_from, load, load_to_resume
from checkpoints.older_formats import upgrade
from modules.discriminator import UNetDiscriminator
from tests.helpers.factories import tiny_config
from tests.helpers.runs import call, contents, metrics, step_file
from training.adversary import build_adversary

LAST = "conv.weight"


@pytest.fixture
def of_format_1(tiny_run, tmp_path):
    """Make a run whose last checkpoint has format 1.

    The last layer of its discriminator has spectral norm, and so its bias comes before its weight.
    """
    folder = tmp_path / "older"
    shutil.copytree(tiny_run, folder)
    path = step_file(folder, 8)
    content = contents(path) | {"format": 1}
    discriminator = content["networks"]["discriminator"]
    weight = 3 * discriminator.pop(LAST)
    discriminator |= {
        f"{LAST}_orig": weight,
        f"{LAST}_u": torch.tensor([-1.0]),
        f"{LAST}_v": -weight.flatten() / weight.norm(),
    }
    adam = content["training"]["optimizer"]["adam"]
    group = next(group for group in adam["param_groups"] if group["name"] == "discriminator")
    *_, a, b = group["params"]
    adam["state"][a], adam["state"][b] = adam["state"][b], adam["state"][a]
    torch.save(content, path)
    return folder


@torch.no_grad()
def test_discriminator_of_format_1_gives_the_same_outputs():
    old, new = UNetDiscriminator(3, [4, 8], True), UNetDiscriminator(3, [4, 8], True)
    old.conv.weight.mul_(7)
    spectral_norm(old.conv)
    images = torch.rand(2, 3, 16, 16)
    for _ in range(3):
        old.train()(images)
    networks = {"discriminator": dict(old.state_dict())}
    content = {"config": {"train": {}}, "networks": networks, "training": {}}
    assert len(upgrade(content)) == 2
    new.load_state_dict(content["networks"]["discriminator"])
    expected = old.eval()(images)
    assert_close(new.eval()(images).pixel_logits, expected.pixel_logits)
    assert_close(new(images).logits, expected.logits)


def test_run_of_format_1_is_continued(of_format_1, capsys):
    path = step_file(of_format_1, 8)
    before = contents(path)["training"]["optimizer"]["adam"]
    group = next(g for g in before["param_groups"] if g["name"] == "discriminator")
    *_, first, last = group["params"]
    after = load_to_resume(path).training["optimizer"]["adam"]["state"]
    assert torch.equal(after[last]["exp_avg"], before["state"][first]["exp_avg"])  # the bias's
    assert first not in after
    others = before["state"].keys() - {first, last}
    assert all(torch.equal(after[i]["exp_avg"], before["state"][i]["exp_avg"]) for i in others)

    where = f"run.output_dir={of_format_1}"
    assert call(train, "--resume", path, where, "train.epochs=3", "train.max_steps=10") == 0
    printed = capsys.readouterr().out
    assert f"{path}: an earlier version gave the last layer of the discriminator" in printed
    assert f"{path}: an earlier version trained it with another colour jitter" in printed
    assert metrics(of_format_1)[-1]["step"] == 10
    newest = contents(step_file(of_format_1, 10))
    assert newest["format"] == 2
    moments = newest["training"]["optimizer"]["adam"]["state"]
    shapes = {i: tuple(moments[i]["exp_avg"].shape) for i in (first, last)}
    assert shapes == {first: (1, 4, 1, 1), last: (1,)}
    assert (moments[first]["step"], moments[last]["step"]) == (2, 10)


def test_fine_tuning_from_format_1(of_format_1, tiny_run):
    config = tiny_config()
    networks = build_adversary(config).networks
    report = init_from(networks, step_file(of_format_1, 8), config)
    assert f"discriminator.{LAST}" in report.loaded
    assert report.missing == report.reshaped == []
    expected = contents(step_file(tiny_run, 8))["networks"]["discriminator"]
    for name, tensor in networks["discriminator"].state_dict().items():
        of_weight_3 = expected[name] / expected[name].norm() if name == LAST else expected[name]
        assert_close(tensor, of_weight_3)  # spectral norm divides


def test_current_format_needs_no_notes(tiny_run):
    assert load(step_file(tiny_run, 8)).notes == []


def test_format_1_without_that_layer_stays_as_it_is():
    """A patch discriminator, one without spectral norm, or none: every tensor fits."""
    for state in ({"conv.weight_orig": 1}, {"up_blocks.0.bias": 1, "conv.weight": 2}, {}):
        networks = {"generator": {}} | ({"discriminator": state} if state else {})
        content = {"config": {}, "networks": networks, "training": {"optimizer": {}}}
        assert len(upgrade(content)) == 1
        assert content["networks"].get("discriminator", {}) == state


def test_notes_on_what_changes_for_a_run_of_format_1():
    """The run continues without clipping, and no note is about things that it did not use."""
    still = dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0)
    cut = {"cut": {"kind": "rectangle"}}
    config = {"train": {}, "data": {"augmentation": still}, "discriminator": cut}
    content = {"config": config, "networks": {}, "training": {}}
    (note,) = upgrade(content)
    assert "rectangles of CutMix" in note
    assert content["config"]["train"] == {"clip_ratio": None}
    content["config"]["train"]["clip_ratio"] = 5
    content["config"]["discriminator"] = None
    content["config"]["data"]["augmentation"]["hue"] = 0.1
    (note,) = upgrade(content)
    assert "colour jitter" in note
    assert content["config"]["train"] == {"clip_ratio": 5}
