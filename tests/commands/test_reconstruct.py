"""reconstruct.py: metrics of the model and of the trivial baseline, and the side-by-side videos."""

import csv
import importlib.util
import json
import shutil
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image

import reconstruct
from branches.model import Model
from common.errors import UserError
from datasets.build import build_source
from evaluation import measuring
from evaluation.measures import PixelMeasure
from evaluation.reconstruction import EightBit
from media.video import open_clip
from tests.helpers.factories import MemoryClips, tiny_config
from tests.helpers.media import numbered_frame, truncate, write_clip, write_frame_folder
from tests.helpers.runs import call, error_line, step_file, write_clips

METRICS = {"l1", "psnr", "ssim", "baseline_l1", "baseline_psnr", "baseline_ssim"}


def strict_json(path):
    """NaN and Infinity, which Python writes and nobody else reads, are errors."""

    def refuse(constant):
        raise AssertionError(constant)

    return json.loads(path.read_text(), parse_constant=refuse)


def means(folder):
    """The means over frames of an evaluation, by name."""
    summary = strict_json(folder / "metrics.json")
    return {name: found["over_frames"]["mean"] for name, found in summary["metrics"].items()}


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
    assert summary["measured_with"] == {}
    assert means(puppets).keys() == METRICS | {
        *("figure_l1", "temporal", "baseline_figure_l1", "baseline_temporal"),
    }
    assert 0 < means(puppets)["l1"] < 1
    assert means(puppets)["psnr"] > 0


def test_intervals_and_frames_left_out(puppets):
    """Two clips: the t interval of their means, whose quantile is 12.706."""
    found = strict_json(puppets / "metrics.json")["metrics"]
    a, b = (float(row["l1"]) for row in rows_of(puppets / "metrics.csv"))
    assert found["l1"]["over_clips"] == pytest.approx(
        {
            "mean": (a + b) / 2,
            "low": (a + b) / 2 - 12.7062 * abs(a - b) / 2,
            "high": (a + b) / 2 + 12.7062 * abs(a - b) / 2,
            "num_values": 2,
        },
        rel=1e-3,
    )
    assert found["l1"]["over_frames"]["num_values"] == 8
    assert found["l1"]["frames_left_out"] == 0
    assert found["temporal"]["frames_left_out"] == 2  # the first frame of each clip


def test_rows_average_to_the_summary(puppets):
    rows, summary = rows_of(puppets / "metrics.csv"), means(puppets)
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
    _, driving, prediction, error = np.split(frames, 4, axis=2)
    row = rows_of(puppets / "metrics.csv")[0]
    difference = np.abs(prediction - driving)
    assert float(row["l1"]) == pytest.approx(difference.mean(), abs=0.02)
    assert error.mean() == pytest.approx((4 * difference).clip(max=1).mean(), abs=0.05)


def test_clips_of_the_user(clips):
    root, output = clips
    summary = strict_json(output / "metrics.json")
    assert summary["data"] == str(root)
    assert means(output).keys() >= METRICS
    assert not [name for name in means(output) if "figure" in name]  # the truth is not known
    rows = {row["clip"]: row for row in rows_of(output / "metrics.csv")}
    assert {name: row["num_frames"] for name, row in rows.items()} == {
        "static": "3", "strip": "4", "wide": "7",
    }  # fmt: skip
    assert float(rows["static"]["baseline_l1"]) == 0
    assert float(rows["static"]["baseline_psnr"]) == 100
    assert float(rows["static"]["baseline_ssim"]) == pytest.approx(1)
    assert float(rows["wide"]["baseline_l1"]) > 0.01
    frame_mean = sum(float(row["l1"]) * int(row["num_frames"]) for row in rows.values()) / 14
    assert means(output)["l1"] == pytest.approx(frame_mean, rel=1e-5)  # frames weigh the same


