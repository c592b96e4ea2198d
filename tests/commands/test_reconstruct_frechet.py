"""reconstruct.py --fid, --fvd: distances by hand, what results name, and networks not at hand."""

import html
import json
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torch import nn

import reconstruct
from evaluation import measuring
from evaluation.compare import compare_runs
from media.video import open_clip
from tests.helpers.media import write_clip
from tests.helpers.runs import call, error_line, step_file
from tests.helpers.script_files import FirstAndLast, MeanColours, Returns, write_script

CLIPS = {"a": 5, "b": 4}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two clips, of five frames and of four."""
    root = tmp_path_factory.mktemp("data")
    for name, num_frames in CLIPS.items():
        write_clip(root / "test" / f"{name}.mp4", num_frames, (32, 32))
    return root


def evaluate(tiny_run, data, output, *options):
    arguments = ("--checkpoint", step_file(tiny_run, 8), "--data-root", data, "--output", output)
    return call(reconstruct, *arguments, *options)


def summary(output):
    return json.loads((output / "metrics.json").read_text())


@pytest.fixture(scope="module")
def measured(tiny_run, data, tmp_path_factory):
    """An evaluation with both, and its extractors: colours of frames, red of pairs of frames."""
    folder = tmp_path_factory.mktemp("frechet")
    files = {
        "fid": write_script(folder / "means.pt", MeanColours()),
        "fvd": write_script(folder / "ends.pt", FirstAndLast()),
    }
    options = ("--fid", files["fid"], "--fvd", files["fvd"], "--fvd-length", 2, "--save-frames")
    assert evaluate(tiny_run, data, folder / "out", *options, "--batch-size", 3) == 0
    return folder / "out", files


def by_hand(a, b):
    """The distance of two sets of features; the eigenvalues of a root are roots of eigenvalues."""
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    shared = np.sqrt(np.linalg.eigvals(first @ second).real.clip(0)).sum()
    difference = np.square(a.mean(axis=0) - b.mean(axis=0)).sum()
    return difference + np.trace(first + second) - 2 * shared


def saved(output, kind):
    """The saved frames of each clip, N x H x W x 3 each."""
    return [
        open_clip(output / "frames" / kind / name).read(range(count)).astype(float)
        for name, count in CLIPS.items()
    ]


def colours(clips):
    return np.concatenate([clip.mean(axis=(1, 2)) for clip in clips])


def pairs(clips):
    """Red in both frames of each pair; the fifth frame of the first clip has no partner."""
    whole = [clip[: len(clip) // 2 * 2, ..., 0] for clip in clips]
    return np.concatenate([clip.mean(axis=(1, 2)).reshape(-1, 2) for clip in whole])


def test_distances_of_the_saved_frames(measured):
    output, files = measured
    driving, prediction = saved(output, "driving"), saved(output, "prediction")
    repeated = [clip[:1].repeat(len(clip), axis=0) for clip in driving]
    found = summary(output)["frechet"]
    for metric, features, facts in (
        ("fid", colours, {"clip_length": 1, "num_frames": 9, "num_samples": 9, "num_features": 3}),
        ("fvd", pairs, {"clip_length": 2, "num_frames": 8, "num_samples": 4, "num_features": 2}),
    ):
        model, baseline, real = map(features, (prediction, repeated, driving))
        assert found[metric].pop("model") == pytest.approx(by_hand(model, real), rel=1e-6)
        assert found[metric].pop("baseline") == pytest.approx(by_hand(baseline, real), rel=1e-6)
        assert len(found[metric].pop("sha256")) == 64
        assert found[metric] == {"extractor": str(files[metric]), **facts}


def test_results_name_the_network(measured):
    output, _ = measured
    about = summary(output)
    for metric in ("fid", "fvd"):
        digest = about["frechet"][metric]["sha256"]
        assert about["measured_with"][metric]["weights"] == f"sha256 {digest}"
        page = html.unescape((output / "index.html").read_text())
        assert digest in page
        assert f"{about['frechet'][metric]['model']:.2f}" in page
    assert "clips of 2 consecutive frames" in about["measured_with"]["fvd"]["convention"]


def test_printed_lines(tiny_run, data, tmp_path, capsys):
    path = write_script(tmp_path / "means.pt", MeanColours())
    options = ("--num-clips", 1, "--fid", path, "--fvd", path)
    assert evaluate(tiny_run, data, tmp_path / "out", *options) == 0
    lines = capsys.readouterr().out.splitlines()
    found = summary(tmp_path / "out")["frechet"]
    assert f"fid: {path}, sha256 {found['fid']['sha256']}" in lines
    rows = {
        line.split()[0]: line.split()[1:] for line in lines if line.startswith(("fid ", "fvd "))
    }
    assert rows["fid"] == [f"{found['fid'][kind]:.2f}" for kind in ("model", "baseline")] + ["5"]
    assert rows["fvd"] == ["-", "-", "0"]  # the clip is shorter than 16 frames
    assert "fvd: not defined: 0 clips of 16 frames, and a distance needs two" in lines
    assert "fvd: not defined: 0 clips of 16 frames" in (tmp_path / "out" / "index.html").read_text()


def test_few_frames_are_told(tiny_run, data, tmp_path, capsys):
    path = write_script(tmp_path / "flat.pt", Flat())
    assert evaluate(tiny_run, data, tmp_path / "out", "--fid", path) == 0
    assert "fid: only 9 frames for 3072 features: the covariances" in capsys.readouterr().out


class Flat(nn.Module):
    """The pixels themselves as features: 3 x 32 x 32."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.double().flatten(1)


