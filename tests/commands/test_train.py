"""A run as its user sees it: the folder, --resume, signals, limits, bad steps, bad clips."""

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import losses
import train
from checkpoints.checkpoint import load
from checkpoints.compare import differences
from common import speed_trial
from configs.loading import load_config
from configs.schema import BRANCHES
from datasets.clips import ClipFolder
from datasets.puppets.clips import Puppets
from media.video import VideoError
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
    write_clips,
)

FOREVER = ("train.epochs=100000", "train.checkpoint_every=100000", "log.validate_every=100000")


def times(folder: Path) -> dict[Path, int]:
    return {path: os.stat(path).st_mtime_ns for path in folder.rglob("*")}


# The run folder


def test_run_folder(tiny_run):
    names = {path.name for path in tiny_run.iterdir() if not path.name.startswith("events.out.")}
    files = {"commands.jsonl", "config.yaml", "metrics.jsonl", "run.json"}
    expected = {"checkpoints", "pictures", *files}
    assert names == expected
    assert not list(tiny_run.rglob("*.tmp"))
    config = load_config(str(tiny_run / "config.yaml"))
    assert config.model_dump() == contents(step_file(tiny_run, 8))["config"]
    assert config.train.ema_decay == 0.5
    (entry,) = map(json.loads, (tiny_run / "commands.jsonl").read_text().splitlines())
    assert entry.keys() >= {"time", "command", "python", "torch", "av"}


def test_metrics_file(tiny_run):
    rows = metrics(tiny_run)
    assert [row["step"] for row in rows] == [*range(1, 9)]
    assert [row["epoch"] for row in rows] == [i / 4 for i in range(1, 9)]
    for row in rows:
        terms = {name for name in row if name.startswith("loss/")} - {"loss/total"}
        assert {name.split("/")[1] for name in terms} == {*BRANCHES, "adversarial"}
        assert row["loss/total"] == pytest.approx(sum(row[name] for name in terms), rel=1e-4)
        assert row["loss/motion/equivariance_value"] == pytest.approx(
            10 * row["unweighted/motion/equivariance_value"], rel=1e-4
        )
        assert row["bad_steps"] == 0
        assert row["gradient_norm"] > 0
        assert row["speed/samples_per_second"] > 0
        assert 0 <= row["motion/occlusion_mean"] <= 1
        assert row["motion/keypoint_spread"] > 0
        assert 0 < row["masks/mask_mean"] < 1
        assert 0 <= row["background/foreground_share"] <= 1
        terms = {name for name in row if name.startswith("discriminator_loss/")}
        assert terms >= {f"discriminator_loss/{name}" for name in ("encoder", "decoder", "total")}
        assert row["discriminator/gradient_norm"] > 0
        mixed = {"discriminator/cut_share" in row, "discriminator_loss/consistency" in row}
        assert len(mixed) == 1
    validations = metrics(tiny_run, "validation")
    assert [row["step"] for row in validations] == [4, 8]
    assert validations[0].keys() >= {"l1", "baseline_l1", "psnr", "ssim", "figure_l1"}
    assert validations[0].keys() >= {"masks_l1", "mask_iou", "mask_iou_all_white"}
    assert "masks_baseline_l1" not in validations[0]


def test_tensorboard_has_scalars_and_pictures(tiny_run):
    events = EventAccumulator(str(tiny_run), size_guidance={"images": 0}).Reload()
    terms = {
        f"{kind}/{name}"
        for kind in ("loss", "unweighted")
        for name in ("motion/perceptual", "masks/prior", "background/base_perceptual")
    }
    assert set(events.Tags()["scalars"]) >= {*terms, "validation/l1", "train/gradient_norm"}
    assert [event.step for event in events.Scalars("loss/motion/perceptual")] == [*range(1, 9)]
    kinds = ("train", "validation")
    assert set(events.Tags()["images"]) == {
        f"{kind}-{part}" for kind in kinds for part in (*BRANCHES, "adversarial")
    }


