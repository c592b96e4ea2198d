"""Extractors of features: TorchScript files, torchvision's networks, and files that are neither."""

import hashlib
import os
import zipfile
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import Inception_V3_Weights
from torchvision.models.video import R3D_18_Weights

from common.errors import UserError
from metrics import extractors
from metrics.extractors import (
    TORCHVISION,
    ScriptExtractor,
    TorchvisionExtractor,
    build_extractor,
)
from tests.helpers.script_files import (
    FloatMeans,
    MeanColours,
    Pair,
    Returns,
    Switched,
    write_script,
)

CPU = torch.device("cpu")
FRAMES = torch.arange(2 * 3 * 4 * 6, dtype=torch.uint8).view(2, 3, 4, 6)


def test_features_of_a_file(tmp_path):
    path = write_script(tmp_path / "means.pt", MeanColours())
    extractor = build_extractor(str(path), "fid", CPU)
    np.testing.assert_array_equal(extractor(FRAMES), FRAMES.double().mean(dim=(2, 3)).numpy())
    assert extractor(FRAMES).dtype == np.float64
    clips = FRAMES.unsqueeze(2).expand(-1, -1, 5, -1, -1)
    np.testing.assert_array_equal(extractor(clips), extractor(FRAMES))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert extractor.sha256 == digest
    assert extractor.description.weights == f"sha256 {digest}"
    assert "called with" not in extractor.description.convention


def test_switches_of_the_fields_files_are_turned_on(tmp_path):
    """Features of shape B x D x 1 x 1, as after pooling, are B x D."""
    path = write_script(tmp_path / "switched.pt", Switched())
    extractor = build_extractor(str(path), "fvd", CPU)
    expected = FRAMES.double().mean(dim=(2, 3)).numpy() / 255
    np.testing.assert_allclose(extractor(FRAMES), expected)
    assert (
        "called with rescale=True, resize=True, return_features=True"
        in extractor.description.convention
    )


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (Returns("map"), "returns 2 x 3 x 4 x 6 for images of 2 x 3 x 4 x 6; must return one row"),
        (Returns("row"), "returns 1 for images of 2 x 3 x 4 x 6; must return one row"),
        (Returns("nan"), "returns numbers that are not finite"),
        (Returns("wide"), "returns 10000 features; at most 8192 are taken"),
        (
            Returns("error"),
            "refuses images of 2 x 3 x 4 x 6 from 0 to 255 .*these images are too small",
        ),
        (Pair(), "returns a tuple; must return one tensor"),
    ],
)
def test_networks_that_return_something_else(tmp_path, network, expected):
    path = write_script(tmp_path / "wrong.pt", network)
    extractor = build_extractor(str(path), "fid", CPU)
    with pytest.raises(UserError, match=expected) as caught:
        extractor(FRAMES)
    assert f"--fid {path}: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_network_that_wants_floats(tmp_path):
    """The mean of uint8 is an error in torch: it gets the same numbers as float32."""
    path = write_script(tmp_path / "floats.pt", FloatMeans())
    extractor = build_extractor(str(path), "fvd", CPU)
    for _ in range(2):
        np.testing.assert_allclose(extractor(FRAMES), FRAMES.double().mean(dim=(2, 3)), rtol=1e-6)


def test_lack_of_memory_is_not_the_files_fault(tmp_path, monkeypatch):
    extractor = build_extractor(str(write_script(tmp_path / "a.pt", MeanColours())), "fid", CPU)

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(extractor, "_network", full)
    with pytest.raises(torch.OutOfMemoryError):
        extractor(FRAMES)


