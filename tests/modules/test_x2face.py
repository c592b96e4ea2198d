"""X2Face: the U-Net, the two fields, the weighted mean and what their composition means."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from modules.geometry import coordinate_grid, warp
from modules.x2face import (
    DrivingNetwork,
    EmbeddingNetwork,
    UNet,
    UNetDownBlock,
    UNetUpBlock,
    check_size,
    compose_fields,
    initialize,
    sample_face,
)

EXACT = {"atol": 1e-6, "rtol": 0.0}


def build(num_levels=3):
    """The embedding network and the driving network."""
    torch.manual_seed(0)
    return EmbeddingNetwork(4, 8, num_levels, 6), DrivingNetwork(4, 8, num_levels, 5)


def u_net(*, skips, num_levels=3):
    torch.manual_seed(0)
    return UNet(4, 8, num_levels, code_size=5, out_channels=2, skips=skips).eval()


class Raw(nn.Module):
    """Instead of a U-Net: the same numbers at each pixel, for each frame or for all."""

    def __init__(self, *values):
        super().__init__()
        self.values = torch.tensor(values)

    def forward(self, image):
        return self.values[:, :, None, None].expand(len(image), -1, *image.shape[-2:])


def embedding(*values):
    """An embedding network that gives (x, y, c) for each frame."""
    network = EmbeddingNetwork(4, 8, 2, 5)
    network.unet = Raw(*values)
    return network


def driving(*values):
    network = DrivingNetwork(4, 8, 2, 5)
    network.unet = Raw(*values)
    return network


def ramp(height, width):
    """An image whose first channel is x and second y, both scaled to [0, 1]."""
    grid = coordinate_grid(height, width, torch.empty(0)).permute(2, 0, 1)
    return torch.cat((grid, torch.zeros(1, height, width))).add(1).div(2).unsqueeze(0)


# The U-Net


@pytest.mark.parametrize("skips", [False, True])
def test_channels_of_each_level(skips):
    network = UNet(4, 16, 5, code_size=6, out_channels=2, skips=skips)
    down = [(b.conv.in_channels, b.conv.out_channels) for b in network.down_blocks]
    up = [(b.conv.in_channels, b.conv.out_channels) for b in network.up_blocks]
    assert down == [(3, 4), (4, 8), (8, 16), (16, 16), (16, 6)]
    double = 2 if skips else 1
    joined = [(16, 16), (16, 8), (8, 4), (4, 2)]
    assert up == [(6, 16), *((double * a, b) for a, b in joined)]
    assert [b.norm is not None for b in network.down_blocks] == [False, True, True, True, False]
    assert [b.norm is not None for b in network.up_blocks] == [True, True, True, True, False]
    assert not any(name.endswith("conv.bias") for name, _ in network.named_parameters())


@torch.no_grad()
@pytest.mark.parametrize(
    ("height", "width", "num_levels"), [(8, 8, 3), (16, 8, 3), (2, 2, 1), (8, 8, 2)]
)
def test_sizes(height, width, num_levels):
    network = u_net(skips=True, num_levels=num_levels)
    image = torch.rand(2, 3, height, width)
    shapes = [tuple(m.shape[-2:]) for m in network.encode(image)]
    assert shapes == [(height >> i, width >> i) for i in range(1, num_levels + 1)]
    assert network(image).shape == (2, 2, height, width)


@pytest.mark.parametrize("size", [(48, 64), (64, 96), (32, 64), (0, 64), (63, 63)])
def test_other_sizes_are_an_error_in_one_line(size):
    with pytest.raises(ValueError, match=f"^an image of {size[0]} x {size[1]}: X2Face of 6 lev"):
        check_size(*size, 6)
    check_size(64, 128, 6)
    image = torch.rand(1, 3, *size)
    for kind, frames in ((EmbeddingNetwork, image[:, None]), (DrivingNetwork, image)):
        with pytest.raises(ValueError, match="power of two and at least 64") as caught:
            kind(2, 2, 6, 2)(frames)
        assert "\n" not in str(caught.value)


@torch.no_grad()
def test_down_block_by_hand():
    """A kernel of ones sums the 2 x 2 pixels; the others are padding."""
    image = torch.tensor([[[[-1.0, 2.0], [-3.0, 4.0]]]])
    for activation, expected in ((False, 2.0), (True, 6 - 0.2 * 4)):
        block = UNetDownBlock(1, 1, activation=activation, norm=False)
        block.conv.weight.fill_(1)
        assert_close(block(image), torch.full((1, 1, 1, 1), expected), **EXACT)


@torch.no_grad()
def test_up_block_by_hand():
    """The corners stay where they are: 0, 3 becomes 0, 1, 2, 3."""
    block = UNetUpBlock(1, 1, norm=False)
    block.conv.weight.zero_()
    block.conv.weight[0, 0, 1, 1] = 1
    found = block(torch.tensor([[[[-5.0, 3.0], [6.0, 3.0]]]]))
    expected = [[0, 1, 2, 3], [2, 7 / 3, 8 / 3, 3], [4, 11 / 3, 10 / 3, 3], [6, 5, 4, 3]]
    assert_close(found[0, 0], torch.tensor(expected), **EXACT)


@torch.no_grad()
@pytest.mark.parametrize("skips", [False, True])
def test_what_bypasses_the_code(skips):
    network = u_net(skips=skips)
    maps, others = (network.encode(torch.rand(1, 3, 8, 8)) for _ in range(2))
    swapped = network.decode([*others[:-1], maps[-1]])
    assert torch.equal(swapped, network.decode(maps)) == (not skips)


@torch.no_grad()
def test_maps_of_the_encoder_stand_behind_those_of_the_decoder():
    network = u_net(skips=True)
    seen = []
    for block in network.up_blocks:
        block.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    maps = network.encode(torch.randn(1, 3, 8, 8))
    network.decode(maps)
    assert torch.equal(seen[0], maps[2])
    assert torch.equal(seen[1][:, 8:], maps[1])
    assert torch.equal(seen[2][:, 4:], maps[0])
    assert any((m < 0).any() for m in maps)  # before their activation


# The embedded face


@torch.no_grad()
def test_embedding_samples_a_source_at_its_field():
    """tanh(x) of two pixels, tanh(y) of minus one; what lies outside is black."""
    source = torch.rand(1, 1, 3, 4, 8)
    network = embedding([math.atanh(2 * 2 / 7), math.atanh(-2 / 3), 0.3])
    face = network(source)
    assert_close(face.image[..., 1:, :6], source[:, 0, :, :3, 2:], **EXACT)
    assert not face.image[..., 0, :].any()
    assert not face.image[..., 6:].any()
    expected = coordinate_grid(4, 8, source) + torch.tensor([4 / 7, -2 / 3])
    assert_close(face.field[0, 0], expected, **EXACT)
    assert torch.equal(face.weight, torch.ones(1, 1, 4, 8))


@torch.no_grad()
def test_weighted_mean_by_hand():
    """Confidences 0 and ln 2 weigh 1.1 and 2.1."""
    sources = torch.tensor([0.2, 0.8]).view(1, 2, 1, 1, 1).expand(-1, -1, 3, 4, 4)
    face = embedding([0.0, 0.0, 0.0], [0.0, 0.0, math.log(2)])(sources)
    expected = (1.1 * 0.2 + 2.1 * 0.8) / 3.2
    assert_close(face.image, torch.full((1, 3, 4, 4), expected), **EXACT)
    weights = torch.tensor([1.1 / 3.2, 2.1 / 3.2]).view(1, 2, 1, 1).expand(-1, -1, 4, 4)
    assert_close(face.weight, weights, **EXACT)


@torch.no_grad()
def test_sources_of_a_batch_are_not_mixed_and_their_order_is_none():
    network = build()[0].eval()
    sources = torch.rand(2, 3, 3, 8, 8)
    face = network(sources)
    assert face.image.shape == (2, 3, 8, 8)
    assert face.field.shape == (2, 3, 8, 8, 2)
    assert_close(face.weight.sum(dim=1), torch.ones(2, 8, 8), **EXACT)
    for i in range(2):
        alone = network(sources[i : i + 1, [2, 0, 1]])
        assert_close(alone.image, face.image[i : i + 1], atol=1e-5, rtol=0)
        assert_close(alone.field, face.field[i : i + 1, [2, 0, 1]], atol=1e-5, rtol=0)
    twice = network(sources[:, [1, 1]])
    assert_close(twice.image, network(sources[:, 1:2]).image, atol=1e-5, rtol=0)


# The driving field


@torch.no_grad()
def test_tanh_is_applied_twice():
    frame = torch.rand(1, 3, 4, 4)
    shift = driving([0.5, -1e9])(frame) - coordinate_grid(4, 4, frame)
    expected = torch.tensor([math.tanh(math.tanh(0.5)), -math.tanh(1.0)])
    assert_close(shift, expected.expand(1, 4, 4, 2), **EXACT)
    assert round(math.tanh(1.0), 2) == 0.76


@torch.no_grad()
def test_prediction_is_the_source_seen_through_both_fields():
    """On a ramp, which shows the coordinates: a driving pixel is the source at `deformation`."""
    image = ramp(4, 16)
    face = embedding([0.1, -0.05, 0.0])(image[:, None])
    driving_field = driving([-0.2, 0.1])(torch.rand(1, 3, 4, 16))
    deformation = compose_fields(face.field, driving_field)[:, 0]
    shift_x, shift_y = (
        math.tanh(a) + math.tanh(math.tanh(b)) for a, b in ((0.1, -0.2), (-0.05, 0.1))
    )
    expected = coordinate_grid(4, 16, image) + torch.tensor([shift_x, shift_y])
    inside = (driving_field.abs() <= 1).all(-1) & (deformation.abs() <= 1).all(-1)
    assert inside.float().mean() > 0.3
    assert_close(deformation[inside], expected.expand(1, -1, -1, -1)[inside], **EXACT)
    coordinates = 2 * sample_face(face, driving_field)[:, :2].permute(0, 2, 3, 1) - 1
    interior = inside & (face.field[:, 0].abs() <= 1).all(-1)
    assert_close(coordinates[interior], deformation[interior], atol=1e-5, rtol=0)


def test_composition_is_sampling_inside_and_stays_outside():
    torch.manual_seed(0)
    field = coordinate_grid(8, 8, torch.empty(0)) + 0.3 * torch.randn(2, 3, 8, 8, 2)
    driving_field = 1.6 * torch.rand(2, 4, 4, 2) - 0.8
    found = compose_fields(field, driving_field)
    assert found.shape == (2, 3, 4, 4, 2)
    for i in range(3):
        sampled = warp(field[:, i].permute(0, 3, 1, 2), driving_field).permute(0, 2, 3, 1)
        assert_close(found[:, i], sampled, **EXACT)
    far = driving_field + torch.tensor([2.5, 0.0])
    assert torch.equal(compose_fields(field, far), far.unsqueeze(1).expand(-1, 3, -1, -1, -1))
    # Half the field: the determinant of PriorityCut's occlusion is a quarter of the driving one's.
    half = 0.5 * coordinate_grid(8, 8, field).expand(2, 1, -1, -1, -1)
    assert_close(compose_fields(half, driving_field)[:, 0], 0.5 * driving_field, **EXACT)


# Together


@torch.no_grad()
def test_one_face_serves_many_driving_frames():
    embedding_network, driving_network = (network.eval() for network in build())
    face, frames = embedding_network(torch.rand(1, 2, 3, 8, 8)), torch.rand(3, 3, 8, 8)
    predictions = sample_face(face, driving_network(frames))
    assert predictions.shape == (3, 3, 8, 8)
    for frame, prediction in zip(frames, predictions, strict=True):
        field = driving_network(frame[None])
        assert field.shape == (1, 8, 8, 2)
        assert compose_fields(face.field, field).shape == (1, 2, 8, 8, 2)
        assert_close(sample_face(face, field)[0], prediction, atol=1e-5, rtol=0)
    assert 0 <= predictions.min() <= predictions.max() <= 1


def gradients(num_sources):
    """Gradients of the published loss by parameter, in training mode."""
    networks = nn.ModuleList(build(4)).train()
    sources, frame = torch.rand(3, num_sources, 3, 16, 16), torch.rand(3, 3, 16, 16)
    prediction = sample_face(networks[0](sources), networks[1](frame))
    (prediction - frame).abs().mean().backward()
    found = {name: parameter.grad for name, parameter in networks.named_parameters()}
    return found, networks[0].unet.up_blocks[-1].conv.weight.grad


@pytest.mark.parametrize("num_sources", [1, 3])
def test_every_parameter_receives_a_gradient(num_sources):
    found, outermost = gradients(num_sources)
    assert all(g is not None and g.any() for g in found.values())
    assert outermost[:2].any(dim=(1, 2, 3)).all()
    # With one source its weight cancels: exactly no gradient reaches the confidence.
    assert outermost[2].any() == (num_sources > 1)


def test_fields_are_float32_under_autocast_and_maps_are_not():
    networks = nn.ModuleList(build()).eval().to(memory_format=torch.channels_last)
    seen = []
    for block in networks[1].unet.up_blocks:
        block.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype))
    frames = torch.rand(2, 3, 8, 8).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        face, field = networks[0](frames[:, None]), networks[1](frames)
        prediction = sample_face(face, field)
        deformation = compose_fields(face.field, field)
    assert seen == [torch.bfloat16] * 3
    tensors = (*face, field, deformation, prediction)
    assert {tensor.dtype for tensor in tensors} == {torch.float32}
    assert prediction.is_contiguous(memory_format=torch.channels_last)


def test_published_initial_weights():
    networks = nn.ModuleList((EmbeddingNetwork(32, 64, 4, 32), DrivingNetwork(32, 64, 4, 32)))
    initialize(networks)
    for block in (networks[0].unet.down_blocks[2], networks[1].unet.up_blocks[2]):
        weight = block.conv.weight
        fan_in, fan_out = (weight.shape[i] * weight[0, 0].numel() for i in (1, 0))
        assert_close(weight.std().item(), math.sqrt(2 / (fan_in + fan_out)), rtol=0.02, atol=0)
        assert abs(weight.mean()) < 0.01 * weight.std() + 1e-3
    norms = [m for m in networks.modules() if isinstance(m, nn.BatchNorm2d)]
    drawn = torch.cat([norm.weight for norm in norms])
    assert drawn.min() >= 0.02
    assert drawn.max() <= 1
    assert abs(drawn.mean() - 0.51) < 0.05
    assert not any(norm.bias.any() for norm in norms)
    torch.manual_seed(1)
    initialize(networks)
    first = {name: tensor.clone() for name, tensor in networks.state_dict().items()}
    torch.manual_seed(1)
    initialize(networks)
    assert all(torch.equal(first[name], tensor) for name, tensor in networks.state_dict().items())


def test_published_size():
    with torch.device("meta"):
        networks = EmbeddingNetwork(64, 512, 8, 512), DrivingNetwork(64, 512, 8, 128)
    num_parameters = sum(p.numel() for network in networks for p in network.parameters())
    assert round(num_parameters / 1e6, 1) == 64.8
