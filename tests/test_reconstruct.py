"""reconstruct.py: metrics of the model and of the trivial baseline, and the side-by-side videos."""

import csv
import json
import shutil
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

import reconstruct
from datasets.build import build_source
from datasets.video import open_clip
from model import Model
from tests.factories import tiny_config
from tests.media import numbered_frame, truncate, write_clip, write_frame_folder
from tests.runs import call, error_line, step_file, write_clips

METRICS = {"l1", "psnr", "ssim", "baseline_l1", "baseline_psnr", "baseline_ssim"}


def strict_json(path):
    """NaN and Infinity, which Python writes and nobody else reads, are errors."""

    def refuse(constant):
        raise AssertionError(constant)

    return json.loads(path.read_text(), parse_constant=refuse)


def rows_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def puppets(tiny_run, tmp_path_factory):
    """The reconstruction of the run's own test split."""
    output = tmp_path_factory.mktemp("reconstruction") / "out"
    assert call(reconstruct, "--checkpoint", step_file(tiny_run, 8), "--output", output) == 0
    return output


@pytest.fixture(scope="module")
def clips(tiny_run, tmp_path_factory):
    """Clips that the user names; returns their root and the output folder."""
    root = tmp_path_factory.mktemp("data")
    write_clips(root)
    static = root / "test" / "static"
    static.mkdir()
    for number in range(3):
        Image.fromarray(numbered_frame(5, (32, 32))).save(static / f"{number}.png")
    output = root / "out"
    arguments = ("--checkpoint", step_file(tiny_run, 8), "--data-root", root, "--output", output)
    assert call(reconstruct, *arguments) == 0
    return root, output


def test_summary(puppets, tiny_run):
    summary = strict_json(puppets / "metrics.json")
    assert summary["step"] == 8
    assert (summary["data"], summary["split"], summary["image_size"]) == (
        "puppets",
        "test",
        [32] * 2,
    )
    assert (summary["num_clips"], summary["num_frames"]) == (2, 8)
    assert summary["animator"] == "motion"  # the default, where the model has it
    assert summary.keys() >= METRICS | {"figure_l1", "baseline_figure_l1"}
    assert 0 < summary["l1"] < 1
    assert summary["psnr"] > 0


def test_rows_average_to_the_summary(puppets):
    rows, summary = rows_of(puppets / "metrics.csv"), strict_json(puppets / "metrics.json")
    assert [row["clip"] for row in rows] == ["puppet-00000", "puppet-00001"]
    assert [row["num_frames"] for row in rows] == ["4", "4"]
    for name in METRICS:
        mean = np.mean([float(row[name]) for row in rows])  # the clips are equally long
        assert mean == pytest.approx(summary[name], rel=1e-5)


def test_baseline_by_hand(puppets, tiny_run):
    """The mean absolute difference of every frame to the first, from the frames themselves."""
    config = reconstruct.checkpoint.load(step_file(tiny_run, 8)).config
    source = build_source(config.data, "test")
    row = rows_of(puppets / "metrics.csv")[1]
    frames = source.read(1, range(4)).astype(float) / 255
    difference = np.abs(frames - frames[0])
    assert float(row["baseline_l1"]) == pytest.approx(difference.mean(), rel=1e-4)

    mean_square = (difference[1:] ** 2).mean(axis=(1, 2, 3))
    psnr = [100.0, *(-10 * np.log10(mean_square))]  # 100 dB for the frame that is the source
    assert float(row["baseline_psnr"]) == pytest.approx(np.mean(psnr), rel=1e-4)

    figures = source.foreground_masks(1, range(4)) > 0.5
    expected = [difference[i][figures[0] | figures[i]].mean() for i in range(4)]
    assert float(row["baseline_figure_l1"]) == pytest.approx(np.mean(expected), rel=1e-4)


def test_l1_of_the_model_is_that_of_the_video(puppets):
    """The prediction in the video, compared with the driving frame beside it."""
    frames = open_clip(puppets / "clips" / "puppet-00000.mp4").read(range(4)).astype(float) / 255
    _, driving, prediction = np.split(frames, 3, axis=2)
    row = rows_of(puppets / "metrics.csv")[0]
    assert float(row["l1"]) == pytest.approx(np.abs(prediction - driving).mean(), abs=0.02)


def test_clips_of_the_user(clips):
    root, output = clips
    summary = strict_json(output / "metrics.json")
    assert summary["data"] == str(root)
    assert summary.keys() >= METRICS
    assert not [name for name in summary if "figure" in name]  # the truth is not known
    rows = {row["clip"]: row for row in rows_of(output / "metrics.csv")}
    assert {name: row["num_frames"] for name, row in rows.items()} == {
        "static": "3", "strip": "4", "wide": "7",
    }  # fmt: skip
    assert float(rows["static"]["baseline_l1"]) == 0
    assert float(rows["static"]["baseline_psnr"]) == 100
    assert float(rows["static"]["baseline_ssim"]) == pytest.approx(1)
    assert float(rows["wide"]["baseline_l1"]) > 0.01
    frame_mean = sum(float(row["l1"]) * int(row["num_frames"]) for row in rows.values()) / 14
    assert summary["l1"] == pytest.approx(frame_mean, rel=1e-5)  # frames weigh the same


