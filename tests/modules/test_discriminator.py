"""Discriminators: sizes, layers by hand, spectral norm, receptive fields."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from modules.discriminator import (
    PatchBlock,
    PatchDiscriminator,
    ResDownBlock,
    ResUpBlock,
    UNetDiscriminator,
)

KINDS = {
    "patch": lambda spectral: PatchDiscriminator(3, [8, 12, 16], spectral),
    "monkey_net": lambda spectral: PatchDiscriminator(3, [8, 12, 16], spectral, pool_last=True),
    "unet": lambda spectral: UNetDiscriminator(3, [8, 12, 16], spectral),
}


@torch.no_grad()
def settled(network):
    """Run some training steps, so that spectral norm has settled, and switch to evaluation mode.

    Its vectors start at random; before these steps a layer can have any largest singular value.
    """
    for _ in range(20):
        network.train()(torch.rand(1, 3, 32, 32))
    return network.eval()


def patch_block(in_channels=2, out_channels=3, *, norm=False, pool=False):
    return PatchBlock(in_channels, out_channels, norm=norm, pool=pool, use_spectral_norm=False)


# Patches


@torch.no_grad()
@pytest.mark.parametrize(
    ("size", "num_blocks", "expected"),
    [
        ((64, 64), 3, (10, 10)),  # 64 - 61, 30 - 27, 13 - 10
        ((48, 32), 3, (6, 2)),  # 48 - 45, 22 - 19, 9 - 6; 32 - 29, 14 - 11, 5 - 2
        ((256, 256), 4, (26, 26)),  # 256 - 253, 126 - 123, 61 - 58, 29 - 26
        ((16, 20), 1, (13, 17)),
    ],
)
def test_number_of_patches(size, num_blocks, expected):
    network = PatchDiscriminator(5, [2] * num_blocks, False)
    output = network(torch.rand(2, 5, *size))
    assert output.logits.shape == (2, 1, *expected)
    assert tuple(network.patch_side(side, num_blocks) for side in size) == expected
    assert output.pixel_logits is None
    assert output.decoder_features == []
    assert len(output.encoder_features) == num_blocks


@torch.no_grad()
@pytest.mark.parametrize("num_blocks", [1, 2, 3, 4])
def test_patch_side_is_that_of_the_map(num_blocks):
    network = PatchDiscriminator(1, [1] * num_blocks, False)
    sides = [side for side in range(4, 80) if network.patch_side(side, num_blocks) >= 1]
    for side in sides:
        # The other side is larger: InstanceNorm needs more than one value.
        output = network(torch.rand(1, 1, side, sides[0] + 32))
        assert output.logits.shape[2] == network.patch_side(side, num_blocks)
    with pytest.raises(RuntimeError):  # smaller images are too small
        network(torch.rand(1, 1, sides[0] - 1, 100))


@torch.no_grad()
def test_layers_of_the_patch_discriminator():
    """No norm in the first block, no pooling after the last (FOMM+)."""
    network = PatchDiscriminator(3, [4, 6, 8], False)
    assert [block.norm is not None for block in network.down_blocks] == [False, True, True]
    output = network(torch.rand(2, 3, 64, 48))
    shapes = [tuple(map_.shape) for map_ in output.encoder_features]
    assert shapes == [(2, 4, 30, 22), (2, 6, 13, 9), (2, 8, 10, 6)]
    assert_close(output.logits, network.conv(output.encoder_features[-1]))


@pytest.mark.parametrize(("side", "patches"), [(256, 13), (128, 5), (64, 1), (32, -1)])
def test_every_block_pools_in_monkey_net(side, patches):
    channels = [64, 128, 256, 256]  # as published
    assert PatchDiscriminator.patch_side(side, 4, pool_last=True) == patches
    if patches < 1:
        return
    with torch.device("meta"):
        network = PatchDiscriminator(13, channels, False, pool_last=True)
        output = network(torch.empty(2, 13, side, side))
    assert [block.norm is not None for block in network.down_blocks] == [False, True, True, True]
    assert output.logits.shape == (2, 1, patches, patches)
    assert output.pixel_logits is None
    assert output.decoder_features == []
    assert [features.shape[1] for features in output.encoder_features] == channels
    assert output.encoder_features[-1].shape[-1] == patches


@torch.no_grad()
def test_patch_block_by_hand():
    block = patch_block(1, 1)
    block.conv.weight.copy_(torch.arange(16.0).view(1, 1, 4, 4))
    block.conv.bias.fill_(-20.0)
    image = torch.zeros(1, 1, 4, 6)
    image[0, 0, 1, 2] = 1.0  # under the weights 6, 5 and 4
    expected = torch.tensor([[[[0.2 * -14, 0.2 * -15, 0.2 * -16]]]])
    assert_close(block(image), expected)
    block.conv.bias.fill_(-5.0)  # 1, 0 and -1
    assert_close(block(image), torch.tensor([[[[1.0, 0.0, -0.2]]]]))
    pooled = patch_block(1, 1, pool=True)
    pooled.load_state_dict(block.state_dict())
    image = F.pad(image, (0, 0, 1, 0))  # one more row: -5 + (10, 9, 8)
    assert_close(pooled(image), torch.tensor([[[[(1 + 0 + 5 + 4) / 4]]]]))


@torch.no_grad()
def test_instance_norm_of_a_patch_block():
    block = patch_block(norm=True).train()
    block.norm.weight.copy_(torch.tensor([1.0, 2.0, 0.5]))
    block.norm.bias.fill_(50.0)  # far from the kink of the LeakyReLU
    images = torch.rand(2, 2, 12, 12) * torch.tensor([1.0, 9.0]).view(2, 1, 1, 1) + 3
    out = block(images)
    # Every channel of every sample has the mean and the deviation that the norm sets.
    assert_close(out.mean(dim=(2, 3)), torch.full((2, 3), 50.0))
    deviation = out.var(dim=(2, 3), correction=0).sqrt()
    assert_close(deviation, torch.tensor([1.0, 2.0, 0.5]).expand(2, 3), atol=1e-3, rtol=0)
    plain = patch_block()
    plain.conv.bias.zero_()
    assert_close(plain(9 * images), 9 * plain(images))  # without a norm the contrast stays


# U-Net


@torch.no_grad()
def test_widths_of_the_unet_at_256():
    """Widths of 1, 2, 4, 8, 8, 16 down and 8, 8, 4, 2, 1, 1 up (Schönfeld et al., table 5, 6)."""
    network = UNetDiscriminator(3, [2, 4, 8, 16, 16, 32], True)
    output = network(torch.rand(1, 3, 256, 256))
    encoder = [(map_.shape[1], map_.shape[2]) for map_ in output.encoder_features]
    assert encoder == [(2, 128), (4, 64), (8, 32), (16, 16), (16, 8), (32, 4)]
    decoder = [(map_.shape[1], map_.shape[2]) for map_ in output.decoder_features]
    assert decoder == [(16, 8), (16, 16), (8, 32), (4, 64), (2, 128), (2, 256)]
    # Inputs of each block: the output of the block below, and the encoder's map of its size.
    seen = [block.conv1.in_channels for block in network.up_blocks]
    assert seen == [32, 16 + 16, 16 + 16, 8 + 8, 4 + 4, 2 + 2]
    assert output.logits.shape == (1, 1)
    assert output.pixel_logits.shape == (1, 1, 256, 256)


@torch.no_grad()
@pytest.mark.parametrize(
    ("channels", "size"),
    [([4], (2, 6)), ([4, 6], (32, 20)), ([4, 4, 2], (24, 40)), ([2, 4, 8, 16, 32], (32, 64))],
)
def test_sizes_of_the_unet(channels, size):
    output = UNetDiscriminator(5, channels, True)(torch.rand(2, 5, *size))
    height, width = size
    assert output.logits.shape == (2, 1)
    assert output.pixel_logits.shape == (2, 1, height, width)
    depth = len(channels)
    assert [tuple(map_.shape) for map_ in output.encoder_features] == [
        (2, channels[i], height >> i + 1, width >> i + 1) for i in range(depth)
    ]
    upwards = [*reversed(channels[:-1]), channels[0]]
    assert [tuple(map_.shape) for map_ in output.decoder_features] == [
        (2, upwards[i], height >> depth - 1 - i, width >> depth - 1 - i) for i in range(depth)
    ]


@torch.no_grad()
@pytest.mark.parametrize("first", [True, False])
def test_down_block_is_its_formula(first):
    """Here in the order of the definition; the block pools before its 1 x 1 convolution."""
    block = ResDownBlock(3, 5, first=first, use_spectral_norm=False).double()
    x = torch.randn(2, 3, 8, 12, dtype=torch.float64)
    y = block.conv2(F.relu(block.conv1(x if first else F.relu(x))))
    assert_close(block(x), F.avg_pool2d(y + block.shortcut(x), 2))


@torch.no_grad()
def test_up_block_is_its_formula():
    block = ResUpBlock(3, 5, use_spectral_norm=False).double()
    x = torch.randn(2, 3, 4, 6, dtype=torch.float64)

    def doubled(x):
        return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

    conv1 = block.conv1
    y = F.conv2d(doubled(F.relu(x)), conv1.weight, conv1.bias, padding=1)
    y = block.conv2(F.relu(y))
    assert_close(block(x), y + block.shortcut(doubled(x)))


@torch.no_grad()
def test_global_logit_by_hand():
    network = UNetDiscriminator(1, [2], False)
    for parameter in network.parameters():
        parameter.zero_()
    # Only the shortcut of the only block is not zero: the pooled image, and 3 minus it.
    shortcut = network.down_blocks[0].shortcut
    shortcut.weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
    shortcut.bias.copy_(torch.tensor([0.0, 3.0]))
    network.linear.weight.copy_(torch.tensor([[1.0, 10.0]]))
    network.linear.bias.fill_(0.5)
    image = torch.tensor([[1.0, 1.0, 5.0, 5.0], [1.0, 1.0, 5.0, 5.0]])[None, None]
    # Channels (1, 5) and (2, -2): means 3 and 1 after the ReLU, times the published 4 x 4.
    assert network(image).logits.item() == 0.5 + 16 * (3 + 10 * 1)
    assert network(image.repeat(1, 1, 3, 2)).logits.item() == 0.5 + 16 * (3 + 10 * 1)


@pytest.mark.parametrize("spectral", [True, False])
@pytest.mark.parametrize("depth", [1, 3])
def test_every_parameter_of_the_unet_receives_a_gradient(depth, spectral):
    network = UNetDiscriminator(3, [8, 12, 16][:depth], spectral)
    output = network(torch.rand(4, 3, 16, 16))
    (output.logits.sum() + output.pixel_logits.sum()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.any(), name


@pytest.mark.parametrize("pool_last", [False, True])
def test_gradients_of_the_patch_discriminator(pool_last):
    network = PatchDiscriminator(3, [4, 6, 8], True, pool_last=pool_last)
    network(torch.rand(4, 3, 48, 48)).logits.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        # A bias before a norm, which subtracts it, gets no gradient.
        if not (name.endswith("conv.bias") and name.startswith(("down_blocks.1", "down_blocks.2"))):
            assert parameter.grad.any(), name


@torch.no_grad()
def test_skip_connections_reach_the_decoder():
    """With its input from below set to 0, the last block depends on the encoder's largest map."""
    network = UNetDiscriminator(3, [8, 12, 16], False).double()
    last = network.up_blocks[-1]
    for conv in (last.conv1, last.shortcut):
        conv.weight[:, :8] = 0  # the input from the block below
    image = torch.rand(1, 3, 24, 24, dtype=torch.float64)
    before = network(image).pixel_logits
    image[..., 12, 12] += 1.0
    changed = (network(image).pixel_logits != before)[0, 0].nonzero()
    # Two convolutions: 10 .. 14; pooled and doubled: 10 .. 15; two more: 8 .. 17.
    assert changed.min(dim=0).values.tolist() == [8, 8]
    assert changed.max(dim=0).values.tolist() == [17, 17]


