"""Export with branches of several checkpoints."""

import pytest
import torch

from checkpoints import export
from checkpoints.checkpoint import load
from checkpoints.compare import differences
from common.cli import run_entry_point
from tests.helpers.animations import without
from tests.helpers.runs import error_line, step_file

MASKS = ("mask_generator", "refinement", "low_resolution", "high_resolution")
BACKGROUND = ("bg_base", "bg_refine")


def run_export(*arguments):
    argv = [*map(str, arguments)]
    return run_entry_point(export.main, export.build_parser(), argv)


@pytest.fixture
def whole(tiny_run):
    return step_file(tiny_run, 8)


@pytest.fixture
def other(whole, tmp_path):
    """Masks and background with other weights, which started to train in epoch 1 of 2."""
    content = without(whole, "motion")
    for states in (content["networks"], content["average"]["networks"]):
        for state in states.values():
            for tensor in state.values():
                if tensor.is_floating_point():
                    tensor += 1.0
    content["config"]["masks"]["refinement"]["start_epoch"] = 1
    content["config"]["background"]["threshold"] = 0.6
    content["epoch"], content["batch"], content["step"] = 1, 2, 80
    path = tmp_path / "other.pt"
    torch.save(content, path)
    return path


def test_branches_take_the_place_of_others(whole, other, tmp_path):
    path = tmp_path / "model.pt"
    assert run_export(whole, "--branches-from", other, "--output", path) == 0
    joined, first, second = load(path), load(whole), load(other)
    networks = joined.evaluation_networks
    assert set(networks) == set(first.evaluation_networks)
    for name, state in networks.items():
        source = second if name in MASKS + BACKGROUND else first
        assert differences({name: state}, {name: source.evaluation_networks[name]}) == []
    assert joined.config.motion == first.config.motion
    assert joined.config.background.threshold == 0.6
    assert (joined.step, joined.metrics, joined.untrained) == (8, {}, {})
    assert joined.config.discriminator is None
    assert joined.provenance["exported_from"] == whole.name
    assert joined.provenance["branches_from"] == "other.pt"
    assert "| with branches from | other.pt |" in path.with_suffix(".md").read_text()


def test_branches_are_added(whole, tmp_path):
    """Motion alone, with the masks of one file and the background of another."""
    parts = {"motion": ("masks", "background"), "masks": ("motion", "background")}
    for name, left_out in parts.items():
        torch.save(without(whole, *left_out), tmp_path / f"{name}.pt")
    sources = ("--branches-from", tmp_path / "masks.pt", "--branches-from", whole)
    path = tmp_path / "model.safetensors"
    assert run_export(tmp_path / "motion.pt", *sources, "--output", path) == 0
    expected = load(whole)
    assert differences(load(path).evaluation_networks, expected.evaluation_networks) == []
    assert list(load(path).config.branches) == ["motion", "masks", "background"]
    assert load(path).provenance["branches_from"] == f"masks.pt, {whole.name}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"data": {"image_size": 64}},
            "for pictures of 64 x 64 pixels, and {whole} for 32 x 32; both must be for the same "
            "size",
        ),
        (
            {"background": {"start_epoch": 1, "start_share": 0.9}},
            "a part of it has not been trained yet (background.start_share: 0.9); train it for "
            "longer",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(whole, tmp_path, capsys, changes, message):
    content = without(whole)
    for section, values in changes.items():
        content["config"][section] |= values
    content["planned_steps"] = 100
    other, path = tmp_path / "other.pt", tmp_path / "model.pt"
    torch.save(content, other)
    assert run_export(whole, "--branches-from", other, "--output", path) == 2
    line = error_line(capsys, "python -m checkpoints.export")
    assert line.endswith(f": --branches-from {other}: {message.format(whole=whole)}")
    assert not path.exists()


def test_licences_are_not_mixed(whole, tmp_path, capsys):
    path = tmp_path / "model.pt"
    assert run_export(whole, "--output", tmp_path / "other.pt", "--licence", "CC-BY-NC-4.0") == 0
    sources = (whole, "--branches-from", tmp_path / "other.pt", "--output", path)
    assert run_export(*sources) == 2
    assert error_line(capsys, "python -m checkpoints.export").endswith(
        f"its licence: CC-BY-NC-4.0; that of {whole}: none stated; give --licence for all of them"
    )
    assert run_export(*sources, "--licence", "CC-BY-NC-4.0") == 0
    assert load(path).provenance["licence"] == "CC-BY-NC-4.0"


def test_weights_are_not_mixed(whole, tmp_path, capsys):
    assert run_export(whole, "--output", tmp_path / "raw.pt", "--weights", "raw") == 0
    sources = (whole, "--branches-from", tmp_path / "raw.pt", "--output", tmp_path / "model.pt")
    assert run_export(*sources) == 2
    assert "give --weights for all of them" in error_line(capsys, "python -m checkpoints.export")
    assert run_export(*sources, "--weights", "raw") == 0


def test_what_was_not_rounded_is_not_rounded_now(whole, other, tmp_path):
    half, path = tmp_path / "half.pt", tmp_path / "model.pt"
    assert run_export(whole, "--output", half, "--half") == 0
    assert run_export(half, "--branches-from", other, "--output", path) == 0
    joined, first, second = load(path), load(half), load(other)
    for name, state in joined.evaluation_networks.items():
        source = second if name in MASKS + BACKGROUND else first
        assert differences({name: state}, {name: source.evaluation_networks[name]}) == []
    assert "dtype" not in joined.provenance
    assert joined.provenance["branches_from"] == "other.pt"


def test_no_input_is_replaced(whole, other, capsys):
    before = other.read_bytes()
    assert run_export(whole, "--branches-from", other, "--output", other) == 2
    line = error_line(capsys, "python -m checkpoints.export")
    assert line.endswith(f": --output {other} would replace {other}; choose another path")
    assert other.read_bytes() == before
