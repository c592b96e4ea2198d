"""Unchanged pixels that changed ones enclose, and what the mask prior makes of them."""

import math

import pytest
import torch

from losses import enclosed, mask_prior_loss


def picture(*rows):
    """1 x 1 x h x w, true where the text has a #."""
    return torch.tensor([[[[c == "#" for c in row] for row in rows]]])


@pytest.mark.parametrize(
    ("changed", "inside"),
    [
        (("#####", "#...#", "#####"), (".....", ".###.", ".....")),
        # Corners touch: no step leads out.
        ((".....", "..#..", ".#.#.", "..#.."), (".....", ".....", "..#..", ".....")),
        # A gap lets the outside in.
        (("#####", "#...#", "##.##"), (".....", ".....", ".....")),
        # Around several corners.
        (
            ("#######", "#.....#", "#.###.#", "#.#...#", "#.#####", "#.....#", "#####.#"),
            (".......",) * 7,
        ),
        (("...", "...", "..."), ("...", "...", "...")),
        (("###", "###", "###"), ("...", "...", "...")),
    ],
)
def test_enclosed_by_hand(changed, inside):
    assert torch.equal(enclosed(picture(*changed)), picture(*inside))
    assert torch.equal(enclosed(picture(*changed).mT), picture(*inside).mT)


def test_every_sample_by_itself():
    ring, gap = picture("###", "#.#", "###"), picture("###", "#.#", "#.#")
    assert enclosed(torch.cat((ring, gap))).flatten(1).any(dim=1).tolist() == [True, False]


def test_the_mask_prior_leaves_enclosed_pixels_out():
    """The mask may be anything there; outside it must still be black."""
    changed = picture(".....", ".###.", ".#.#.", ".###.", ".....")
    white_inside = torch.where(changed | enclosed(changed), 20.0, -20.0)
    black_inside = torch.where(changed, 20.0, -20.0)
    for logits in (white_inside, black_inside):
        assert mask_prior_loss(logits, logits, changed, 0.5).item() == pytest.approx(0, abs=1e-6)
    outside = black_inside.clone()
    outside[0, 0, 0, 0] = 0.0  # one of 16 unchanged pixels outside: union 3/4
    loss = mask_prior_loss(outside, outside, changed, 0.5)
    assert loss.item() == pytest.approx(0.5 * math.log(4) / 16, rel=1e-4)