def test_videos(clips):
    _, output = clips
    assert {path.name for path in (output / "clips").iterdir()} == {
        "static.mp4", "strip.mp4", "wide.mp4",
    }  # fmt: skip
    with av.open(str(output / "clips" / "wide.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == Fraction(30000, 1001)
        shapes = [frame.to_ndarray(format="rgb24").shape for frame in container.decode(stream)]
    assert shapes == [(32, 96, 3)] * 7
    source, driving, _ = np.split(open_clip(output / "clips" / "wide.mp4").read([0, 6]), 3, axis=2)
    assert np.abs(source[1].astype(int) - source[0]).mean() < 3  # the first frame, all along
    assert np.abs(driving[0].astype(int) - source[0]).mean() < 3
    assert np.abs(driving[1].astype(int) - source[1]).mean() > 10


def test_default_output_again_and_other_batch_size(tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    summaries = []
    for batch_size in (1, 3):
        arguments = ("--checkpoint", run / "checkpoints" / "best.pt", "--split", "train")
        assert call(reconstruct, *arguments, "--batch-size", batch_size) == 0
        summaries.append(strict_json(run / "reconstruction" / "train" / "metrics.json"))
    for name in METRICS:
        assert summaries[0][name] == pytest.approx(summaries[1][name], rel=1e-4)
    assert summaries[0]["num_clips"] == 8


@pytest.fixture(scope="module")
def masks_alone(tmp_path_factory):
    """A checkpoint of a model with the mask branch only."""
    path = tmp_path_factory.mktemp("masks") / "mine.pt"
    config = tiny_config("motion=null", "discriminator=null", "background=null")
    reconstruct.checkpoint.save(
        path,
        config,
        Model(config).networks,
        step=0,
        epoch=0,
        batch=0,
        average=None,
        training={},
        metrics={},
    )
    return path


def test_named_animator(tiny_run, tmp_path, puppets):
    """The mask branch gives other pictures of the same frames, in a folder of its own."""
    run = shutil.copytree(tiny_run, tmp_path / "run")
    for name in ("masks", "motion"):
        arguments = ("--checkpoint", step_file(run, 8), "--animator", name)
        assert call(reconstruct, *arguments) == 0
    folders = run / "reconstruction"
    assert {folder.name for folder in folders.iterdir()} == {"test-masks", "test-motion"}
    default = strict_json(puppets / "metrics.json")
    masks, motion = (
        strict_json(folders / f"test-{n}" / "metrics.json") for n in ("masks", "motion")
    )
    assert (masks["animator"], motion["animator"]) == ("masks", "motion")
    for name in METRICS:
        assert motion[name] == default[name]
        assert (masks[name] == default[name]) == name.startswith("baseline_")


def test_masks_are_the_default_of_a_model_without_motion(masks_alone, tmp_path):
    assert call(reconstruct, "--checkpoint", masks_alone, "--output", tmp_path / "out") == 0
    summary = strict_json(tmp_path / "out" / "metrics.json")
    assert summary["animator"] == "masks"
    assert 0 < summary["l1"] < 1


def test_animator_that_the_model_lacks(masks_alone, capsys):
    assert call(reconstruct, "--checkpoint", masks_alone, "--animator", "motion") == 2
    line = error_line(capsys, "reconstruct.py")
    assert f"--animator motion: {masks_alone} was trained without the branch motion" in line
    assert line.endswith("it has: masks")
    assert not (masks_alone.parent / "reconstruction").exists()


def test_checkpoint_outside_a_run(tiny_run, tmp_path):
    lone = shutil.copy(step_file(tiny_run, 4), tmp_path / "mine.pt")
    assert call(reconstruct, "--checkpoint", lone) == 0
    assert (tmp_path / "reconstruction" / "test" / "metrics.csv").exists()


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda root: truncate(write_clip(root / "test" / "b.mp4"), 0.3), "b.mp4: not a video"),
        (lambda root: (root / "test" / "b.mp4").write_text("hello"), "the file holds text"),
        (lambda root: (root / "test" / "b").mkdir(), "no frames (png, jpg) in this folder"),
    ],
)
def test_one_unreadable_clip_stops_before_anything_is_written(
    tiny_run, tmp_path, capsys, spoil, expected
):
    write_frame_folder(tmp_path / "test" / "a", 2)
    spoil(tmp_path)
    output = tmp_path / "out"
    arguments = ("--checkpoint", step_file(tiny_run, 8), "--data-root", tmp_path)
    assert call(reconstruct, *arguments, "--output", output) == 2
    assert expected in error_line(capsys, "reconstruct.py")
    assert not output.exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--split", "val"), "split val: puppets have the splits train and test"),
        (("--data-root", "no/such"), "no/such: no such folder; data.root needs train/ and test/"),
        (("--device", "tpu"), "--device tpu: unknown; use auto, cpu, cuda, cuda:N or mps"),
    ],
)
def test_wrong_arguments(tiny_run, tmp_path, capsys, monkeypatch, arguments, expected):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    parser = reconstruct.build_parser()
    argv = ["--checkpoint", str(step_file(run, 8)), *arguments]
    assert reconstruct.run_entry_point(reconstruct.main, parser, argv) == 2
    assert expected in error_line(capsys, "reconstruct.py")
    assert not (run / "reconstruction").exists()
