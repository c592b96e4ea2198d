"""Figures of the mask branch: outputs of its networks for the first clips of the test split."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.puppet_scenes import Driver, Scene, build_scene
from branches.masks import MaskBranch
from common.batch_random import BatchRandom
from datasets.puppets.clips import Puppets
from docs.drawing.canvas import DEVICE, NUM_EXAMPLES, cells, show, show_mask
from losses import picture_change
from media.visualization import to_uint8

NUM_DRAWS = 2  # random perturbations that are shown of each mask


def scenes(clips: Puppets, driver: Driver) -> list[Scene]:
    """Scenes of the first clips, with a driving frame from the middle of a clip."""
    moment = clips.num_frames(0) // 2
    return [build_scene(clips, i, driver, [moment], DEVICE) for i in range(NUM_EXAMPLES)]


@torch.inference_mode()
def draw_masks(branch: MaskBranch, clips: Puppets) -> Figure:
    """Draw reconstruction, and animation by the clip of another figure with a refined mask."""
    titles = ("S", "D", "m(S)", "m(D)", "refined", "L", "H", "truth")
    figure, axes = cells(2 * NUM_EXAMPLES, len(titles), titles)
    own, another = scenes(clips, "own"), scenes(clips, "another")
    for row, scene in enumerate(own + another):
        is_own = row < NUM_EXAMPLES
        source_mask = branch.mask_generator(scene.source)
        mask = driving_mask = branch.mask_generator(scene.driving)
        if is_own:
            axes[row][4].axis("off")
            truth = scene.driving
        else:
            mask = branch.animated_mask(scene.source, source_mask, driving_mask)
            show_mask(axes[row][4], mask)
            truth = scene.figure.on(scene.old_background)
        low, high = branch.generate(scene.source, source_mask, mask)
        pictures = {0: scene.source, 1: scene.driving, 5: low, 6: high, 7: truth}
        for column, picture in pictures.items():
            show(axes[row][column], to_uint8(picture)[0])
        show_mask(axes[row][2], source_mask)
        show_mask(axes[row][3], driving_mask)
        axes[row][0].set_ylabel("own clip" if is_own else "another's clip")
    return figure


@torch.inference_mode()
def draw_perturbation(branch: MaskBranch, clips: Puppets) -> Figure:
    """Draw driving masks, perturbed as in training and as in animation, with their refinement."""
    titles = ["D", "m(D)", *["P(m(D))", "refined"] * NUM_DRAWS, "shrunk", "refined"]
    figure, axes = cells(NUM_EXAMPLES, len(titles), titles)
    draws = BatchRandom(torch.Generator().manual_seed(0))
    for row, scene in enumerate(scenes(clips, "own")):
        source_mask = branch.mask_generator(scene.source)
        driving_mask = branch.mask_generator(scene.driving)
        perturbed = [branch.perturbed_mask(driving_mask, draws) for _ in range(NUM_DRAWS)]
        perturbed.append(branch.shrunk_mask(driving_mask))
        show(axes[row][0], to_uint8(scene.driving)[0])
        show_mask(axes[row][1], driving_mask)
        for i, mask in enumerate(perturbed):
            show_mask(axes[row][2 + 2 * i], mask)
            show_mask(axes[row][3 + 2 * i], branch.refine(scene.source, source_mask, mask))
    return figure


@torch.inference_mode()
def draw_prior(branch: MaskBranch, clips: Puppets) -> Figure:
    """Draw the change between two frames, and the union of their masks, which should explain it."""
    titles = ("S", "D", "change", "C", "m(S)", "m(D)", "union")
    figure, axes = cells(NUM_EXAMPLES, len(titles), titles)
    for row, scene in enumerate(scenes(clips, "own")):
        source_mask = branch.mask_generator(scene.source)
        driving_mask = branch.mask_generator(scene.driving)
        size = (driving_mask.shape[-2], driving_mask.shape[-1])
        change = picture_change(scene.source, scene.driving, size)
        changed = (change > branch.prior.change_threshold).float()
        union = 1 - (1 - source_mask) * (1 - driving_mask)
        show(axes[row][0], to_uint8(scene.source)[0])
        show(axes[row][1], to_uint8(scene.driving)[0])
        maps: list[Tensor] = [change, changed, source_mask, driving_mask, union]
        for axis, values in zip(axes[row][2:], maps, strict=True):
            show_mask(axis, values)
    return figure
