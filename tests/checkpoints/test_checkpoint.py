"""Tests of exact resuming after kill -9, of damaged files, of pruning, and of fine-tuning."""

import os
import shutil
import signal
import zipfile

import numpy as np
import pytest
import torch

import animate
import reconstruct
import train
from branches.model import Model
from checkpoints import checkpoint
from checkpoints.checkpoint import init_from, load, load_newest
from checkpoints.compare import differences
from common.tensor_files import CheckpointError, read_tensors
from modules import blocks
from tests.helpers.factories import tiny_config
from tests.helpers.kinds import AVD, TPSMM, use_small_resnets
from tests.helpers.media import truncate
from tests.helpers.runs import (
    call,
    contents,
    error_line,
    finish,
    metrics,
    start,
    step_file,
    steps,
    tiny,
    wait_until,
)

EXACT = (
    *("train.epochs=1000", "train.milestones=[3]", "train.keep_checkpoints=1000"),
    *("train.clip_ratio=1.05", "train.clip_window=6"),  # it clips some steps before and after
)


@pytest.mark.parametrize(("precision", "num_workers"), [("float32", 0), ("bf16", 2)])
def test_kill_and_resume_is_bit_exact(tmp_path, monkeypatch, precision, num_workers):
    """16 steps at once equal 8 steps, kill -9 and 8 more steps, with a milestone at step 12."""
    monkeypatch.setattr(blocks, "MIN_FUSED_AREA", 32 * 32)  # so is the killed process's
    common = (
        *EXACT,
        "train.checkpoint_every=8",
        "train.ema_decay=0.9",
        f"train.precision={precision}",
    )
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert call(train, *tiny(whole, *common, "train.max_steps=16")) == 0

    workers = f"data.num_workers={num_workers}"
    process = start("train.py", *tiny(killed, *common, workers, "train.max_steps=1000"))
    wait_until(step_file(killed, 8).exists, process)
    process.send_signal(signal.SIGKILL)
    assert finish(process).code == -signal.SIGKILL
    for step in steps(killed):  # the process may have gone on
        if step > 8:
            step_file(killed, step).unlink()
    (killed / "metrics.jsonl").open("a").write('{"step": 9, "ki')  # torn by the kill
    resume = ("--resume", step_file(killed, 8), workers, "train.max_steps=16")
    assert call(train, *resume) == 0

    a, b = (without_time(contents(step_file(folder, 16))) for folder in (whole, killed))
    assert differences(a, b) == []
    assert a["training"]["optimizer"]["clipped_steps"] > 0

    rows = [
        [{n: v for n, v in line.items() if "speed/" not in n} for line in metrics(folder)]
        for folder in (whole, killed)
    ]
    assert rows[0] == rows[1]
    assert [line["step"] for line in rows[0]] == [*range(1, 17)]
    rates = [line["learning_rate/generator"] for line in rows[0]]
    assert rates == pytest.approx([2e-4] * 12 + [2e-5] * 4)
    validated = [[line["step"] for line in metrics(f, "validation")] for f in (whole, killed)]
    assert validated == [[4, 8, 12, 16]] * 2


def without_time(content):
    content["training"].pop("seconds")
    content.pop("config")
    content.pop("run_id")
    return content


def test_resume_across_the_start_of_branches_is_bit_exact(tmp_path):
    """Epochs have 4 steps; refinement starts at step 4, background at 8; stops are at 3 and 6."""
    later = (
        "masks.refinement.start_epoch=1",
        "background.start_epoch=2",
        "train.epochs=3",
        "train.ema_decay=0.9",
    )
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert call(train, *tiny(whole, *later)) == 0
    for limit in (3, 6):
        assert call(train, *tiny(stopped, *later, f"train.max_steps={limit}"), "--resume") == 0
        assert steps(stopped)[-1] == limit
    assert call(train, *tiny(stopped, *later), "--resume") == 0
    a, b = (without_time(contents(step_file(folder, 12))) for folder in (whole, stopped))
    for content in (a, b):
        content["training"].pop("best_l1")  # stopping validates too
    assert differences(a, b) == []
    updates = [int(state["step"]) for state in a["training"]["optimizer"]["adam"]["state"].values()]
    assert set(updates) == {12, 8, 4}

    names = ("loss/total", "loss/masks/refinement", "loss/background/base_perceptual")
    rows = [
        [[line.get(name) for name in names] for line in metrics(folder)]
        for folder in (whole, stopped)
    ]
    assert rows[0] == rows[1]