@torch.no_grad()
def test_a_changed_pixel_changes_the_logits_around_it_most():
    network = UNetDiscriminator(3, [8, 12, 16], False).double()
    image = torch.rand(1, 3, 32, 32, dtype=torch.float64)
    before = network(image).pixel_logits
    image[..., 20, 8] += 1.0
    change = (network(image).pixel_logits - before).abs()[0, 0]
    assert change[20, 8] > 0
    near = torch.zeros(32, 32, dtype=torch.bool)
    near[16:25, 4:13] = True
    assert change[near].mean() > 5 * change[~near].mean()


# Both


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_samples_of_a_batch_do_not_influence_each_other(kind):
    network = settled(KINDS[kind](True))
    images = torch.rand(3, 3, 32, 40) * torch.tensor([0.1, 1.0, 5.0]).view(3, 1, 1, 1)
    batch = network(images)
    for i in range(3):
        alone = network(images[i : i + 1])
        assert_close(alone.logits, batch.logits[i : i + 1], atol=1e-5, rtol=1e-4)
        if kind == "unet":
            assert_close(alone.pixel_logits, batch.pixel_logits[i : i + 1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_float32_under_autocast(kind):
    network = settled(KINDS[kind](True))
    images = torch.rand(2, 3, 32, 32)
    plain = network(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = network(images)
    assert half.encoder_features[0].dtype == torch.bfloat16  # autocast was on
    assert half.logits.dtype == torch.float32
    assert_close(half.logits, plain.logits, atol=0.05, rtol=0.05)
    if kind == "unet":
        assert half.pixel_logits.dtype == torch.float32
        assert_close(half.pixel_logits, plain.pixel_logits, atol=0.05, rtol=0.05)


# Spectral norm


def weighted_layers(network):
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, (nn.Conv2d, nn.Linear))
    }


def test_names_of_tensors_with_spectral_norm():
    names = set(PatchDiscriminator(3, [4, 6], True).state_dict())
    layers = ["down_blocks.0.conv", "down_blocks.1.conv", "conv"]
    kinds = ["weight_orig", "weight_u", "weight_v", "bias"]
    expected = {f"{layer}.{kind}" for layer in layers for kind in kinds}
    assert names == expected | {"down_blocks.1.norm.weight", "down_blocks.1.norm.bias"}


@torch.no_grad()
def test_published_tensors_are_loaded_as_they_are():
    """They are a plain dict, without the version that torch would store with a state dict."""
    source, network = (
        settled(PatchDiscriminator(3, [4, 6], True)),
        PatchDiscriminator(3, [4, 6], True),
    )
    network.load_state_dict(dict(source.state_dict()))
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, source.state_dict()[name]), name
    images = torch.rand(1, 3, 20, 20)
    assert torch.equal(network.eval()(images).logits, source.eval()(images).logits)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_spectral_norm_of_every_layer_approaches_one(kind):
    """The exception is the last 1 x 1 convolution of the U-Net: it has none, as published."""
    network = KINDS[kind](True).train()
    layers = weighted_layers(network)
    free = {"conv"} if kind == "unet" else set()
    assert {name for name, module in layers.items() if hasattr(module, "weight_orig")} == (
        layers.keys() - free
    )
    for name, module in layers.items():
        (module.weight if name in free else module.weight_orig).mul_(7)  # the factor must vanish
    images = torch.rand(1, 3, 32, 32)
    for _ in range(200):
        network(images)
    for name, module in layers.items():
        largest = torch.linalg.matrix_norm(module.weight.flatten(1), ord=2)
        assert largest.item() == pytest.approx(7 if name in free else 1, rel=0.01), name
        if name not in free:
            assert_close(
                module.weight,
                module.weight_orig / module.weight_orig.flatten(1).svd().S[0],
                atol=0.01,
                rtol=0.01,
            )


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_vectors_of_spectral_norm_move_in_training_alone(kind):
    network = KINDS[kind](True)
    images = torch.rand(1, 3, 32, 32)
    states = []
    for training in (False, False, True):
        network.train(training)
        network(images)
        states.append({name: buffer.clone() for name, buffer in network.named_buffers()})
    assert states[0]
    for (before, after), moved in zip(pairwise(states), (False, True), strict=True):
        for name, buffer in before.items():
            if buffer.numel() > 1:  # a vector of one number cannot change
                assert torch.equal(after[name], buffer) != moved, name


def test_without_spectral_norm_weights_are_as_they_are():
    for make in KINDS.values():
        network = make(False)
        assert not list(network.buffers())
        assert not [name for name in network.state_dict() if "weight_" in name]