def test_files_that_are_no_torchscript(tmp_path):
    files = {name: tmp_path / f"{name}.pt" for name in ("state", "text", "cut", "empty", "none")}
    torch.save(nn.Linear(2, 2).state_dict(), files["state"])
    files["text"].write_text("hello")
    whole = write_script(tmp_path / "whole.pt", MeanColours()).read_bytes()
    files["cut"].write_bytes(whole[: len(whole) // 2])
    files["empty"].write_bytes(b"")
    expected = {
        "state": "not TorchScript; a file of tensors alone does not say which network",
        "text": "not TorchScript",
        "cut": "damaged or truncated",
        "empty": "not TorchScript",
        "none": "no such file; the field's is I3D",
    }
    for name, path in files.items():
        with pytest.raises(UserError) as caught:
            build_extractor(str(path), "fvd", CPU)
        assert str(caught.value).startswith(f"--fvd {path}: {expected[name]}")
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="cannot be read"):
        build_extractor(str(tmp_path), "fid", CPU)


@pytest.mark.parametrize(("place", "byte"), [(6, 200), (46, 0xFF)], ids=["version", "name"])
def test_a_list_of_records_of_another_kind(tmp_path, place, byte):
    """A version of zip that is not known, and a name that is not the UTF-8 that it states."""
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/constants.pkl", b"")
    content = bytearray(path.read_bytes())
    record = content.rindex(b"PK\1\2")
    content[record + 9] |= 8  # the name is in UTF-8
    content[record + place] = byte
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"--fid .*a\.pt: damaged or truncated; fetch it again"):
        build_extractor(str(path), "fid", CPU)


def test_a_torchscript_file_with_damaged_code(tmp_path):
    """Whatever the reader raises is one line."""
    with zipfile.ZipFile(tmp_path / "bad.pt", "w") as archive:
        archive.writestr("bad/constants.pkl", b"hello")
    with pytest.raises(UserError, match=r"bad\.pt: cannot be read as TorchScript: ") as caught:
        build_extractor(str(tmp_path / "bad.pt"), "fid", CPU)
    assert "\n" not in str(caught.value)


def test_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(UserError, match=r"--fid .*pipe\.pt: is not a plain file"):
        build_extractor(str(tmp_path / "pipe.pt"), "fid", CPU)


# torchvision


def tiny(kind):
    """A network with a last layer `fc`; before it are the means of the channels."""
    network = nn.Sequential()
    pool = nn.AdaptiveAvgPool2d(1) if kind == "fid" else nn.AdaptiveAvgPool3d(1)
    network.append(pool).append(nn.Flatten(1))
    network.add_module("fc", nn.Linear(3, 10))
    return network


def test_frames_are_resized_and_normalized():
    """The means of the channels, after halving: (x / 255 - mean) / std."""
    extractor = TorchvisionExtractor(
        "tiny", tiny("fid"), size=(2, 3), mean=[0.5, 0.25, 0.0], std=[0.5, 0.25, 2.0],
        data="nothing", sha256="0" * 64, device=CPU,
    )  # fmt: skip
    frames = torch.tensor([51, 102, 255], dtype=torch.uint8).view(1, 3, 1, 1).expand(2, 3, 4, 6)
    expected = [[(0.2 - 0.5) / 0.5, (0.4 - 0.25) / 0.25, 1 / 2]] * 2
    np.testing.assert_allclose(extractor(frames), expected, rtol=1e-5)
    assert "frames resized to 3 x 2" in extractor.description.convention


