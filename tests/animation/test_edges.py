"""Colours of a figure's edge without the old background, and holes filled in a background."""

import numpy as np
import torch
from torch.testing import assert_close

from animation.edges import clean_edge
from animation.inpainting import HoleFiller

RED, BLUE = (torch.tensor(color).view(1, 3, 1, 1) for color in ([0.9, 0.2, 0.1], [0.1, 0.2, 0.9]))


def soft_square():
    """Opacity of a square with an edge of three pixels, 1 x 1 x 32 x 32."""
    distance = (torch.arange(32) - 15.5).abs()
    ramp = ((10.5 - distance) / 3).clamp(0, 1)
    return torch.outer(ramp, ramp).view(1, 1, 32, 32)


def test_edge_of_plain_colours_is_nearly_exact():
    """A red figure before blue, with an edge of three pixels, laid over green: what is left of the
    blue is less than a fifth. Where hardly anything of the figure is seen, its colour is uncertain.
    """
    alpha = soft_square()
    frames = torch.lerp(BLUE.expand(1, 3, 32, 32), RED.expand(1, 3, 32, 32), alpha)
    green = torch.tensor([0.0, 1.0, 0.0]).view(1, 3, 1, 1).expand_as(frames)
    truth = torch.lerp(green, RED.expand_as(frames), alpha)
    plain, clean = (
        (torch.lerp(green, colours, alpha) - truth).abs().sum()
        for colours in (frames, clean_edge(frames, alpha))
    )
    assert plain > 40
    assert clean < 0.2 * plain


def test_opaque_pixels_keep_their_colours_to_the_last_bit():
    frames = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    alpha = soft_square().expand(2, 1, 32, 32)
    opaque = (alpha == 1).expand_as(frames)
    assert opaque.any()
    assert torch.equal(clean_edge(frames, alpha)[opaque], frames[opaque])
    assert torch.equal(clean_edge(frames, torch.ones_like(alpha)), frames)
    cleaned = clean_edge(frames, torch.zeros_like(alpha))
    assert cleaned.min() >= 0
    assert cleaned.max() <= 1


def test_a_hole_is_filled_by_what_surrounds_it():
    """A linear ramp of colours goes on through the hole; pixels outside do not change."""
    x = torch.linspace(0.2, 0.8, 32).expand(1, 3, 32, 32)
    pictures = x.clone()
    alpha = torch.zeros(1, 1, 32, 32)
    alpha[..., 10:20, 12:22] = 1
    pictures[..., 10:20, 12:22] = 1.0  # the figure
    filled = HoleFiller().fill(pictures, alpha)
    assert_close(filled, x, atol=0.01, rtol=0)
    outside = (alpha == 0).expand_as(pictures).clone()
    outside[..., 9:21, 11:23] = False  # the margin around the figure
    assert torch.equal(filled[outside], pictures[outside])


def test_holes_of_any_size():
    pictures = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    filler = HoleFiller()
    assert torch.equal(filler.fill(pictures, torch.zeros(1, 1, 16, 16)), pictures)
    grey = filler.fill(pictures, torch.ones(1, 1, 16, 16))
    assert_close(grey, torch.full_like(pictures, 127 / 255))


def test_a_picture_that_comes_again_is_filled_once(monkeypatch):
    calls = []

    def count(picture, hole, **options):
        calls.append(hole.sum())
        return picture / 255

    monkeypatch.setattr("animation.inpainting.inpaint_biharmonic", count)
    pictures = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    alpha = torch.zeros(2, 1, 16, 16)
    alpha[..., 4:8, 4:8] = 1
    filler = HoleFiller()
    for _ in range(3):
        filler.fill(pictures[:1], alpha[:1])
    assert len(calls) == 1
    filler.fill(pictures[1:], alpha[:1])  # another picture
    filler.fill(pictures[1:], alpha[:1].roll(4, dims=-1))  # another hole
    assert len(calls) == 3
    assert np.all(np.array(calls) == 32)  # 4 x 4 and the margin of a pixel to its four sides
