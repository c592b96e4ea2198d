"""export --half: weights stored in float16, computed with as before; numbers that it refuses."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import animate
import reconstruct
import train
from checkpoints import compare, export
from checkpoints.checkpoint import load
from checkpoints.compare import differences
from checkpoints.content import read_content
from checkpoints.load_report import flatten
from checkpoints.weights import load_model
from common.cli import run_entry_point
from common.tensor_files import CheckpointError
from configs.loading import dump_config
from media.images import write_image
from media.visualization import to_uint8
from tests.helpers.factories import noise_frames
from tests.helpers.media import write_clip
from tests.helpers.published_files import FOMM, all_states, write
from tests.helpers.runs import call, contents, error_line, metrics, step_file, tiny

pytest.importorskip("safetensors")
KINDS = ("pt", "safetensors")


def run_export(*arguments: object) -> int:
    return run_entry_point(export.main, export.build_parser(), [*map(str, arguments)])


@pytest.fixture(scope="module")
def files(tiny_run, tmp_path_factory):
    """The tiny run's last checkpoint, rounded, in both kinds of files."""
    paths = {}
    for kind in KINDS:
        paths[kind] = tmp_path_factory.mktemp("half") / f"model.{kind}"
        assert run_export(step_file(tiny_run, 8), "--output", paths[kind], "--half") == 0
    return paths


def size_of(networks) -> int:
    return sum(t.numel() * t.element_size() for t in flatten(networks).values())


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_has_rounded_numbers(tiny_run, files, kind):
    whole = load(step_file(tiny_run, 8)).evaluation_networks
    stored = read_content(files[kind])["networks"]
    expected = {
        network: {n: t.half() if t.is_floating_point() else t for n, t in state.items()}
        for network, state in whole.items()
    }
    assert differences(stored, expected) == []
    dtypes = {tensor.dtype for tensor in flatten(stored).values()}
    assert dtypes == {torch.float16, torch.int64}  # BatchNorm counts its batches
    assert size_of(stored) < 0.51 * size_of(whole)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_loaded_is_float32(files, kind):
    saved, stored = load(files[kind]), read_content(files[kind])["networks"]
    for name, tensor in flatten(saved.networks).items():
        assert tensor.dtype in (torch.float32, torch.int64)
        assert torch.equal(tensor, flatten(stored)[name].to(tensor.dtype))
    model = load_model(saved, torch.device("cpu"))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    loaded = {name: dict(network.state_dict()) for name, network in model.networks.items()}
    assert differences(loaded, {name: dict(state) for name, state in saved.networks.items()}) == []


def test_file_description_and_card_say_so(tiny_run, tmp_path, capsys):
    assert run_export(step_file(tiny_run, 8), "--output", tmp_path / "a.pt", "--half") == 0
    assert "a.pt: step 8, average weights in float16, " in capsys.readouterr().out
    assert load(tmp_path / "a.pt").provenance["dtype"] == "float16"
    assert json.loads((tmp_path / "a.json").read_text())["dtype"] == "float16"
    card = (tmp_path / "a.md").read_text()
    assert "| trained | step 8; average weights in float16 |" in card
    assert "those of the weights before they were rounded" in card
    assert run_export(step_file(tiny_run, 8), "--output", tmp_path / "b.pt") == 0
    assert "float16" not in (tmp_path / "b.md").read_text()
    assert "dtype" not in json.loads((tmp_path / "b.json").read_text())
    assert "rounded" not in (tmp_path / "b.md").read_text()


def test_animates_and_reconstructs_as_before(tiny_run, files, tmp_path):
    """Alike from both files, and but for rounding as the whole checkpoint does."""
    write_clip(tmp_path / "data" / "test" / "a.mp4", 3, (32, 32))
    write_image(tmp_path / "still.png", to_uint8(noise_frames(1, (32, 32)))[0])
    pair = ("--source", tmp_path / "still.png", "--driving", tmp_path / "data/test/a.mp4")
    frames, measured = {}, {}
    for name, path in {"whole": step_file(tiny_run, 8), **files}.items():
        output = ("--output", tmp_path / name / "frames")
        assert call(animate, "--checkpoint", path, *pair, *output) == 0
        data = ("--data-root", tmp_path / "data", "--output", tmp_path / name / "measured")
        assert call(reconstruct, "--checkpoint", path, *data) == 0
        pngs = sorted((tmp_path / name / "frames").glob("*.png"))
        frames[name] = np.stack([np.asarray(Image.open(png)) for png in pngs]).astype(int)
        measured[name] = (tmp_path / name / "measured" / "metrics.csv").read_text()
    assert frames["pt"].shape == (3, 32, 32, 3)
    assert (frames["pt"] == frames["safetensors"]).all()
    assert abs(frames["pt"] - frames["whole"]).max() <= 1
    assert measured["pt"] == measured["safetensors"]


@pytest.mark.parametrize("kind", KINDS)
def test_training_starts_from_it(files, tmp_path, capsys, kind):
    path = files[kind]
    arguments = tiny(tmp_path / "run", "train.max_steps=1", "discriminator=null")
    arguments = [a for a in arguments if not a.startswith("discriminator.")]
    assert call(train, *arguments, "--init-from", path) == 0
    (report,) = [line for line in capsys.readouterr().out.splitlines() if str(path) in line]
    assert report.endswith("tensors loaded")
    assert [line["step"] for line in metrics(tmp_path / "run")] == [1]
    dtypes = {t.dtype for t in flatten(load(step_file(tmp_path / "run", 1)).networks).values()}
    assert dtypes == {torch.float32, torch.int64}
    assert call(train, "--resume", path, f"run.output_dir={tmp_path / 'other'}") == 2
    assert "has weights but no optimizer state" in error_line(capsys, "train.py")


