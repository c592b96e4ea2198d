"""Untrusted checkpoints: what they state is compared with their content before it is used."""

import shutil
from functools import partial
from typing import Any

import pytest
import torch

import animate
import reconstruct
import train
from branches.model import Model
from checkpoints import export
from checkpoints.checkpoint import load, load_to_resume
from checkpoints.folder import best_path, list_all, list_steps
from checkpoints.weights import load_model, load_networks
from common.cli import run_entry_point
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


def repeated(number):
    """Many tensors of the same numbers, as a small file can have them."""
    numbers = torch.zeros(2**20)
    return {f"x{index}": numbers.view(2**10, 2**10) for index in range(number)}


@pytest.mark.parametrize("place", ["networks", "average.networks", "training"])
def test_tensors_that_share_their_numbers(tiny_run, tmp_path, capsys, place):
    """A file of 100 MB took 12 GB to be exported in half precision, and hours to be compared."""

    def change(content):
        section = content
        for key in place.split("."):
            section = section[key]
        section = section["optimizer"]["adam"]["state"] if place == "training" else section
        section[next(iter(section))] |= repeated(40)

    path = changed(tiny_run, tmp_path / "c.pt", change)
    arguments = [str(path), "--half", "--output", str(tmp_path / "half.pt")]
    assert run_entry_point(export.main, export.build_parser(), arguments) == 2
    line = error_line(capsys, "python -m checkpoints.export")
    assert f"{place} has tensors that share their numbers" in line
    changed(tiny_run, path, lambda content: set_weight(content, repeated(1)["x0"]))
    assert load(path).networks["generator"]["a"].numel() == 2**20


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
    "a metric that is text": (
        lambda c: c.update(metrics={"l1": "abc"}),
        "metrics.l1: Input should be a valid number",
    ),
    "a metric that is null": (
        lambda c: c.update(metrics={"l1": None}),
        "metrics.l1: Input should be a valid number",
    ),
    "a metric without a name": (
        lambda c: c.update(metrics={5: 1.0}),
        "metrics.5.[key]: Input should be a valid string",
    ),
    "an unknown project": (
        lambda c: c.update(provenance={"published": "![t](http://evil/x.png)"}),
        "provenance.published is none of Monkey-Net, FOMM",
    ),
    "weights of an unknown kind": (
        lambda c: c.update(provenance={"weights": ["raw"]}),
        "provenance.weights: Input should be 'average' or 'raw'",
    ),
    "a licence that is a list": (
        lambda c: c.update(provenance={"licence": ["a"]}),
        "provenance.licence: Input should be a valid string",
    ),
    "text that cannot be written": (
        lambda c: c.update(provenance={"licence": "\ud800"}),
        "provenance has text with a NUL character or half of a surrogate pair",
    ),
    "a weight with such a name": (
        lambda c: c["networks"]["generator"].update({"a\0b": torch.zeros(1)}),
        "networks has text with a NUL character",
    ),
    "such text in the training state": (
        lambda c: c["training"].update({"a": {"\udfff": 1}}),
        "training has text with a NUL character",
    ),
    "an average of text updates": (
        lambda c: c["average"].update(num_updates="x"),
        "average.num_updates: Input should be a valid integer",
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


def adam(content):
    return content["training"]["optimizer"]["adam"]


TRAINING = {
    "training has more than": doubled,
    "training states more numbers than the file holds": lambda c: c["training"].update(
        a=torch.zeros(1).expand(2**30)
    ),
    "training.optimizer: Input should be a valid dictionary": lambda c: c["training"].update(
        optimizer=3
    ),
    "the optimizer's state is of other networks": lambda c: adam(c)["param_groups"].pop(),
    "the optimizer's state does not fit the parameters": lambda c: adam(c)["state"][0].update(
        exp_avg=torch.zeros(1)
    ),
    "bad steps are not finite": lambda c: c["training"]["optimizer"].update(
        bad_in_a_row=torch.tensor(torch.nan)
    ),
    "the means of the log are of other shapes": lambda c: c["training"]["log"]["means"].update(
        sums=[[["a", "b"], torch.zeros(3, 1)]]
    ),
    "run_id is not the id of a run": lambda c: c.update(run_id="x" * 500),
}


@pytest.mark.parametrize("expected", TRAINING)
def test_wrong_training_states(tiny_run, tmp_path, capsys, expected):
    path = changed(tiny_run, tmp_path / "c.pt", TRAINING[expected])
    assert call(train, "--resume", path, f"run.output_dir={tmp_path / 'run'}") == 2
    assert expected in error_line(capsys, "train.py")


KEYS: dict[str, tuple[Any, ...]] = {  # values of the training state that are wrong, by key
    "seconds": (None, "x", [], {}, True, -1, float("nan"), float("inf"), 1e300, torch.zeros(())),
    "best_l1": ("x", [], None, torch.zeros(3)),
    "numerics": (5, "x", [], {}, None, torch.zeros(3), {"precision": "x", "channels_last": True}),
    "log": (5, {}, {"logged_at": "x", "means": {"sums": [], "minima": {}}}),
}


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, found in KEYS.items() for v in found])
def test_keys_of_the_training_state(tiny_run, tmp_path, key, value):
    path = changed(tiny_run, tmp_path / "c.pt", lambda c: c["training"].update({key: value}))
    with pytest.raises(CheckpointError, match=rf"train\.py wrote: training\.{key}\b"):
        load_to_resume(path)


