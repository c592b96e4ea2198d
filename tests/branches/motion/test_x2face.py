"""The motion branch of kind x2face: the gradient of its confidence, and how its weights begin."""

import pytest
import torch

from tests.branches.motion.test_kinds import build, terms_of
from training.step import total


def test_with_one_source_the_confidence_alone_gets_no_gradient():
    """The weight of the only source is 1, whatever the network says."""
    branch, inputs = build("x2face")
    total(terms_of(branch, inputs)).backward()
    x, y, confidence = branch.embedding.unet.up_blocks[-1].conv.weight.grad
    assert x.any()
    assert y.any()
    assert not confidence.any()


def test_weights_begin_as_published():
    branch, _ = build("x2face")
    norms = [m for m in branch.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert all(0.02 <= norm.weight.min() <= norm.weight.max() <= 1 for norm in norms)
    conv = branch.embedding.unet.down_blocks[1].conv.weight
    fans = conv[0].numel() + conv[:, 0].numel()
    assert conv.std().item() == pytest.approx((2 / fans) ** 0.5, rel=0.2)
