"""Untrusted checkpoints: what they state is compared with their content before it is used."""

import shutil
from functools import partial

import pytest
import torch

import animate
import reconstruct
import train
from branches.model import Model
from checkpoints.checkpoint import load
from checkpoints.weights import load_model, load_networks
from common.tensor_files import CheckpointError
from tests.helpers.hostile import compress_archive
from tests.helpers.runs import call, contents, error_line, step_file, tiny
from training import setup

SCRIPTS = {"train.py": train, "reconstruct.py": reconstruct, "animate.py": animate}


def changed(tiny_run, path, change):
    """Write the tiny run's checkpoint after `change` has changed its content."""
    content = contents(step_file(tiny_run, 8))
    change(content)
    torch.save(content, path)
    return path


def with_blocks(number):
    def change(content):
        content["config"]["motion"]["generator"]["num_res_blocks"] = number

    return change


def set_weight(content, tensor):
    content["networks"]["generator"]["a"] = tensor


def refused(script, path, capsys):
    """Run `script` on the file, and return its error in one line."""
    option = "--resume" if script == "train.py" else "--checkpoint"
    assert call(SCRIPTS[script], option, path) == 2
    return error_line(capsys, script)


@pytest.mark.parametrize("script", SCRIPTS)
def test_ten_million_blocks(tiny_run, tmp_path, monkeypatch, capsys, script):
    monkeypatch.chdir(tmp_path)
    path = changed(tiny_run, tmp_path / "c.pt", with_blocks(10_000_000))
    line = refused(script, path, capsys)
    assert f"{path}: motion.generator.num_res_blocks: found 10000000; must be at most 100" in line


@pytest.mark.parametrize("script", SCRIPTS)
def test_more_than_the_file_holds(tiny_run, tmp_path, monkeypatch, capsys, script):
    """Networks of allowed sizes may take 70 GB together, so none is built before the check."""

    def change(content):
        with_blocks(100)(content)
        content["config"]["motion"]["generator"] |= {"width": 8192, "max_width": 8192}

    monkeypatch.chdir(tmp_path)
    devices = []

    class Watched(Model):
        def __init__(self, config):
            devices.append(torch.empty(0).device.type)
            super().__init__(config)

    monkeypatch.setattr("checkpoints.weights.Model", Watched)
    monkeypatch.setattr(setup, "Model", Watched)
    path = changed(tiny_run, tmp_path / "c.pt", change)
    line = refused(script, path, capsys)
    assert f"{path}: checkpoint of another architecture: generator." in line
    assert "in the file and" in line
    assert devices == ["meta"]


def test_a_large_discriminator(tiny_run, tmp_path, monkeypatch, capsys):
    def change(content):
        content["config"]["discriminator"]["channels"] = [8192, 8192]

    monkeypatch.chdir(tmp_path)
    path = changed(tiny_run, tmp_path / "c.pt", change)
    line = refused("train.py", path, capsys)
    assert f"{path}: checkpoint of another architecture: discriminator." in line


def test_the_check_leaves_the_weights_as_they_would_be(tiny_run):
    """The check, which builds the networks without memory, draws no random numbers."""
    saved = load(step_file(tiny_run, 8))
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    loaded = load_model(saved, torch.device("cpu"))
    assert torch.equal(torch.rand(2), expected)
    for name, state in saved.evaluation_networks.items():
        for key, tensor in state.items():
            assert torch.equal(loaded.networks[name].state_dict()[key], tensor)


def test_a_compressed_archive(tiny_run, tmp_path):
    """A compressed archive may grow a thousandfold, and torch compresses nothing."""
    path = shutil.copy(step_file(tiny_run, 8), tmp_path / "c.pt")
    load(path)
    with pytest.raises(CheckpointError, match=r"c\.pt: .* are compressed, as torch never writes"):
        load(compress_archive(path))


def expanded(content):
    states = content["networks"]["generator"]
    name = next(iter(states))
    states[name] = torch.zeros(()).expand(1_000_000, 1_000_000)


