"""benchmarks/ablation.py: files of earlier runs that cannot be used, and names of folders."""

import json
import shutil

import pytest

from benchmarks import ablation
from tests.helpers.factories import tiny_overrides
from tests.helpers.runs import call, error_line, step_file

SMALL = (*tiny_overrides(), "masks=null", "background=null", "train.checkpoint_every=2")
BASIC = ("--config", "demo.yaml", *SMALL, "--steps", 2, "--num-frames", 3)
COMMAND = (*BASIC, "--rows", "fomm", "--seeds", 0, "--output")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    output = tmp_path_factory.mktemp("ablation")
    assert call(ablation, *COMMAND, output) == 0
    return output


@pytest.mark.parametrize("note", ["init_from.json", None])
def test_runs_from_other_weights_are_not_mixed(finished, tmp_path, capsys, note):
    """Else finished runs would be reported as if they had started from the base.

    note: what tells; earlier versions have only the report.
    """
    output, base = tmp_path / "copy", step_file(finished / "fomm-0", 2)
    shutil.copytree(finished, output)
    if note is None:
        (output / "init_from.json").unlink()
    before = (output / "ablation.json").read_bytes()
    assert call(ablation, *COMMAND, output, "--init-from", base) == 2
    line = error_line(capsys, "python -m benchmarks.ablation")
    assert f"{output / (note or 'ablation.json')}: the runs here started from other weights" in line
    assert (output / "ablation.json").read_bytes() == before
    assert call(ablation, *COMMAND, output) == 0


def test_a_base_that_cannot_be_read(tmp_path, capsys):
    assert call(ablation, *COMMAND, tmp_path, "--init-from", tmp_path / "missing.pt") == 2
    line = error_line(capsys, "python -m benchmarks.ablation")
    assert "missing.pt: cannot be read (No such file" in line


@pytest.mark.parametrize("content", ["{", "[1]", "3"])
def test_a_note_that_no_run_wrote(tmp_path, capsys, content):
    (tmp_path / "init_from.json").write_text(content)
    assert call(ablation, *COMMAND, tmp_path) == 2
    line = error_line(capsys, "python -m benchmarks.ablation")
    assert "init_from.json: not as this program wrote it" in line
    assert (tmp_path / "init_from.json").read_text() == content


@pytest.mark.parametrize("damage", [["a", "a"], [1.0], 5, None, [True, True]])
def test_scores_that_cannot_be_right(finished, tmp_path, capsys, damage):
    output = tmp_path / "copy"
    shutil.copytree(finished, output)
    path = output / "fomm-0" / "ablation.json"
    found = json.loads(path.read_text())
    found["scores"]["l1"] = damage
    if damage is None:
        del found["scores"]["l1"]
    path.write_text(json.dumps(found))
    assert call(ablation, *COMMAND, output) == 2
    assert f"{path}: not as this program wrote it; remove it" in capsys.readouterr().err


def test_a_folder_with_an_emoji_in_its_name(tmp_path):
    output = tmp_path / "\N{GRINNING FACE}"
    planned = ablation.plan_run("demo.yaml", SMALL, "fomm", 0, 4, output)
    assert planned.config.run.output_dir == str(output / "fomm-0")


@pytest.mark.parametrize("name", ["init_from.json", "ablation.json"])
@pytest.mark.parametrize("content", ['{"mine": "text"}', '{"mine": 1}', '"mine"', "text"])
def test_files_of_somebody_else_stay(tmp_path, capsys, name, content):
    (tmp_path / name).write_text(content)
    assert call(ablation, *COMMAND, tmp_path) == 2
    line = error_line(capsys, "python -m benchmarks.ablation")
    assert f"{tmp_path / name}: not as this program wrote it; choose another folder" in line
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == content


@pytest.mark.parametrize("name", ["init_from.json", "ablation.json", "fomm-0/ablation.json"])
def test_a_folder_in_place_of_a_file_is_one_line(finished, tmp_path, capsys, name):
    output = tmp_path / "copy"
    shutil.copytree(finished, output)
    (output / name).unlink()
    (output / name).mkdir()
    assert call(ablation, *COMMAND, output) == 2
    assert f"{output / name}: not as this program wrote it" in capsys.readouterr().err


@pytest.mark.parametrize("is_file", [True, False])
def test_an_output_that_cannot_be_a_folder(tmp_path, capsys, is_file):
    output = tmp_path / ("f" if is_file else "f" * 300)
    if is_file:
        output.touch()
    assert call(ablation, *COMMAND, output) == 2
    line = error_line(capsys, "python -m benchmarks.ablation")
    assert ("is a file; give a folder" if is_file else "File name too long") in line


def test_the_checkpoint_of_another_row_is_not_measured(finished, tmp_path, capsys):
    """It has the name of the last one, so that the run would count as finished."""
    path = step_file(tmp_path / "unet-0", 2)
    path.parent.mkdir(parents=True)
    shutil.copy(step_file(finished / "fomm-0", 2), path)
    assert call(ablation, *BASIC, "--rows", "unet", "--seeds", 0, "--output", tmp_path) == 2
    line = error_line(capsys, "python -m benchmarks.ablation")
    assert f"{path}: another config than asked for: discriminator: found None" in line


def test_the_checkpoint_of_another_run_is_not_measured(finished, tmp_path, capsys):
    """It may have begun from other weights, which its config does not tell."""
    path = step_file(tmp_path / "fomm-0", 2)
    path.parent.mkdir(parents=True)
    shutil.copy(step_file(finished / "fomm-0", 2), path)
    assert call(ablation, *COMMAND, tmp_path) == 2
    line = error_line(capsys, "python -m benchmarks.ablation")
    assert f"{path}: a checkpoint of another step or run than that of {tmp_path / 'fomm-0'}" in line


def test_scores_of_an_earlier_run_in_the_folder_are_not_taken(finished, tmp_path):
    """As after all but the report was removed, to train once more."""
    output = tmp_path / "copy"
    path = output / "fomm-0" / "ablation.json"
    path.parent.mkdir(parents=True)
    found = json.loads((finished / "fomm-0" / "ablation.json").read_text())
    found["scores"]["l1"] = [9.0, 9.0]
    path.write_text(json.dumps(found))
    assert call(ablation, *COMMAND, output) == 0
    assert json.loads(path.read_text())["scores"]["l1"] != [9.0, 9.0]
