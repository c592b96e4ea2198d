"""VGG features against torchvision's networks with the same random weights."""

import pytest
import torch
import torchvision
from torch import nn
from torch.testing import assert_close

from modules.vgg import VGGFeatures, relu_layers

# Index of the ReLU in torchvision's `features`.
RELUS = {
    "vgg16": {"relu1_1": 1, "relu2_1": 6, "relu3_1": 11, "relu4_1": 18, "relu5_1": 25},
    "vgg19": {"relu1_1": 1, "relu2_1": 6, "relu3_1": 11, "relu4_1": 20, "relu5_1": 29},
}


@torch.no_grad()
@pytest.mark.parametrize("network", ["vgg16", "vgg19"])
def test_features_equal_torchvision(network):
    # The classifier's 120 million weights are not needed: meta tensors take no time.
    with torch.device("meta"):
        reference = getattr(torchvision.models, network)(weights=None).features
    reference = reference.to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(0)
    for tensor in reference.parameters():
        fan_in = tensor[0].numel()
        tensor.copy_((2 / fan_in) ** 0.5 * torch.randn(tensor.shape, generator=generator))
    relus = RELUS[network]
    vgg = VGGFeatures(network, relus)
    vgg.convs.load_state_dict(
        {name: reference.state_dict()[name] for name in vgg.convs.state_dict()}
    )
    image = torch.rand(1, 3, 32, 48)
    features = vgg(image)
    assert set(features) == set(relus)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (image - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    for index, layer in enumerate(reference):
        x = layer(x)
        for name in (name for name, relu in relus.items() if relu == index):
            assert_close(features[name], x.clone(), atol=1e-4, rtol=1e-4)


def test_layer_names():
    assert relu_layers("vgg16")[-3:] == ["relu5_1", "relu5_2", "relu5_3"]
    assert relu_layers("vgg19")[-1] == "relu5_4"
    assert (len(relu_layers("vgg16")), len(relu_layers("vgg19"))) == (13, 16)


def test_there_are_no_layers_beyond_the_deepest_one():
    vgg = VGGFeatures("vgg19", ["relu2_1", "relu1_1"], width=4)
    assert list(vgg.convs) == ["0", "2", "5"]
    features = vgg(torch.rand(2, 3, 16, 16))
    assert {name: tuple(map_.shape) for name, map_ in features.items()} == {
        "relu1_1": (2, 4, 16, 16),
        "relu2_1": (2, 8, 8, 8),
    }


def test_weights_are_frozen_but_gradients_pass():
    vgg = VGGFeatures("vgg16", ["relu1_2"], width=4)
    assert not any(p.requires_grad for p in vgg.parameters())
    image = torch.rand(1, 3, 8, 8, requires_grad=True)
    vgg(image)["relu1_2"].sum().backward()
    assert image.grad.abs().max() > 0
    assert isinstance(vgg.convs["0"], nn.Conv2d)
