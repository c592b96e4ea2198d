"""Bad input: exit code 2, one line that says what to do, nothing half written."""

import os
import pickle
import zipfile
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import animate
import reconstruct
import train
from checkpoints.checkpoint import load
from common.cli import run_entry_point
from common.errors import UserError
from common.tensor_files import CheckpointError
from media.video import open_clip
from modules.vgg import VGGFeatures, relu_layers
from tests.helpers.hostile import Malicious
from tests.helpers.media import truncate, write_clip, write_frame_folder
from tests.helpers.runs import call, contents, error_line, run, step_file, tiny, write_clips


def lfs_pointer(path: Path, _good: Path) -> None:
    path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 9\n")


def torn(path: Path, good: Path) -> None:
    path.write_bytes(good.read_bytes())
    truncate(path, 0.8)


def pickled_code(path: Path, _good: Path) -> None:
    path.write_bytes(pickle.dumps(Malicious(path.with_name("trace"))))


def saved_code(path: Path, good: Path) -> None:
    torch.save(contents(good) | {"extra": Malicious(path.with_name("trace"))}, path)


def other_zip(path: Path, _good: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "<x/>")


BAD_CHECKPOINTS = {
    "lfs pointer": (lfs_pointer, "a git-lfs pointer, not the file itself; run `git lfs pull`"),
    "truncated": (torn, "damaged or truncated; use an earlier checkpoint"),
    "header only": (lambda path, good: path.write_bytes(good.read_bytes()[:9]), "damaged or trunc"),
    "pickled code": (pickled_code, "not a checkpoint"),
    "code saved by torch": (saved_code, "holds pickled code, which is not run"),
    "text": (lambda path, _: path.write_text("hello there\n"), "not a checkpoint"),
    "empty": (lambda path, _: path.write_bytes(b""), "not a checkpoint"),
    "noise": (lambda path, _: path.write_bytes(bytes(range(256)) * 9), "not a checkpoint"),
    "a document": (other_zip, "damaged or truncated"),
    "a folder": (lambda path, _: path.mkdir(), "cannot be read (Is a directory)"),
    "missing": (lambda path, _: None, "cannot be read (No such file or directory)"),
    "another state dict": (
        lambda path, _: torch.save({"generator": {}, "kp_detector": {}}, path),
        "not a checkpoint of this project",
    ),
    "a tensor": (
        lambda path, _: torch.save(torch.ones(3), path),
        "not a checkpoint of this project",
    ),
}


@pytest.mark.parametrize("script", ["train.py", "reconstruct.py", "animate.py"])
@pytest.mark.parametrize("name", BAD_CHECKPOINTS)
def test_bad_checkpoint(tiny_run, tmp_path, monkeypatch, capsys, name, script):
    make, expected = BAD_CHECKPOINTS[name]
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "c.pt"
    make(path, step_file(tiny_run, 8))
    before = sorted(tmp_path.rglob("*"))
    module = {"train.py": train, "reconstruct.py": reconstruct, "animate.py": animate}[script]
    option = "--resume" if script == "train.py" else "--checkpoint"
    assert call(module, option, path) == 2
    line = error_line(capsys, script)
    assert f"{path}: " in line
    assert expected in line
    assert sorted(tmp_path.rglob("*")) == before  # and no trace of the code


@given(
    noise=st.binary(max_size=60),
    head=st.sampled_from([b"", b"PK\x03\x04", pickle.dumps({"a": [1, 2.5, "b"]})]),
)
def test_arbitrary_bytes_are_no_checkpoint(tmp_path_factory, head, noise):
    path = tmp_path_factory.getbasetemp() / "noise.pt"
    path.write_bytes(head[: len(noise)] + noise)
    with pytest.raises(
        CheckpointError, match=r"noise\.pt: (not a ch|damaged|holds pickled|a git-lfs)"
    ):
        load(path)


def test_malicious_file_would_work(tmp_path):
    """Guards the test above."""
    pickled_code(tmp_path / "c.pt", tmp_path)
    pickle.loads((tmp_path / "c.pt").read_bytes())
    assert (tmp_path / "trace").exists()


@pytest.mark.parametrize("option", ["--resume", "--init-from"])
def test_bad_checkpoint_to_start_from(tmp_path, capsys, option):
    (tmp_path / "c.pt").write_text("hello")
    folder = tmp_path / "run"
    assert call(train, *tiny(folder), option, tmp_path / "c.pt") == 2
    assert "c.pt: not a checkpoint" in error_line(capsys, "train.py")
    assert not folder.exists()


def test_checkpoint_of_another_architecture(tiny_run, tmp_path, capsys):
    folder = tmp_path / "run"
    arguments = tiny(folder, "motion.generator.width=8")
    assert call(train, *arguments, "--resume", step_file(tiny_run, 8)) == 2
    line = error_line(capsys, "train.py")
    assert "checkpoint of another architecture: generator." in line
    assert "is 4 x 3 x 7 x 7 in the file and 8 x 3 x 7 x 7 in the model" in line
    assert not folder.exists()