def test_comparison_of_checkpoints_sees_one_bit(tiny_run):
    a, b = contents(step_file(tiny_run, 8)), contents(step_file(tiny_run, 8))
    assert differences(a, b) == []
    weight = b["networks"]["generator"]
    name = next(name for name in weight if name.endswith("weight"))
    weight[name].view(torch.int32)[(0,) * weight[name].ndim] ^= 1
    assert differences(a, b) == [f".networks.generator.{name}"]


def test_other_steps_give_other_weights(tiny_run):
    """Training changes the weights that the test above compares."""
    found = differences(contents(step_file(tiny_run, 4)), contents(step_file(tiny_run, 8)))
    assert sum(place.startswith(".networks.") for place in found) > 20
    assert sum(place.startswith(".average.networks.") for place in found) > 20
    assert sum("exp_avg" in place for place in found) > 20


def test_torn_newest_is_skipped(tmp_path, tiny_run, capsys):
    folder = tmp_path / "run"
    shutil.copytree(tiny_run, folder)
    truncate(step_file(folder, 8), 0.7)
    arguments = tiny(folder, "train.ema_decay=0.5", "train.keep_checkpoints=1")
    assert call(train, *arguments, "train.checkpoint_every=2", "--resume") == 0
    output = capsys.readouterr()
    assert "step-00000008.pt: damaged or truncated" in output.err
    assert f"continuing {step_file(folder, 4)} at step 4" in output.out
    assert steps(folder) == [8]
    assert load(step_file(folder, 8)).step == 8  # written again


def test_all_torn(tmp_path, tiny_run, capsys):
    folder = tmp_path / "run"
    shutil.copytree(tiny_run, folder)
    for step in (4, 8):
        truncate(step_file(folder, step), 0.5)
    before = sorted(folder.rglob("*"))
    assert call(train, *tiny(folder), "--resume") == 2
    line = error_line(capsys, "train.py")
    assert "no readable checkpoint" in line
    assert "step-00000008.pt: damaged or truncated" in line
    assert sorted(folder.rglob("*")) == before


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place // 8] ^= 1 << place % 8
    path.write_bytes(content)


def test_a_flipped_bit_is_skipped_with_its_name(tmp_path, tiny_run, capsys):
    """The bit is in the numbers of a weight, which torch loads without complaint."""
    folder = tmp_path / "run"
    shutil.copytree(tiny_run, folder)
    with zipfile.ZipFile(step_file(folder, 8)) as archive:
        entries = [entry for entry in archive.infolist() if "/data/" in entry.filename]
        largest = max(entries, key=lambda entry: entry.file_size)
    place = largest.header_offset + 200  # after the header and its padding
    flip(step_file(folder, 8), 8 * place)
    assert contents(step_file(folder, 8))["step"] == 8  # torch ignores it
    arguments = tiny(folder, "train.ema_decay=0.5", "train.max_steps=5")
    assert call(train, *arguments, "--resume") == 0
    output = capsys.readouterr()
    assert f"skipped: {step_file(folder, 8)}: damaged or truncated" in output.err
    assert f"continuing {step_file(folder, 4)} at step 4" in output.out
    for script, module in (("reconstruct.py", reconstruct), ("animate.py", animate)):
        assert call(module, "--checkpoint", step_file(folder, 8)) == 2
        assert "damaged or truncated" in error_line(capsys, script)