def test_videos(clips):
    _, output = clips
    assert {path.name for path in (output / "clips").iterdir()} == {
        "static.mp4", "strip.mp4", "wide.mp4",
    }  # fmt: skip
    with av.open(str(output / "clips" / "wide.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == Fraction(30000, 1001)
        shapes = [frame.to_ndarray(format="rgb24").shape for frame in container.decode(stream)]
    assert shapes == [(32, 128, 3)] * 7
    frames = open_clip(output / "clips" / "wide.mp4").read([0, 6])
    source, driving, _, _ = np.split(frames, 4, axis=2)
    assert np.abs(source[1].astype(int) - source[0]).mean() < 3  # the first frame, all along
    assert np.abs(driving[0].astype(int) - source[0]).mean() < 3
    assert np.abs(driving[1].astype(int) - source[1]).mean() > 10


def test_default_output_again_and_other_batch_size(tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    summaries = []
    for batch_size in (1, 3):
        arguments = ("--checkpoint", run / "checkpoints" / "best.pt", "--split", "train")
        assert call(reconstruct, *arguments, "--batch-size", batch_size) == 0
        summaries.append(means(run / "reconstruction" / "train"))
    for name in (*METRICS, "temporal", "figure_l1"):
        assert summaries[0][name] == pytest.approx(summaries[1][name], rel=1e-4)
    assert len(rows_of(run / "reconstruction" / "train" / "metrics.csv")) == 8


@pytest.fixture(scope="module")
def masks_alone(tmp_path_factory):
    """A checkpoint of a model with the mask branch only."""
    config = tiny_config("motion=null", "discriminator=null", "background=null")
    return save_untrained(tmp_path_factory.mktemp("masks") / "mine.pt", config)


def save_untrained(path, config):
    """A checkpoint of a model as it starts."""
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


def test_other_data_have_a_folder_of_their_own(tiny_run, tmp_path):
    """So that the results of the run's own test split stay."""
    run, heads = shutil.copytree(tiny_run, tmp_path / "run"), tmp_path / "heads"
    write_clip(heads / "test" / "a.mp4", 2, (32, 32))
    arguments = ("--checkpoint", step_file(run, 8), "--data-root", f"{heads}/")
    assert call(reconstruct, *arguments) == 0
    assert call(reconstruct, *arguments, "--animator", "masks") == 0
    folders = run / "reconstruction"
    assert {folder.name for folder in folders.iterdir()} == {"test-heads", "test-heads-masks"}


def test_every_clip_counts_though_training_sampled_identities(tmp_path, capsys):
    """Clips of other data need no identity in their names."""
    config = tiny_config("motion=null", "discriminator=null", "background=null")
    data = config.data.model_copy(update={"kind": "clips", "root": "gone", "id_sampling": True})
    path = save_untrained(tmp_path / "mine.pt", config.model_copy(update={"data": data}))
    for name in ("a", "b"):
        write_clip(tmp_path / "data" / "train" / f"{name}.mp4", 2, (32, 32))
    arguments = ("--checkpoint", path, "--data-root", tmp_path / "data", "--split", "train")
    assert call(reconstruct, *arguments, "--output", tmp_path / "out") == 0
    assert [row["clip"] for row in rows_of(tmp_path / "out" / "metrics.csv")] == ["a", "b"]
    note = "repeating it is perfect there, which lifts its mean PSNR"
    assert note in capsys.readouterr().out.splitlines()[-2]


class FailsOnFrame:
    """A animator that repeats the driving frame; one pixel of frame `number` is NaN."""

    device = torch.device("cpu")

    def __init__(self, number):
        self.number = number

    def start(self, source, reference=None):
        def move(driving):
            prediction = driving.clone()
            here = driving[:, 1, 0, 0].mul(255).round() == self.number  # see MemoryClips
            prediction[here, 0, 5, 5] = torch.nan
            return prediction

        return move


@pytest.mark.parametrize("number", [0, 3])
def test_a_prediction_that_is_not_finite_is_an_error(tmp_path, number):
    """It must not pass for frames where a metric is not defined."""
    animator, clips = EightBit(FailsOnFrame(number)), MemoryClips(["a"])
    with pytest.raises(UserError, match=f"^a: frame {number} of the prediction is not finite; the"):
        measuring.measure_clip(
            animator, clips, 0, [PixelMeasure()], tmp_path, batch_size=2, save_frames=False
        )
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_named_animator(tiny_run, tmp_path, puppets):
    """The mask branch gives other pictures of the same frames, in a folder of its own."""
    run = shutil.copytree(tiny_run, tmp_path / "run")
    for name in ("masks", "motion"):
        arguments = ("--checkpoint", step_file(run, 8), "--animator", name)
        assert call(reconstruct, *arguments) == 0
    folders = run / "reconstruction"
    assert {folder.name for folder in folders.iterdir()} == {"test-masks", "test-motion"}
    for name in ("masks", "motion"):
        assert strict_json(folders / f"test-{name}" / "metrics.json")["animator"] == name
    default, masks, motion = map(means, (puppets, folders / "test-masks", folders / "test-motion"))
    for name in METRICS:
        assert motion[name] == default[name]
        assert (masks[name] == default[name]) == name.startswith("baseline_")


def test_masks_are_the_default_of_a_model_without_motion(masks_alone, tmp_path):
    assert call(reconstruct, "--checkpoint", masks_alone, "--output", tmp_path / "out") == 0
    summary = strict_json(tmp_path / "out" / "metrics.json")
    assert summary["animator"] == "masks"
    assert 0 < means(tmp_path / "out")["l1"] < 1


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
        (
            lambda root: (
                write_frame_folder(root / "test" / "b", 1)
                .joinpath("frame0.png")
                .rename(root / "test" / "b" / "notes.txt")
            ),
            "no frames (png, jpg) in this folder",
        ),
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
        (("--published", "vox"), "measured on 256 x 256 pixels, this model makes 32 x 32"),
        (("--salient", "no/such"), "--salient no/such: no such folder; give person, saliency, mod"),
    ],
)
def test_wrong_arguments(tiny_run, tmp_path, capsys, monkeypatch, arguments, expected):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    parser = reconstruct.build_parser()
    argv = ["--checkpoint", str(step_file(run, 8)), *arguments]
    assert reconstruct.run_entry_point(reconstruct.main, parser, argv) == 2
    assert expected in error_line(capsys, "reconstruct.py")
    assert not (run / "reconstruction").exists()


# Options


def evaluate_clips(tiny_run, root, output, *options):
    arguments = ("--checkpoint", step_file(tiny_run, 8), "--data-root", root, "--output", output)
    return call(reconstruct, *arguments, *options)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two clips whose names need care in links and tables."""
    root = tmp_path_factory.mktemp("named")
    write_clip(root / "test" / "a#1.mp4", 3, (32, 32))
    write_clip(root / "test" / "b & <c>.mp4", 2, (32, 32))
    return root


@pytest.mark.parametrize("num_clips", [1, 3])
def test_num_clips_of_puppets(tiny_run, tmp_path, num_clips):
    """As many as asked for, though the config has two."""
    arguments = ("--checkpoint", step_file(tiny_run, 8), "--output", tmp_path / "out")
    assert call(reconstruct, *arguments, "--num-clips", num_clips) == 0
    names = [f"puppet-{index:05}" for index in range(num_clips)]
    assert [row["clip"] for row in rows_of(tmp_path / "out" / "metrics.csv")] == names
    assert sorted(path.stem for path in (tmp_path / "out" / "clips").iterdir()) == names


def test_num_clips_of_a_folder(tiny_run, data, tmp_path, capsys):
    assert evaluate_clips(tiny_run, data, tmp_path / "out", "--num-clips", 1) == 0
    assert [row["clip"] for row in rows_of(tmp_path / "out" / "metrics.csv")] == ["a#1"]
    capsys.readouterr()
    assert evaluate_clips(tiny_run, data, tmp_path / "more", "--num-clips", 3) == 2
    assert f"--num-clips 3: {data}/test has 2" in error_line(capsys, "reconstruct.py")
    assert not (tmp_path / "more").exists()


def test_saved_frames_are_what_was_measured(tiny_run, data, tmp_path):
    """The metrics, once more, from the PNG files."""
    assert evaluate_clips(tiny_run, data, tmp_path, "--save-frames", "--batch-size", 2) == 0
    for row in rows_of(tmp_path / "metrics.csv"):
        driving, prediction = (
            open_clip(tmp_path / "frames" / kind / row["clip"])
            for kind in ("driving", "prediction")
        )
        count = int(row["num_frames"])
        assert (driving.num_frames, prediction.num_frames) == (count, count)
        assert driving.frame_rate == 25
        frames = [clip.read(range(count)).astype(float) / 255 for clip in (driving, prediction)]
        assert float(row["l1"]) == pytest.approx(np.abs(frames[1] - frames[0]).mean(), rel=1e-5)
    assert "frames" not in {path.name for path in (tmp_path / "clips").iterdir()}


def test_given_masks(tiny_run, data, tmp_path):
    """The left half is salient: what happens on the right does not count."""
    half = np.zeros((32, 32, 3), np.uint8)
    half[:, :16] = 255
    for name, count in (("a#1", 3), ("b & <c>", 5)):  # more than there are frames do no harm
        folder = tmp_path / "masks" / name
        folder.mkdir(parents=True)
        for number in range(count):
            Image.fromarray(half).save(folder / f"{number:05}.png")
    output = tmp_path / "out"
    options = ("--salient", tmp_path / "masks", "--save-frames")
    assert evaluate_clips(tiny_run, data, output, *options) == 0
    (row, _) = rows_of(output / "metrics.csv")
    driving, prediction = (
        open_clip(output / "frames" / kind / "a#1").read(range(3)).astype(float) / 255
        for kind in ("driving", "prediction")
    )
    error = np.abs(prediction - driving)
    assert float(row["l1_salient"]) == pytest.approx(error[:, :, :16].mean() / 2, rel=1e-4)
    assert float(row["l1_salient_pixels"]) == pytest.approx(error[:, :, :16].mean(), rel=1e-4)
    assert float(row["l1_non_salient_pixels"]) == pytest.approx(error[:, :, 16:].mean(), rel=1e-4)
    found = strict_json(output / "metrics.json")["measured_with"]["salient"]
    assert found["weights"] == str(tmp_path / "masks")


def test_masks_that_do_not_reach(tiny_run, data, tmp_path, capsys):
    write_frame_folder(tmp_path / "masks" / "a#1", 2, (32, 32))
    options = ("--salient", tmp_path / "masks")
    assert evaluate_clips(tiny_run, data, tmp_path / "out", *options) == 2
    assert "no masks for the clip b & <c>" in error_line(capsys, "reconstruct.py")
    write_frame_folder(tmp_path / "masks" / "b & <c>", 2, (32, 32))
    assert evaluate_clips(tiny_run, data, tmp_path / "out", *options) == 2
    assert "a#1 has 2 masks, its clip 3 frames" in error_line(capsys, "reconstruct.py")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("animator", "name"), [("motion", "weight"), ("masks", "foreground mask")])
def test_the_models_own_region(tiny_run, tmp_path, animator, name):
    arguments = ("--checkpoint", step_file(tiny_run, 8), "--output", tmp_path / "out")
    assert call(reconstruct, *arguments, "--salient", "model", "--animator", animator) == 0
    summary = strict_json(tmp_path / "out" / "metrics.json")
    assert name in summary["measured_with"]["salient"]["name"]
    assert str(step_file(tiny_run, 8)) in summary["measured_with"]["salient"]["weights"]
    for row in rows_of(tmp_path / "out" / "frames.csv"):
        parts = [row["l1_salient"], row["l1_non_salient"]]  # the two make the whole
        assert sum(float(part or 0) for part in parts) == pytest.approx(float(row["l1"]), rel=1e-4)


@pytest.mark.parametrize(
    ("options", "module", "line"),
    [
        (("--lpips", "alex"), "lpips", "no lpips: --lpips: lpips cannot be imported"),
        (("--detector", "dlib"), "dlib", "no akd, mkr, aed, csim: --detector dlib: dlib cannot be"),
        (("--salient", "saliency"), "onnxruntime", "no salient metrics: --salient saliency: "),
    ],
)
def test_without_a_package_the_metric_is_left_out(
    tiny_run, data, tmp_path, monkeypatch, capsys, options, module, line
):
    """One line that says what to install; the evaluation goes on."""
    monkeypatch.setitem(sys.modules, module, None)
    assert evaluate_clips(tiny_run, data, tmp_path, "--num-clips", 1, *options) == 0
    said = [printed for printed in capsys.readouterr().out.splitlines() if "pip install" in printed]
    assert len(said) == 1
    assert said[0].startswith(line)
    summary = strict_json(tmp_path / "metrics.json")
    assert summary["left_out"] == said
    assert means(tmp_path).keys() == METRICS | {"temporal", "baseline_temporal"}


def test_detector(tiny_run, data, tmp_path):
    """Noise has no face: every frame is left out, and that is reported."""
    pytest.importorskip("dlib")
    if importlib.util.find_spec("face_recognition_models") is None:
        pytest.skip("no trained weights here")
    assert evaluate_clips(tiny_run, data, tmp_path, "--detector", "dlib") == 0
    summary = strict_json(tmp_path / "metrics.json")
    assert summary["measured_with"]["detector"]["licence"]
    assert summary["metrics"]["akd"] == {
        "over_frames": {"mean": None, "low": None, "high": None, "num_values": 0},
        "over_clips": {"mean": None, "low": None, "high": None, "num_values": 0},
        "frames_left_out": 5,
    }
    assert {row["aed"] for row in rows_of(tmp_path / "frames.csv")} == {""}