def test_checkpoint_without_a_discriminator(tiny_run, tmp_path, capsys):
    """Nor one that has one which the config does not ask for."""
    folder = tmp_path / "run"
    arguments = tiny(folder, "discriminator=null", "train.max_steps=4")
    assert call(train, *arguments) == 0
    capsys.readouterr()
    for path, override, found in (
        (step_file(folder, 4), "discriminator.kind=unet", "it has no discriminator; use"),
        (step_file(tiny_run, 8), "discriminator=null", "it has discriminator; use"),
    ):
        resume = ("--resume", path)
        assert call(train, *tiny(tmp_path / "other", override), *resume) == 2
        line = error_line(capsys, "train.py")
        assert "checkpoint of other networks than the config's: " + found in line


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (("trian.epochs=3",), "trian: unknown key; did you mean train?"),
        (("train.epoch=3",), "train.epoch: unknown key; did you mean train.epochs?"),
        (("train.epochs=many",), 'train.epochs: found "many"'),
        (("epochs",), "override 'epochs': must be key.sub=value"),
        (("data.kind=clips", "data.root=no/such"), "no/such: no such folder"),
        (("perceptual.width=64", "perceptual.weights=no/such.pth"), "no/such.pth: cannot be read"),
    ],
)
def test_bad_keys(tmp_path, capsys, overrides, expected):
    folder = tmp_path / "run"
    assert call(train, *tiny(folder, *overrides)) == 2
    assert expected in error_line(capsys, "train.py")
    assert not folder.exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train: {epochs: 3", "bad.yaml: line 1, column"),
        ("base: demo\ntrain:\n  epcohs: 3\n", "bad.yaml: train.epcohs: unknown key"),
        ("just text", "not a mapping of keys"),
    ],
)
def test_bad_yaml(tmp_path, monkeypatch, capsys, text, expected):
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_text(text)
    assert call(train, "--config", "bad.yaml") == 2
    assert expected in error_line(capsys, "train.py")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


def test_no_config(capsys):
    assert call(train) == 2
    assert "--config is missing" in error_line(capsys, "train.py")


def test_corrupt_clips(tmp_path, capsys):
    root = write_clips(tmp_path / "data")
    truncate(root / "train" / "clip0.mp4", 0.2)
    (root / "train" / "text.mp4").write_text("hello")
    folder = tmp_path / "run"
    assert call(train, *tiny(folder, "data.kind=clips", f"data.root={root}")) == 2
    line = error_line(capsys, "train.py")
    assert "2 of 5 clips cannot be read, more than 1%" in line
    assert "text.mp4: not a video: the file holds text" in line
    assert not folder.exists()


def test_empty_split(tmp_path, capsys):
    (tmp_path / "data" / "train").mkdir(parents=True)
    arguments = tiny(tmp_path / "run", "data.kind=clips", f"data.root={tmp_path / 'data'}")
    assert call(train, *arguments) == 2
    line = error_line(capsys, "train.py")
    assert "train: no clip in it; a clip is a video file" in line
    assert "it holds nothing" in line


def test_unwritable_output(tiny_run, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        assert call(train, *tiny(folder)) == 2
        assert "cannot be written" in error_line(capsys, "train.py")
        output = ("--output", folder)
        assert call(reconstruct, "--checkpoint", step_file(tiny_run, 8), *output) == 2
        assert str(folder) in error_line(capsys, "reconstruct.py")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("file", "mine")]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_no_cuda(tmp_path, capsys, name):
    folder = tmp_path / "run"
    argv = [*tiny(folder), "--device", name]
    assert run_entry_point(train.main, train.build_parser(), argv) == 2
    expected = f"--device {name}: 0 CUDA devices here; use --device cpu or auto"
    assert expected in error_line(capsys, "train.py")
    assert not folder.exists()


# Weights of the perceptual loss


def vgg_overrides(path: Path, network: str = "vgg19") -> list[str]:
    return [
        f"perceptual.network={network}",
        f"perceptual.weights={path}",
        "perceptual.width=64",
        "motion.losses.perceptual={relu1_1: 10}",
    ]


def state_dict_of(network: str) -> dict[str, torch.Tensor]:
    """Names and shapes as torchvision has them; one number each in memory."""
    with torch.device("meta"):
        convs = VGGFeatures(network, relu_layers(network)).convs.state_dict()
    return {f"features.{name}": torch.zeros(()).expand(t.shape) for name, t in convs.items()}