def test_stays_rounded_when_exported_once_more(files, tmp_path):
    """Nothing is lost again, and it stays small."""
    assert run_export(files["pt"], "--output", tmp_path / "a.safetensors") == 0
    again = read_content(tmp_path / "a.safetensors")
    assert differences(again["networks"], read_content(files["pt"])["networks"]) == []
    assert again["provenance"]["dtype"] == "float16"


def test_is_compared_by_its_numbers(tiny_run, files, tmp_path, capsys):
    def run(*paths):
        argv = [str(path) for path in paths]
        code = run_entry_point(compare.main, compare.build_parser(), argv)
        return code, capsys.readouterr().out.splitlines()

    lines = [f"{path}: weights in float16" for path in files.values()]
    assert run(*files.values()) == (0, [*lines, "the same to the last bit"])
    whole = tmp_path / "whole.pt"
    assert run_export(step_file(tiny_run, 8), "--output", whole) == 0
    capsys.readouterr()
    code, found = run(whole, files["pt"])
    assert (code, found[0]) == (1, lines[0])
    assert any(line.startswith("networks.generator.") for line in found)


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (70_000.0, "has 70,000, and float16 ends at 65,504; export it without --half"),
        (-1e30, "has 1e+30, and float16 ends at 65,504; export it without --half"),
        (float("nan"), "has numbers that are not finite; take an earlier checkpoint of the run"),
        (float("inf"), "has numbers that are not finite; take an earlier checkpoint of the run"),
    ],
)
def test_numbers_that_float16_has_not(tiny_run, tmp_path, capsys, number, expected):
    content = contents(step_file(tiny_run, 8))
    state = content["average"]["networks"]["generator"]
    name = next(name for name in state if name.endswith("running_var"))
    state[name][1] = number
    torch.save(content, tmp_path / "c.pt")
    output = tmp_path / "new" / "model.pt"
    assert run_export(tmp_path / "c.pt", "--output", output, "--half") == 2
    line = error_line(capsys, "python -m checkpoints.export")
    assert line.endswith(f"error: {tmp_path / 'c.pt'}: generator.{name} {expected}")
    assert not output.parent.exists()
    assert run_export(tmp_path / "c.pt", "--output", output) == 0


def test_the_largest_number_is_kept(tiny_run, tmp_path):
    content = contents(step_file(tiny_run, 8))
    state = content["average"]["networks"]["generator"]
    name = next(name for name in state if name.endswith("running_var"))
    state[name][1] = 65_504.0
    torch.save(content, tmp_path / "c.pt")
    assert run_export(tmp_path / "c.pt", "--output", tmp_path / "model.pt", "--half") == 0
    assert load(tmp_path / "model.pt").networks["generator"][name][1] == 65_504.0


@pytest.mark.parametrize("kind", KINDS)
def test_a_published_file(tmp_path, kind):
    """Also one whose own tensors are in float16: it is known by its parts all the same."""
    config = FOMM.config("data.root=data/somewhere", "run.output_dir=runs/vox-fomm")
    (tmp_path / "config.yaml").write_text(dump_config(config))
    content = FOMM.content(config)
    path = write(tmp_path / "vox-cpk.pth.tar", content)
    output = tmp_path / f"vox.{kind}"
    given = ("--config", tmp_path / "config.yaml")
    assert run_export(path, *given, "--output", output, "--half") == 0
    saved = load(output)
    assert (saved.config, saved.age) == (config, "FOMM, epoch 99")
    expected = all_states(config)
    expected.pop("discriminator")  # it only trains
    for name, tensor in flatten(expected).items():
        rounded = tensor.half().float() if tensor.is_floating_point() else tensor
        assert torch.equal(flatten(saved.networks)[name], rounded), name
    parts = [state for state in content.values() if isinstance(state, dict)]
    for state in parts:
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                state[name] = value.half()
    rounded = load(write(tmp_path / "half.pth.tar", content), config)
    assert differences(rounded.evaluation_networks, saved.evaluation_networks) == []


def test_a_small_file_cannot_fill_the_memory(files, tmp_path, capsys):
    """Its tensors share one storage, which is written once; as float32 each would be a copy. With
    more of them `file_checks` refuses the file.
    """
    content = contents(files["pt"])
    shared = torch.zeros(2**20, dtype=torch.float16)
    content["networks"]["generator"] |= {f"more.{number}": shared for number in range(3)}
    torch.save(content, tmp_path / "a.pt")
    assert (tmp_path / "a.pt").stat().st_size < 2**22
    assert call(animate, "--checkpoint", tmp_path / "a.pt") == 2
    line = error_line(capsys, "animate.py")
    assert "a.pt: its float16 tensors state more numbers than the file holds" in line


def test_another_kind_of_numbers_is_refused(files, tmp_path):
    shutil.copy(files["pt"], tmp_path / "a.pt")
    content = contents(tmp_path / "a.pt")
    content["provenance"]["dtype"] = "float8"
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"a\.pt: not a checkpoint .*provenance\.dtype"):
        load(tmp_path / "a.pt")