def test_pictures(tiny_run):
    names = sorted(path.name for path in (tiny_run / "pictures").iterdir())
    kinds = ("train", "validation")
    columns = {"adversarial": 10, "background": 5, "masks": 8, "motion": 6}
    assert names == [
        f"{kind}-{branch}-{step:08d}.png" for kind in kinds for branch in columns for step in (4, 8)
    ]
    for name in names:
        picture = np.asarray(Image.open(tiny_run / "pictures" / name))
        assert picture.shape[1] % columns[name.split("-")[1]] == 0
        assert picture.std() > 10


def test_starting_into_a_folder_with_checkpoints(tmp_path, tiny_run, capsys):
    folder = shutil.copytree(tiny_run, tmp_path / "run")
    before = times(folder)
    assert call(train, *tiny(folder)) == 2
    line = error_line(capsys, "train.py")
    assert f"{folder} already has checkpoints (step-00000008.pt); continue with --resume" in line
    assert times(folder) == before


def test_print_config(tmp_path, capsys):
    folder = tmp_path / "run"
    arguments = tiny(folder, "train.betas=[0.9, 0.99]", "train.learning_rate=1e-5")
    assert call(train, *arguments, "--print-config") == 0
    printed = capsys.readouterr().out
    (tmp_path / "printed.yaml").write_text(printed)
    assert load_config(str(tmp_path / "printed.yaml")) == load_config("demo.yaml", arguments[2:])
    assert yaml.safe_load(printed)["train"]["betas"] == [0.9, 0.99]
    assert not folder.exists()


# --resume


def test_resume_where_there_is_nothing(tmp_path, capsys):
    folder = tmp_path / "run"
    assert call(train, *tiny(folder, "train.max_steps=2"), "--resume") == 0
    assert "no checkpoint to resume, starting at step 0" in capsys.readouterr().out
    assert steps(folder) == [2]


def test_resume_that_swallows_an_override(tmp_path, tiny_run, capsys):
    """`--resume train.max_steps=20` means the newest checkpoint, and an override."""
    folder = shutil.copytree(tiny_run, tmp_path / "run")
    arguments = tiny(folder, "train.ema_decay=0.5", "train.epochs=5")
    assert call(train, *arguments, "--resume", "train.max_steps=9") == 0
    assert "at step 8" in capsys.readouterr().out
    assert steps(folder)[-1] == 9
    commands = (folder / "commands.jsonl").read_text().splitlines()
    assert len(commands) == 2  # the resumed run adds its own


def test_resume_from_a_path_needs_no_config(tmp_path, tiny_run):
    folder = shutil.copytree(tiny_run, tmp_path / "run")
    overrides = (f"run.output_dir={folder}", "train.epochs=5", "train.max_steps=10")
    assert call(train, "--resume", step_file(folder, 8), *overrides) == 0
    assert [row["step"] for row in metrics(folder)] == [*range(1, 11)]
    config = load_config(str(folder / "config.yaml"))
    assert (config.train.max_steps, config.train.ema_decay) == (10, 0.5)


def test_resume_of_a_finished_run(tmp_path, tiny_run):
    folder = shutil.copytree(tiny_run, tmp_path / "run")
    before, lines = contents(step_file(folder, 8)), (folder / "metrics.jsonl").read_text()
    written = step_file(folder, 8).stat().st_mtime_ns
    assert call(train, *tiny(folder, "train.ema_decay=0.5"), "--resume") == 0
    assert differences(contents(step_file(folder, 8)), before) == []
    assert step_file(folder, 8).stat().st_mtime_ns == written
    assert (folder / "metrics.jsonl").read_text() == lines
    assert steps(folder) == steps(tiny_run)


def test_resume_of_a_run_that_was_not_validated_at_its_end(tmp_path):
    folder = tmp_path / "run"
    arguments = tiny(folder, "train.max_steps=4", "log.validate_every=3")
    assert call(train, *arguments) == 0
    assert call(train, *arguments, "--resume") == 0
    assert [row["step"] for row in metrics(folder, "validation")] == [3, 4]
    assert contents(step_file(folder, 4))["metrics"]["l1"] > 0


# Ends


