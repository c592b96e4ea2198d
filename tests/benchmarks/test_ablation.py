"""benchmarks/ablation.py: intervals and metrics by hand, and tiny runs from start to table."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from benchmarks import ablation
from benchmarks.ablation_rows import OF_THE_PAPER, ROWS
from benchmarks.ablation_scores import (
    METRICS,
    OF_FRAMES,
    foreground_region,
    metrics_of,
    score_frames,
)
from checkpoints import checkpoint
from common.cli import run_entry_point
from datasets.puppets.clips import Puppets
from metrics.image import ssim
from metrics.intervals import Summary, summarize
from tests.helpers.factories import MemoryClips, noise_frames, tiny_overrides
from tests.helpers.runs import call, error_line, step_file, steps

SMALL = (*tiny_overrides(), "masks=null", "background=null", "train.checkpoint_every=2")
ARGUMENTS = ("--config", "demo.yaml", *SMALL, "--steps", 4, "--num-frames", 3)
PAIR = ("--rows", "fomm", "prioritycut")
NETWORKS = ("keypoint_detector", "dense_motion", "generator")
OF_FOMM = (*OF_THE_PAPER, "prioritycut-masks")
OTHERS = [row for row in ROWS if row.startswith(("x2face", "monkey", "tpsmm"))]


CONTROLS = {  # the row that each is a control of, and what it changes
    "prioritycut-least": ("prioritycut", {"cut": {"order": "least_occluded"}}),
    "prioritycut-random": ("prioritycut", {"cut": {"order": "random"}}),
    "prioritycut-frame": ("prioritycut", {"cut": {"foreground": "frame"}}),
    # 4 layers of weight .5 in the encoder and 4 in the decoder, and 3 in the patch discriminator
    "fomm-adv-equal": ("fomm-adv", {"generator_losses": {"encoder_features": 4 / 3}}),
}


def run(output, *arguments):
    """Run the benchmark; returns its report, which must be strict JSON, without NaN."""

    def refuse(constant):
        raise AssertionError(constant)

    assert call(ablation, *ARGUMENTS, *PAIR, "--output", output, *arguments) == 0
    return json.loads((output / "ablation.json").read_text(), parse_constant=refuse)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with two rows of one seed, and their report."""
    output = tmp_path_factory.mktemp("ablation")
    return output, run(output, "--seeds", 0)


class TestSummary:
    def test_by_hand(self):
        mean, seed_sd, low, high = summarize(np.array([[1.0, 2.0, 3.0], [3.0, 4.0, 5.0]]))
        assert mean == 3  # the clips' means are 2, 3, 4; their standard deviation is 1
        assert seed_sd == pytest.approx(math.sqrt(2))  # the seeds' means are 2 and 4
        half = 4.302653 / math.sqrt(3)  # Student's t with 2 degrees of freedom
        assert (low, high) == (pytest.approx(3 - half), pytest.approx(3 + half))

    def test_clips_without_a_value_are_left_out(self):
        values = np.array([[1.0, np.nan, 3.0], [3.0, 4.0, 5.0]])
        assert summarize(values) == summarize(values[:, [0, 2]])

    def test_one_seed_one_clip_none(self):
        assert summarize(np.array([[1.0, 3.0]])).seed_sd is None
        assert summarize(np.array([[1.0], [3.0]])) == Summary(2, math.sqrt(2), None, None)
        assert summarize(np.array([[np.nan]])) == Summary(None, None, None, None)


