"""The notebook: run with tiny networks, and kept without outputs."""

import base64
import re

import pytest

pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
pytest.importorskip("matplotlib")

import nbclient
import nbformat

from media.video import open_clip
from tests.helpers.factories import tiny_overrides
from tests.helpers.runs import PATIENCE, REPOSITORY

NOTEBOOK = REPOSITORY / "notebooks/quick_start.ipynb"

pytestmark = pytest.mark.xdist_group("notebook")


def read():
    return nbformat.read(NOTEBOOK, nbformat.NO_CONVERT)


def test_outputs_are_not_kept():
    notebook = read()
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None), cell.source


def test_it_trains_as_long_as_the_demo():
    (parameters,) = [cell for cell in read().cells if "parameters" in cell.metadata.get("tags", [])]
    assert "STEPS = 600\n" in parameters.source


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The notebook after it was run, and the folder of its run."""
    folder = tmp_path_factory.mktemp("notebook") / "run"
    notebook = read()
    (parameters,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    overrides = tiny_overrides()
    parameters.source = f"STEPS = 4\nRUN = Path({str(folder)!r})\nOVERRIDES = {overrides!r}"
    place = {"metadata": {"path": str(NOTEBOOK.parent)}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        nbclient.NotebookClient(
            notebook, timeout=PATIENCE, kernel_name="python3", resources=place
        ).execute()
    return notebook, folder


def outputs(notebook, words):
    """The outputs of the cell whose code has these words."""
    (cell,) = [c for c in notebook.cells if c.cell_type == "code" and words in c.source]
    return cell.outputs


def printed(found):
    return "".join(output.text for output in found if output.output_type == "stream")


def num_pictures(found):
    return sum("image/png" in output.get("data", {}) for output in found)


def test_what_it_shows(ran):
    notebook, folder = ran
    assert "2 clips for testing, the first with 4 frames" in printed(outputs(notebook, "show({f"))
    assert "$ python train.py --config demo.yaml" in printed(outputs(notebook, '"train.py"'))
    assert (folder / "checkpoints/step-00000004.pt").exists()
    for words in ("show({f", "panels = {", 'show({"clip"'):
        assert num_pictures(outputs(notebook, words)) == 1, words
    numbers = printed(outputs(notebook, '"reconstruct.py"'))
    assert len(re.findall(r"^\w+ +0\.\d{4}   repeating the source: 0\.\d{4}$", numbers, re.M)) == 3


@pytest.mark.parametrize(("name", "columns"), [("animated.mp4", 3), ("swapped.mp4", 4)])
def test_the_animations_are_inside(ran, tmp_path, name, columns):
    """The videos are part of the page, whole, and have their columns side by side."""
    notebook, folder = ran
    (output,) = [o for o in outputs(notebook, f'play("{name}"') if "data" in o]
    (content,) = re.findall(r'src="data:video/mp4;base64,([^"]+)"', output.data["text/html"])
    path = tmp_path / "inside.mp4"
    path.write_bytes(base64.b64decode(content))
    assert path.read_bytes() == (folder / name).read_bytes()
    clip = open_clip(path)
    assert (clip.num_frames, clip.size) == (4, (32, 32 * columns))
