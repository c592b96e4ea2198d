"""Measure which foreground PriorityCut should use: the dense motion's or the mask generator's.

    python -m benchmarks.foreground --checkpoint runs/demo/checkpoints/best.pt

The checkpoint must be trained on puppets, whose true figure is known. The source is the first frame
of a clip, the driving frames are later ones. Numbers are means over frames. Use the split `train`
to choose `discriminator.cut.background_threshold`, and `test` to report the result.

    foreground   the pixels where the background's weight is below the threshold. The weight is the
                 softmax of the dense motion (dense_motion), or 1 - m(D) at the size of the dense
                 motion (mask_generator)
    iou          intersection over union of the foreground and the true figure of the driving frame
    on_figure    share of the pixels cut by PriorityCut, with k = 0.3, that lie on the true figure
    of_frame     the figure's share of the frame, which on_figure would be for random pixels
"""

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor

from animation.branch_animators import frames_to_tensor
from benchmarks.puppet_scenes import driving_frames
from benchmarks.tables import markdown_table
from branches.model import Model
from checkpoints import checkpoint
from checkpoints.weights import load_model
from common.cli import add_device_argument, pick_device, positive_int, run_entry_point
from common.errors import UserError
from datasets.build import build_puppets
from datasets.puppets.clips import Puppets
from evaluation.measures import FrameMetrics
from evaluation.reconstruction import mean_metrics
from metrics.masks import mask_iou
from modules.cut_masks import priority_cut
from modules.geometry import resize

THRESHOLDS = tuple(tenths / 10 for tenths in range(1, 10))
FRACTION = 0.3  # k, the share of the foreground that is cut


def main(arguments: argparse.Namespace) -> None:
    path, device = Path(arguments.checkpoint), pick_device(arguments.device)
    saved = checkpoint.load(path)
    data = saved.config.data
    if data.kind != "puppets":
        raise UserError(f"{path}: trained on clips, whose true figures are unknown; use puppets")
    motion = saved.config.motion
    if motion is None or not (motion.predicts_occlusion and motion.predicts_background):
        raise UserError(
            f"{path}: has no occlusion map, or no motion of the background; train a motion branch "
            "with both"
        )
    model = load_model(saved, device)
    settings = data.puppets
    rows: list[dict[str, str | float | None]] = []
    for split, most in (("train", settings.num_train_clips), ("test", settings.num_test_clips)):
        clips = build_puppets(data, split, min(arguments.num_clips, most))
        rows += [
            {"split": split, "foreground": source, "threshold": f"{threshold:g}", **scores}
            for (source, threshold), scores in measure(
                model, clips, arguments.num_frames, device
            ).items()
        ]
    print(markdown_table(rows))


@torch.inference_mode()
def measure(
    model: Model, clips: Puppets, num_frames: int, device: torch.device
) -> dict[tuple[str, float], dict[str, float]]:
    """The mean scores, by name of the foreground and threshold."""
    frames = driving_frames(clips, num_frames)
    collected: dict[tuple[str, float], list[FrameMetrics]] = {}
    for index in range(len(clips.clips)):
        source = frames_to_tensor(clips.read(index, [0]), device)
        driving = frames_to_tensor(clips.read(index, frames), device)
        weights, occlusion_map = background_weights(model, source, driving)
        size = (occlusion_map.shape[-2], occlusion_map.shape[-1])
        figure = torch.from_numpy(clips.foreground_masks(index, frames)).unsqueeze(1).to(device)
        truth = resize(figure, size) > 0.5
        for name, weight in weights.items():
            for threshold in THRESHOLDS:
                scores = score(weight, occlusion_map, truth, threshold)
                collected.setdefault((name, threshold), []).append(scores)
    return {case: mean_metrics(found) for case, found in collected.items()}


def background_weights(
    model: Model, source: Tensor, driving: Tensor
) -> tuple[dict[str, Tensor], Tensor]:
    """The background's weight by each foreground, and the occlusion map.

    Args:
        source: 1 x 3 x H x W.
        driving: B x 3 x H x W.

    Returns:
        The weights by name, and the map: all B x 1 x h x w in [0, 1], at the dense motion's size.
    """
    motion = model.motion
    assert motion is not None
    dense = motion.estimate_motion(motion.encode(source), motion.detect(driving), driving)
    assert dense.occlusion_map is not None
    assert dense.background_weight is not None
    weights = {"dense_motion": dense.background_weight}
    if model.masks is not None:
        size = (dense.occlusion_map.shape[-2], dense.occlusion_map.shape[-1])
        weights["mask_generator"] = 1 - resize(model.masks.mask_generator(driving), size)
    return weights, dense.occlusion_map


def score(
    background_weight: Tensor, occlusion_map: Tensor, truth: Tensor, threshold: float
) -> FrameMetrics:
    """Scores of each frame, B numbers each; `on_figure` is NaN if nothing is cut.

    Args:
        truth: the true figure, B x 1 x h x w, bool.
    """
    fraction = torch.full((len(truth),), FRACTION, device=truth.device)
    cut = priority_cut(background_weight, occlusion_map, fraction, threshold=threshold) == 0
    return {
        "iou": mask_iou(background_weight < threshold, truth),
        "on_figure": (cut & truth).sum(dim=(1, 2, 3)) / cut.sum(dim=(1, 2, 3)),
        "of_frame": truth.float().mean(dim=(1, 2, 3)),
    }


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.foreground",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", required=True, metavar="PATH")
    parser.add_argument(
        "--num-clips", type=positive_int, default=48, help="clips of each split (default: 48)"
    )
    parser.add_argument(
        "--num-frames", type=positive_int, default=4, help="driving frames of a clip (default: 4)"
    )
    add_device_argument(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_entry_point(main, build_parser()))