def test_each_frame_of_a_clip_is_resized_by_itself():
    seen = []
    network = tiny("fvd")
    network[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    extractor = TorchvisionExtractor(
        "tiny", network, size=(2, 2), mean=[0.0] * 3, std=[1.0] * 3,
        data="nothing", sha256="0" * 64, device=CPU,
    )  # fmt: skip
    clips = torch.randint(0, 256, (2, 3, 5, 4, 4), dtype=torch.uint8)
    assert extractor(clips).shape == (2, 3)
    (inputs,) = seen
    assert inputs.shape == (2, 3, 5, 2, 2)
    for clip, frame in ((0, 0), (1, 4)):
        expected = F.interpolate(
            clips[clip, :, frame][None].float() / 255, size=(2, 2), mode="bilinear", antialias=True
        )
        torch.testing.assert_close(inputs[clip, :, frame], expected[0])


@pytest.mark.parametrize(
    ("metric", "name"), [(m, n) for m, names in TORCHVISION.items() for n in names]
)
def test_torchvisions_networks_untrained(tmp_path, monkeypatch, metric, name):
    """With random weights in place of the published ones: shapes, sizes and the weights' hash."""
    entry = TORCHVISION[metric][name]
    torch.manual_seed(0)
    path = tmp_path / "weights.pth"
    torch.save(entry.build().state_dict(), path)
    monkeypatch.setattr(
        extractors, "downloaded", lambda url: path if url == entry.weights.url else None
    )
    extractor = build_extractor(name, metric, CPU)
    assert extractor.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    shape = (2, 3, 32, 40) if metric == "fid" else (2, 3, 8, 32, 40)
    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    with torch.inference_mode():
        found = extractor(images)
    assert found.shape == (2, 2048 if metric == "fid" else 512)
    assert np.abs(found[0] - found[1]).max() > 0
    side = 299 if metric == "fid" else 112
    assert f"resized to {side} x {side}" in extractor.description.convention


def test_inception_gets_what_torchvisions_own_transform_gives(tmp_path, monkeypatch):
    """torchvision normalizes by ImageNet's colours, which the network then undoes."""
    entry = TORCHVISION["fid"]["inception_v3"]
    torch.manual_seed(0)
    torch.save(entry.build().state_dict(), tmp_path / "weights.pth")
    monkeypatch.setattr(extractors, "downloaded", lambda _: tmp_path / "weights.pth")
    extractor = build_extractor("inception_v3", "fid", CPU)
    reference = entry.build()
    reference.load_state_dict(torch.load(tmp_path / "weights.pth"))
    reference.transform_input = True
    reference.fc = nn.Identity()
    images = torch.randint(0, 256, (1, 3, 299, 299), dtype=torch.uint8)
    transforms = Inception_V3_Weights.IMAGENET1K_V1.transforms()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (transforms.mean, transforms.std))
    with torch.inference_mode():
        expected = reference.eval()((images / 255 - mean) / std)
        np.testing.assert_allclose(extractor(images), expected, rtol=1e-3, atol=1e-4)


def test_videos_are_normalized_as_torchvision_does(tmp_path, monkeypatch):
    entry = TORCHVISION["fvd"]["r3d_18"]
    torch.save(entry.build().state_dict(), tmp_path / "weights.pth")
    monkeypatch.setattr(extractors, "downloaded", lambda _: tmp_path / "weights.pth")
    extractor = build_extractor("r3d_18", "fvd", CPU)
    seen = []
    extractor._network.stem.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    clip = torch.randint(0, 256, (1, 3, 4, 112, 112), dtype=torch.uint8)
    with torch.inference_mode():
        extractor(clip)
    transform = R3D_18_Weights.KINETICS400_V1.transforms(resize_size=(112, 112))
    torch.testing.assert_close(seen[0], transform(clip.transpose(1, 2)))


def test_a_file_does_not_take_the_place_of_a_network(tmp_path, monkeypatch):
    """Its program would run, though the user named no file."""
    torch.save(TORCHVISION["fvd"]["r3d_18"].build().state_dict(), tmp_path / "weights.pth")
    monkeypatch.setattr(extractors, "downloaded", lambda _: tmp_path / "weights.pth")
    monkeypatch.chdir(tmp_path)
    write_script(tmp_path / "r3d_18", MeanColours())
    assert isinstance(build_extractor("r3d_18", "fvd", CPU), TorchvisionExtractor)
    assert isinstance(build_extractor("./r3d_18", "fvd", CPU), ScriptExtractor)
    with pytest.raises(UserError, match=r"--fid r3d_18: .* must be given as \./r3d_18"):
        build_extractor("r3d_18", "fid", CPU)


def test_a_failed_download_is_one_line(tmp_path, monkeypatch):
    def fail(*_):
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(UserError, match=r"--fid inception_v3: .*could not be downloaded"):
        build_extractor("inception_v3", "fid", CPU)
