"""Slim checkpoints: their content, and the programs that read them; ONNX: the same numbers."""

import hashlib
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import ANY

import pytest
import torch

import animate
import reconstruct
import train
from branches.model import Model
from branches.motion.fomm import FommBranch
from checkpoints import export
from checkpoints.checkpoint import load
from checkpoints.compare import differences
from common.cli import run_entry_point
from common.json_files import parse_json
from configs.loading import dump_config
from configs.schema import Config
from media.images import write_image
from media.visualization import to_uint8
from tests.helpers.factories import noise_frames
from tests.helpers.media import write_clip
from tests.helpers.published_files import FOMM, all_states, write
from tests.helpers.runs import (
    REPOSITORY,
    call,
    contents,
    environment,
    error_line,
    metrics,
    step_file,
    tiny,
)


def run_export(*arguments: object) -> int:
    argv = [*map(str, arguments)]
    return run_entry_point(export.main, export.build_parser(), argv)


@pytest.fixture(scope="module")
def slim(tiny_run, tmp_path_factory) -> Path:
    """Path of a slim copy of the tiny run's last checkpoint."""
    path = tmp_path_factory.mktemp("slim") / "model.pt"
    assert run_export(step_file(tiny_run, 8), "--output", path) == 0
    return path


# Slim checkpoints


def test_holds_the_networks_of_animation(tiny_run, slim):
    whole, content = load(step_file(tiny_run, 8)), contents(slim)
    assert whole.average is not None
    assert differences(content["networks"], whole.average["networks"]) == []
    assert "discriminator" not in content["networks"]
    assert (content["average"], content["training"], content["step"]) == (None, {}, 8)
    assert content["metrics"] == whole.metrics != {}
    assert content["provenance"] == {"weights": "average", "exported_from": "step-00000008.pt"}
    small = load(slim)
    assert (small.config, small.untrained) == (whole.config, whole.untrained)
    assert slim.stat().st_size < 0.3 * step_file(tiny_run, 8).stat().st_size


def test_raw_weights(tiny_run, tmp_path):
    path = tmp_path / "raw.pt"
    assert run_export(step_file(tiny_run, 8), "--output", path, "--weights", "raw") == 0
    whole, small = load(step_file(tiny_run, 8)), load(path)
    expected = whole._replace(average=None).evaluation_networks
    assert differences(small.evaluation_networks, expected) == []
    assert differences(small.evaluation_networks, whole.evaluation_networks) != []
    assert small.metrics == {}  # they were measured with the average


def test_description_of_the_file(tiny_run, tmp_path, capsys):
    path = tmp_path / "deep" / "model.pt"
    assert run_export(step_file(tiny_run, 8), "--output", path) == 0
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert f"sha256 {digest}" in capsys.readouterr().out
    described = json.loads(path.with_suffix(".json").read_text())
    assert described.pop("metrics")["l1"] == pytest.approx(load(path).metrics["l1"])
    assert described == {
        "file": "model.pt",
        "config": "run",
        "step": 8,
        "weights": "average",
        "exported_from": "step-00000008.pt",
        "sha256": digest,
        "bytes": path.stat().st_size,
    }
    before = path.read_bytes()
    assert run_export(step_file(tiny_run, 8), "--output", path) == 0
    assert path.read_bytes() == before  # equal weights give equal checksums


def test_numbers_that_are_not_finite_are_null(tiny_run, tmp_path):
    content = contents(step_file(tiny_run, 8))
    content["metrics"] |= {"l1": math.nan, "psnr": math.inf}
    torch.save(content, tmp_path / "c.pt")
    assert run_export(tmp_path / "c.pt", "--output", tmp_path / "model.pt") == 0
    found = parse_json((tmp_path / "model.json").read_text())["metrics"]
    assert found["l1"] is found["psnr"] is None
    assert found["baseline_l1"] is not None