COMPLEX = torch.ones(3, 3, dtype=torch.complex64)
ODD_TENSORS = {
    "sparse": torch.eye(3).to_sparse(),
    "weightless": torch.empty(3, 3, device="meta"),
    "complex": COMPLEX,
}
CONTENTS = {
    "a step that is text": (lambda c: c.update(step="8"), "step is not a whole number"),
    "a step beyond all": (lambda c: c.update(step=2**60), "step is not a whole number"),
    "a step before all": (lambda c: c.update(epoch=-1), "epoch is not a whole number"),
    "a list of networks": (lambda c: c.update(networks=[]), "networks is not a mapping"),
    "a network that is text": (
        lambda c: c["networks"].update(generator="abc"),
        "networks holds something that is not a state dict",
    ),
    "a weight that is a number": (
        lambda c: c["networks"]["generator"].update(a=1),
        "networks.generator.a holds something that is not a plain tensor",
    ),
    "a complex weight": (
        partial(set_weight, tensor=COMPLEX),
        "networks.generator.a holds something that is not a plain tensor",
    ),
    "a weight that repeats one number": (expanded, "states more numbers than the file holds"),
    "an average that is a list": (lambda c: c.update(average=[1]), "average is not a mapping"),
    "an average without networks": (
        lambda c: c.update(average={}),
        "average.networks is not a map",
    ),
    "training that is a number": (lambda c: c.update(training=3), "training is not a mapping"),
    "metrics of tensors": (
        lambda c: c.update(metrics={"l1": torch.zeros(3)}),
        "metrics has a value of type Tensor",
    ),
    "provenance without end": (
        lambda c: c.update(provenance={"a": [["b"] * 99] * 99}),
        "provenance has more than",
    ),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_content_of_another_kind(tiny_run, tmp_path, name):
    change, problem = CONTENTS[name]
    path = changed(tiny_run, tmp_path / "c.pt", change)
    with pytest.raises(CheckpointError) as raised:
        load(path)
    message = str(raised.value)
    assert message.startswith(f"{path}: not a checkpoint that train.py wrote: ")
    assert problem in message
    assert "\n" not in message


def test_a_config_that_repeats_itself(tiny_run, tmp_path, monkeypatch, capsys):
    """A kilobyte of pickle may stand for a million values."""
    laughs = ["x"] * 9
    for _ in range(5):
        laughs = [laughs] * 9
    monkeypatch.chdir(tmp_path)
    path = changed(tiny_run, tmp_path / "c.pt", lambda c: c["config"].update(data=laughs))
    assert "not a config of this program: it has more than" in refused("animate.py", path, capsys)


def test_the_largest_picture_is_not_the_checkpoint_s(tiny_run, tmp_path, monkeypatch):
    """The limit of the user counts, not the one in the checkpoint's config."""
    seen = []
    build = reconstruct.build_source

    def watched(data, split):
        seen.append(data.max_pixels)
        return build(data, split)

    monkeypatch.setattr(reconstruct, "build_source", watched)
    path = changed(
        tiny_run, tmp_path / "c.pt", lambda c: c["config"]["data"].update(max_pixels=2**31 - 1)
    )
    for given in ((), ("--max-pixels", "5000")):
        output = ("--output", tmp_path / "out", "--num-clips", 1)
        assert call(reconstruct, "--checkpoint", path, *output, *given) == 0
    assert seen == [None, 5000]


def test_training_reads_the_key(tmp_path, capsys):
    assert call(train, *tiny(tmp_path / "run", "data.max_pixels=0")) == 2
    assert "data.max_pixels: found 0; must be at least 1" in error_line(capsys, "train.py")


@pytest.mark.parametrize("kind", ODD_TENSORS)
def test_odd_tensors_of_published_files(tmp_path, kind):
    """Such tensors are reported as missing, and nothing is copied from them."""
    network = torch.nn.Linear(3, 3, bias=False)
    before = network.weight.clone()
    states = {"net": {"weight": ODD_TENSORS[kind]}}
    with pytest.raises(CheckpointError, match=r"net\.weight is missing"):
        load_networks({"net": network}, states, tmp_path / "c.pt")
    assert torch.equal(network.weight, before)


def doubled(content):
    part = [1]
    for _ in range(20):
        part = [part, part]
    content["training"]["optimizer"]["adam"]["state"] = part


TRAINING = {
    "training has more than": doubled,
    "training states more numbers than the file holds": lambda c: c["training"].update(
        a=torch.zeros(1).expand(2**30)
    ),
    "its training state cannot be used": lambda c: c["training"].update(optimizer=3),
    "run_id is not the id of a run": lambda c: c.update(run_id="x" * 500),
}


@pytest.mark.parametrize("expected", TRAINING)
def test_wrong_training_states(tiny_run, tmp_path, capsys, expected):
    path = changed(tiny_run, tmp_path / "c.pt", TRAINING[expected])
    assert call(train, "--resume", path, f"run.output_dir={tmp_path / 'run'}") == 2
    assert expected in error_line(capsys, "train.py")