class TestScores:
    def test_only_the_foreground_counts(self):
        target = noise_frames(2, (32, 32))
        region = torch.zeros(2, 1, 32, 32, dtype=torch.bool)
        region[..., :16] = True
        prediction = torch.where(region, target + 0.1, 1 - target)
        scores = score_frames(prediction, target, region)
        assert_close(scores["figure_psnr"], torch.full((2,), 20.0))
        assert_close(scores["figure_l1"], torch.full((2,), 0.1))
        inside = torch.where(region, target, 0), torch.where(region, target + 0.1, 0)
        assert_close(scores["ssim_masked"], ssim(*inside))
        assert scores["l1"].min() > 0.11
        assert (scores["ssim_masked"] - scores["ssim"]).min() > 0.3

    def test_no_foreground_no_number(self):
        target = noise_frames(2, (32, 32))
        region = torch.zeros(2, 1, 32, 32, dtype=torch.bool)
        region[0, :, 3, 4] = True
        scores = score_frames(target, target, region)
        for name in ("figure_l1", "figure_psnr", "ssim_masked"):
            assert scores[name].isnan().tolist() == [False, True]
        assert scores["ssim"].tolist() == [1, 1]

    def test_foreground_where_the_clip_moves(self):
        clips = MemoryClips("a")
        target = torch.full((3, 3, 2, 2), 0.5)
        target[1, 2, 0, 1] = 0.61  # a change of one channel is enough
        target[2, :, 1, 0] = 0.59
        region = foreground_region(clips, 0, [0, 1, 2], target)
        assert region.nonzero().tolist() == [[1, 0, 0, 1]]

    def test_foreground_of_puppets(self):
        clips = Puppets("test", 1, 8, (32, 32), 0)
        masks = clips.foreground_masks(0, [0, 7]) > 0.5
        region = foreground_region(clips, 0, [0, 7], torch.zeros(2, 3, 32, 32))
        assert (region[0, 0].numpy() == masks[0]).all()
        assert (region[1, 0].numpy() == masks[0] | masks[1]).all()
        assert masks[1].sum() < region[1].sum()

    def test_hidden_pixels(self):
        target = noise_frames(2, (32, 32))
        region = torch.ones(2, 1, 32, 32, dtype=torch.bool)
        hidden = torch.zeros_like(region)
        hidden[0, :, :4] = True
        prediction = torch.where(hidden, target + 0.1, target)
        scores = score_frames(prediction, target, region, hidden)
        assert scores["hidden_l1"][0] == pytest.approx(0.1)
        assert scores["hidden_psnr"][0] == pytest.approx(20)
        assert scores["l1"][0] == pytest.approx(0.1 * 4 / 32)
        for name in ("hidden_l1", "hidden_psnr"):
            assert scores[name].isnan().tolist() == [False, True]
        assert "hidden_l1" not in score_frames(prediction, target, region)
        assert metrics_of(Puppets("test", 1, 2, (32, 32), 0)) == METRICS
        assert metrics_of(MemoryClips("a")) == OF_FRAMES


def plan(rows, folder, *overrides):
    """The config of a run of 70 steps for each row."""
    return {
        row: ablation.plan_run("demo.yaml", overrides, row, 5, 70, folder).config for row in rows
    }


def test_rows_of_fomm_differ_in_the_discriminator_alone(tmp_path):
    """Keys on the command line do not switch it on in the row that has none."""
    overrides = ("discriminator.kind=unet", "train.max_minutes=1", "train.epochs=3")
    planned = plan(OF_FOMM, tmp_path, *overrides)
    assert planned["fomm"].discriminator is None
    found = [
        (config.discriminator.kind, config.discriminator.cut.kind, config.discriminator.channels)
        for config in list(planned.values())[1:]
    ]
    channels = found[1][-1]
    assert found == [
        ("patch", "none", [16, 32, 64]),
        ("unet", "none", channels),
        ("unet", "rectangle", channels),
        ("unet", "priority", channels),
        ("unet", "priority", channels),
    ]
    patch = planned["fomm-adv"].discriminator
    unet = planned["unet"].discriminator
    for section in (
        "losses",
        "generator_losses",
    ):  # the only head of `patch` has the weights of both heads of `unet`
        weights, others = getattr(patch, section), getattr(unet, section)
        assert weights.encoder == others.encoder + others.decoder > 0
    assert planned["prioritycut-masks"].discriminator.cut.foreground == "mask_generator"
    rest = [config.model_dump(exclude={"discriminator", "run"}) for config in planned.values()]
    assert all(config == rest[0] for config in rest)
    train = planned["unet"].train
    assert (planned["unet"].seed, train.max_steps, train.max_minutes) == (5, 70, None)
    assert train.epochs == 70  # at least as many as steps
    assert planned["unet"].run.output_dir == str(tmp_path / "unet-5")