def test_provenance_replaces_no_other_fact(tiny_run, tmp_path):
    content = contents(step_file(tiny_run, 8))
    forged = {"sha256": "0", "bytes": 1, "file": "x", "step": 9, "metrics": {}, "config": "y"}
    torch.save(content | {"provenance": forged}, tmp_path / "c.pt")
    path = tmp_path / "model.pt"
    assert run_export(tmp_path / "c.pt", "--output", path) == 0
    found = json.loads((tmp_path / "model.json").read_text())
    assert found["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (found["file"], found["bytes"]) == ("model.pt", path.stat().st_size)
    assert (found["step"], found["config"], found["metrics"]["l1"]) == (8, "run", ANY)


def test_slim_of_a_slim_one(slim, tmp_path, capsys):
    path = tmp_path / "again.pt"
    assert run_export(slim, "--output", path) == 0
    assert differences(contents(path)["networks"], contents(slim)["networks"]) == []
    assert contents(path)["provenance"] == {"weights": "average", "exported_from": "model.pt"}
    assert contents(path)["metrics"] == contents(slim)["metrics"]
    capsys.readouterr()
    assert run_export(slim, "--output", path, "--weights", "raw") == 2
    line = error_line(capsys, "python -m checkpoints.export")
    assert f"--weights raw: {slim} has average weights alone; leave the option out" in line


def test_no_average_to_take(tmp_path, capsys):
    folder = tmp_path / "run"
    assert call(train, *tiny(folder, "train.max_steps=1")) == 0
    capsys.readouterr()
    options = ("--output", tmp_path / "model.pt", "--weights", "average")
    assert run_export(step_file(folder, 1), *options) == 2
    assert "has raw weights alone" in error_line(capsys, "python -m checkpoints.export")
    assert not (tmp_path / "model.pt").exists()
    assert run_export(step_file(folder, 1), *options[:2]) == 0
    assert contents(tmp_path / "model.pt")["provenance"]["weights"] == "raw"
    assert contents(tmp_path / "model.pt")["metrics"] != {}


@pytest.mark.parametrize("name", ["copy.pt", "link.pt", "./sub/../copy.pt"])
def test_input_is_never_replaced(tiny_run, tmp_path, capsys, name):
    (tmp_path / "sub").mkdir()
    path = tmp_path / "copy.pt"
    shutil.copyfile(step_file(tiny_run, 8), path)
    (tmp_path / "link.pt").symlink_to(path)
    before = path.read_bytes()
    assert run_export(path, "--output", tmp_path / name) == 2
    assert f"would replace {path}; choose another path" in error_line(
        capsys, "python -m checkpoints.export"
    )
    assert path.read_bytes() == before


def test_input_is_not_replaced_by_the_description(tiny_run, tmp_path, capsys):
    path = tmp_path / "model.json"  # a strange name for weights
    shutil.copyfile(step_file(tiny_run, 8), path)
    before = path.read_bytes()
    assert run_export(path, "--output", tmp_path / "model.pt") == 2
    assert "would replace" in error_line(capsys, "python -m checkpoints.export")
    assert run_export(step_file(tiny_run, 8), "--output", path) == 2
    assert "give model.pt" in error_line(capsys, "python -m checkpoints.export")
    assert path.read_bytes() == before


# Programs that read them


def test_animates_and_reconstructs_like_the_whole_one(tiny_run, slim, tmp_path):
    write_clip(tmp_path / "data" / "test" / "a.mp4", 3, (32, 32))
    write_image(tmp_path / "still.png", to_uint8(noise_frames(1, (32, 32)))[0])
    frames = {}
    for name, path in (("whole", step_file(tiny_run, 8)), ("slim", slim)):
        output = ("--output", tmp_path / name)
        pair = ("--source", tmp_path / "still.png", "--driving", tmp_path / "data/test/a.mp4")
        assert call(animate, "--checkpoint", path, *pair, *output) == 0
        frames[name] = [file.read_bytes() for file in sorted((tmp_path / name).glob("*.png"))]
    assert len(frames["slim"]) == 3
    assert frames["slim"] == frames["whole"]
    measured = []
    for name, path in (("whole", step_file(tiny_run, 8)), ("slim", slim)):
        output = tmp_path / f"reconstructed-{name}"
        data = ("--data-root", tmp_path / "data")
        assert call(reconstruct, "--checkpoint", path, *data, "--output", output) == 0
        measured.append((output / "metrics.csv").read_text())
    assert measured[0] == measured[1]


def test_training_starts_from_it(tiny_run, slim, tmp_path, capsys):
    folder = tmp_path / "run"
    arguments = tiny(folder, "train.max_steps=1", "discriminator=null")
    arguments = [a for a in arguments if not a.startswith("discriminator.")]
    assert call(train, *arguments, "--init-from", slim) == 0
    (report,) = [line for line in capsys.readouterr().out.splitlines() if str(slim) in line]
    assert report.endswith("tensors loaded")
    assert [line["step"] for line in metrics(folder)] == [1]


def test_is_not_resumed(slim, tmp_path, capsys):
    assert call(train, "--resume", slim, f"run.output_dir={tmp_path / 'run'}") == 2
    line = error_line(capsys, "train.py")
    assert f"{slim}: has weights but no optimizer state, and cannot be resumed" in line
    assert "--init-from" in line
    assert not (tmp_path / "run").exists()


def test_a_published_file_gets_its_config(tmp_path):
    """The slim file then needs no --config."""
    config = FOMM.config("data.root=data/somewhere", "run.output_dir=runs/vox-fomm")
    (tmp_path / "config.yaml").write_text(dump_config(config))
    path = write(tmp_path / "vox-cpk.pth.tar", FOMM.content(config))
    output = tmp_path / "vox.pt"
    assert run_export(path, "--config", tmp_path / "config.yaml", "--output", output) == 0
    saved = load(output)
    assert saved.config == config
    assert saved.age == "FOMM, epoch 99"
    expected = all_states(config)
    expected.pop("discriminator")  # it only trains
    assert differences(saved.evaluation_networks, expected) == []
    described = json.loads((tmp_path / "vox.json").read_text())
    assert (described["config"], described["published"]) == ("vox-fomm", "FOMM")


def test_as_a_command(slim, tmp_path):
    command = [sys.executable, "-m", "checkpoints.export", str(slim), "--output"]
    failed = subprocess.run(
        [*command, str(slim)], cwd=REPOSITORY, env=environment(), capture_output=True, text=True
    )
    assert failed.returncode == 2
    assert failed.stderr == (
        f"python -m checkpoints.export: error: --output {slim} would replace {slim}; "
        "choose another path\n"
    )


# ONNX

TOLERANCE = 1e-4  # coordinates, weights and colours are all about 1
SMALL = ("motion.keypoint_detector.num_blocks=1", "motion.dense_motion.num_blocks=1")
PLAIN = (
    "motion.keypoint_detector.jacobian=none",
    "motion.losses.equivariance_jacobian=0",
    "motion.dense_motion.occlusion=false",
)


@pytest.mark.parametrize("overrides", [(), PLAIN], ids=["all", "plain"])
def test_onnx_gives_the_same_numbers(tmp_path, overrides):
    """The batch size is free: one image and three, though the files were written with two."""
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    config = FOMM.config(*SMALL, *overrides)
    branch = lively_branch(config)
    content = {"kp_detector": branch.keypoint_detector.state_dict()}
    motion = branch.dense_motion.state_dict()
    content["generator"] = {f"dense_motion_network.{n}": tensor for n, tensor in motion.items()}
    content["generator"] |= branch.generator.state_dict()
    (tmp_path / "config.yaml").write_text(dump_config(config))
    path, folder = write(tmp_path / "c.pth.tar", content), tmp_path / "onnx"
    options = ("--config", tmp_path / "config.yaml", "--output", tmp_path / "m.pt")
    assert run_export(path, *options, "--onnx", folder) == 0

    names = ("keypoint_detector", "dense_motion", "generator")
    assert {file.name for file in folder.iterdir()} == {f"{name}.onnx" for name in names}
    written = onnx.load(folder / "dense_motion.onnx")
    onnx.checker.check_model(written)
    assert "GridSample" in {node.op_type for node in written.graph.node}
    sessions = [runtime.InferenceSession(folder / f"{name}.onnx") for name in names]
    for batch in (1, 3):
        source, driving = noise_frames(2 * batch, (32, 32)).chunk(2)
        compare_with_onnx(branch, sessions, source, driving)


@torch.no_grad()
def compare_with_onnx(branch, sessions, source, driving) -> None:
    detector, dense_motion, generator = sessions
    source_keypoints = branch.keypoint_detector(source)
    driving_keypoints = branch.keypoint_detector(driving)
    motion = branch.dense_motion(source, source_keypoints, driving_keypoints)
    prediction = branch.generator(source, motion).prediction
    assert prediction.std(dim=(2, 3)).min() > 0.03  # the picture is not flat

    found_source = run_onnx(detector, {"frame": source})
    found_driving = run_onnx(detector, {"frame": driving})
    assert_close(found_driving, driving_keypoints)
    points = {f"source_{name}": tensor for name, tensor in found_source.items()}
    points |= {f"driving_{name}": tensor for name, tensor in found_driving.items()}
    found_motion = run_onnx(dense_motion, {"source": source, **points})
    assert_close(found_motion, motion)
    found_motion.pop("motion_weights")
    found = run_onnx(generator, {"source": source, **found_motion})
    assert (found["prediction"] - prediction).abs().max() < TOLERANCE


def run_onnx(session, inputs) -> dict[str, torch.Tensor]:
    assert {entry.name for entry in session.get_inputs()} == inputs.keys()
    names = [output.name for output in session.get_outputs()]
    arrays = session.run(names, {name: tensor.numpy() for name, tensor in inputs.items()})
    return {name: torch.from_numpy(array) for name, array in zip(names, arrays, strict=True)}


def lively_branch(config: Config) -> FommBranch:
    """A branch with Jacobians other than the identity and colourful pictures, as after training."""
    branch = Model(config).eval().motion
    assert isinstance(branch, FommBranch)
    jacobian = branch.keypoint_detector.jacobian
    if jacobian is not None:
        torch.nn.init.normal_(jacobian.weight, std=0.02)
    torch.nn.init.normal_(branch.generator.final.weight, std=2.0)
    return branch


def assert_close(found: dict[str, torch.Tensor], expected) -> None:
    tensors = {k: tensor for k, tensor in expected._asdict().items() if tensor is not None}
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (found[name] - tensor).abs().max() < TOLERANCE, name


def test_onnx_without_its_packages(slim, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # imports fail
    options = ("--output", tmp_path / "m.pt", "--onnx", tmp_path / "onnx")
    assert run_export(slim, *options) == 2
    line = error_line(capsys, "python -m checkpoints.export")
    assert "onnxscript; install with: pip install -e '.[onnx]'" in line
    assert list(tmp_path.iterdir()) == []


def test_onnx_of_a_model_without_motion(tmp_path, capsys):
    pytest.importorskip("onnxscript")
    folder = tmp_path / "run"
    nulls = ("motion=null", "background=null", "discriminator=null")
    arguments = [a for a in tiny(folder) if a.split(".")[0] + "=null" not in nulls]
    assert call(train, *arguments, *nulls, "train.max_steps=1") == 0
    capsys.readouterr()
    options = ("--output", tmp_path / "m.pt", "--onnx", tmp_path / "onnx")
    assert run_export(step_file(folder, 1), *options) == 2
    assert "has no motion branch" in error_line(capsys, "python -m checkpoints.export")
    assert not (tmp_path / "m.pt").exists()
