"""Published files: what is read of them, which config fits, and what training takes."""

import pickle
import re
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

import animate
import train
from branches.model import Model
from checkpoints.checkpoint import Checkpoint, init_from, load
from checkpoints.compare import differences
from checkpoints.load_report import flatten
from checkpoints.published import fomm
from checkpoints.published.conversion import convert, problems
from checkpoints.weights import load_model
from common.tensor_files import CheckpointError
from configs.loading import dump_config, load_config
from configs.schema import Config
from tests.helpers.factories import tiny_config
from tests.helpers.published_files import (
    FOMM,
    MONKEY_NET,
    PERTURBED_MASKS,
    PROJECTS,
    TPSMM,
    X2FACE,
    Project,
    all_states,
    blur,
    published_parts,
    write,
    write_published,
)
from tests.helpers.runs import call, error_line, metrics

CPU = torch.device("cpu")
OF_MOTION = tuple(project for project in PROJECTS if project.kind is not None)
WITH_DISCRIMINATOR = (FOMM, MONKEY_NET)


class File(NamedTuple):
    """A published file, to read only."""

    project: Project
    config: Config
    path: Path

    def load(self, *overrides: str) -> Checkpoint:
        """Read it with its config, changed by `overrides`."""
        return load(self.path, self.project.config(*overrides))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The file of each project by its name; TPSMM has two networks of full size, 90 MB."""
    folder = tmp_path_factory.mktemp("published")
    found = {}
    for project in PROJECTS:
        config = project.config("seed=5")
        path = folder / f"{project.name}.pth.tar"
        write_published(path, project, project.content(config))
        found[project.name] = File(project, config, path)
    yield found
    for file in found.values():
        file.path.unlink()


@pytest.fixture(params=PROJECTS, ids=lambda project: project.name)
def file(request, files) -> File:
    return files[request.param.name]


# Layouts


def test_networks_come_back_to_the_last_bit(file):
    saved = file.load()
    expected = all_states(file.config)
    assert differences(saved.networks, expected) == []
    expected.pop("discriminator", None)
    assert differences(saved.evaluation_networks, expected) == []
    assert saved.average is None
    assert saved.untrained == {}  # refinement and all
    epoch = "" if file.project is X2FACE else ", epoch 99"
    assert saved.age == f"{file.project.name}{epoch}"
    assert load_model(saved, CPU).state().keys() == expected.keys()


@pytest.mark.parametrize("as_zip", [False, True])
@pytest.mark.parametrize("project", [FOMM, PERTURBED_MASKS, MONKEY_NET, X2FACE])
def test_files_that_another_torch_wrote(tmp_path, project, as_zip):
    config = project.config()
    path = write(tmp_path / "c.pth.tar", project.content(config), as_zip=as_zip)
    assert differences(load(path, config).networks, all_states(config)) == []


@pytest.mark.parametrize("project", WITH_DISCRIMINATOR)
def test_discriminator_comes_along(files, project):
    saved = files[project.name].load()
    own = all_states(files[project.name].config)["discriminator"]
    if project is FOMM:
        assert any(name.endswith("weight_orig") for name in own)  # spectral norm
    assert differences(saved.networks["discriminator"], own) == []
    assert "discriminator" not in saved.evaluation_networks


def test_report_names_what_is_unused_and_nothing_else(file):
    """A discriminator only trains. Counters that the file lacks are not counted as loaded."""
    saved = file.load()
    assert saved.report is not None
    states = all_states(file.config)
    discriminator = states.pop("discriminator", {})
    unused = [f"discriminator.{name}" for name in discriminator]
    if file.project is PERTURBED_MASKS:
        unused = ["generator.down_blocks.0.conv.weight"]
    assert (saved.report.missing, saved.report.reshaped) == ([], [])
    assert saved.report.unused == unused
    loaded = {*flatten(states)}
    if file.project is X2FACE:
        loaded = {name for name in loaded if not name.endswith("num_batches_tracked")}
    assert {*saved.report.loaded} == loaded
    assert str(saved.report).startswith(f"{len(loaded)} tensors loaded")


@pytest.mark.parametrize("project", [FOMM, PERTURBED_MASKS, MONKEY_NET])
def test_without_epoch_discriminator_blur_and_counters(tmp_path, project):
    """Files that somebody slimmed, or that an old PyTorch wrote: it counted no batches."""
    config = project.config()
    content = project.content(config)
    slim = {
        part: {
            name: tensor
            for name, tensor in content[part].items()
            if not name.endswith(("down.weight", "num_batches_tracked"))
        }
        for part in ("generator", "mask_generator", "kp_detector")
        if part in content
    }
    saved = load(write(tmp_path / "c.pth.tar", slim), config)
    assert saved.age == project.name
    assert differences(load_model(saved, CPU).state(), saved.evaluation_networks) == []
    expected = all_states(config)
    expected.pop("discriminator", None)
    assert differences(saved.evaluation_networks, expected) == []


def test_other_files_are_not_taken_for_published_ones(tiny_run):
    weights = {"conv.weight": torch.ones(1)}
    for content in (
        [],
        {},
        weights,
        torch.ones(1),
        {"generator": weights},
        {"generator": weights, "kp_detector": {}},
        {"generator": weights, "kp_detector": {"state": {}, "param_groups": []}},
        {"kp_detector": weights, "dense_motion_network": weights},
        {"state_dict": weights},
        {"state_dict": {}},
        {"state_dict": 3},
        torch.load(tiny_run / "checkpoints" / "best.pt", weights_only=True),
    ):
        assert convert(content) is None


def test_a_message_names_all_projects(tmp_path):
    path = write(tmp_path / "c.pt", {"model": {"weight": torch.ones(1)}})
    with pytest.raises(CheckpointError) as caught:
        load(path)
    for project in PROJECTS:
        assert project.name in str(caught.value)


@pytest.mark.parametrize(
    "epoch",
    [2**60, -1, True, 3.5, "99", torch.ones(())],
    ids=["long", "negative", "bool", "fraction", "text", "tensor"],
)
def test_an_epoch_that_is_none(tmp_path, epoch):
    config = FOMM.config()
    path = write(tmp_path / "c.pth.tar", FOMM.content(config) | {"epoch": epoch})
    assert load(path, config).age == "FOMM"


class Code:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("as_zip", [False, True])
@pytest.mark.parametrize("project", [FOMM, MONKEY_NET, X2FACE])
def test_code_in_a_file_is_not_run(tmp_path, project, as_zip):
    config, mark = project.config(), tmp_path / "mark"
    content = project.content(config) | {"epoch": Code(mark)}
    path = write(tmp_path / "c.pth.tar", content, as_zip=as_zip)
    with pytest.raises(CheckpointError, match="holds pickled code, which is not run"):
        load(path, config)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Code(mark)))
    assert mark.exists()  # it would have been


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_truncated_file(tmp_path, file, share):
    path = tmp_path / "c.pth.tar"
    with file.path.open("rb") as whole:
        path.write_bytes(whole.read(int(share * file.path.stat().st_size)))
    with pytest.raises(CheckpointError, match="damaged or truncated"):
        load(path, file.config)
    path.unlink()


# Configs


def test_config_is_asked_for(file):
    project = file.project
    with pytest.raises(CheckpointError, match=f"{project.name}, .* --config {project.fitting}$"):
        load(file.path)


def test_config_for_a_checkpoint_of_ours(tiny_run):
    path = tiny_run / "checkpoints" / "best.pt"
    with pytest.raises(CheckpointError, match=r"^--config: .*best.pt has its own config in it; l"):
        load(path, tiny_config())


WRONG = {
    FOMM: {
        "motion.keypoint_detector.jacobian=shared": "must be per_keypoint, found shared",
        "motion.keypoint_detector.num_keypoints=5": "must be 4, found 5",
        "motion.keypoint_detector.num_blocks=1": "must be 2, found 1",
        "motion.keypoint_detector.width=8": "must be 4, found 8",
        "motion.keypoint_detector.scale=0.25": "must be 0.5, found 0.25",
        "motion.dense_motion.num_blocks=1": "must be 2, found 1",
        "motion.dense_motion.width=8": "must be 4, found 8",
        "motion.dense_motion.scale=0.25": "must be 0.5, found 0.25",
        "motion.dense_motion.occlusion=false": "must be true, found false",
        "motion.generator.width=8": "must be 4, found 8",
        "motion.generator.num_down_blocks=2": "must be 1, found 2",
        "motion.generator.num_res_blocks=2": "must be 1, found 2",
    },
    PERTURBED_MASKS: {
        "masks.mask_generator.num_blocks=1": "must be 2, found 1",
        "masks.mask_generator.scale=0.25": "must be 0.5, found 0.25",
        "masks.refinement.width=8": "must be 4, found 8",
        "masks.high_resolution.num_blocks=1": "must be 2, found 1",
        "masks.low_resolution.num_res_blocks=2": "must be 1, found 2",
    },
    MONKEY_NET: {
        "motion.keypoint_detector.num_keypoints=5": "must be 4, found 5",
        "motion.keypoint_detector.num_blocks=1": "must be 2, found 1",
        "motion.keypoint_detector.width=8": "must be 4, found 8",
        "motion.dense_motion.num_blocks=1": "must be 2, found 1",
        "motion.dense_motion.width=8": "must be 4, found 8",
        "motion.dense_motion.max_width=16": "must be 8, found 16",
        "motion.dense_motion.use_difference=true": "must be false, found true",
        "motion.dense_motion.occlusion=true": "must be false, found true",
        "motion.generator.width=8": "must be 4, found 8",
        "motion.generator.max_width=8192": "must be 16, found 8192",
        "motion.generator.num_blocks=2": "must be 3, found 2",
        "motion.generator.num_res_blocks=2": "must be 1, found 2",
    },
    X2FACE: {
        "motion.embedding.width=8": "must be 4, found 8",
        "motion.embedding.max_width=16": "must be 8, found 16",
        "motion.embedding.num_levels=4": "must be 5, found 4",
        "motion.embedding.code=5": "must be 6, found 5",
        "motion.driving.width=8": "must be 4, found 8",
        "motion.driving.num_levels=5": "must be 4, found 5",
        "motion.driving.code=6": "must be 5, found 6",
    },
    TPSMM: {
        "motion.keypoint_detector.num_plates=3": "must be 2, found 3",
        "motion.dense_motion.num_blocks=1": "must be 2, found 1",
        "motion.dense_motion.width=8": "must be 4, found 8",
        "motion.dense_motion.scale=0.25": "must be 0.5, found 0.25",
        "motion.inpainting.width=8": "must be 4, found 8",
        "motion.inpainting.max_width=16": "must be 8, found 16",
        "motion.inpainting.num_down_blocks=3": "must be 2, found 3",
        "motion.background_motion=null": "must not be null, since the file holds it",
    },
}


@pytest.mark.parametrize(
    ("project", "override", "expected"),
    [(project, *found) for project, wrong in WRONG.items() for found in wrong.items()],
)
def test_wrong_config_names_the_key(files, project, override, expected):
    with pytest.raises(CheckpointError) as caught:
        files[project.name].load(override)
    assert str(caught.value) == (
        f"--config does not fit {files[project.name].path}: {override.split('=')[0]} {expected}; "
        f"give the config of its data set, such as --config {project.fitting}"
    )


def test_every_wrong_key_is_named(files):
    wrong = ("motion.embedding.width=8", "motion.embedding.code=5", "motion.driving.code=6")
    with pytest.raises(CheckpointError) as caught:
        files["X2Face"].load(*wrong)
    for override in wrong:
        assert override.split("=")[0] in str(caught.value)


@pytest.mark.parametrize(
    ("given", "held"),
    [(given, held) for given in OF_MOTION for held in OF_MOTION if given is not held],
    ids=lambda project: project.name,
)
def test_config_of_another_kind_is_one_line(files, given, held):
    with pytest.raises(CheckpointError) as caught:
        load(files[held.name].path, given.config())
    assert str(caught.value) == (
        f"--config does not fit {files[held.name].path}: motion.kind must be {held.kind}, found "
        f"{given.kind}; give the config of its data set, such as --config {held.fitting}"
    )
    with pytest.raises(CheckpointError) as caught:
        init_from(Model(given.config()).networks, files[held.name].path, given.config())
    assert str(caught.value) == (
        f"--init-from {files[held.name].path}: published by {held.name}: motion.kind must be "
        f"{held.kind}, found {given.kind}; give a config such as {held.fitting}"
    )


def test_a_kind_is_one_line_for_a_config_with_more_branches(files):
    with pytest.raises(CheckpointError, match=r"tar: motion.kind must be monkey_net, found fomm; "):
        load(files["Monkey-Net"].path, tiny_config())


def test_command_with_a_config_of_another_kind(files, tmp_path, capsys):
    config = tmp_path / "config.yaml"
    config.write_text(dump_config(FOMM.config()))
    arguments = ("--checkpoint", files["X2Face"].path, "--config", config)
    arguments += ("--source", "s.png", "--driving", "d.mp4", "--output", tmp_path / "o.mp4")
    assert call(animate, *arguments) == 2
    assert "motion.kind must be x2face, found fomm" in error_line(capsys, "animate.py")


@pytest.mark.parametrize("mode", ["shared", "none", "per_keypoint"])
def test_kinds_of_jacobians(tmp_path, mode):
    def config(mode: str) -> Config:
        jacobian = f"motion.keypoint_detector.jacobian={mode}"
        return FOMM.config(jacobian, "motion.losses.equivariance_jacobian=0")

    path = write(tmp_path / "c.pth.tar", FOMM.content(config(mode)))
    assert load(path, config(mode)).config == config(mode)
    other = config("none" if mode == "shared" else "shared")
    with pytest.raises(CheckpointError, match=f"keypoint_detector.jacobian must be {mode}, found"):
        load(path, other)


def test_one_keypoint_shares_with_nobody(tmp_path):
    one = "motion.keypoint_detector.num_keypoints=1"
    path = write(tmp_path / "c.pth.tar", FOMM.content(FOMM.config(one)))
    for mode in ("shared", "per_keypoint"):
        load(path, FOMM.config(one, f"motion.keypoint_detector.jacobian={mode}"))


def test_config_with_other_branches(files):
    path = files["FOMM"].path
    with pytest.raises(CheckpointError, match="motion is null, and the file holds this branch"):
        load(path, PERTURBED_MASKS.config())
    with pytest.raises(CheckpointError) as caught:
        load(path, tiny_config())
    assert "masks must be null, since the file holds motion; background must be null" in str(
        caught.value
    )


def test_what_no_key_says_is_found_when_the_networks_are_filled(files):
    """Whether channels were cut off at `max_width` shows only where they were."""
    saved = files["FOMM"].load("motion.dense_motion.max_width=8")
    with pytest.raises(CheckpointError, match="of another architecture: dense_motion"):
        load_model(saved, CPU)


@pytest.mark.parametrize(
    "name", ["vox-fomm", "mgif-fomm", "nemo-fomm", "fashion-fomm", "taichi-fomm", "bair-fomm"]
)
def test_shipped_configs_fit_files_of_full_size(name):
    """Published shapes, as the papers give them: nothing of the config needs a change."""
    config = load_config(name).model_copy(update={"discriminator": None})
    with torch.device("meta"):
        states = {
            network: module.state_dict() for network, module in Model(config).networks.items()
        }
    content = published_parts(states, fomm.PLACES)
    content["kp_detector"]["down.weight"] = blur(0.25)
    found = convert(content)
    assert found is not None
    assert problems(found, config) == []
    prefix = "motion.keypoint_detector"
    shared = name == "mgif-fomm"
    assert found.settings[f"{prefix}.jacobian"] == ("shared" if shared else "per_keypoint")
    assert found.settings[f"{prefix}.num_keypoints"] == 10
    assert found.settings[f"{prefix}.scale"] == 0.25
    assert found.settings["motion.dense_motion.width"] == 64
    assert found.settings["motion.dense_motion.max_width"] == 1024
    assert found.settings["motion.generator.num_res_blocks"] == 6


# Training


def test_training_starts_from_a_published_file(files, tmp_path, capsys):
    file = files["FOMM"]
    config, folder = tmp_path / "config.yaml", tmp_path / "run"
    config.write_text(dump_config(FOMM.config(f"run.output_dir={folder}", "train.max_steps=1")))
    arguments = ("--config", config, "train.learning_rate=0", "--init-from", file.path)
    assert call(train, *arguments) == 0
    (report,) = [line for line in capsys.readouterr().out.splitlines() if str(file.path) in line]
    assert report.endswith("tensors loaded")  # nothing missing, unused or of another shape
    assert [line["step"] for line in metrics(folder)] == [1]
    trained = load(folder / "checkpoints" / "step-00000001.pt").networks
    weight = Model(file.config).state()["generator"]["final.weight"]
    assert torch.equal(trained["generator"]["final.weight"], weight)


def test_unused_tensors_are_named_by_their_names_in_the_file(files):
    config = PERTURBED_MASKS.config()
    report = init_from(Model(config).networks, files["Perturbed Masks"].path, config)
    assert (report.missing, report.reshaped) == ([], [])
    assert report.unused == ["generator.down_blocks.0.conv.weight"]


def test_a_published_file_is_not_resumed(file, tmp_path, capsys):
    config = tmp_path / "config.yaml"
    config.write_text(dump_config(file.config))
    assert call(train, "--config", config, "--resume", file.path) == 2
    assert "cannot be resumed; start a new run from it with --init-from" in error_line(
        capsys, "train.py"
    )


# Files that were made to do harm


SPOILED = {
    FOMM: ("kp_detector", "kp.weight"),
    PERTURBED_MASKS: ("generator", "final.weight"),
    MONKEY_NET: ("generator", "refinement_module.conv-last.weight"),
    X2FACE: ("state_dict", "pix2pixSampler.netG.model.down.0.weight"),
    TPSMM: ("dense_motion_network", "maps.weight"),
}


def slim_content(project: Project) -> dict:
    """Without the large networks of TPSMM, which no check needs."""
    content = project.content(project.config())
    for part in ("kp_detector", "bg_predictor"):
        if project is TPSMM:
            content[part] = {"fc.bias": torch.zeros(20)}
    return content


BAD_TENSORS = {
    "scalar": lambda: torch.zeros(()),
    "csr": lambda: torch.zeros(2, 2).to_sparse_csr(),
    "sparse": lambda: torch.zeros(2, 2).to_sparse(),
    "complex": lambda: torch.zeros(2, 2, dtype=torch.complex64),
    "repeated": lambda: torch.zeros(1).expand(10**9, 3, 3, 3),
    "number": lambda: 3,
}


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("tensor", BAD_TENSORS)
@pytest.mark.parametrize("project", PROJECTS, ids=lambda project: project.name)
def test_tensors_of_other_kinds(tmp_path, project, tensor):
    content = slim_content(project)
    part, name = SPOILED[project]
    content[part][name] = BAD_TENSORS[tensor]()
    path = write(tmp_path / "c.pth.tar", content)
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        load_model(load(path, project.config()), CPU)


@pytest.mark.parametrize("project", [FOMM, TPSMM])
def test_a_kernel_without_a_size(tmp_path, project):
    content = slim_content(project)
    content["dense_motion_network" if project is TPSMM else "kp_detector"]["down.weight"] = (
        torch.zeros(())
    )
    path = write(tmp_path / "c.pth.tar", content)
    with pytest.raises(CheckpointError, match="its tensors are of other kinds and shapes"):
        load(path, project.config())


@pytest.mark.parametrize("project", PROJECTS, ids=lambda project: project.name)
def test_names_that_are_no_text(tmp_path, project):
    content = slim_content(project)
    content[SPOILED[project][0]][3] = torch.zeros(1)
    path = write(tmp_path / "c.pth.tar", content)
    if project is X2FACE:
        assert "state_dict.3" in load(path, project.config()).report.unused
        return
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        load(path, project.config())


def test_nesting_without_end(tmp_path):
    """A name that is 100,000 levels deep costs nothing."""
    content = X2FACE.content(X2FACE.config())
    name = f"pix2pixSampler.netG.model{'.submodule' * 10**5}.down.1.weight"
    content["state_dict"][name] = torch.zeros(1)
    path = write(tmp_path / "c.pth.tar", content)
    with pytest.raises(CheckpointError):
        load_model(load(path, X2FACE.config()), CPU)