def test_what_a_run_writes_passes(tiny_run, tmp_path):
    """Also where a loss was not finite, and in checkpoints of versions with fewer keys."""

    def change(content):
        content["metrics"]["l1"] = float("nan")
        content["training"]["best_l1"] = float("inf")

    assert load_to_resume(changed(tiny_run, tmp_path / "c.pt", change)).step == 8

    def shorten(content):
        for key in ("best_l1", "log", "numerics"):
            content["training"].pop(key)
        content["config"]["train"] |= {"precision": "auto", "channels_last": "auto"}

    assert load_to_resume(changed(tiny_run, tmp_path / "d.pt", shorten)).numerics == {
        "precision": "float32",
        "channels_last": False,
    }


@pytest.mark.parametrize("folder", ["a\0b", "\ud800x"])
def test_a_run_folder_that_cannot_be(tiny_run, tmp_path, capsys, folder):
    def change(content):
        content["config"]["run"]["output_dir"] = folder

    path = changed(tiny_run, tmp_path / "c.pt", change)
    assert call(train, "--resume", path) == 2
    expected = f"{path}: not a config of this program: it has text with a NUL character or half"
    assert expected in error_line(capsys, "train.py")


def test_the_largest_step_is_resumed(tiny_run, tmp_path):
    """Its number has 16 digits; the run is over, and is saved once more."""
    step = 2**53 - 1
    path = changed(tiny_run, tmp_path / "c.pt", lambda c: c.update(step=step, metrics={}))
    run = tmp_path / "run"
    assert call(train, "--resume", path, f"run.output_dir={run}") == 0
    assert [p.name for p in list_steps(run)] == [f"step-{step}.pt"]


def test_steps_are_listed_by_number(tmp_path):
    names = ["step-00000009.pt", "step-100000000.pt", "step-99999999.pt", "best.pt"]
    (tmp_path / "checkpoints").mkdir()
    for name in (*names, "step-12345678901234567.pt", "step-1.pt"):
        (tmp_path / "checkpoints" / name).touch()
    expected = ["step-100000000.pt", "step-99999999.pt", "step-00000009.pt"]
    assert [path.name for path in list_steps(tmp_path)] == expected
    assert [path.name for path in list_all(tmp_path)] == [*expected, "best.pt"]


def test_a_best_checkpoint_whose_l1_is_not_a_number_is_replaced(tiny_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(tiny_run, folder)
    content = contents(best_path(folder)) | {"metrics": {"l1": float("nan")}}
    torch.save(content, best_path(folder))
    further = (f"run.output_dir={folder}", "train.max_steps=12")
    assert call(train, "--resume", step_file(folder, 8), *further) == 0
    assert contents(best_path(folder))["metrics"]["l1"] > 0


def test_a_best_checkpoint_with_other_metrics(tiny_run, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(tiny_run, folder)
    content = contents(best_path(folder)) | {"metrics": {"l1": "abc"}}
    torch.save(content, best_path(folder))
    assert call(train, "--resume", step_file(folder, 8), f"run.output_dir={folder}") == 0
    assert "best.pt: cannot be read; the next validation replaces it" in capsys.readouterr().err


@pytest.mark.parametrize("config", [{"train": []}, {"data": [1]}, {"discriminator": 5}, 7])
def test_an_older_format_of_other_content(tiny_run, tmp_path, config):
    path = changed(tiny_run, tmp_path / "c.pt", lambda c: c.update(format=1, config=config))
    with pytest.raises(CheckpointError, match="states checkpoint format 1, but is not as such a"):
        load(path)
