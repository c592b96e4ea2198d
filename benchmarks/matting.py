"""Measure ways to cut figures out of animated frames, on unseen puppets against the rendered truth.

    python -m benchmarks.matting --checkpoint runs/demo/checkpoints/best.pt

The scenes are those of benchmarks/puppets.py with driver own: the puppet of clip i is put on the
background of clip i + 2. Numbers are means over frames; PSNRs are in dB.

    frames          what is cut out: `animated`, frames by the default animator in reconstruction,
                    or `rendered`, the true frames, for which only the masks can be wrong
    masks           `model`, a detector that is installed, or `true`, the rendered masks: the best
                    that masks can do
    background      `other`: the new background without a figure; `same`: a picture of it with its
                    own figure, which is removed by masks of the same kind, and the hole filled by
                    `BGRefine` or by `inpainting`
    edge            `plain` or `clean`; see --edge of animate.py
    mask_iou        intersection over union of the opacity above one half and the true figure
    swap_gain_db    PSNR to the new background minus that to the old one, beside the figure
    figure_gain_db  PSNR of the figure minus that of the new background without a figure
    rim             share of the old background that is left in a band of a 32nd of the frame's side
                    to both sides of the true edge: the least-squares factor by which the difference
                    of old and new background explains the error; 0 is best, 1 if nothing is swapped
    edge_psnr       PSNR in that band
"""

import argparse
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from animation.background_swap import BackgroundSwapper, BackgroundType, Edge
from animation.branch_animators import reconstruction_animators
from animation.figure_masks import FigureMasks, FindMasks, GivenMasks
from animation.mask_sources import MasksName, MaskSources
from benchmarks.puppet_scenes import Scene, build_scene, driving_frames
from benchmarks.puppet_scores import swap_scores
from benchmarks.tables import Cell, markdown_table
from branches.model import Model
from checkpoints import checkpoint
from checkpoints.weights import load_model
from common.cli import add_device_argument, pick_device, positive_int, run_entry_point
from common.errors import UserError
from datasets.build import build_puppets
from datasets.puppets.clips import Puppets
from evaluation.measures import FrameMetrics
from evaluation.reconstruction import mean_metrics
from media.frames import Frames
from metrics.image import region_psnr
from metrics.masks import mask_iou

TRUE = "true"
EDGES: tuple[Edge, ...] = ("plain", "clean")
BAND = 1 / 32  # width of the band to each side of the edge, as a share of the frame's side


class Case(NamedTuple):
    """What is measured; see the file's docstring."""

    frames: str
    masks: str
    background: str
    edge: Edge


class FillMethod(NamedTuple):
    """A kind of background, and what fills its holes."""

    name: str
    background_type: BackgroundType
    use_networks: bool


def main(arguments: argparse.Namespace) -> None:
    path, device = Path(arguments.checkpoint), pick_device(arguments.device)
    saved = checkpoint.load(path)
    data = saved.config.data
    if data.kind != "puppets":
        raise UserError(f"{path}: trained on clips, whose true figures are unknown; use puppets")
    model = load_model(saved, device)
    clips = build_puppets(data, "test", arguments.num_clips)
    sources = MaskSources(model, data)
    names: list[MasksName | None] = [*sources.available(), None]
    methods = [FillMethod("other", "other", False), FillMethod("same, inpainting", "same", False)]
    if model.background is not None and "background" not in saved.untrained:
        methods.append(FillMethod("same, BGRefine", "same", True))
    collected: dict[Case, list[FrameMetrics]] = {}
    for index in tqdm(range(len(clips.clips)), unit="clip", disable=None):
        for case, scores in score_clip(
            model, sources, names, methods, clips, index, arguments.num_frames
        ):
            collected.setdefault(case, []).append(scores)
    rows: list[dict[str, Cell]] = [
        {**case._asdict(), **mean_metrics(found)} for case, found in sorted(collected.items())
    ]
    print(markdown_table(rows))