@pytest.mark.parametrize(
    ("number", "num_workers"), [(signal.SIGTERM, 2), (signal.SIGINT, 2), (signal.SIGINT, 0)]
)
def test_signal_finishes_the_step_and_saves(tmp_path, number, num_workers):
    """The signal goes to the whole process group, as Ctrl-C and schedulers send it."""
    folder = tmp_path / "run"
    arguments = tiny(folder, *FOREVER, f"data.num_workers={num_workers}")
    process = start("train.py", *arguments)
    log = folder / "metrics.jsonl"
    wait_until(lambda: log.exists() and log.read_text().count("\n") >= 3, process)
    os.killpg(process.pid, number)
    ended = finish(process)
    (saved,) = steps(folder)
    assert ended.code == 128 + number
    message = f"{number.name}: saved step {saved}; continue with --resume"
    assert ended.stderr.splitlines()[-1] == message
    assert "Traceback" not in ended.stderr
    assert [row["step"] for row in metrics(folder)] == [*range(1, saved + 1)]

    assert call(train, *arguments, f"train.max_steps={saved + 2}", "--resume") == 0
    assert [row["step"] for row in metrics(folder)] == [*range(1, saved + 3)]


def test_time_limit(tmp_path):
    folder = tmp_path / "run"
    assert call(train, *tiny(folder, *FOREVER, "train.max_minutes=0.001")) == 0
    (step,) = steps(folder)
    assert contents(step_file(folder, step))["training"]["seconds"] >= 0.06
    assert [row["step"] for row in metrics(folder, "validation")] == [step]
    before = metrics(folder)
    again = tiny(folder, *FOREVER, "train.max_minutes=0.001")
    assert call(train, *again, "--resume") == 0  # the time is used up
    assert metrics(folder) == before


# Variants


@pytest.mark.parametrize(
    "overrides",
    [
        ("train.precision=bf16", "train.clip_norm=1.0"),
        ("train.micro_batch=2",),
        ("train.ema_decay=null", "train.channels_last=false"),
        ("motion.keypoint_detector.jacobian=none", "motion.losses.equivariance_jacobian=0"),
        ("data.image_size=[32, 48]", "motion.losses.pixel=1"),
        (
            "motion=null",
            "discriminator=null",
            "train.precision=bf16",
            "background.foreign_probability=0.5",
        ),
        ("background=null", "masks.mask_generator.scale=1"),
        ("masks=null", "background=null"),
    ],
)
def test_variants_train(tmp_path, overrides):
    folder = tmp_path / "run"
    assert call(train, *tiny(folder, *overrides, "train.max_steps=4")) == 0
    rows = metrics(folder)
    assert len(rows) == 4
    assert all(np.isfinite(row["loss/total"]) and row["bad_steps"] == 0 for row in rows)
    content = contents(step_file(folder, 4))
    assert (content["average"] is None) == (content["config"]["train"]["ema_decay"] is None)


def test_branches_that_start_later(tmp_path):
    """As in the default config: the refinement after one epoch, the background after two."""
    folder = tmp_path / "run"
    later = ("masks.refinement.start_epoch=1", "background.start_epoch=2", "train.epochs=3")
    assert call(train, *tiny(folder, *later)) == 0
    rows = metrics(folder)
    assert [row["step"] for row in rows] == [*range(1, 13)]  # 4 in an epoch
    assert ["loss/masks/refinement" in row for row in rows] == [False] * 4 + [True] * 8
    assert ["loss/background/base_perceptual" in row for row in rows] == [False] * 8 + [True] * 4
    assert ["loss/background/refine_perceptual" in row for row in rows] == [False] * 8 + [True] * 4
    # Drawn after the last step of an epoch, with what that step made.
    names = {path.name for path in (folder / "pictures").glob("train-*")}
    every = (4, 8, 12)
    steps_drawn = {"motion": every, "masks": every, "background": (12,), "adversarial": every}
    assert names == {
        f"train-{branch}-{step:08d}.png" for branch in steps_drawn for step in steps_drawn[branch]
    }


SHARES = ("masks.refinement.start_share=0.5", "background.start_share=0.7")