def test_controls_differ_from_their_row_in_one_thing(tmp_path):
    planned = plan(("prioritycut", "fomm-adv", *CONTROLS), tmp_path)
    found = {row: config.discriminator.model_dump() for row, config in planned.items()}
    for row, (of, changes) in CONTROLS.items():
        expected = found[of]
        for section, values in changes.items():
            expected = expected | {section: expected[section] | values}
        assert found[row] == expected


def test_features_count_as_much_in_the_patch_discriminator(tmp_path):
    """A weight of 3 for each of 4 layers, and weights of the decoder's layers: 22 in all."""
    overrides = (
        "discriminator.generator_losses.encoder_features=3",
        "discriminator.generator_losses.decoder_features=[1, 2, 3, 4]",
    )
    weights = plan(("fomm-adv-equal",), tmp_path, *overrides)["fomm-adv-equal"].discriminator
    assert 3 * weights.generator_losses.encoder_features == pytest.approx(22)


def test_rows_of_other_motion_models(tmp_path):
    """They differ from FOMM's in the motion model and its discriminator; networks with the task of
    one of FOMM have its learning rate, and TPSMM has its reconstruction loss.
    """
    planned = plan(("prioritycut", *OTHERS), tmp_path)
    fomm = planned["prioritycut"]
    for row in OTHERS:
        config = planned[row]
        assert config.motion.kind == row.removesuffix("-prioritycut").replace("-", "_")
        others = {"motion", "discriminator", "run"}
        assert config.model_dump(exclude=others) == fomm.model_dump(exclude=others)
        assert (config.discriminator is None) == (row in ("x2face", "tpsmm"))
    monkey_net, tpsmm = planned["monkey-net"], planned["tpsmm-prioritycut"]
    rate = fomm.motion.generator.learning_rate
    for network in (
        planned["x2face"].motion.driving,
        monkey_net.motion.generator,
        tpsmm.motion.inpainting,
    ):
        assert network.learning_rate == rate
    rate = fomm.motion.keypoint_detector.learning_rate
    assert monkey_net.motion.keypoint_detector.learning_rate == rate
    assert monkey_net.discriminator.kind == "monkey_net"
    assert not monkey_net.motion.dense_motion.occlusion
    losses = tpsmm.motion.losses
    assert losses.perceptual == fomm.motion.losses.perceptual
    assert losses.pixel == fomm.motion.losses.pixel > 0
    assert tpsmm.discriminator == fomm.discriminator
    unet = planned["monkey-net-prioritycut"].discriminator
    assert planned["monkey-net-prioritycut"].motion.dense_motion.occlusion
    assert (unet.channels, unet.cut) == (fomm.discriminator.channels, fomm.discriminator.cut)
    assert unet.generator_losses.encoder_features == [10, 10, 10, 1]


@pytest.mark.parametrize("row", OTHERS)
def test_rows_of_other_motion_models_are_trained_and_measured(row, tmp_path):
    arguments = ("--config", "demo.yaml", *SMALL, "--steps", 2, "--num-frames", 2, "--seeds", 0)
    assert call(ablation, *arguments, "--rows", row, "--output", tmp_path) == 0
    report = json.loads((tmp_path / "ablation.json").read_text())
    assert steps(tmp_path / f"{row}-0")[-1] == 2
    scores = report["rows"][row]["scores"]["0"]
    assert all(len(scores[name]) == 2 and None not in scores[name] for name in ("l1", "psnr"))


def test_report(finished):
    output, report = finished
    assert report["steps"] == 4
    assert report["clips"] == ["puppet-00000", "puppet-00001"]
    assert list(report["rows"]) == ["fomm", "prioritycut"]
    assert steps(output / "fomm-0")[-1] == 4
    clips = Puppets("test", 2, 4, (32, 32), 0)
    repeated = []
    for index in range(2):
        frames = clips.read(index, [0, 2, 3]) / 255  # evenly spread over frames 0 to 3
        repeated.append(np.abs(frames - frames[0]).mean())
    assert report["baseline"]["scores"]["l1"] == pytest.approx(repeated, rel=1e-4)
    scores = report["rows"]["fomm"]["scores"]["0"]
    assert len(scores["figure_psnr"]) == 2
    assert report["rows"]["fomm"]["summary"]["l1"]["mean"] == pytest.approx(np.mean(scores["l1"]))


