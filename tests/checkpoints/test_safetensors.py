"""Checkpoints as safetensors: the same numbers in every program, and files that are refused."""

import json
import sys

import pytest
import torch

import animate
import reconstruct
import train
from checkpoints import compare, export
from checkpoints.checkpoint import load
from checkpoints.compare import differences
from checkpoints.content import read_content, to_safetensors
from common.cli import run_entry_point
from common.safetensors_files import read_safetensors, to_bytes
from common.tensor_files import CheckpointError
from configs.loading import dump_config
from media.images import write_image
from media.visualization import to_uint8
from tests.helpers.factories import noise_frames
from tests.helpers.media import write_clip
from tests.helpers.published_files import FOMM, all_states, write
from tests.helpers.runs import call, contents, error_line, metrics, step_file, tiny

safetensors = pytest.importorskip("safetensors")


def run_export(*arguments: object) -> int:
    return run_entry_point(export.main, export.build_parser(), [*map(str, arguments)])


@pytest.fixture(scope="module")
def files(tiny_run, tmp_path_factory):
    """The tiny run's last checkpoint, slim: with torch's file and with a safetensors file."""
    folder = tmp_path_factory.mktemp("safe")
    paths = {name: folder / name / f"model.{name}" for name in ("pt", "safetensors")}
    for path in paths.values():
        assert run_export(step_file(tiny_run, 8), "--output", path) == 0
    return paths


def test_has_the_same_content(files):
    pt, safe = (read_content(path) for path in files.values())
    assert differences(safe, pt) == []
    a, b = (load(path) for path in files.values())
    assert a.config == b.config
    assert a._replace(path=b.path, networks={}) == b._replace(networks={})
    assert differences(a.networks, b.networks) == []


def test_has_no_pickle(files):
    content = files["safetensors"].read_bytes()
    assert b"pickle" not in content
    assert not content.startswith((b"PK\3\4", b"\x80\2"))  # it begins with a length
    with safetensors.safe_open(files["safetensors"], "pt") as file:  # any reader's view of it
        (key,) = file.metadata()
        assert json.loads(file.metadata()[key])["step"] == 8
        assert all(name.partition(".")[2] for name in file.keys())  # noqa: SIM118


def test_equal_weights_give_equal_checksums(tiny_run, files, tmp_path):
    again = tmp_path / "model.safetensors"
    assert run_export(step_file(tiny_run, 8), "--output", again) == 0
    assert again.read_bytes() == files["safetensors"].read_bytes()


def test_is_compared_to_the_last_bit(files, tmp_path, capsys):
    argv = [str(path) for path in files.values()]
    assert run_entry_point(compare.main, compare.build_parser(), argv) == 0
    content = read_content(files["safetensors"])
    name, state = next(iter(content["networks"].items()))
    tensor = next(iter(state))
    state[tensor] = state[tensor] + 1e-7 + state[tensor] * 1e-6
    (tmp_path / "other.safetensors").write_bytes(to_safetensors(content))
    capsys.readouterr()
    argv = [argv[0], str(tmp_path / "other.safetensors")]
    assert run_entry_point(compare.main, compare.build_parser(), argv) == 1
    assert f"networks.{name}.{tensor}" in capsys.readouterr().out


def test_animates_and_reconstructs_alike(files, tmp_path):
    write_clip(tmp_path / "data" / "test" / "a.mp4", 3, (32, 32))
    write_image(tmp_path / "still.png", to_uint8(noise_frames(1, (32, 32)))[0])
    pair = ("--source", tmp_path / "still.png", "--driving", tmp_path / "data/test/a.mp4")
    made = []
    for name, path in files.items():
        output = tmp_path / name
        assert call(animate, "--checkpoint", path, *pair, "--output", output / "frames") == 0
        data = ("--data-root", tmp_path / "data", "--output", output / "measured")
        assert call(reconstruct, "--checkpoint", path, *data) == 0
        frames = [file.read_bytes() for file in sorted((output / "frames").glob("*.png"))]
        assert len(frames) == 3
        made.append((frames, (output / "measured" / "frames.csv").read_text()))
    assert made[0] == made[1]


def test_the_content_says_what_a_file_is(files, tmp_path):
    """Whatever its name."""
    (tmp_path / "renamed.pt").write_bytes(files["safetensors"].read_bytes())
    assert load(tmp_path / "renamed.pt").step == 8