def test_no_flipped_bit_changes_what_is_loaded(tmp_path, tiny_run):
    """The bits that are not noticed lie in times and padding, which nothing reads."""
    path = tmp_path / "c.pt"
    good = contents(step_file(tiny_run, 8))
    size = step_file(tiny_run, 8).stat().st_size
    found = 0
    for place in np.random.default_rng(0).integers(8 * size, size=40).tolist():
        shutil.copy(step_file(tiny_run, 8), path)
        flip(path, place)
        try:
            content = read_tensors(path)
        except CheckpointError:
            found += 1
        else:
            assert differences(content, good) == []
    assert found > 20


def test_newest_are_kept_and_the_best(tmp_path):
    folder = tmp_path / "run"
    overrides = ("train.checkpoint_every=1", "train.keep_checkpoints=2", "log.validate_every=2")
    assert call(train, *tiny(folder, *overrides)) == 0
    files = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert files == ["best.pt", "step-00000007.pt", "step-00000008.pt"]
    validated = {line["step"]: line["l1"] for line in metrics(folder, "validation")}
    assert sorted(validated) == [2, 4, 6, 8]
    best = load(folder / "checkpoints" / "best.pt")
    assert best.step == min(validated, key=validated.__getitem__)
    assert best.metrics["l1"] == pytest.approx(min(validated.values()), rel=1e-5)


def test_best_is_not_the_newest_when_training_gets_worse(tmp_path):
    """The learning rate wrecks the weights, so the first validation stays the best."""
    folder = tmp_path / "run"
    good = tiny(folder, "train.max_steps=4")
    assert call(train, *good) == 0
    assert call(train, *tiny(folder, "train.learning_rate=3", "--resume")) == 0
    first, last = metrics(folder, "validation")
    assert last["l1"] > first["l1"]
    assert load(folder / "checkpoints" / "best.pt").step == 4
    assert steps(folder) == [4, 8]


def test_checkpoint_is_plain_and_complete(tiny_run):
    content = contents(step_file(tiny_run, 8))
    assert content["format"] == 2
    assert (content["step"], content["epoch"], content["batch"]) == (8, 2, 0)
    assert content["config"]["motion"]["keypoint_detector"]["num_keypoints"] == 4
    assert set(content["networks"]) == {
        "keypoint_detector", "dense_motion", "generator",
        "mask_generator", "refinement", "low_resolution", "high_resolution",
        "bg_base", "bg_refine", "discriminator",
    }  # fmt: skip
    assert content["config"]["background"]["threshold"] == 0.4
    assert set(content["average"]["networks"]) == set(content["networks"]) - {"discriminator"}
    assert "torch" in content["versions"]


def test_evaluation_uses_the_average(tiny_run):
    saved = load(step_file(tiny_run, 8))
    assert saved.average is not None
    assert differences(saved.evaluation_networks, saved.average["networks"]) == []
    assert differences(saved.evaluation_networks, saved.networks) != []
    alone = saved._replace(average=None).evaluation_networks
    assert alone.keys() == saved.evaluation_networks.keys()  # without it too


def test_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "c.pt"
    path.write_bytes(b"old")

    def write_and_fail():
        with checkpoint.replacing(path) as temporary:
            temporary.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_fail()
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("c.pt", b"old")]


def test_nothing_to_resume(tmp_path):
    assert load_newest(tmp_path) == (None, [])


def test_init_from_another_number_of_keypoints(tmp_path, tiny_run, capsys):
    folder = tmp_path / "run"
    best = tiny_run / "checkpoints" / "best.pt"
    arguments = tiny(folder, "motion.keypoint_detector.num_keypoints=5", "train.max_steps=1")
    assert call(train, *arguments, "--init-from", best) == 0
    (report,) = [line for line in capsys.readouterr().out.splitlines() if str(best) in line]
    assert "tensors loaded" in report
    assert "reshaped: keypoint_detector" in report
    assert "is 4 x " in report
    assert "and 5 x " in report
    assert [line["step"] for line in metrics(folder)] == [1]