def first_steps(folder):
    """In which the parts that wait for others have learned."""
    terms = ("loss/masks/refinement", "loss/background/base_perceptual")
    rows = metrics(folder)
    return [next((row["step"] for row in rows if term in row), None) for term in terms]


def test_branches_that_start_after_a_share_of_the_steps(tmp_path):
    folder = tmp_path / "run"
    assert call(train, *tiny(folder, *SHARES)) == 0
    assert first_steps(folder) == [5, 7]  # 4 and 5.6 of 8 steps were without
    assert contents(step_file(folder, 8))["planned_steps"] == 8


def test_a_time_limit_plans_the_steps_and_the_starts(tmp_path, capsys):
    """After 15 steps, of which more fit into the time than there are; stopped, the plan stays."""
    folder = tmp_path / "run"
    limits = ("train.epochs=20", "train.max_minutes=60", *SHARES)
    assert call(train, *tiny(folder, *limits, "train.max_steps=30")) == 0
    assert "s a step: about 30 steps; done at about" in capsys.readouterr().err
    assert first_steps(folder) == [16, 22]
    assert contents(step_file(folder, 30))["planned_steps"] == 30
    again = tiny(folder, *limits, "train.max_steps=50")
    assert call(train, *again, "--resume") == 0
    assert first_steps(folder) == [16, 22]  # what has started stays so
    assert contents(step_file(folder, 50))["planned_steps"] == 30


def test_what_has_started_by_epochs_goes_on_in_a_run_with_shares(tmp_path):
    """Such as a run that was begun before there were shares: its parts do not wait for a plan."""
    folder = tmp_path / "run"
    assert call(train, *tiny(folder, "train.max_steps=4")) == 0
    limits = ("train.epochs=20", "train.max_minutes=60", "train.max_steps=6", *SHARES)
    assert call(train, *tiny(folder, *limits), "--resume") == 0
    terms = ["loss/masks/refinement" in row for row in metrics(folder)]
    assert terms == [True] * 6
    assert load(step_file(folder, 6)).untrained == {}


def test_a_run_that_ends_before_its_plan_says_what_has_not_begun(tmp_path, capsys):
    limits = ("train.max_minutes=60", "train.max_steps=2", *SHARES)
    assert call(train, *tiny(tmp_path / "run", *limits)) == 0
    told = capsys.readouterr().err
    assert "masks.refinement.start_share: 0.5, which this run ended too early to plan" in told


def test_a_minimum_of_steps_takes_longer_than_the_limit(tmp_path, capsys):
    folder = tmp_path / "run"
    limits = ("train.epochs=20", "train.max_minutes=0.0001", "train.min_steps=18", *SHARES)
    assert call(train, *tiny(folder, *limits)) == 0
    assert steps(folder)[-1] == 18
    told = capsys.readouterr().err
    assert "steps fit into train.max_minutes, 0.0001; training goes on to about 18;" in told
    assert "masks.refinement starts now; background starts now" in told
    assert first_steps(folder) == [16, 16]  # planned after 15
    saved = step_file(folder, 18)
    before = saved.stat().st_mtime_ns
    assert call(train, *tiny(folder, *limits), "--resume") == 0  # nothing is left to do
    assert saved.stat().st_mtime_ns == before


def test_a_minimum_of_steps_has_a_limit_too(tmp_path):
    folder = tmp_path / "run"
    limits = ("train.max_minutes=0.0001", "train.min_steps=18", "train.min_steps_minutes=0.0002")
    assert call(train, *tiny(folder, "train.epochs=20", *limits)) == 0
    assert steps(folder)[-1] < 18