def test_evaluation_agrees_with_validation_of_the_training(finished):
    """The last validation has measured the same frames of the same clips with the same weights."""
    output, report = finished
    lines = (output / "prioritycut-0" / "metrics.jsonl").read_text().splitlines()
    validation = json.loads(lines[-1])
    for name in ("l1", "psnr", "ssim", "figure_l1"):
        mean = report["rows"]["prioritycut"]["summary"][name]["mean"]
        assert mean == pytest.approx(validation[name], rel=1e-4)


def test_a_seed_that_is_added_later(finished, capsys):
    """Only the missing runs are trained; differences are paired by seed and clip."""
    output, report = finished
    before = step_file(output / "fomm-0", 4).stat().st_mtime_ns
    both = run(output, "--seeds", 0, 1, "--markdown")
    assert step_file(output / "fomm-0", 4).stat().st_mtime_ns == before
    assert len((output / "fomm-0" / "commands.jsonl").read_text().splitlines()) == 1
    rows = both["rows"]
    assert rows["fomm"]["scores"]["0"] == report["rows"]["fomm"]["scores"]["0"]
    assert rows["fomm"]["scores"]["1"] != rows["fomm"]["scores"]["0"]
    l1 = {row: np.array([rows[row]["scores"][s]["l1"] for s in "01"]) for row in rows}
    difference = rows["prioritycut"]["difference_to_fomm"]["l1"]
    by_hand = l1["prioritycut"] - l1["fomm"]
    assert difference["mean"] == pytest.approx(by_hand.mean())
    assert difference["seed_sd"] == pytest.approx(np.ptp(by_hand.mean(axis=1)) / math.sqrt(2))
    of_clips = by_hand.mean(axis=0)
    half = 12.7062 * np.ptp(of_clips) / 2  # two clips: t for 1 degree of freedom, sd / sqrt(2)
    assert difference["high"] == pytest.approx(of_clips.mean() + half, rel=1e-4)
    assert rows["fomm"]["difference_to_fomm"] == {}
    printed = capsys.readouterr().out
    summary = rows["prioritycut"]["summary"]["l1"]
    cells = [[cell.strip() for cell in line.split("|")] for line in printed.splitlines()]
    firsts = {tuple(line[1:3]) for line in cells if len(line) > 2}
    assert ("prioritycut", f"{summary['mean']:.4f}") in firsts
    whole = "{mean:.4f} ±{seed_sd:.4f} [{low:.4f}, {high:.4f}]"
    assert ("prioritycut", whole.format(**summary)) in firsts
    signed = "{mean:+.4f} ±{seed_sd:.4f} [{low:+.4f}, {high:+.4f}]"
    assert ("prioritycut", signed.format(**difference)) in firsts
    assert ("source", f"{both['baseline']['summary']['l1']['mean']:.4f}") in firsts


def test_runs_that_start_from_a_base(finished, tmp_path, capsys):
    """All rows start from its weights; after no more than a tiny step they still have them."""
    base = step_file(finished[0] / "fomm-0", 4)
    tiny_steps = ("train.learning_rate=1e-12", "train.ema_decay=null")
    given = (*tiny_steps, *(f"motion.{name}.learning_rate=null" for name in NETWORKS))
    report = run(tmp_path, *given, "--seeds", 1, "--init-from", base)
    assert report["init_from"] == [str(base)]
    assert capsys.readouterr().out.count(f"{base}: ") == 2
    start = checkpoint.load(base).evaluation_networks
    for row in PAIR[1:]:
        end = checkpoint.load(step_file(tmp_path / f"{row}-1", 4)).evaluation_networks
        for network in NETWORKS:
            for name, tensor in start[network].items():
                if name.endswith("weight"):
                    assert_close(end[network][name], tensor, atol=1e-6, rtol=0)
    assert finished[1]["init_from"] == []


