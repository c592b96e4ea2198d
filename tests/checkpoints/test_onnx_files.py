"""ONNX files replace no file of somebody else, and are written all or not at all."""

import pytest

from branches.model import Model
from checkpoints import onnx_files
from checkpoints.onnx_files import files_to_write, write_onnx
from common.errors import UserError
from tests.helpers.lively import kind_config

SIZE = (32, 32)


def branch(*overrides):
    config = kind_config(
        "monkey_net", "data.image_size=32", "masks=null", "background=null", *overrides
    )
    return Model(config).motion.eval()


@pytest.mark.parametrize("content", [b"mine", b""])
def test_a_file_that_is_no_network_is_not_replaced(tmp_path, content):
    pytest.importorskip("onnx")
    (tmp_path / "generator.onnx").write_bytes(content)
    with pytest.raises(UserError, match=r"would replace .*generator.onnx, which no export"):
        files_to_write(branch(), SIZE, tmp_path)
    assert (tmp_path / "generator.onnx").read_bytes() == content


def test_networks_of_such_a_model_alone_are_replaced(tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    write_onnx(files_to_write(branch(), SIZE, tmp_path))
    assert len(files_to_write(branch(), SIZE, tmp_path)) == 3
    with pytest.raises(UserError, match=r"would replace .*dense_motion.onnx"):
        files_to_write(branch("motion.dense_motion.occlusion=true"), SIZE, tmp_path)


def test_all_files_are_written_or_none(tmp_path, monkeypatch):
    files = files_to_write(branch(), SIZE, tmp_path)
    for path in files:
        path.write_bytes(b"earlier")

    def write(exported, path):
        if exported.name == "generator":
            raise OSError(28, "No space left on device")
        path.write_bytes(b"new")

    monkeypatch.setattr(onnx_files, "_write", write)
    with pytest.raises(UserError, match=r"cannot be written .No space"):
        write_onnx(files)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"earlier"] * 3


def test_a_large_file_is_not_read(tmp_path, monkeypatch):
    """One of all sizes could be at that place."""
    onnx = pytest.importorskip("onnx")
    monkeypatch.setattr(onnx, "load_model_from_string", lambda _: pytest.fail("it is read"))
    with (tmp_path / "generator.onnx").open("wb") as file:
        file.truncate(2**31)
    with pytest.raises(UserError, match=r"would replace .*generator.onnx, which no export"):
        files_to_write(branch(), SIZE, tmp_path)


def test_a_link_is_not_replaced(tmp_path):
    (tmp_path / "generator.onnx").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"generator.onnx: is a link, and nothing is written"):
        files_to_write(branch(), SIZE, tmp_path)