def test_auto_is_resolved_told_and_kept(tmp_path, capsys, monkeypatch):
    """A checkpoint keeps `auto`, for the next machine, and beside it what this one has chosen."""
    folder = tmp_path / "run"
    auto = ("train.precision=auto", "train.channels_last=auto", "train.max_steps=2")
    monkeypatch.setattr(speed_trial, "layout_ratio", lambda *_: 1.5)
    assert call(train, *tiny(folder, *auto)) == 0
    told = "float32 (bf16 takes 20 times as long here), planar memory (channels_last takes 1.5"
    assert told in capsys.readouterr().out
    content = contents(step_file(folder, 2))
    assert content["config"]["train"]["precision"] == "auto"
    numerics = {"precision": "float32", "channels_last": False}
    assert content["training"]["numerics"] == numerics
    (entry,) = map(json.loads, (folder / "commands.jsonl").read_text().splitlines())
    assert entry["computing"].items() >= numerics.items()
    assert entry["computing"]["precision_reason"] == "bf16 takes 20 times as long here"
    # Resumed on a machine that would choose otherwise.
    monkeypatch.setattr(speed_trial, "half_precision_ratio", lambda *_: 0.5)
    monkeypatch.setattr(speed_trial, "layout_ratio", lambda *_: 0.5)
    assert call(train, *tiny(folder, *auto, "train.max_steps=4"), "--resume") == 0
    assert "float32 (as before), planar memory (as before)" in capsys.readouterr().out
    assert contents(step_file(folder, 4))["training"]["numerics"] == numerics


def test_clips_of_unlike_shapes(tmp_path, capsys):
    root = write_clips(tmp_path / "data")
    folder = tmp_path / "run"
    arguments = tiny(folder, "data.kind=clips", f"data.root={root}", "data.num_workers=2")
    assert call(train, *arguments, "data.repeats=4", "train.max_steps=4") == 0
    assert "4 clips, 4 ids, 23 frames" in capsys.readouterr().out
    assert "figure_l1" not in metrics(folder, "validation")[0]  # the truth is not known


def test_id_sampling(tmp_path):
    root = write_clips(tmp_path / "data")
    for name in ("clip0.mp4", "clip1.mp4"):
        (root / "train" / name).rename(root / "train" / f"id#{name}")
    folder = tmp_path / "run"
    arguments = tiny(folder, "data.kind=clips", f"data.root={root}", "data.id_sampling=true")
    assert call(train, *arguments, "data.repeats=4") == 0  # 3 ids x 4 repeats: 3 steps an epoch
    assert [row["step"] for row in metrics(folder)] == [*range(1, 7)]


# What goes wrong on the way


def test_bad_steps_stop_the_run(tmp_path, capsys):
    """A learning rate that overflows: the first step is fine, nothing after it is."""
    folder = tmp_path / "run"
    assert call(train, *tiny(folder, "train.max_steps=4")) == 0
    good = contents(step_file(folder, 4))["networks"]
    capsys.readouterr()
    overrides = ("train.learning_rate=1e38", "train.max_bad_steps=5", "train.epochs=10")
    assert call(train, *tiny(folder, *overrides, "train.checkpoint_every=2"), "--resume") == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("train.py: error: 6 steps in a row were skipped for a loss")
    assert "(train.max_bad_steps: 5)" in message
    assert "loss/total" in message
    assert f"last good checkpoint: {step_file(folder, 4)}" in message
    assert steps(folder)[-1] == 4  # broken weights were not saved over good ones
    assert differences(contents(step_file(folder, 4))["networks"], good) == []


def test_one_bad_step_is_skipped_and_counted(tmp_path, monkeypatch):
    calls = 0
    original = losses.weigh

    def weigh_once_nan(value, weight):
        nonlocal calls
        calls += 1
        return original(value * float("nan") if calls == 2 * 2 + 1 else value, weight)

    monkeypatch.setattr("branches.motion.fomm.weigh", weigh_once_nan)  # twice a step
    folder = tmp_path / "run"
    assert call(train, *tiny(folder, "train.max_steps=4", "train.ema_decay=0.5")) == 0
    rows = metrics(folder)
    assert [row["bad_steps"] for row in rows] == [0, 0, 1, 1]
    assert [row["loss/total"] is None for row in rows] == [False, False, True, False]
    content = contents(step_file(folder, 4))
    flat = [t for network in content["networks"].values() for t in network.values()]
    assert all(bool(tensor.isfinite().all()) for tensor in flat)