def test_training_starts_from_it_but_does_not_resume(files, tmp_path, capsys):
    safe = files["safetensors"]
    arguments = tiny(tmp_path / "run", "train.max_steps=1", "discriminator=null")
    arguments = [a for a in arguments if not a.startswith("discriminator.")]
    assert call(train, *arguments, "--init-from", safe) == 0
    (report,) = [line for line in capsys.readouterr().out.splitlines() if str(safe) in line]
    assert report.endswith("tensors loaded")
    assert [line["step"] for line in metrics(tmp_path / "run")] == [1]
    assert call(train, "--resume", safe, f"run.output_dir={tmp_path / 'other'}") == 2
    assert "has weights but no optimizer state" in error_line(capsys, "train.py")


def test_exported_once_more(files, tmp_path):
    """From safetensors to torch's file and back."""
    assert run_export(files["safetensors"], "--output", tmp_path / "a.pt") == 0
    assert (
        differences(contents(tmp_path / "a.pt")["networks"], read_content(files["pt"])["networks"])
        == []
    )
    assert run_export(tmp_path / "a.pt", "--output", tmp_path / "b.safetensors") == 0
    a, b = load(tmp_path / "b.safetensors"), load(files["safetensors"])
    assert (a.config, a.metrics) == (b.config, b.metrics)


def test_a_published_file(tmp_path):
    config = FOMM.config("data.root=data/somewhere", "run.output_dir=runs/vox-fomm")
    (tmp_path / "config.yaml").write_text(dump_config(config))
    path = write(tmp_path / "vox-cpk.pth.tar", FOMM.content(config))
    output = tmp_path / "vox.safetensors"
    assert run_export(path, "--config", tmp_path / "config.yaml", "--output", output) == 0
    saved = load(output)
    assert (saved.config, saved.age) == (config, "FOMM, epoch 99")
    expected = all_states(config)
    expected.pop("discriminator")  # it only trains
    assert differences(saved.evaluation_networks, expected) == []
    with pytest.raises(CheckpointError, match="has its own config in it"):
        load(output, config)


# Files that are refused


def changed(files, tmp_path, change):
    """A safetensors file whose metadata `change` has changed; the checksum stays right."""
    tensors, metadata = read_safetensors(files["safetensors"])
    facts = json.loads(metadata["image-animation"])
    change(facts)
    path = tmp_path / "changed.safetensors"
    path.write_bytes(to_bytes(tensors, {"image-animation": json.dumps(facts)}))
    return path


def test_a_damaged_number_is_found(files, tmp_path):
    content = bytearray(files["safetensors"].read_bytes())
    content[-100] ^= 4
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"a\.safetensors: damaged: another CRC-32"):
        load(tmp_path / "a.safetensors")


def test_a_truncated_file(files, tmp_path, capsys):
    content = files["safetensors"].read_bytes()
    (tmp_path / "a.safetensors").write_bytes(content[: len(content) // 2])
    assert call(animate, "--checkpoint", tmp_path / "a.safetensors") == 2
    assert "not a whole safetensors file: its tensors take" in error_line(capsys, "animate.py")


def test_files_of_other_projects(tmp_path):
    path = tmp_path / "other.safetensors"
    path.write_bytes(to_bytes({"layer.weight": torch.ones(2)}, {"format": "pt"}))
    with pytest.raises(CheckpointError, match="safetensors without a config; only those that"):
        load(path)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("step", -1, "step is not a whole number"),
        ("step", 1.5, "step is not a whole number"),
        ("metrics", [], "metrics is not a mapping"),
        ("format", 99, "checkpoint format 99"),
        ("config", [1], "not a mapping of keys"),
        ("config", {"motion": {"unknown": 1}}, "unknown"),
        ("provenance", {"a": ["x"] * 9999}, "provenance has"),
        ("crc32", "0", "another CRC-32"),
    ],
)
def test_damaged_facts(files, tmp_path, key, value, expected):
    path = changed(files, tmp_path, lambda facts: facts.__setitem__(key, value))
    with pytest.raises(ValueError, match=expected) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_a_missing_fact(files, tmp_path):
    path = changed(files, tmp_path, lambda facts: facts.pop("epoch"))
    with pytest.raises(CheckpointError, match="its metadata lack a part"):
        load(path)


@pytest.mark.parametrize("text", ["hello", "[1]", '{"step": 1, "step": 2}', '{"step": NaN}', ""])
def test_metadata_that_are_something_else(tmp_path, text):
    path = tmp_path / "a.safetensors"
    path.write_bytes(to_bytes({"a.b": torch.ones(2)}, {"image-animation": text}))
    with pytest.raises(CheckpointError, match=r"its metadata (are not readable|lack a part)"):
        load(path)


def test_without_the_package_nothing_is_written(tiny_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    output = tmp_path / "model.safetensors"
    assert run_export(step_file(tiny_run, 8), "--output", output) == 2
    line = error_line(capsys, "python -m checkpoints.export")
    assert f"--output {output}: needs safetensors; install with: pip install -r" in line
    assert list(tmp_path.iterdir()) == []