def test_init_from_copies_the_average_and_names_the_rest(tiny_run):
    path = step_file(tiny_run, 8)
    config = tiny_config("motion.dense_motion.occlusion=false", "discriminator=null")
    model = Model(config)
    report = init_from(model.networks, path, config)
    assert report.missing == []
    assert {name.split(".")[0] for name in report.unused} == {"dense_motion"}
    average = load(path).evaluation_networks["generator"]
    assert differences(dict(model.networks["generator"].state_dict()), dict(average)) == []

    model = Model(tiny_config())
    assert init_from(model.networks, path, tiny_config()).problems == []


def test_a_second_stage_freezes_no_untrained_part(tmp_path, monkeypatch):
    use_small_resnets(monkeypatch)
    parts = (TPSMM, "discriminator=null", "masks.refinement.start_epoch=1")
    first, second = tiny_config(*parts), tiny_config(*parts, AVD)
    networks, model = Model(first).networks, Model(second)
    path = tmp_path / "first.pt"
    for epoch, is_trained in ((1, False), (2, True)):
        checkpoint.save(
            *(path, first, networks),
            **{"step": 4 * epoch, "epoch": epoch, "batch": 0},
            **{"average": None, "training": {}, "metrics": {}},
        )
        if is_trained:
            report = init_from(model.networks, path, second)
            assert {name.partition(".")[0] for name in report.missing} == {"avd"}
            continue
        with pytest.raises(CheckpointError) as caught:
            init_from(model.networks, path, second)
        assert str(caught.value) == (
            f"--init-from {path}: at step 4, masks.refinement has not started "
            "(masks.refinement.start_epoch: 1), and motion.avd would freeze it; train on first"
        )


def test_init_from_where_nothing_fits(tmp_path):
    """No tensor has one of the same name and shape."""
    path = tmp_path / "c.pt"
    model = Model(tiny_config())
    content = {
        "step": 0, "epoch": 0, "batch": 0, "average": None, "training": {}, "metrics": {},
        "format": 1, "config": tiny_config().model_dump(), "networks": {"other": {}},
    }  # fmt: skip
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="no tensor fits"):
        init_from(model.networks, path, tiny_config())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"format": 3}, "checkpoint format 3; this code reads 1 and 2"),
        ({"format": torch.ones(3)}, r"checkpoint format tensor\(\[1\., 1\., 1\.\]\); this code"),
        ({"format": "x" * 10**6}, "checkpoint format 'x{39}; this code"),
        ({"format": True}, "checkpoint format True; this code"),
        ({"step": None}, "not a checkpoint of this project"),  # None: the key is missing
        ({"networks": None}, "not a checkpoint of this project"),
        ({"config": {"format": 1, "sed": 3}}, "sed: unknown key"),
    ],
)
def test_other_layouts(tmp_path, tiny_run, changes, expected):
    content = contents(step_file(tiny_run, 8)) | changes
    path = tmp_path / "c.pt"
    torch.save(
        {key: value for key, value in content.items() if value is not None or key == "average"},
        path,
    )
    with pytest.raises(ValueError, match=expected) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_resume_from_a_run_that_went_on(tmp_path, tiny_run, capsys):
    """To go back to an earlier step would mix two histories in one folder."""
    folder = tmp_path / "run"
    shutil.copytree(tiny_run, folder)
    before = {path: os.stat(path).st_mtime_ns for path in folder.rglob("*")}
    run_dir = f"run.output_dir={folder}"
    assert call(train, "--resume", step_file(folder, 4), run_dir) == 2
    line = error_line(capsys, "train.py")
    assert "already has later checkpoints (step-00000008.pt)" in line
    assert {path: os.stat(path).st_mtime_ns for path in folder.rglob("*")} == before
    elsewhere = f"run.output_dir={tmp_path / 'elsewhere'}"
    assert call(train, "--resume", step_file(folder, 4), elsewhere, "train.max_steps=5") == 0
    assert steps(tmp_path / "elsewhere") == [5]
