"""Figure of the edges of figures that are cut out: with and without the old background's rim."""

import torch
from matplotlib.figure import Figure

from animation.edges import clean_edge
from datasets.puppets.clips import Puppets
from docs.drawing.canvas import NUM_EXAMPLES, cells, show
from docs.drawing.masks import scenes
from media.visualization import to_uint8

DETAIL = 4  # the details show this part of the frame's side


@torch.inference_mode()
def draw_rim(clips: Puppets) -> Figure:
    """Draw puppets that are cut out by their true masks and laid over another background, with the
    colours of their frames (plain) and with cleaned edges; and the place where plain is worst.
    """
    titles = ("frame", "plain", "clean", "truth", "plain", "clean", "truth")
    figure, axes = cells(NUM_EXAMPLES, len(titles), titles)
    for row, scene in enumerate(scenes(clips, "own")):
        alpha = scene.figure.foreground_mask
        behind = scene.new_background
        plain, clean = (
            torch.lerp(behind, colours, alpha)
            for colours in (scene.driving, clean_edge(scene.driving, alpha))
        )
        truth = scene.figure.on(behind)
        height, width = truth.shape[-2:]
        worst = int((plain - truth).square().sum(dim=1).argmax())
        side = min(height, width) // DETAIL
        top, left = (
            min(max(middle - side // 2, 0), size - side)
            for middle, size in ((worst // width, height), (worst % width, width))
        )
        shown = (plain, clean, truth)
        details = [each[..., top : top + side, left : left + side] for each in shown]
        for axis, picture in zip(axes[row], (scene.driving, *shown, *details), strict=True):
            show(axis, to_uint8(picture)[0])
    return figure
