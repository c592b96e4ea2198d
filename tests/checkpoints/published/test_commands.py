"""Published files of every project, used by the scripts as a user does."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest

import animate
import reconstruct
import train
from branches.model import Model
from checkpoints.checkpoint import save
from checkpoints.compare import differences
from configs.loading import dump_config
from media.images import read_image, write_image
from tests.helpers.media import numbered_frame, write_frame_folder
from tests.helpers.published_files import (
    FOMM,
    MONKEY_NET,
    PERTURBED_MASKS,
    PROJECTS,
    TPSMM,
    X2FACE,
    PublishedFile,
    all_states,
    write_published,
)
from tests.helpers.runs import call, contents, error_line, metrics

AVD = "motion.avd.code=6"


@pytest.fixture(scope="module")
def avd_file(tmp_path_factory):
    """A file of TPSMM after its second stage."""
    config = TPSMM.config("seed=5", AVD)
    path = tmp_path_factory.mktemp("avd") / "avd.pth.tar"
    yield PublishedFile(TPSMM, config, write_published(path, TPSMM, TPSMM.content(config)))
    path.unlink()


@pytest.fixture
def folder(tmp_path) -> Iterator[Path]:
    """A folder with a source picture and a driving clip, removed after the test.

    A run of TPSMM leaves 500 MB in it, and pytest would keep them for three sessions.
    """
    write_image(tmp_path / "source.png", numbered_frame(3, (32, 32)))
    write_frame_folder(tmp_path / "driving", 3, (32, 32))
    yield tmp_path
    shutil.rmtree(tmp_path)


def own_checkpoint(file: PublishedFile, folder: Path) -> Path:
    """Write a checkpoint of this project with the weights of a published file."""
    states = all_states(file.config)
    networks = Model(file.config).networks
    for name, network in networks.items():
        network.load_state_dict(states[name])
    path = folder / "own.pt"
    save(
        path,
        file.config,
        networks,
        step=1,
        epoch=file.config.train.epochs,
        batch=0,
        average=None,
        training={},
        metrics={},
    )
    return path


def with_config(file: PublishedFile, folder: Path) -> tuple[object, ...]:
    """Write the config of a file; returns the options that load the file with it."""
    (folder / "config.yaml").write_text(dump_config(file.config))
    return ("--checkpoint", file.path, "--config", folder / "config.yaml")


def frames_of(folder: Path, *options: object) -> list[bytes]:
    """Animate the source of `folder`; returns the frames."""
    media = ("--source", folder / "source.png", "--driving", folder / "driving")
    output = Path(mkdtemp(dir=folder))
    assert call(animate, *media, "--output", output, *options) == 0
    frames = [read_image(path) for path in sorted(output.glob("*.png"))]
    assert [frame.shape for frame in frames] == [(32, 32, 3)] * 3
    return [frame.tobytes() for frame in frames]


def check_animation(file: PublishedFile, folder: Path, *modes: str) -> None:
    """Make sure that the published file and our checkpoint with its weights give the same frames.

    They are compared in each of `modes`, the default first, and without the option --motion.
    """
    published = with_config(file, folder)
    own = ("--checkpoint", own_checkpoint(file, folder))
    default = frames_of(folder, *published)
    assert default == frames_of(folder, *own)
    results = [frames_of(folder, *published, "--motion", mode) for mode in modes]
    assert results == [frames_of(folder, *own, "--motion", mode) for mode in modes]
    assert results[:1] == [default][: len(modes)]


@pytest.mark.parametrize(
    ("project", "modes"),
    [
        (PERTURBED_MASKS, ()),
        (FOMM, ("relative", "absolute")),
        (MONKEY_NET, ("relative", "absolute")),
        (X2FACE, ("absolute",)),
        (TPSMM, ("relative", "absolute")),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_animation_in_every_mode(files, folder, capsys, project, modes):
    file = files[project.name]
    check_animation(file, folder, *modes)
    report = re.escape(str(file.load().report))
    assert re.search(f"^{re.escape(str(file.path))}: {report}$", capsys.readouterr().out, re.M)


def test_animation_by_avd(avd_file, folder):
    check_animation(avd_file, folder, "relative", "absolute", "avd")


@pytest.mark.parametrize(("project", "mode"), [(X2FACE, "relative"), (TPSMM, "avd")])
def test_modes_that_the_file_does_not_have(files, folder, capsys, project, mode):
    media = ("--source", folder / "source.png", "--driving", folder / "driving")
    options = with_config(files[project.name], folder)
    assert call(animate, *options, *media, "--output", folder / "out", "--motion", mode) == 2
    assert f"--motion {mode}" in error_line(capsys, "animate.py")


@pytest.mark.parametrize("project", PROJECTS, ids=lambda project: project.name)
def test_reconstruction(files, folder, capsys, project):
    """Test clips are puppets, which the config describes."""
    file = files[project.name]
    assert call(reconstruct, *with_config(file, folder), "--output", folder / "out") == 0
    assert f"{file.path}: {file.load().report}\n" in capsys.readouterr().out
    assert (folder / "out" / "index.html").is_file()


@pytest.mark.parametrize("project", PROJECTS, ids=lambda project: project.name)
def test_fine_tuning(files, folder, capsys, project):
    """Every tensor of the file is loaded, and a step with learning rate 0 keeps it."""
    file = files[project.name]
    with_config(file, folder)
    arguments = ("--config", folder / "config.yaml", "--init-from", file.path)
    overrides = ("train.learning_rate=0", "train.max_steps=1", f"run.output_dir={folder / 'run'}")
    assert call(train, *arguments, *overrides, "seed=6") == 0
    (report,) = [line for line in capsys.readouterr().out.splitlines() if str(file.path) in line]
    unused = project is PERTURBED_MASKS
    assert re.search(r": \d+ tensors loaded" + ("; 1 unused: .*" if unused else "") + "$", report)
    assert [line["step"] for line in metrics(folder / "run")] == [1]
    trained = contents(folder / "run" / "checkpoints" / "step-00000001.pt")["networks"]
    statistics = ("running_mean", "running_var", "num_batches_tracked", "weight_u", "weight_v")
    changed = differences(trained, file.load().networks)
    assert [name for name in changed if not name.endswith(statistics)] == []


def test_second_stage_starts_from_the_first(files, avd_file, folder, capsys):
    """A file of the first stage has all networks but that of the second, which is missing."""
    config = folder / "config.yaml"
    config.write_text(dump_config(avd_file.config))
    arguments = ("--config", config, "--init-from", files[TPSMM.name].path)
    overrides = ("train.max_steps=1", f"run.output_dir={folder / 'run'}")
    assert call(train, *arguments, *overrides) == 0
    assert re.search(r"tensors loaded; \d+ missing: avd\.", capsys.readouterr().out)