@pytest.mark.parametrize("place", ["validate_model", "MovingAverage.update", "Optimizer"])
def test_memory_that_does_not_suffice_outside_of_a_step(tmp_path, monkeypatch, capsys, place):
    """In one line too; CUDA's own words where torch's allocator is not involved."""

    def allocate(*_, **__):
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(f"training.trainer.{place}", allocate)
    overrides = ("train.ema_decay=0.5", "log.validate_every=2", "log.images_every=1000")
    assert call(train, *tiny(tmp_path / "run", *overrides)) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("train.py: error: out of memory with 4 samples at a time; set ")


def test_training_without_a_compiler(tmp_path, monkeypatch, capsys):
    from torch._inductor import config  # takes a second

    monkeypatch.setattr(config.cpp, "cxx", (None, "no-such-compiler"))
    monkeypatch.setattr(config, "force_disable_caches", True)
    torch._dynamo.reset()
    alone = ("masks=null", "background=null", "discriminator=null", "train.compile=default")
    assert call(train, *tiny(tmp_path / "run", *alone)) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(
        r"train\.py: error: train\.compile: .*compiler.*; mend it, or set train\.compile=none", last
    )


def test_data_that_comes_too_slowly_is_named_once(tmp_path, monkeypatch, capsys):
    original = Puppets.read

    def read_slowly(self, index, frames):
        time.sleep(0.05)
        return original(self, index, frames)

    monkeypatch.setattr(Puppets, "read", read_slowly)
    monkeypatch.setattr("training.meters.WARM_UP_STEPS", 1)
    monkeypatch.setattr("training.meters.STEPS_BEFORE_DATA_CHECK", 3)
    alone = ("masks=null", "background=null", "discriminator=null", "log.validate_every=1000")
    assert call(train, *tiny(tmp_path / "run", *alone)) == 0
    lines = capsys.readouterr().err.splitlines()
    warnings = [i for i, line in enumerate(lines) if line.startswith("data is the bottleneck, ")]
    assert len(warnings) == 1
    assert lines[warnings[0] - 1].startswith("step 3/8 ")
    assert "raise data.num_workers (now 0; " in lines[warnings[0]]


def break_clips(monkeypatch, *names: str) -> None:
    """Clips that could be opened before training and cannot be read any more."""
    original = ClipFolder.read

    def read(self, index, frames):
        if self.clips[index].name in names:
            raise VideoError(f"{self.clips[index].name}: gone")
        return original(self, index, frames)

    monkeypatch.setattr(ClipFolder, "read", read)


def test_clip_that_turns_unreadable_is_reported_once(tmp_path, monkeypatch, capsys):
    root = write_clips(tmp_path / "data")
    for index in range(100):
        (root / "train" / f"copy{index}.mp4").symlink_to(root / "train" / "clip0.mp4")
    break_clips(monkeypatch, "clip1")
    folder = tmp_path / "run"
    arguments = tiny(folder, "data.kind=clips", f"data.root={root}", "data.repeats=1")
    assert call(train, *arguments, "log.validate_every=1000", "log.images_every=1000") == 0
    assert capsys.readouterr().err.count("skipped: clip1: gone") == 1
    assert metrics(folder)[-1]["step"] == 2 * 104 // 4


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("broken", [("clip1",), ("clip0", "clip1", "folder", "tall")])
def test_too_many_unreadable_clips_stop_the_run(tmp_path, monkeypatch, capfd, broken, num_workers):
    root = write_clips(tmp_path / "data")
    break_clips(monkeypatch, *broken)
    arguments = tiny(tmp_path / "run", "data.kind=clips", f"data.root={root}")
    assert call(train, *arguments, f"data.num_workers={num_workers}") == 2
    lines = capfd.readouterr().err.splitlines()
    assert lines[-1].startswith("train.py: error: ")
    assert "cannot be read" in lines[-1]
    assert not [line for line in lines if "Traceback" in line]


def test_clips_are_the_same_data_with_and_without_workers(tmp_path):
    root = write_clips(tmp_path / "data")
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder, workers in zip(folders, (0, 2), strict=True):
        arguments = tiny(folder, "data.kind=clips", f"data.root={root}", "train.max_steps=4")
        assert call(train, *arguments, f"data.num_workers={workers}") == 0
    a, b = (contents(step_file(folder, 4))["networks"] for folder in folders)
    assert differences(a, b) == []