def test_a_clip_that_fails_is_left_out(tiny_run, data, tmp_path, monkeypatch):
    original = measuring.reconstruct_clip

    def reconstruct_clip(animator, clips, index, **options):
        yield from original(animator, clips, index, **options)
        if index == 0:
            raise ZeroDivisionError

    path = write_script(tmp_path / "means.pt", MeanColours())
    monkeypatch.setattr(measuring, "reconstruct_clip", reconstruct_clip)
    assert evaluate(tiny_run, data, tmp_path / "out", "--fid", path) == 1
    assert summary(tmp_path / "out")["frechet"]["fid"]["num_frames"] == CLIPS["b"]


@pytest.mark.parametrize(
    ("option", "source"), [("fid", "Inception-v3 of 2015"), ("fvd", "I3D of K")]
)
def test_without_weights_a_line_says_where_they_come_from(
    tiny_run, data, tmp_path, capsys, option, source
):
    assert evaluate(tiny_run, data, tmp_path / "out", f"--{option}") == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if source in line]
    assert line.startswith(f"no {option}: --{option} without a network: the field's is {source}")
    assert summary(tmp_path / "out")["left_out"] == [line]
    assert summary(tmp_path / "out")["frechet"] == {}

    assert evaluate(tiny_run, data, tmp_path / "no", f"--{option}", tmp_path / "missing.pt") == 2
    line = error_line(capsys, "reconstruct.py")
    assert f"--{option} {tmp_path / 'missing.pt'}: no such file; the field's is {source}" in line
    assert not (tmp_path / "no").exists()


def test_a_failed_download_leaves_the_metric_out(tiny_run, data, tmp_path, capsys, monkeypatch):
    def fail(*_):
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    assert evaluate(tiny_run, data, tmp_path / "out", "--fid", "inception_v3") == 0
    assert "no fid: --fid inception_v3: https://" in capsys.readouterr().out


def test_a_network_that_refuses_the_frames_ends_the_evaluation(tiny_run, data, tmp_path, capsys):
    path = write_script(tmp_path / "strict.pt", Returns("error"))
    assert evaluate(tiny_run, data, tmp_path / "out", "--fid", path) == 2
    line = error_line(capsys, "reconstruct.py")
    assert f"--fid {path}: the network refuses images of 5 x 3 x 32 x 32" in line
    assert not (tmp_path / "out").exists()


# Two evaluations


def changed(output, folder, change):
    """A copy of an evaluation with other content of metrics.json."""
    folder.mkdir()
    about = summary(output)
    change(about)
    (folder / "metrics.json").write_text(json.dumps(about))
    (folder / "frames.csv").write_text((output / "frames.csv").read_text())
    return folder


def rows(table):
    return {line.split()[0]: line.split()[1:] for line in table.splitlines() if line}


def test_compared(measured, tmp_path):
    output, _ = measured

    def worse(about):
        about["frechet"]["fid"]["model"] += 1

    a = summary(output)["frechet"]["fid"]["model"]
    table = rows(compare_runs(output, changed(output, tmp_path / "worse", worse)))
    assert table["fid"] == [f"{a:.2f}", f"{a + 1:.2f}", "1.00"]
    assert table["fvd"][-1] == "0.00"


def test_distances_of_other_networks_do_not_compare(measured, tmp_path):
    output, _ = measured

    def another(about):
        about["measured_with"]["fid"]["weights"] = "sha256 1234"

    table = compare_runs(output, changed(output, tmp_path / "another", another))
    assert rows(table)["fid:"][:2] == ["not", "compared:"]
    assert "fvd" in rows(table)
    assert "fid" not in rows(table)


def test_results_of_earlier_versions_still_compare(measured, tmp_path):
    output, _ = measured

    def older(about):
        del about["frechet"], about["measured_with"]["fid"], about["measured_with"]["fvd"]

    folder = changed(output, tmp_path / "older", older)
    for pair in ((output, folder), (folder, output), (folder, folder)):
        assert {"l1", "psnr", "ssim"} <= rows(compare_runs(*pair)).keys()
        assert not {"fid", "fvd", "fid:", "fvd:"} & rows(compare_runs(*pair)).keys()


def test_damaged_distances_are_one_line(measured, tmp_path, capsys):
    output, _ = measured

    def damage(about):
        about["frechet"]["fid"]["model"] = "low"

    folder = changed(output, tmp_path / "damaged", damage)
    assert call(reconstruct, "--compare", output, folder) == 2
    line = error_line(capsys, "reconstruct.py")
    assert f"--compare {folder / 'metrics.json'}: fid.model: Input should be a valid number" in line
