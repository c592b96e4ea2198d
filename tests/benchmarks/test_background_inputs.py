"""benchmarks/background_inputs.py: what its candidates are trained on, and the tables."""

import json

import torch
from torch.testing import assert_close

from benchmarks import background_inputs
from benchmarks.background_inputs import INPUTS, REFERENCE, VARIANTS, Candidate, inputs_of, table
from branches.branch import StepInputs
from branches.model import Model
from checkpoints import checkpoint
from checkpoints.weights import load_model
from common.cli import run_entry_point
from configs.loading import override_config
from tests.helpers.animations import without
from tests.helpers.factories import noise_inputs, tiny_config
from tests.helpers.runs import contents, error_line, step_file
from training.step import PreparedFrames


def run(*arguments):
    argv = [*map(str, arguments), "--device", "cpu"]
    return run_entry_point(background_inputs.main, background_inputs.build_parser(), argv)


def test_the_branch_gets_the_masks_and_features_of_a_training_step():
    config = tiny_config("train.precision=float32")
    model = Model(config).eval()
    inputs = noise_inputs(config, 2)
    frames = PreparedFrames(inputs.source, inputs.driving, inputs.recolored_driving)
    given = inputs_of(model, inputs.perceptual, frames, config)
    expected = model.masks(inputs)
    assert isinstance(given, StepInputs)
    assert_close(given.outputs.masks.source_mask, expected.source_mask)
    assert_close(given.outputs.masks.driving_mask, expected.driving_mask)
    for found, feature in zip(given.target_features, inputs.target_features, strict=True):
        assert_close(found, feature)
    background = model.background
    for name, term in background.loss_terms(given, background(given)).items():
        other = inputs.with_output("masks", expected)
        assert_close(term.value, background.loss_terms(other, background(other))[name].value)


def test_a_candidate_trains_its_background_branch_alone(tiny_run):
    saved = checkpoint.load(step_file(tiny_run, 8))
    config = override_config(saved.config, ["train.precision=float32", "train.channels_last=false"])
    base = load_model(saved, torch.device("cpu")).requires_grad_(False).eval()
    inputs = noise_inputs(config, 2)
    frames = PreparedFrames(inputs.source, inputs.driving, inputs.recolored_driving)
    inputs = inputs_of(base, inputs.perceptual, frames, config)
    candidate = Candidate(base, config, torch.device("cpu"))
    before = {name: value.clone() for name, value in candidate.model.state_dict().items()}
    candidate.step(inputs, config)
    changed = {
        name.partition(".")[0]
        for name, value in candidate.model.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert changed == {"background"}
    assert candidate.model.masks is base.masks


def test_report_of_a_tiny_run(tiny_run, tmp_path, capsys):
    output = tmp_path / "inputs.json"
    options = ("--steps", 2, "--seeds", 0, 1, "--num-clips", 3, "--num-frames", 2)
    assert run("--checkpoint", step_file(tiny_run, 8), *options, "--output", output) == 0
    report = json.loads(output.read_text())
    assert list(report["scores"]) == ["0", "1"]
    parameters = report["parameters"]
    assert list(parameters) == list(INPUTS)
    assert parameters["both"] == parameters["soft"] > parameters["source mask"]
    assert parameters["source mask"] == parameters["driving mask"] > parameters["none"]
    for scores in report["scores"].values():
        assert len({json.dumps(scores[variant]) for variant in INPUTS}) == len(INPUTS)
        assert {len(values) for found in scores.values() for values in found.values()} == {3}
    printed = capsys.readouterr().out
    assert "| same " in printed
    assert "| other " in printed


def test_other_variants_are_compared_with_the_reference(tiny_run, tmp_path, capsys):
    """Also where the checkpoint was trained as one of them."""
    content = contents(step_file(tiny_run, 8))
    content["config"]["background"]["hole_probability"] = 0.5
    torch.save(content, tmp_path / "holes.pt")
    output = tmp_path / "holes.json"
    others = [name for name in VARIANTS if name not in INPUTS]
    options = ("--steps", 3, "--seeds", 0, "--num-clips", 3, "--num-frames", 1, "--variants")
    checkpoint = ("--checkpoint", tmp_path / "holes.pt")
    overrides = ("train.precision=float32", "train.ema_decay=0.5")
    assert run(*checkpoint, *overrides, "--output", output, *options, *others, others[0]) == 0
    assert "float32 (as train.precision says)" in capsys.readouterr().out
    report = json.loads(output.read_text())
    assert report["overrides"] == list(overrides)
    (scores,) = report["scores"].values()
    assert list(scores) == [REFERENCE, *others]
    assert len({json.dumps(found) for found in scores.values()}) == len(scores)


def test_only_the_training_is_changed(tiny_run, capsys):
    assert run("--checkpoint", step_file(tiny_run, 8), "data.image_size=64") == 2
    line = error_line(capsys, "python -m benchmarks.background_inputs")
    assert line.endswith("data.image_size=64: only keys of train can be changed here")


def test_table_by_hand():
    """Differences are paired; the darker half of four figures are the first two clips."""
    names = [f"same/{name}" for name in background_inputs.METRICS]
    both, none = [10.0, 12.0, 14.0, 16.0], [9.0, 11.0, 14.0, 16.0]
    report = {
        "parameters": {"both": 1000, "none": 900},
        "brightness": {"figure": [0.1, 0.2, 0.3, 0.4], "background": [0.4, 0.3, 0.2, 0.1]},
        "scores": {
            seed: {
                "both": {name: [value + seed for value in both] for name in names},
                "none": {name: [value + seed for value in none] for name in names},
            }
            for seed in (0, 1)
        },
    }
    head, _, *lines = table(report, "same").splitlines()
    titles = [cell.strip() for cell in head.split("|")]
    rows = {}
    for line in lines:
        cells = [cell.strip() for cell in line.split("|")]
        rows[cells[1]] = dict(zip(titles, cells, strict=True))
    assert rows["both"]["psnr"].startswith("13.50 ±0.71 [")
    assert rows["both"]["parameters"] == "1,000"
    assert rows["none"]["psnr"].startswith("-0.50 ±0.00 [-1.42, +0.42")
    assert rows["none"]["psnr, dark figure"].startswith("-1.00 ±0.00 [-1.00, -1.00]")
    assert rows["none"]["psnr, dark background"].startswith("+0.00 ±0.00")


def test_without_the_branch(tiny_run, tmp_path, capsys):
    path = tmp_path / "part.pt"
    torch.save(without(step_file(tiny_run, 8), "background"), path)
    assert run("--checkpoint", path) == 2
    line = error_line(capsys, "python -m benchmarks.background_inputs")
    assert "part.pt: masks or background have not been trained; give a checkpoint of" in line