def test_a_report_without_a_metric_is_measured_anew(finished, tmp_path):
    """Such a report is of an earlier version."""
    shutil.copytree(finished[0], tmp_path / "copy")
    path = tmp_path / "copy" / "fomm-0" / "ablation.json"
    earlier = json.loads(path.read_text())
    for scores in (earlier["scores"], earlier["baseline"]):
        del scores["hidden_l1"]
    path.write_text(json.dumps(earlier))
    assert run(tmp_path / "copy", "--seeds", 0)["rows"] == finished[1]["rows"]


@pytest.mark.parametrize("content", ["{", "[1]", "{}", '{"num_frames": 3}'])
def test_a_report_that_no_run_wrote(finished, tmp_path, capsys, content):
    shutil.copytree(finished[0], tmp_path / "copy")
    path = tmp_path / "copy" / "fomm-0" / "ablation.json"
    path.write_text(content)
    command = (*ARGUMENTS, *PAIR, "--output", tmp_path / "copy", "--seeds", 0)
    assert call(ablation, *command) == 2
    assert f"{path}: not as this program wrote it; remove it" in capsys.readouterr().err


def test_interrupted_run_goes_on(finished, tmp_path, capsys):
    """It continues from the newest checkpoint and ends with the same numbers."""
    _, report = finished
    run(tmp_path, "--seeds", 0)
    step_file(tmp_path / "prioritycut-0", 4).unlink()
    (tmp_path / "prioritycut-0" / "ablation.json").unlink()
    capsys.readouterr()
    again = run(tmp_path, "--seeds", 0)
    assert f"continuing {step_file(tmp_path / 'prioritycut-0', 2)}" in capsys.readouterr().out
    assert again == report


def test_a_failing_run_does_not_stop_the_others(tmp_path, capsys):
    arguments = (*ARGUMENTS, "--rows", "unet", "fomm", "--seeds", 0, "--output", tmp_path)
    diverging = ("discriminator.learning_rate=1e38", "train.max_bad_steps=1")
    assert call(ablation, *arguments, *diverging) == 2
    report = json.loads((tmp_path / "ablation.json").read_text())
    assert list(report["rows"]) == ["fomm"]
    error = capsys.readouterr().err.splitlines()
    assert error[-1].endswith(f": error: 1 of 2 runs failed: {tmp_path / 'unet-0'}; see above")
    assert any(line.startswith(f"{tmp_path / 'unet-0'}: ") for line in error)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--config", "demo.yaml"), "--steps is missing: give the number of steps"),
        (("--steps", 4), "--config is missing"),
        ((*ARGUMENTS, "--rows", "fomm", "gan"), "--rows gan: unknown; known rows: fomm, fomm-adv"),
        (
            (*ARGUMENTS, "--rows", "prioritycut-masks"),
            "discriminator.cut.foreground: found mask_generator, and masks is null",
        ),
        ((*ARGUMENTS, "--rows", "fomm", "--seeds", -1), "seed: found -1; must be at least 0"),
        (
            ("--config", "vox-tpsmm.yaml", "--steps", 4, "--rows", "fomm"),
            "motion: found kind tpsmm; the rows start from a config with the motion model of FOMM",
        ),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, arguments, expected):
    argv = [*map(str, (*arguments, "--output", tmp_path, "--device", "cpu"))]
    assert run_entry_point(ablation.main, ablation.build_parser(), argv) == 2
    assert expected in error_line(capsys, "python -m benchmarks.ablation")
    assert not list(tmp_path.iterdir())


def test_runs_of_another_config_are_not_mixed(finished, capsys):
    output, _ = finished
    arguments = (*ARGUMENTS, *PAIR, "--seeds", 0, "--output", output, "train.learning_rate=0.1")
    assert call(ablation, *arguments) == 2
    line = error_line(capsys, "python -m benchmarks.ablation")
    path = output / "fomm-0" / "config.yaml"
    assert f"{path}: another config than asked for: train.learning_rate: found 0.0002" in line
