"""Published files: the tensors that are read, the report on them, and fine-tuning from them."""

import pytest
import torch

import train
from branches.model import Model
from checkpoints.checkpoint import init_from, load
from checkpoints.compare import differences
from checkpoints.load_report import flatten
from checkpoints.published.conversion import convert
from checkpoints.weights import load_model
from common.tensor_files import CheckpointError
from configs.loading import dump_config
from tests.helpers.published_files import (
    FOMM,
    MONKEY_NET,
    PERTURBED_MASKS,
    PROJECTS,
    X2FACE,
    all_states,
    write,
)
from tests.helpers.runs import call, error_line

CPU = torch.device("cpu")
WITH_DISCRIMINATOR = (FOMM, MONKEY_NET)


def test_networks_come_back_to_the_last_bit(file):
    saved = file.load()
    expected = all_states(file.config)
    assert differences(saved.networks, expected) == []
    expected.pop("discriminator", None)
    assert differences(saved.evaluation_networks, expected) == []
    assert saved.average is None
    assert saved.untrained == {}  # the refinement included
    epoch = "" if file.project is X2FACE else ", epoch 99"
    assert saved.age == f"{file.project.name}{epoch}"
    assert load_model(saved, CPU).state().keys() == expected.keys()


@pytest.mark.parametrize("as_zip", [False, True])
@pytest.mark.parametrize("project", [FOMM, PERTURBED_MASKS, MONKEY_NET, X2FACE])
def test_both_formats_of_torch_are_read(tmp_path, project, as_zip):
    config = project.config()
    path = write(tmp_path / "c.pth.tar", project.content(config), as_zip=as_zip)
    assert differences(load(path, config).networks, all_states(config)) == []


@pytest.mark.parametrize("project", WITH_DISCRIMINATOR)
def test_discriminator_comes_along(files, project):
    saved = files[project.name].load()
    own = all_states(files[project.name].config)["discriminator"]
    if project is FOMM:
        assert any(name.endswith("weight_orig") for name in own)  # with spectral norm
    assert differences(saved.networks["discriminator"], own) == []
    assert "discriminator" not in saved.evaluation_networks


def test_report_names_what_is_unused_and_nothing_else(file):
    """The discriminator is used in training only. Counters that were added are not `loaded`."""
    saved = file.load()
    assert saved.report is not None
    states = all_states(file.config)
    discriminator = states.pop("discriminator", {})
    unused = [f"discriminator.{name}" for name in discriminator]
    if file.project is PERTURBED_MASKS:
        unused = ["generator.down_blocks.0.conv.weight"]
    assert (saved.report.missing, saved.report.reshaped) == ([], [])
    assert saved.report.unused == unused
    loaded = {*flatten(states)}
    if file.project is X2FACE:
        loaded = {name for name in loaded if not name.endswith("num_batches_tracked")}
    assert {*saved.report.loaded} == loaded
    assert str(saved.report).startswith(f"{len(loaded)} tensors loaded")


@pytest.mark.parametrize("project", [FOMM, PERTURBED_MASKS, MONKEY_NET])
def test_without_epoch_discriminator_blur_and_counters(tmp_path, project):
    """Somebody may have removed these parts from a file; PyTorch before 0.4.1 had no counters."""
    config = project.config()
    content = project.content(config)
    slim = {
        part: {
            name: tensor
            for name, tensor in content[part].items()
            if not name.endswith(("down.weight", "num_batches_tracked"))
        }
        for part in ("generator", "mask_generator", "kp_detector")
        if part in content
    }
    saved = load(write(tmp_path / "c.pth.tar", slim), config)
    assert saved.age == project.name
    assert differences(load_model(saved, CPU).state(), saved.evaluation_networks) == []
    expected = all_states(config)
    expected.pop("discriminator", None)
    assert differences(saved.evaluation_networks, expected) == []


def test_other_files_are_not_taken_for_published_ones(tiny_run):
    weights = {"conv.weight": torch.ones(1)}
    for content in (
        [],
        {},
        weights,
        torch.ones(1),
        {"generator": weights},
        {"generator": weights, "kp_detector": {}},
        {"generator": weights, "kp_detector": {"state": {}, "param_groups": []}},
        {"kp_detector": weights, "dense_motion_network": weights},
        {"state_dict": weights},
        {"state_dict": {}},
        {"state_dict": 3},
        torch.load(tiny_run / "checkpoints" / "best.pt", weights_only=True),
    ):
        assert convert(content) is None


def test_a_message_names_all_projects(tmp_path):
    path = write(tmp_path / "c.pt", {"model": {"weight": torch.ones(1)}})
    with pytest.raises(CheckpointError) as caught:
        load(path)
    for project in PROJECTS:
        assert project.name in str(caught.value)


@pytest.mark.parametrize(
    "epoch",
    [2**60, -1, True, 3.5, "99", torch.ones(())],
    ids=["long", "negative", "bool", "fraction", "text", "tensor"],
)
def test_an_epoch_that_is_not_a_count_is_left_out(tmp_path, epoch):
    config = FOMM.config()
    path = write(tmp_path / "c.pth.tar", FOMM.content(config) | {"epoch": epoch})
    assert load(path, config).age == "FOMM"


# Fine-tuning


def test_unused_tensors_are_named_by_their_names_in_the_file(files):
    config = PERTURBED_MASKS.config()
    report = init_from(Model(config).networks, files["Perturbed Masks"].path, config)
    assert (report.missing, report.reshaped) == ([], [])
    assert report.unused == ["generator.down_blocks.0.conv.weight"]


def test_a_published_file_is_not_resumed(file, tmp_path, capsys):
    config = tmp_path / "config.yaml"
    config.write_text(dump_config(file.config))
    assert call(train, "--config", config, "--resume", file.path) == 2
    assert "cannot be resumed; start a new run from it with --init-from" in error_line(
        capsys, "train.py"
    )
