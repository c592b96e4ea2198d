"""Published files that are damaged, or were made to do harm, are refused in one line."""

import pickle
import re
from functools import partial
from pathlib import Path

import pytest
import torch

from checkpoints.checkpoint import load
from checkpoints.weights import load_model
from common.tensor_files import CheckpointError
from tests.helpers.old_torch_files import write_old_file
from tests.helpers.published_files import (
    FOMM,
    MONKEY_NET,
    PERTURBED_MASKS,
    PROJECTS,
    TPSMM,
    X2FACE,
    Project,
    write,
)

CPU = torch.device("cpu")


class Code:
    """An object that writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


FORMATS = {
    "torch 0.2": write_old_file,
    "torch 1.0": write,
    "torch 1.6": partial(write, as_zip=True),
}


@pytest.mark.parametrize("written_by", FORMATS)
@pytest.mark.parametrize("project", [FOMM, MONKEY_NET, X2FACE])
def test_code_in_a_file_is_not_run(tmp_path, project, written_by):
    config, mark = project.config(), tmp_path / "mark"
    content = project.content(config) | {"epoch": Code(mark)}
    path = FORMATS[written_by](tmp_path / "c.pth.tar", content)
    with pytest.raises(CheckpointError, match="holds pickled code, which is not run"):
        load(path, config)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Code(mark)))
    assert mark.exists()  # a plain reader runs it


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_truncated_file(tmp_path, file, share):
    path = tmp_path / "c.pth.tar"
    with file.path.open("rb") as whole:
        path.write_bytes(whole.read(int(share * file.path.stat().st_size)))
    with pytest.raises(CheckpointError, match="damaged or truncated"):
        load(path, file.config)
    path.unlink()


SPOILED = {  # the part and the name of the tensor that the tests replace
    FOMM: ("kp_detector", "kp.weight"),
    PERTURBED_MASKS: ("generator", "final.weight"),
    MONKEY_NET: ("generator", "refinement_module.conv-last.weight"),
    X2FACE: ("state_dict", "pix2pixSampler.netG.model.down.0.weight"),
    TPSMM: ("dense_motion_network", "maps.weight"),
}


def slim_content(project: Project) -> dict:
    """The content of a file, without the large networks of TPSMM, which no check needs."""
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
def test_names_that_are_not_text(tmp_path, project):
    content = slim_content(project)
    content[SPOILED[project][0]][3] = torch.zeros(1)
    path = write(tmp_path / "c.pth.tar", content)
    if project is X2FACE:
        assert "state_dict.3" in load(path, project.config()).report.unused
        return
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        load(path, project.config())


def test_a_name_with_100_000_levels(tmp_path):
    """The levels are only counted, so they take neither time nor memory."""
    content = X2FACE.content(X2FACE.config())
    name = f"pix2pixSampler.netG.model{'.submodule' * 10**5}.down.1.weight"
    content["state_dict"][name] = torch.zeros(1)
    path = write(tmp_path / "c.pth.tar", content)
    with pytest.raises(CheckpointError):
        load_model(load(path, X2FACE.config()), CPU)