@torch.inference_mode()
def score_clip(
    model: Model,
    sources: MaskSources,
    names: list[MasksName | None],
    methods: list[FillMethod],
    clips: Puppets,
    index: int,
    num_frames: int,
) -> Iterator[tuple[Case, FrameMetrics]]:
    """Scores of all ways to put the puppet of clip `index` on another background, by case."""
    device = next(model.parameters()).device
    numbers = driving_frames(clips, num_frames)
    scene = build_scene(clips, index, "own", numbers, device)
    third = (index + 2) % len(clips.clips)
    behind = to_masks(clips.foreground_masks(third, numbers))
    animators = reconstruction_animators(model, device)
    animator = next(iter(animators.values()))
    pictures = {"animated": animator.start(scene.source)(scene.driving), "rendered": scene.driving}
    for name in names:
        masks, masks_behind = masks_of(
            sources, name, to_masks(scene.figure.foreground_mask), behind
        )
        found_behind = CachedMasks(masks_behind, scene.third_images["same"])
        for kind, frames in pictures.items():
            found = CachedMasks(masks, frames)
            for method, edge in product(methods, EDGES):
                swapper = BackgroundSwapper(
                    model,
                    method.background_type,
                    "alpha",
                    figure_masks=found,
                    background_masks=found_behind,
                    edge=edge,
                    use_networks=method.use_networks,
                )
                swapped = swapper.swap(frames, scene.third_images[method.background_type])
                assert swapped.result is not None
                scores = score(swapped.result, swapped.alpha, scene)
                yield Case(kind, name or TRUE, method.name, edge), scores


class CachedMasks:
    """The masks that `masks` has for `frames`, B x 3 x H x W, which are searched only once."""

    def __init__(self, masks: FigureMasks, frames: Tensor) -> None:
        self.name = masks.name
        self.are_given = masks.are_given
        self._masks = masks
        self._found = masks.start()(frames)

    def start(self) -> FindMasks:
        """See `FigureMasks.start`; the frames must be those of the constructor."""
        return lambda _frames: self._found

    def opacity(self, masks: Tensor, size: tuple[int, int]) -> Tensor:
        """See `FigureMasks.opacity`."""
        return self._masks.opacity(masks, size)


def masks_of(
    sources: MaskSources, name: MasksName | None, figure: Frames, behind: Frames
) -> tuple[FigureMasks, FigureMasks]:
    """Masks `name` of the animated frames and of the pictures of the background.

    Without a name these are the true ones, `figure` and `behind`.
    """
    if name is None:
        return GivenMasks(figure, TRUE), GivenMasks(behind, TRUE)
    found = sources.named(name, "--masks")
    return found, found


def to_masks(opacity: Tensor | np.ndarray) -> Frames:
    """Masks as pictures, uint8 B x H x W x 3, of opacities, B x (1 x) H x W in [0, 1]."""
    values = np.asarray(opacity.cpu() if isinstance(opacity, Tensor) else opacity)
    values = values.reshape(len(values), *values.shape[-2:])
    return np.rint(255 * values).astype(np.uint8)[..., None].repeat(3, axis=3)


def score(result: Tensor, alpha: Tensor, scene: Scene) -> FrameMetrics:
    """Scores of swapped frames, B numbers each."""
    gains = swap_scores(result, scene.figure, scene.new_background, scene.old_background)
    truth = scene.figure.on(scene.new_background)
    band = edge_band(scene.figure.inside)
    return {
        "mask_iou": mask_iou(alpha > 0.5, scene.figure.inside),
        "swap_gain_db": gains["swap_gain_db"],
        "figure_gain_db": gains["figure_gain_db"],
        "rim": rim_share(result - truth, scene.old_background - scene.new_background, band),
        "edge_psnr": region_psnr(result, truth, band),
    }


def edge_band(inside: Tensor) -> Tensor:
    """The pixels near the edge of the figures `inside`, B x 1 x H x W bool; see the docstring."""
    radius = max(1, round(BAND * min(inside.shape[-2:])))

    def near(values: Tensor) -> Tensor:
        return F.max_pool2d(values.float(), 2 * radius + 1, stride=1, padding=radius) > 0

    return near(inside) & near(~inside)


def rim_share(error: Tensor, change: Tensor, band: Tensor) -> Tensor:
    """The factor by which `change`, 1 or B x 3 x H x W, explains `error` in the band; B numbers."""
    change = change * band
    products = (error * change).sum(dim=(1, 2, 3))
    return products / change.square().sum(dim=(1, 2, 3)).clamp_min(1e-6)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.matting",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", required=True, metavar="PATH")
    parser.add_argument("--num-clips", type=positive_int, default=24)
    parser.add_argument("--num-frames", type=positive_int, default=4, help="of each clip")
    add_device_argument(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_entry_point(main, build_parser()))