def test_vgg_weights_from_a_file(tmp_path):
    torch.save(state_dict_of("vgg19"), tmp_path / "vgg.pth")
    arguments = tiny(tmp_path / "run", *vgg_overrides(tmp_path / "vgg.pth"), "train.max_steps=1")
    assert call(train, *arguments) == 0


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"features.0.weight": torch.ones(3)}, "no tensor features.0.weight of 64 x 3 x 3 x 3"),
        ({"state_dict": {}}, "no tensor features.0.weight"),
        ([1, 2], "no tensor features.0.weight"),
        ("vgg16", "no tensor features.16.weight of 256 x 256 x 3 x 3"),
        (
            {"features.0.weight": torch.ones(64, 3, 3, 3, dtype=torch.complex64)},
            "no tensor features.0.weight of 64 x 3 x 3 x 3",
        ),
    ],
)
def test_vgg_weights_of_something_else(tmp_path, capsys, state, expected):
    path, folder = tmp_path / "vgg.pth", tmp_path / "run"
    torch.save(state_dict_of(state) if isinstance(state, str) else state, path)
    assert call(train, *tiny(folder, *vgg_overrides(path))) == 2
    line = error_line(capsys, "train.py")
    assert f"perceptual.weights: {path} has {expected}" in line
    assert "give a torchvision state dict of vgg19" in line
    assert not folder.exists()


def test_failed_download(tmp_path, monkeypatch, capsys):
    def offline(*_arguments, **_options):
        raise URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "run"
    assert call(train, *tiny(folder, *vgg_overrides(Path("imagenet")))) == 2
    line = error_line(capsys, "train.py")
    assert "could not be downloaded" in line
    assert "put vgg19-dcbb9e9d.pth (sha256 begins with dcbb9e9d)" in line
    assert f"into {tmp_path / 'cache' / 'hub' / 'checkpoints'}" in line
    assert not folder.exists()


# As a command


def test_as_a_command(tmp_path):
    """Through the interpreter: nothing else on stderr, no output, code 2."""
    pickled_code(tmp_path / "c.pt", tmp_path)
    ended = run("reconstruct.py", "--checkpoint", tmp_path / "c.pt")
    assert ended == (2, "", f"reconstruct.py: error: {tmp_path / 'c.pt'}: not a checkpoint\n")


def test_debug_shows_the_traceback(tmp_path):
    arguments = tiny(tmp_path / "run", "train.epoch=3")
    with pytest.raises(UserError, match=r"train\.epoch: unknown key"):
        call(train, *arguments, "--debug")


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def device(path: Path) -> Path:
    path.symlink_to("/dev/zero")
    return path


@pytest.mark.parametrize("make", [pipe, device])
def test_pipes_and_devices_are_neither_waited_for_nor_read(
    tiny_run, tmp_path, monkeypatch, capsys, make
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    vgg = "vgg16-397923af.pth"
    (tmp_path / "cache" / "hub" / "checkpoints").mkdir(parents=True)
    make(tmp_path / "cache" / "hub" / "checkpoints" / vgg)
    clip = write_clip(tmp_path / "clip.mp4", 3, (32, 32))
    picture = next(write_frame_folder(tmp_path / "frames", 1, (32, 32)).glob("*.png"))
    checkpoint = step_file(tiny_run, 8)
    one = ("--output", tmp_path / "out.mp4", "--checkpoint")
    training = tiny(tmp_path / "run", "masks=null", "background=null", "perceptual.width=64")
    commands = [
        (animate, *one, checkpoint, "--source", picture, "--driving", make(tmp_path / "a.mp4")),
        (animate, *one, checkpoint, "--source", make(tmp_path / "a.png"), "--driving", clip),
        (animate, *one, make(tmp_path / "a.pt"), "--source", picture, "--driving", clip),
        (
            *(animate, *one, checkpoint, "--source", picture, "--driving", clip),
            *("--audio", make(tmp_path / "a.wav")),
        ),
        (
            *(animate, "--output", tmp_path / "out", "--checkpoint", checkpoint),
            *("--pairs", make(tmp_path / "a.csv")),
        ),
        (reconstruct, "--checkpoint", tmp_path / "a.pt"),
        (train, "--resume", tmp_path / "a.pt"),
        (train, *training, f"perceptual.weights={make(tmp_path / vgg)}"),
        (train, *training, f"perceptual.weights={make(tmp_path / 'other.pth')}"),
        (train, *training, "perceptual.weights=imagenet"),
    ]
    for module, *arguments in commands:
        assert call(module, *arguments) == 2, arguments
        assert "is not a plain file; write what comes from a pipe" in capsys.readouterr().err


def test_a_note_of_the_frame_rate_that_is_a_device(tiny_run, tmp_path):
    frames = write_frame_folder(tmp_path / "frames", 3, (32, 32))
    (frames / "frame_rate.json").unlink(missing_ok=True)
    (frames / "frame_rate.json").symlink_to("/dev/zero")
    assert open_clip(frames).frame_rate == 25
